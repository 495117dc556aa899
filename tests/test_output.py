"""Output folders are whole or plainly unfinished."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_had.errors import DataError, WorkerLostError
from recsys_had.folder_lock import FolderLock
from recsys_had.output import OutputFolder


def finish(path: Path, text: str, *, overwrite: bool = False) -> None:
    with OutputFolder(path, marker="manifest.json", overwrite=overwrite) as folder:
        (folder.stage / "manifest.json").write_text(text)
        (folder.stage / f"{text}.txt").write_text(text)
        folder.publish()


def test_a_finished_result_is_refused_without_overwrite_and_replaced_with_it(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    finish(out, "first")
    with pytest.raises(DataError, match=r"holds a finished result\. Add --overwrite"):
        finish(out, "second")
    assert (out / "first.txt").exists()
    finish(out, "third", overwrite=True)
    assert sorted(entry.name for entry in out.iterdir()) == ["manifest.json", "third.txt"]


def test_a_folder_that_is_not_ours_is_never_touched_even_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(DataError, match=r"not empty and holds no manifest\.json"):
        finish(tmp_path, "first", overwrite=True)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file: must be a folder\. It is a file"):
        finish(tmp_path / "file", "first")


def test_a_users_mistake_removes_the_work_and_the_folder_it_made(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with pytest.raises(DataError), OutputFolder(out, marker="manifest.json"):
        raise DataError("a.tsv:3: text.")
    assert not out.exists()


def test_an_interruption_keeps_the_work_and_the_same_settings_take_it_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = {"inputs": ("a", 1)}
    with pytest.raises(KeyboardInterrupt):
        with OutputFolder(out, marker="m", fingerprint=settings) as folder:
            (folder.work / "half").write_text("half")
            raise KeyboardInterrupt
    with OutputFolder(out, marker="m", fingerprint=settings, resume=True) as folder:
        assert folder.resumed
        assert (folder.work / "half").read_text() == "half"
    with OutputFolder(out, marker="m", fingerprint={"inputs": "b"}, resume=True) as folder:
        assert not folder.resumed
        assert not (folder.work / "half").exists()


def test_a_worker_that_was_killed_costs_no_work(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(WorkerLostError):
        with OutputFolder(out, marker="m") as folder:
            (folder.work / "half").write_text("half")
            raise WorkerLostError("a worker process was killed.")
    with OutputFolder(out, marker="m", resume=True) as folder:
        assert (folder.work / "half").read_text() == "half"


def test_unfinished_work_worth_keeping_is_not_dropped_unasked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    OutputFolder(out, marker="m", keep_unfinished=True)
    with pytest.raises(DataError, match=r"holds unfinished work\. Add --resume, or add --over"):
        OutputFolder(out, marker="m", keep_unfinished=True)
    with pytest.raises(DataError, match=r"begun with other settings\. Add --overwrite"):
        OutputFolder(out, marker="m", keep_unfinished=True, resume=True, fingerprint={"a": 1})
    assert not OutputFolder(out, marker="m", keep_unfinished=True, overwrite=True).resumed


@pytest.mark.parametrize("note", [None, '{"dropped": true}'])
def test_a_kill_that_left_no_work_is_gone_on_with_from_the_start(
    tmp_path: Path, note: str | None
) -> None:
    """Before the settings were noted, or while all was dropped: there is nothing to refuse."""
    root = tmp_path / "out" / ".work"
    (root / "publish").mkdir(parents=True)
    if note is not None:
        (root / "fingerprint.json").write_text(note)
    options = {"marker": "m", "keep_unfinished": True, "fingerprint": {"a": 1}}
    folder = OutputFolder(tmp_path / "out", resume=True, **options)
    assert not folder.resumed
    assert json.loads((root / "fingerprint.json").read_text()) == {"a": 1}


def test_a_result_that_is_finished_before_the_lock_is_held_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = OutputFolder(out, marker="m")
    (first.stage / "m").write_text("first")

    def late(folder: Path, *, told: str) -> FolderLock:
        if not (out / "m").exists():
            first.publish()
        return FolderLock(folder, told=told)

    monkeypatch.setattr("recsys_had.output.FolderLock", late)
    with pytest.raises(DataError, match=r"the output folder holds a finished result"):
        OutputFolder(out, marker="m")
    assert (out / "m").read_text() == "first"
    monkeypatch.undo()
    assert not OutputFolder(out, marker="m", overwrite=True).resumed


@pytest.mark.parametrize("error", [DataError("x: wrong."), OSError(errno.ENOSPC, "full")])
def test_work_that_holds_a_checkpoint_is_kept_whatever_goes_wrong(
    tmp_path: Path, error: Exception
) -> None:
    out = tmp_path / "out"
    options = {"marker": "m", "keep_unfinished": True, "checkpoint": "checkpoint"}
    with pytest.raises(DataError):
        with OutputFolder(out, **options) as folder:
            (folder.work / "checkpoint").mkdir()
            (folder.stage / "m").write_text("half")
            raise error
    with OutputFolder(out, **options, resume=True) as folder:
        assert folder.resumed
        assert (folder.work / "checkpoint").is_dir()
        assert not list(folder.stage.iterdir())


def test_work_that_never_came_to_a_checkpoint_is_no_reason_to_refuse(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = {"marker": "m", "keep_unfinished": True, "checkpoint": "checkpoint"}
    with pytest.raises(KeyboardInterrupt):
        with OutputFolder(out, **options):
            raise KeyboardInterrupt
    assert not out.exists()
    OutputFolder(out, **options)  # killed
    assert not OutputFolder(out, **options).resumed


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(DataError, match=rf"^{tmp_path}: cannot be written: Permission denied\."):
        OutputFolder(tmp_path, marker="m")
    tmp_path.chmod(0o755)


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(DataError, match=rf"^{tmp_path}: cannot be written: Permission denied\."):
        OutputFolder(tmp_path, marker="m")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"No space is left on the device"):
        with OutputFolder(out, marker="m") as folder:
            (folder.stage / "part").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert not out.exists()


def test_a_disk_that_is_full_from_the_beginning_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out"
    monkeypatch.setattr(Path, "write_text", full)
    for kept in (False, True):
        if kept:
            out.mkdir()
        with pytest.raises(DataError, match=rf"^{out}: cannot be written: No space left on"):
            OutputFolder(out, marker="m")
        assert list(tmp_path.rglob("*")) == [out] * kept


def test_publishing_without_the_marker_is_a_bug(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out", marker="m")
    with pytest.raises(ValueError, match=r"^publish: the marker m was not staged\.$"):
        folder.publish()


def test_a_publication_that_was_stopped_is_done_again(tmp_path: Path) -> None:
    """One file has been moved, the marker has not, and the process is gone."""
    options = {"marker": "m", "keep_unfinished": True, "fingerprint": {"a": 1}}
    first = OutputFolder(tmp_path / "out", **options)
    for name in ("a", "m"):
        (first.stage / name).write_text("first")
    (first.stage / "a").rename(tmp_path / "out" / "a")
    del first
    with pytest.raises(DataError, match="holds unfinished work"):
        OutputFolder(tmp_path / "out", **options)
    second = OutputFolder(tmp_path / "out", resume=True, **options)
    assert second.resumed
    for name in ("a", "m"):
        (second.stage / name).write_text("second")
    second.publish()
    assert sorted(path.name for path in second.path.iterdir()) == ["a", "m"]
    assert (second.path / "a").read_text() == "second"


def test_one_command_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    """Another process holds it until it is killed; its work may be taken up then, not before."""
    out = tmp_path / "out"
    program = (
        "from pathlib import Path; from recsys_had.output import OutputFolder;"
        f"folder = OutputFolder(Path({str(out)!r}), marker='m'); print('ready', flush=True);"
        "input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        for options in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(DataError, match=rf"^{out}: another command is writing there\."):
                OutputFolder(out, marker="m", **options)
    finally:
        other.kill()
        other.communicate()
    assert OutputFolder(out, marker="m", resume=True).resumed


def test_a_finished_folder_may_be_written_to_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with OutputFolder(out, marker="m") as first:
        (first.stage / "m").write_text("first")
        first.publish()
        with OutputFolder(out, marker="m", overwrite=True) as second:
            (second.stage / "m").write_text("second")
            second.publish()
    assert (out / "m").read_text() == "second"
