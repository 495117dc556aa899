"""The GPU benchmark can be tried out on a CPU, and refuses to take one for a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.compiler import needs_compiler

ROOT = Path(__file__).resolve().parents[2]


def benchmark(*words: str) -> "subprocess.CompletedProcess[str]":
    script = ROOT / "tests" / "benchmarks" / "gpu.py"
    return subprocess.run(
        [sys.executable, "-P", str(script), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    "paces",
    [
        ("fp32", "bf16"),
        pytest.param(("bf16-compiled",), marks=[pytest.mark.slow, needs_compiler]),
    ],
)
def test_it_measures_every_optimizer_at_every_pace(tmp_path: Path, paces: tuple[str, ...]) -> None:
    out = tmp_path / "results" / "gpu.json"
    small = "--device cpu --steps 2 --rounds 2 --batch-sizes 64 --rows 2000 --widths 4"
    done = benchmark("--out", str(out), *small.split(), "--paces", *paces, "--skip-tests")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    cases = {(one["optimizer"], one["pace"]) for one in found["steps"]}
    assert cases == {(name, pace) for name in ("rowwise_adagrad", "lazy_adam") for pace in paces}
    for one in found["steps"]:
        assert 0 < one["rows_per_s_least"] <= one["rows_per_s"] <= one["rows_per_s_most"]
        assert one["peak_bytes"] is None
    assert found["machine"]["device"] == "cpu"
    assert found["machine"]["libraries"]["torch"]
    assert found["tests"] is None
    # A header, its rule, and a line a case.
    assert len(done.stdout.strip().splitlines()) == 2 + len(cases)


def test_it_counts_the_tests_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy

    told = '<testsuites><testsuite tests="9" failures="1" errors="2" skipped="3"/></testsuites>'
    seen: dict[str, str] = {}

    def run(command: list[str], *, env: dict[str, str], **more: object) -> None:
        Path(command[-1].removeprefix("--junitxml=")).write_text(told)
        seen.update(env)

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    count = runpy.run_path(str(ROOT / "tests" / "benchmarks" / "gpu.py"))["run_tests"]
    monkeypatch.setattr(subprocess, "run", run)
    assert count() == {"passed": 3, "failed": 3, "skipped": 3}
    assert "RANK" not in seen and "TORCHELASTIC_RUN_ID" not in seen


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    done = benchmark("--out", str(tmp_path / "gpu.json"))
    assert done.returncode == 1
    assert done.stderr == "there is no GPU. --device cpu tries the script out on a CPU.\n"
