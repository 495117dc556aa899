"""A bundle scores as its run does: without torchrec, the training data, or a pickle."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recsys_had.run_folder import RunFolder
from tests.pipelines.conftest import Job

# Scores with BOTH commands where three libraries cannot be imported and nothing may be unpickled.
ALONE = """
import pickle, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torchrec", "fbgemm_gpu", "tensordict"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Refuse())
import torch
import recsys_had.scoring

def refuse(*arguments, **options):
    raise AssertionError("a file was loaded through pickle")

torch.load = torch.serialization.load = refuse
pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = refuse
run, raw, data, out = sys.argv[1:]
from click.testing import CliRunner
from recsys_had.pipelines.cli import main

for words in (["predict", run, "--input", raw, "--out", out],
              ["evaluate", run, "--data", data, "--json"]):
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.stderr
print(done.stdout.strip())
held = [name for name in sys.modules if name.partition(".")[0] in ("torchrec", "fbgemm_gpu")]
assert not held, held
"""


@pytest.fixture(scope="module")
def bundle(cli: Callable[..., Any], job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a run that something was added to."""
    folder = tmp_path_factory.mktemp("bundle")
    shutil.copytree(job.run, folder / "run")
    RunFolder.open(folder / "run").add("note", '{"kept": true}')
    done = cli("export", folder / "run", "--to", "bundle", "--out", folder / "bundle", "--json")
    assert done.code == 0, done.err
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    assert done.json["bundle_of"] == manifest["digest"] != done.json["digest"]
    return folder / "bundle"


def scores(cli: Callable[..., Any], run: Path, job: Job, out: Path) -> pd.DataFrame:
    done = cli("predict", run, "--input", job.raw, "--out", out)
    assert done.code == 0, done.err
    return pd.read_parquet(out / "part-00000.parquet")


def test_a_bundle_holds_what_scoring_needs_alone(job: Job, bundle: Path) -> None:
    names = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    run = {path.relative_to(job.run).as_posix() for path in job.run.rglob("*") if path.is_file()}
    assert {name for name in run - names if not name.startswith("plots/")} == {"metrics.json"}
    assert any(name.startswith("plots/") for name in run)
    (added,) = names - run
    assert added.startswith("note-")
    opened = RunFolder.open(bundle)
    assert opened.addition("note") == '{"kept": true}'
    assert set(opened.manifest["files"]) == names - {"manifest.json"}


def test_a_bundle_scores_as_its_run_does(
    cli: Callable[..., Any], job: Job, bundle: Path, tmp_path: Path
) -> None:
    found = scores(cli, bundle, job, tmp_path / "bundle")
    assert found.equals(scores(cli, job.run, job, tmp_path / "run"))
    measured = [cli("evaluate", run, "--data", job.data, "--json") for run in (bundle, job.run)]
    assert measured[0].json == measured[1].json


def test_it_scores_alike_without_torchrec_the_data_and_any_pickle(
    cli: Callable[..., Any], job: Job, bundle: Path, tmp_path: Path
) -> None:
    here = tmp_path / "elsewhere"
    shutil.copytree(bundle, here)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, here, job.raw, job.data, tmp_path / "alone"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = pd.read_parquet(tmp_path / "alone" / "part-00000.parquet")
    assert found.equals(scores(cli, job.run, job, tmp_path / "run"))
    expected = cli("evaluate", job.run, "--data", job.data, "--json").json
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize(
    "name",
    ["weights.safetensors", "experiment.yaml", "encoder/card.json", "encoder/vocab/user.parquet",
     "manifest.json"],
)  # fmt: skip
def test_a_bundle_that_was_changed_or_lost_a_file_scores_nothing(
    cli: Callable[..., Any], job: Job, bundle: Path, tmp_path: Path, name: str
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(bundle, changed)
    words = ("predict", changed, "--input", job.raw, "--out", tmp_path / "scores")
    content = (changed / name).read_bytes()
    (changed / name).write_bytes(content.replace(b"shop", b"shoq", 1)[:-1] + b" ")
    done = cli(*words)
    assert done.code == 2
    assert f"{changed}/{name}: " in done.err
    (changed / name).unlink()
    done = cli(*words)
    assert done.code == 2
    assert name in done.err and "is missing" in done.err
    assert not (tmp_path / "scores").exists()


def test_a_card_that_is_not_the_runs_own_is_refused(
    cli: Callable[..., Any], job: Job, bundle: Path, tmp_path: Path
) -> None:
    """Though every digest is right: the card itself must be the one that was trained with."""
    from recsys_had.run_folder import sealed
    from recsys_had.whole_files import file_digest

    changed = tmp_path / "changed"
    shutil.copytree(bundle, changed)
    card = changed / "encoder" / "card.json"
    card.write_text(card.read_text().replace('"log1p"', '"log_squared"'))
    manifest = json.loads((changed / "manifest.json").read_text())
    manifest["files"]["encoder/card.json"] = file_digest(card)
    (changed / "manifest.json").write_text(json.dumps(sealed(manifest)))
    done = cli("predict", changed, "--input", job.raw, "--out", tmp_path / "scores")
    assert done.code == 2
    assert "card" in done.err and "Traceback" not in done.err


def test_a_bundle_takes_the_place_of_a_bundle_alone(
    cli: Callable[..., Any], job: Job, bundle: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(job.run, run)
    done = cli("export", bundle, "--to", "bundle", "--out", run, "--overwrite")
    assert done.code == 2
    assert done.err == f"{run}: holds a result that is no bundle. Choose another folder.\n"
    out = tmp_path / "out"
    for words in ((), ("--overwrite",)):
        done = cli("export", bundle, "--to", "bundle", "--out", out, "--json", *words)
        assert done.code == 0, done.err
    # A bundle of a bundle is of the run itself.
    assert done.json["bundle_of"] == RunFolder.open(bundle).manifest["bundle_of"]
    assert cli("export", bundle, "--to", "bundle", "--out", out).code == 2


def test_tables_are_named_for_tables_alone(
    cli: Callable[..., Any], bundle: Path, tmp_path: Path
) -> None:
    done = cli("export", bundle, "--to", "bundle", "--out", tmp_path / "o", "--table", "user")
    assert done.code == 2
    assert done.err == "--table user: is for --to tables. Leave it out of --to bundle.\n"
