"""The benchmark of ingestion: its pandas job does the same work, its meter misses no process."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from recsys_had.ingestion.ingest import ingest
from recsys_had.schema import load_card

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# Long enough to be looked at several times.
BUSY = "import time\nwhile time.process_time() < 0.4: pass"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def module(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module(name)


@pytest.mark.parametrize("texts", ["str", "object"])
def test_the_pandas_job_writes_the_same_rows_as_ingestion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: str
) -> None:
    rows = module(monkeypatch, "criteo_shaped").write(tmp_path / "rows.tsv", 5000)
    # Three chunks, the last one short.
    job = module(monkeypatch, "ingestion_pandas")
    theirs = job.ingest(rows, tmp_path / "pandas", texts=texts, chunk_rows=2000)
    ours = ingest(load_card("criteo"), [(None, rows)], tmp_path / "data", num_workers=1)
    assert theirs == {name: ours[name] for name in ("rows", "num_embeddings")}
    assert set(theirs["rows"]) == {"train", "valid", "test"}
    for split in theirs["rows"]:
        expected = pl.read_parquet(tmp_path / "data" / split / "part-*.parquet")
        assert pl.read_parquet(tmp_path / "pandas" / f"{split}.parquet").equals(expected)


def cost_of(tmp_path: Path, program: str, *, every_s: float) -> dict[str, float]:
    words = [BENCHMARKS / "ingestion_cost.py", tmp_path / "cost.json", every_s, "--"]
    command = [sys.executable, "-P", *map(str, words), sys.executable, "-c", program]
    subprocess.run(command, check=True)
    found: dict[str, float] = json.loads((tmp_path / "cost.json").read_text())
    return found


def test_the_memory_of_a_child_is_added_to_its_parents(tmp_path: Path) -> None:
    # 60 million bytes here, and in a child 90 million: both at a time.
    child = f"held = b'x' * 90_000_000\n{BUSY}"
    program = (
        "import subprocess, sys; held = b'x' * 60_000_000\n"
        f"subprocess.run([sys.executable, '-c', {child!r}])"
    )
    found = cost_of(tmp_path, program, every_s=0.05)
    assert 150e6 < found["peak_anonymous_bytes"] < 190e6
    assert found["peak_anonymous_bytes"] < found["peak_pss_bytes"] < 230e6


def test_shared_pages_are_counted_once(tmp_path: Path) -> None:
    # The child of a fork holds the same 100 million bytes as its parent.
    program = (
        f"import os; held = b'x' * 100_000_000; child = os.fork()\n{BUSY}\nif child: os.wait()"
    )
    found = cost_of(tmp_path, program, every_s=0.05)
    assert 100e6 < found["peak_pss_bytes"] < 140e6


def test_time_of_a_process_whose_parent_has_gone_is_counted(tmp_path: Path) -> None:
    program = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BUSY!r}])"
    found = cost_of(tmp_path, program, every_s=0)
    assert found["cpu_s"] >= 0.4
    assert found["samples"] == found["peak_pss_bytes"] == 0
