"""Output folders in an object store: whole or not there, and nobody else's."""

from pathlib import Path

import pytest

from recsys_had.errors import DataError, StoreError
from recsys_had.output import OutputFolder
from recsys_had.store_path import StorePath
from tests.data.stores import listed, put

pytestmark = pytest.mark.usefixtures("temporary")


def finish(path: StorePath, text: str, *, overwrite: bool = False) -> None:
    with OutputFolder(path, marker="manifest.json", overwrite=overwrite) as folder:
        (folder.stage / "manifest.json").write_text(text)
        (folder.stage / "deep").mkdir()
        (folder.stage / "deep" / f"{text}.txt").write_text(text)
        folder.publish()


def test_a_finished_result_in_a_store_is_replaced_with_overwrite_alone(bucket: StorePath) -> None:
    finish(bucket / "out", "first")
    with pytest.raises(DataError, match=rf"^{bucket}/out: the output folder holds a finished"):
        finish(bucket / "out", "second")
    assert listed(bucket / "out") == ["deep/first.txt", "manifest.json"]
    finish(bucket / "out", "third", overwrite=True)
    assert listed(bucket / "out") == ["deep/third.txt", "manifest.json"]


def test_a_prefix_that_is_not_ours_is_never_touched(bucket: StorePath, tmp_path: Path) -> None:
    put(bucket / "precious.txt", b"mine", tmp_path)
    with pytest.raises(DataError, match=r"not empty and holds no manifest\.json"):
        finish(bucket, "first", overwrite=True)
    with pytest.raises(DataError, match=r"precious\.txt: must be a folder\. It is a file"):
        finish(bucket / "precious.txt", "first", overwrite=True)
    assert listed(bucket) == ["precious.txt"]


def test_a_users_mistake_leaves_nothing_in_the_store(bucket: StorePath, temporary: Path) -> None:
    with pytest.raises(DataError), OutputFolder(bucket / "out", marker="m"):
        raise DataError("a.tsv:3: text.")
    assert not listed(bucket)
    assert not [path for path in temporary.rglob("*") if path.is_file()]


def test_the_marker_is_uploaded_when_all_else_is_there(
    bucket: StorePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    upload = StorePath.upload

    def watched(self: StorePath, source: Path) -> None:
        if self.name == "a_marker":
            seen.append(listed(bucket / "out"))
        upload(self, source)

    monkeypatch.setattr(StorePath, "upload", watched)
    with OutputFolder(bucket / "out", marker="a_marker") as folder:
        for name in ("a_marker", "b", "z"):
            (folder.stage / name).write_text(name)
        folder.publish()
    assert seen == [["b", "z"]]
    assert listed(bucket / "out") == ["a_marker", "b", "z"]


def test_work_on_a_store_goes_on_after_a_kill_and_after_half_an_upload(
    bucket: StorePath, tmp_path: Path
) -> None:
    options = {"marker": "m", "fingerprint": {"a": 1}, "resume": True}
    first = OutputFolder(bucket / "out", **options)
    (first.work / "half").write_text("half")
    del first  # and the process is gone
    put(bucket / "out" / "part", b"first", tmp_path)
    second = OutputFolder(bucket / "out", **options)
    assert second.resumed
    assert (second.work / "half").read_text() == "half"
    (second.stage / "m").write_text("second")
    second.publish()
    assert listed(bucket / "out") == ["m"]


def test_half_an_upload_is_known_as_ours_on_another_machine(
    bucket: StorePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    OutputFolder(bucket / "out", marker="m")
    put(bucket / "out" / "part", b"first", tmp_path)
    (tmp_path / "another").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "another"))
    other = OutputFolder(bucket / "out", marker="m", resume=True)
    assert not other.resumed
    (other.stage / "m").write_text("second")
    other.publish()
    assert listed(bucket / "out") == ["m"]


def test_work_is_kept_when_the_store_fails(
    bucket: StorePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"marker": "m", "resume": True}
    with pytest.raises(StoreError, match=r"no connection to http://127\.0\.0\.1:9\."):
        with OutputFolder(bucket / "out", **options) as folder:
            (folder.work / "hours").write_text("of work")
            (folder.stage / "m").write_text("done")
            with monkeypatch.context() as patch:
                patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
                folder.publish()
    assert OutputFolder(bucket / "out", **options).resumed


def test_work_of_somebody_else_is_refused(bucket: StorePath, temporary: Path) -> None:
    OutputFolder(bucket / "out", marker="m")
    (own,) = temporary.glob("recsys_had-*")
    own.rename(temporary / "elsewhere")
    own.symlink_to(temporary / "elsewhere")
    with pytest.raises(DataError, match=r"must be this user's own folder\. Set TMPDIR"):
        OutputFolder(bucket / "out", marker="m")


def test_an_output_bucket_that_is_not_there_is_told_at_once(bucket: StorePath) -> None:
    missing = StorePath("s3", "no-such-bucket")
    with pytest.raises(
        StoreError, match=r"there is no bucket 'no-such-bucket'\. Check its name\.$"
    ):
        OutputFolder(missing / "out", marker="m")
