"""What is shipped, how it is found, and what keeps imports looking down."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from recsys_had import bundled, versions
from recsys_had.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PINS = ("common", "cpu", "cuda", "dev", "torchrec")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("recsys_had", "pipelines", "datasets", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a user's pip lays it out."""
    target = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--target", str(target), str(source)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return target


def test_every_room_card_and_experiment_is_shipped(installed: Path) -> None:
    shipped = {
        path.relative_to(installed / "recsys_had").as_posix()
        for path in (installed / "recsys_had").rglob("*")
    }
    expected = {path.relative_to(ROOT / "recsys_had").as_posix() for path in _code("recsys_had")}
    for folder, pattern in (
        ("pipelines", "*.py"),
        ("datasets", "*/dataset.yaml"),
        ("datasets", "*/README.md"),
        ("configs", "**/*.yaml"),
    ):
        expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob(pattern)}
    assert expected - shipped == set()
    assert "datasets/criteo/dataset.yaml" in expected


def _code(folder: str) -> list[Path]:
    return [*(ROOT / folder).rglob("*.py"), ROOT / folder / "py.typed"]


def test_an_installed_copy_finds_its_own_cards_and_experiments(
    installed: Path, tmp_path: Path
) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "from recsys_had.bundled import configs_dir, datasets_dir\n"
        "from recsys_had.experiment_file import bundled_experiments\n"
        "print(datasets_dir(), len(bundled_experiments()))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    folder, experiments = done.stdout.split()
    assert folder == str(installed / "recsys_had" / "datasets")
    assert int(experiments) >= 20


def test_a_copy_without_cards_says_how_to_repair_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bundled, "_PACKAGE", tmp_path / "recsys_had")
    with pytest.raises(ConfigError, match=r"the bundled datasets are missing\. Install recsys_had"):
        bundled.datasets_dir()


def test_the_folder_datasets_is_no_importable_package_and_holds_no_code() -> None:
    assert not list((ROOT / "datasets").rglob("*.py"))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("recsys-had")), "--version"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert "0.1.0" in done.stdout
    found = subprocess.run(
        [sys.executable, "-P", "-c", "import importlib.util as u; print(u.find_spec('datasets'))"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert found.stdout.strip() == "None"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from recsys_had.pipelines.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(sorted({'torch', 'polars', 'mlflow', 'pandas', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("[]")
    for name in ("ingest", "train", "evaluate", "predict", "export", "describe", "list", "demo"):
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("module", ["ingestion.ingest", "data.decode", "data.drift", "profile"])
def test_what_only_reads_data_imports_no_torch(module: str) -> None:
    """It costs seconds of CPU time, and hundreds of megabytes in each worker."""
    code = (
        f"import sys, recsys_had.{module}\n"
        "print(sorted({'torch', 'torchrec', 'sklearn', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_scoring_loads_no_compiler() -> None:
    """Torch's costs every start of ``predict`` two seconds."""
    code = (
        "import sys, recsys_had.scoring, recsys_had.extra_columns\n"
        "print(sorted({'torch._dynamo', 'sklearn', 'mlflow', 'torchrec'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", PINS)
def test_requirements_are_exact_and_name_no_host(name: str) -> None:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    entries = [line for line in lines if line and not line.startswith("#")]
    assert entries
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[\w.]+|-r \w+\.txt", entry), entry


def test_the_three_that_must_match_are_pinned_to_a_known_trio() -> None:
    def pin(file: str, name: str) -> str:
        text = (ROOT / "requirements" / f"{file}.txt").read_text()
        found = re.search(rf"^{name}==(\d+\.\d+)", text, re.MULTILINE)
        assert found is not None
        return found[1]

    for build, fbgemm in (("cpu", "fbgemm-gpu-cpu"), ("cuda", "fbgemm-gpu")):
        trio = (pin(build, "torch"), pin("torchrec", "torchrec"), pin(build, fbgemm))
        assert trio in versions.KNOWN_TRIOS
    assert "fbgemm-gpu==" not in (ROOT / "requirements" / "cpu.txt").read_text()


@pytest.mark.parametrize(
    ("installed_versions", "told"),
    [
        (
            {"torch": "2.12.1", "torchrec": "1.8.0", "fbgemm-gpu-cpu": "1.8.0"},
            "must be 2.13/1.8/1.8 or 2.11/1.6/1.6; got torch 2.12.1, torchrec 1.8.0, fbgemm 1.8.0.",
        ),
        ({"torch": "2.13.0", "fbgemm-gpu-cpu": "1.8.0"}, "torchrec missing"),
        (
            {"torch": "2.13.0", "torchrec": "1.8.0", "fbgemm-gpu-cpu": "1.8", "fbgemm-gpu": "1.8"},
            "are both installed and overwrite each other's files.",
        ),
    ],
)
def test_libraries_that_do_not_match_are_told_with_the_repair(
    monkeypatch: pytest.MonkeyPatch, installed_versions: dict[str, str], told: str
) -> None:
    monkeypatch.setattr(versions, "_version", installed_versions.get)
    with pytest.raises(ConfigError) as caught:
        versions.check_trio()
    assert told in caught.value.problems[0]
    assert "make install" in caught.value.problems[0]


def test_the_gpu_trio_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"torch": "2.11.0+cu130", "torchrec": "1.6.1", "fbgemm-gpu": "1.6.0"}
    monkeypatch.setattr(versions, "_version", gpu.get)
    versions.check_trio()


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache",
         "--config", str(ROOT / "pyproject.toml")],
        capture_output=True, text=True, cwd=folder, env={"PYTHONPATH": str(folder), "PATH": ""},
        check=False,
    )  # fmt: skip


def test_an_import_that_looks_up_is_caught(installed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(installed, copy)
    kept = lint_imports(copy)
    assert kept.returncode == 0, kept.stdout
    planted = copy / "recsys_had" / "schema.py"
    planted.write_text(planted.read_text() + "\nimport recsys_had.pipelines.train\n")
    broken = lint_imports(copy)
    assert broken.returncode == 1
    assert "recsys_had.schema -> recsys_had.pipelines.train" in broken.stdout


@pytest.mark.slow
def test_a_wheel_holds_the_same_files(source: Path, installed: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(tmp_path), str(source)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    wheel = next(tmp_path.glob("*.whl"))
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("recsys_had/")}
    laid_out = {
        path.relative_to(installed).as_posix()
        for path in (installed / "recsys_had").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == laid_out


def test_the_version_is_told_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == "0.1.0"
    assert versions.library_versions()["recsys_had"] == project["version"]
