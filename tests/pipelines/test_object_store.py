"""The commands on URLs: what they write equals what they write on a disk."""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_had.data.folder import DataFolder
from recsys_had.errors import DataError
from recsys_had.store_path import StorePath

# Runs a command that is gone, as by kill -9, at a certain call of a function.
_DIES = """
import os, pydoc, signal, sys

owner, _, name = sys.argv.pop(1).rpartition(".")
owner, calls = pydoc.locate(owner), int(sys.argv.pop(1))
original = getattr(owner, name)


def dying(*arguments):
    global calls
    calls -= 1
    if calls < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)


setattr(owner, name, dying)
from recsys_had.pipelines.cli import main

main()
"""
_UPLOAD = "recsys_had.store_path.StorePath._upload_file"
_ROWS = "recsys_had.pipelines.ingest._advance"  # told of each block


@pytest.fixture
def raw(bucket: StorePath, job, tmp_path: Path) -> StorePath:
    """The job's raw rows in a store, in three files of several kinds."""
    lines = job.raw.read_bytes().splitlines(keepends=True)
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "day-1.tsv").write_bytes(b"".join(lines[:1000]))
    (folder / "day-2.tsv.gz").write_bytes(gzip.compress(b"".join(lines[1000:1700])))
    (folder / "day-3.tsv").write_bytes(b"".join(lines[1700:]))
    (bucket / "raw").upload(folder)
    return bucket / "raw"


def content_of(folder: Path | StorePath, tmp_path: Path) -> dict[str, bytes]:
    """What a folder's files hold, but for its manifest: that names library versions and inputs."""
    if isinstance(folder, StorePath):
        folder.download(tmp_path / "content")
        folder = tmp_path / "content"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_whole_job_on_urls_equals_the_job_on_a_disk(
    cli, job, raw: StorePath, bucket: StorePath, temporary: Path, tmp_path: Path
) -> None:
    # The same files on a disk: where a file ends, a block ends, and a part.
    local = tmp_path / "local"
    done = cli("ingest", job.card, "--raw", tmp_path / "raw" / "day-*", "--out", local, "--json")
    assert done.code == 0, done.err
    ingested = cli("ingest", job.card, "--raw", f"{raw}/day-*", "--out", bucket / "data", "--json")
    assert ingested.code == 0, ingested.err
    assert ingested.json["rows"] == done.json["rows"]
    assert content_of(bucket / "data", tmp_path) == content_of(local, tmp_path)

    runs = {}
    for name, data in {"disk": local, "store": bucket / "data"}.items():
        run = tmp_path / "runs" / name
        trained = cli(
            "train", job.experiment, "--data", data, "--out", run, "--no-tracking", "--json"
        )
        assert trained.code == 0, trained.err
        evaluated = cli("evaluate", run, "--data", data, "--json")
        assert evaluated.code == 0, evaluated.err
        runs[name] = (trained.json["weights_digest"], trained.json["valid"], evaluated.json)
    assert runs["store"] == runs["disk"]
    run = tmp_path / "runs" / "store"
    assert content_of(run / "encoder", tmp_path) == {
        name: content
        for name, content in content_of(local, tmp_path).items()
        if not name.startswith(("train/", "valid/", "test/"))
    }

    scores = tmp_path / "scores"
    predicted = cli("predict", run, "--input", tmp_path / "raw" / "day-*", "--out", scores)
    assert predicted.code == 0, predicted.err
    predicted = cli("predict", run, "--input", f"{raw}/day-*", "--out", bucket / "scores")
    assert predicted.code == 0, predicted.err
    (bucket / "scores").download(tmp_path / "back")
    assert content_of(tmp_path / "back", tmp_path) == content_of(scores, tmp_path)
    assert (tmp_path / "back" / "_SUCCESS").is_file()
    assert not files_of(temporary)


@pytest.mark.parametrize("function, calls", [(_ROWS, 1), (_UPLOAD, 0), (_UPLOAD, 9)])
def test_a_killed_ingestion_is_never_taken_for_whole_and_goes_on(
    cli,
    job,
    raw: StorePath,
    bucket: StorePath,
    temporary: Path,
    tmp_path: Path,
    function: str,
    calls: int,
) -> None:
    words = [str(job.card), "--raw", f"{raw}/day-*", "--out", f"{bucket}/data"]
    command = [sys.executable, "-c", _DIES, function, str(calls), "ingest", *words]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert files_of(temporary)
    with pytest.raises(DataError, match=r"is not a data folder: manifest\.json is missing"):
        DataFolder.open(bucket / "data")
    again = cli("ingest", *words)
    assert again.code == 0, again.err
    undisturbed = cli("ingest", *words[:-1], tmp_path / "undisturbed")
    assert undisturbed.code == 0, undisturbed.err
    found = content_of(bucket / "data", tmp_path)
    assert found == content_of(tmp_path / "undisturbed", tmp_path)
    assert not files_of(temporary)


