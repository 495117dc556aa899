"""What is added to a run after its training."""

import json
import shutil
from pathlib import Path

import pytest

from recsys_had.data.encode import Encoder
from recsys_had.data.encoder_files import load_encoder
from recsys_had.errors import CheckpointError, DataError
from recsys_had.folder_lock import FolderLock
from recsys_had.run_folder import RunFolder, sealed
from recsys_had.scoring import BatchPredictor
from tests.pipelines.conftest import Job


@pytest.fixture
def run(job: Job, tmp_path: Path) -> RunFolder:
    shutil.copytree(job.run, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


def test_an_addition_is_guarded_and_makes_another_run(run: RunFolder) -> None:
    assert run.addition("note") is None
    added = run.add("note", "first")
    assert added.addition("note") == "first"
    assert added.manifest["digest"] != run.manifest["digest"]
    assert added.manifest["weights_digest"] == run.manifest["weights_digest"]
    (run.path / added.manifest["additions"]["note"]).write_text("other")
    with pytest.raises(CheckpointError, match=r"was changed after training"):
        RunFolder.open(run.path)


def test_an_addition_takes_the_place_of_the_one_before(run: RunFolder) -> None:
    before = {path.name for path in run.path.iterdir()}
    run.add("other", "stays")
    run.add("note", "first")
    again = run.add("note", "second").add("note", "second")
    assert (again.addition("note"), again.addition("other")) == ("second", "stays")
    assert len({path.name for path in run.path.iterdir()} - before) == 2


def test_a_kill_before_the_manifest_leaves_the_run_as_it_was(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, text: str) -> None:
        path.write_text(text)
        raise KeyboardInterrupt

    run.add("note", "first")
    monkeypatch.setattr("recsys_had.run_folder.write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        run.add("note", "second")
    assert RunFolder.open(run.path).addition("note") == "first"


def test_two_commands_do_not_add_at_once(run: RunFolder) -> None:
    lock = FolderLock(run.path, told="other")
    with pytest.raises(DataError, match=r"another command is writing there"):
        run.add("note", "first")
    lock.release()
    assert run.add("note", "first").addition("note") == "first"


def test_what_is_dropped_leaves_the_run_as_it_was(run: RunFolder) -> None:
    before = {path.name for path in run.path.iterdir()}
    run.add("other", "stays")
    dropped = run.add("note", "first").drop("note")
    assert (dropped.addition("note"), dropped.addition("other")) == (None, "stays")
    assert dropped.drop("note").manifest["digest"] == dropped.manifest["digest"]
    assert dropped.drop("other").manifest["files"] == run.manifest["files"]
    assert {path.name for path in run.path.iterdir()} == before


def test_a_kill_while_dropping_leaves_the_run_with_it(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    run.add("note", "first")
    with monkeypatch.context() as patch:
        patch.setattr("recsys_had.run_folder.write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            run.drop("note")
    assert RunFolder.open(run.path).addition("note") == "first"


def test_what_was_fitted_to_one_model_is_not_added_to_another(run: RunFolder) -> None:
    """The run was trained anew while a calibrator of the old one was fitted."""
    manifest = {**run.manifest, "weights_digest": "another"}
    (run.path / "manifest.json").write_text(json.dumps(sealed(manifest)))
    for change in (lambda: run.add("note", "first"), lambda: run.drop("note")):
        with pytest.raises(CheckpointError, match=r"holds another run than the one"):
            change()
    assert RunFolder.open(run.path).addition("note") is None


def test_an_addition_that_is_replaced_while_it_is_used_is_told(run: RunFolder) -> None:
    first = run.add("note", "first")
    run.add("note", "second")
    with pytest.raises(CheckpointError, match=r"note-\w+\.json: was changed while the run"):
        first.addition("note")


def test_a_run_that_is_replaced_while_it_is_loaded_scores_nothing(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files were seen to be right, and others lie there when they are read."""

    def replaced(folder: Path) -> Encoder:
        (run.path / "manifest.json").write_text(json.dumps(sealed({**run.manifest, "steps": -1})))
        return load_encoder(folder)

    monkeypatch.setattr("recsys_had.scoring.predictor.load_encoder", replaced)
    with pytest.raises(CheckpointError, match=r"was changed while it was read\. Run the command"):
        BatchPredictor.load(run.path)