def test_a_prediction_goes_on_with_resume(
    cli, job, raw: StorePath, bucket: StorePath, temporary: Path, tmp_path: Path
) -> None:
    words = ["predict", str(job.run), "--input", f"{raw}/day-*", "--out", f"{bucket}/scores"]
    command = [sys.executable, "-c", _DIES, _UPLOAD, "2", *words]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (bucket / "scores" / "_SUCCESS").exists()
    refused = cli(*words)
    assert refused.code == 2
    assert refused.err == (
        f"{bucket}/scores: holds unfinished work. Add --resume, or add --overwrite to start "
        "again.\n"
    )
    again = cli(*words, "--resume")
    assert again.code == 0, again.err
    local = cli("predict", job.run, "--input", f"{raw}/day-*", "--out", tmp_path / "scores")
    assert local.code == 0, local.err
    assert content_of(bucket / "scores", tmp_path) == content_of(tmp_path / "scores", tmp_path)


def test_a_store_that_does_not_answer_is_one_line_from_every_command(
    cli, job, bucket: StorePath, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    told = "no connection to http://127.0.0.1:9. Is AWS_ENDPOINT_URL right?\n"
    for url, words in {
        f"{bucket}/a.tsv": [
            "ingest",
            job.card,
            "--raw",
            f"{bucket}/a.tsv",
            "--out",
            tmp_path / "x",
        ],
        f"{bucket}/out": ["ingest", job.card, "--raw", job.raw, "--out", f"{bucket}/out"],
        f"{bucket}/data/manifest.json": [
            *("train", job.experiment, "--data", f"{bucket}/data", "--out", tmp_path / "x")
        ],
        f"{bucket}/scores": ["predict", job.run, "--input", job.raw, "--out", f"{bucket}/scores"],
    }.items():
        done = cli(*words)
        assert done.code == 2, done.err
        assert done.err == f"{url}: {told}"
    assert not (tmp_path / "x").exists()


def test_what_is_missing_in_a_store_is_one_line(
    cli, job, bucket: StorePath, temporary: Path, tmp_path: Path
) -> None:
    done = cli("train", job.experiment, "--data", f"{bucket}/data", "--out", tmp_path / "run")
    assert (done.code, done.err) == (
        2,
        f"{bucket}/data: is not a data folder: manifest.json is missing. Run `recsys-had ingest` "
        "first.\n",
    )
    done = cli("ingest", job.card, "--raw", f"{bucket}/none.tsv", "--out", tmp_path / "data")
    assert (done.code, done.err) == (2, f"{bucket}/none.tsv: there is no such file.\n")
    done = cli("ingest", job.card, "--raw", job.raw, "--out", "s3://no-such-bucket/data")
    assert (done.code, done.err) == (
        2,
        "s3://no-such-bucket/data: there is no bucket 'no-such-bucket'. Check its name.\n",
    )


def test_wrong_rows_are_told_by_url_and_line(
    cli, job, bucket: StorePath, temporary: Path, tmp_path: Path
) -> None:
    (tmp_path / "raw.tsv").write_text("1\t5\t3\tu1\ti1\tt1\ts1\n1\t5\n")
    (bucket / "raw.tsv").upload(tmp_path / "raw.tsv")
    done = cli("ingest", job.card, "--raw", f"{bucket}/raw.tsv", "--out", f"{bucket}/data")
    assert (done.code, done.err) == (
        2,
        f"{bucket}/raw.tsv:2: holds 2 columns; 7 are expected.\n",
    )
    assert [path.name for path in bucket.glob("**")] == ["raw.tsv"]


def test_a_run_folder_is_local_and_a_url_is_refused_in_its_place(cli, job, tmp_path: Path) -> None:
    done = cli("train", job.experiment, "--data", job.data, "--out", "s3://bucket/run")
    assert done.code == 2
    assert "'--out': s3://bucket/run: must be a path on this machine, not a URL." in done.err
    done = cli("predict", "s3://bucket/run", "--input", job.raw, "--out", tmp_path / "scores")
    assert done.code == 2
    assert "'RUN': s3://bucket/run: must be a path on this machine, not a URL." in done.err


@pytest.mark.slow
def test_two_processes_read_a_store_as_one_does(
    cli, job, bucket: StorePath, tmp_path: Path
) -> None:
    (bucket / "data").upload(job.data)
    scripts = Path(sys.executable).parent
    command = [scripts / "torchrun", "--no-python", "--nproc-per-node=2", scripts / "recsys-had"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    digests = []
    for data in (job.data, bucket / "data"):
        words = ["train", job.experiment, "--data", data, "--out", tmp_path / str(len(digests))]
        done = subprocess.run(
            [str(word) for word in [*command, *words, "--no-tracking", "--json"]],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        digests.append(json.loads(done.stdout)["weights_digest"])
    assert digests[0] == digests[1]
