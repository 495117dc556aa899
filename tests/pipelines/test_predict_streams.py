"""``recsys-had predict`` at scale: parts, processes, streams, rejects; the scores never change."""

import gc
import io
import json
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_had.data.folder import DataFolder
from recsys_had.errors import CheckpointError, DataError
from recsys_had.extra_columns import extra_columns
from recsys_had.scoring import BatchPredictor, predict_files
from recsys_had.scoring.reading import ReadRows, read_rows
from recsys_had.scoring.splits import score_split
from tests.pipelines.conftest import Job
from tests.pipelines.test_predict import raw_frame, scores_of

BLOCK_BYTES = 10_000


@pytest.fixture(scope="module")
def predictor(job: Job) -> BatchPredictor:
    return BatchPredictor.load(job.run)


@pytest.fixture(scope="module")
def whole(job: Job, predictor: BatchPredictor, tmp_path_factory: Any) -> pd.DataFrame:
    out = tmp_path_factory.mktemp("whole") / "scores"
    predict_files(predictor, [job.raw], out, keep=["user"])
    return scores_of(out)


def as_stream(table: pa.Table, *, rows: int = 250) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def raw_table(job: Job) -> pa.Table:
    return pa.Table.from_pandas(raw_frame(job).drop(columns="label"), preserve_index=False)


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 7, 4096])
def test_parts_processes_and_batches_change_no_bit(
    job: Job, whole: pd.DataFrame, tmp_path: Path, workers: int, batch_size: int
) -> None:
    if workers > 1 and batch_size == 1:
        pytest.skip("batches of one, in processes: minutes, and tells nothing new")
    predictor = BatchPredictor.load(job.run, batch_size=batch_size)
    report = predict_files(
        predictor,
        [job.raw],
        tmp_path / "s",
        keep=["user"],
        num_workers=workers,
        block_bytes=BLOCK_BYTES,
    )
    assert len(report.parts) > 5 and report.rows == report.rows_read == 3000
    pd.testing.assert_frame_equal(scores_of(tmp_path / "s"), whole, check_exact=True)


def test_text_parquet_streams_frames_and_encoded_rows_score_alike(
    cli, job: Job, whole: pd.DataFrame, predictor: BatchPredictor, tmp_path: Path, standard_input
) -> None:
    table = raw_table(job)
    pq.write_table(table, tmp_path / "rows.parquet")
    standard_input(as_stream(table))
    for source, out in ((tmp_path / "rows.parquet", "p"), ("-", "s")):
        predict_files(predictor, [source], tmp_path / out, block_bytes=BLOCK_BYTES)
        np.testing.assert_array_equal(scores_of(tmp_path / out)["score"], whole["score"])
    np.testing.assert_array_equal(predictor.score_frame(table), whole["score"])
    assert len(list((tmp_path / "s").glob("part-*.parquet"))) > 5
    data = DataFolder.open(job.data)
    for split in ("train", "valid", "test"):
        rows = data.column(split, "row_id").astype(np.int64)
        label, score = score_split(predictor, data, split)
        np.testing.assert_array_equal(score, whole["score"].to_numpy()[rows])
        np.testing.assert_array_equal(label, raw_frame(job)["label"].astype(int).to_numpy()[rows])


def test_the_command_reads_a_stream(cli, job: Job, whole: pd.DataFrame, tmp_path: Path) -> None:
    program = "from recsys_had.pipelines.cli import main; main()"
    words = ["predict", job.run, "--input", "-", "--out", tmp_path / "s", "--json", "--workers", 2]
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *map(str, words)],
        input=as_stream(raw_table(job)),
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["rows"] == 3000
    np.testing.assert_array_equal(scores_of(tmp_path / "s")["score"], whole["score"])


def test_what_is_no_stream_is_told(
    cli, job: Job, tmp_path: Path, predictor: BatchPredictor, standard_input
) -> None:
    table, out = raw_table(job), tmp_path / "s"
    good = as_stream(table)
    cases = {
        r"^standard input: is not an Arrow stream": b"user\titem\n",
        r"^standard input: cannot be read to its end": good[: len(good) // 2],
        r"^standard input: column user: is missing\.": as_stream(table.drop_columns("user")),
        r"^standard input: row 3: column age: must be a whole number; got 'x'": as_stream(
            table.set_column(0, "age", pa.array(["1", "2", "3", "x", *["5"] * 2996]))
        ),
    }
    for told, content in cases.items():
        standard_input(content)
        with pytest.raises(DataError, match=told):
            predict_files(predictor, ["-"], out)
        assert not out.exists()
    with pytest.raises(DataError, match=r"^--input -: standard input must be the only input\."):
        predict_files(predictor, ["-", job.raw], out)


def test_an_empty_stream_gives_a_whole_folder(
    job: Job, tmp_path: Path, predictor: BatchPredictor, standard_input
) -> None:
    standard_input(as_stream(raw_table(job).slice(0, 0)))
    assert predict_files(predictor, ["-"], tmp_path / "s").rows == 0
    assert len(scores_of(tmp_path / "s")) == 0


def spoiled(job: Job, folder: Path) -> tuple[Path, list[int]]:
    """The raw rows with some that are wrong, and which those are."""
    lines = job.raw.read_text().splitlines()
    wrong = [2, 17, 800, 801, 2999]
    for row, line in zip(wrong, ["x", "", None, "1\t2", None], strict=True):
        cells = lines[row].split("\t")
        cells[1] = "old"
        lines[row] = "\t".join(cells) if line is None else line
    path = folder / "spoiled.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path, wrong


@pytest.mark.parametrize("workers", [1, 2])
def test_wrong_rows_are_rejected_and_all_rows_reconcile(
    job: Job, whole: pd.DataFrame, predictor: BatchPredictor, tmp_path: Path, workers: int
) -> None:
    path, wrong = spoiled(job, tmp_path)
    out = tmp_path / "s"
    with pytest.raises(DataError, match=rf"^{path}:3: holds 1 columns"):
        predict_files(predictor, [path], out, num_workers=workers)
    report = predict_files(
        predictor, [path], out, on_error="reject", num_workers=workers, block_bytes=BLOCK_BYTES
    )
    assert (report.rows_read, report.rows, report.rows_rejected) == (3000, 2995, 5)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["rows_read"] == manifest["rows"] + manifest["rows_rejected"]
    assert sum(part["rejected"] for part in manifest["parts"]) == 5
    rejects = pl.read_parquet(out / "rejects.parquet")
    assert rejects["row_id"].to_list() == wrong
    assert rejects["line"].to_list() == [row + 1 for row in wrong]
    assert rejects["reason"].to_list()[2] == "column age: must be a whole number; got 'old'."
    scores = scores_of(out)
    right = np.setdiff1d(np.arange(3000), wrong)
    np.testing.assert_array_equal(scores["row_id"], right)
    np.testing.assert_array_equal(scores["score"], whole["score"].to_numpy()[right])


def test_no_wrong_row_leaves_no_file_of_rejects(
    job: Job, predictor: BatchPredictor, tmp_path: Path
) -> None:
    report = predict_files(predictor, [job.raw], tmp_path / "s", on_error="reject")
    assert report.rows_rejected == 0 and not (tmp_path / "s" / "rejects.parquet").exists()


def killed_after(parts: int, out: Path, program: str, content: bytes | None) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", "-c", program], stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    if content is not None:
        process.stdin.write(content)
        process.stdin.close()
    deadline = time.monotonic() + 120
    while len(list(out.glob(".work/state/part-*.json"))) < parts:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_stream_that_was_killed_goes_on_with_what_is_the_same(
    job: Job, whole: pd.DataFrame, predictor: BatchPredictor, tmp_path: Path, standard_input
) -> None:
    """Blocks that come again are kept; one that is another is scored anew."""
    out, table = tmp_path / "s", raw_table(job)
    program = (
        "import time, pathlib, recsys_had.scoring as p\n"
        "before = p.BatchPredictor.score_rows\n"
        "def slow(self, rows, **options):\n"
        "    time.sleep(0.05)\n"
        "    return before(self, rows, **options)\n"
        "p.BatchPredictor.score_rows = slow\n"
        f"p.predict_files(p.BatchPredictor.load({str(job.run)!r}), ['-'], "
        f"pathlib.Path({str(out)!r}), block_bytes={BLOCK_BYTES})\n"
    )
    killed_after(3, out, program, as_stream(table))
    kept = {path: path.stat().st_mtime_ns for path in out.glob(".work/publish/part-*.parquet")}
    users = table["user"].to_pylist()
    changed = pa.array([users[1], *users[1:]], table["user"].type)
    other = table.set_column(table.column_names.index("user"), "user", changed)
    standard_input(as_stream(other))
    predict_files(predictor, ["-"], out, resume=True, block_bytes=BLOCK_BYTES)
    again = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    same = [path.name for path, time_ns in kept.items() if again[path.name] == time_ns]
    assert "part-00000.parquet" not in same and len(same) >= 2
    scores = scores_of(out)
    np.testing.assert_array_equal(scores["row_id"], np.arange(3000))
    np.testing.assert_array_equal(scores["score"][1:], whole["score"][1:])
    frame = raw_frame(job)
    frame.loc[0, "user"] = users[1]
    assert scores["score"][0] == predictor.score_frame(frame[:1])[0]


class Killed(BaseException):
    """As far as the output folder can tell, a kill."""


def begun(parts: int, predictor: BatchPredictor, inputs: list[Any], out: Path) -> None:
    """A job that ends after so many parts, and leaves them."""
    told: list[int] = []

    def on_rows(rows: int) -> None:
        told.append(rows)
        if len(told) == parts:
            raise Killed

    with pytest.raises(Killed):
        predict_files(
            predictor, inputs, out, keep=["user"], block_bytes=BLOCK_BYTES, on_rows=on_rows
        )


def with_users(table: pa.Table, users: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index("user"), "user", users)


def of_dictionary(table: pa.Table, values: list[str]) -> pa.Table:
    codes = pa.array(np.arange(len(table)) % len(values), pa.int32())
    return with_users(table, pa.DictionaryArray.from_arrays(codes, pa.array(values)))


def stream_of(tables: list[pa.Table]) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize("what", ["fewer blocks", "a shorter block", "dictionaries", "types"])
def test_a_stream_that_comes_otherwise_scores_as_it_does_alone(
    job: Job, predictor: BatchPredictor, tmp_path: Path, standard_input, what: str
) -> None:
    """Blocks have the bytes they had, and stand elsewhere or mean something else."""
    table = raw_table(job)
    blocks = [table.slice(row, 250) for row in range(0, len(table), 250)]
    match what:
        case "fewer blocks":
            again = blocks[:2]
        case "a shorter block":
            again = [blocks[0].slice(0, 200), *blocks[1:]]
        case "dictionaries":
            again = [of_dictionary(block, ["u3", "u4"]) for block in blocks]
            blocks = [of_dictionary(block, ["u1", "u2"]) for block in blocks]
        case _:
            numbers = np.resize(np.array([1, -1], np.int32), 250)
            again = [with_users(block, pa.array(numbers.view(np.uint32))) for block in blocks]
            blocks = [with_users(block, pa.array(numbers)) for block in blocks]
    standard_input(stream_of(blocks))
    begun(5, predictor, ["-"], tmp_path / "s")
    for out, resume in (("s", True), ("alone", False)):
        standard_input(stream_of(again))
        predict_files(
            predictor,
            ["-"],
            tmp_path / out,
            keep=["user"],
            resume=resume,
            block_bytes=BLOCK_BYTES,
        )
    names = [sorted(path.name for path in (tmp_path / out).iterdir()) for out in ("s", "alone")]
    assert names[0] == names[1]
    pd.testing.assert_frame_equal(scores_of(tmp_path / "s"), scores_of(tmp_path / "alone"))
    rows = np.arange(sum(len(block) for block in again))
    np.testing.assert_array_equal(scores_of(tmp_path / "s")["row_id"], rows)


def test_a_stream_without_the_mark_of_its_end_is_refused(
    job: Job, predictor: BatchPredictor, tmp_path: Path, standard_input
) -> None:
    """Cut between two batches it looks like a shorter one: its writer may have been killed."""
    table = raw_table(job)
    for rows in (3000, 250, 0):
        standard_input(as_stream(table.slice(0, rows))[:-8])
        with pytest.raises(
            DataError,
            match=r"^standard input: is cut off: the mark that ends an Arrow stream is missing",
        ):
            predict_files(predictor, ["-"], tmp_path / "s", block_bytes=BLOCK_BYTES)
        assert not (tmp_path / "s").exists()


def test_batches_with_a_dictionary_each_are_read_together(
    job: Job, predictor: BatchPredictor, tmp_path: Path, standard_input
) -> None:
    """A byte numbers the values of each, and not those of all."""
    table, codes = raw_table(job).slice(0, 200), pa.array(np.arange(100), pa.int8())
    users = [[f"{first}{row}" for row in range(100)] for first in "uv"]
    coded = [
        with_users(
            table.slice(100 * n, 100), pa.DictionaryArray.from_arrays(codes, pa.array(values))
        )
        for n, values in enumerate(users)
    ]
    standard_input(stream_of(coded))
    predict_files(predictor, ["-"], tmp_path / "s")
    plain = predictor.score_frame(with_users(table, pa.array([*users[0], *users[1]])))
    np.testing.assert_array_equal(scores_of(tmp_path / "s")["score"], plain)


def test_a_row_that_is_lost_on_the_way_is_noticed(
    job: Job, predictor: BatchPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted when a file is cut into blocks is what must come of them."""

    def losing(block: Any, *words: Any, **options: Any) -> ReadRows:
        found = read_rows(block, *words, **options)
        return replace(found, rows=found.rows.take(np.arange(1, len(found.rows))))

    monkeypatch.setattr("recsys_had.scoring.parts.read_rows", losing)
    with pytest.raises(RuntimeError, match=r"3000 rows were counted from row 0 on, and 2999 were"):
        predict_files(predictor, [job.raw], tmp_path / "s")


def test_weights_that_are_written_to_while_they_score_give_no_scores(
    job: Job, tmp_path: Path
) -> None:
    """They are the file's own pages; another file in its place is none of theirs."""
    shutil.copytree(job.run, tmp_path / "run")
    weights = tmp_path / "run" / "weights.safetensors"
    predictor = BatchPredictor.load(tmp_path / "run")
    content = weights.read_bytes()

    def replace(rows: int) -> None:
        (tmp_path / "other").write_bytes(content[:-4] + b"\x01\x02\x03\x04")
        (tmp_path / "other").replace(weights)

    def write(rows: int) -> None:
        with weights.open("r+b") as file:
            file.seek(-4, 2)
            file.write(b"\x01\x02\x03\x04")

    assert predict_files(predictor, [job.raw], tmp_path / "s", on_rows=replace).rows == 3000
    weights.write_bytes(content)
    predictor = BatchPredictor.load(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"was written to while it was used\."):
        predict_files(predictor, [job.raw], tmp_path / "t", on_rows=write)
    assert not (tmp_path / "t").exists()


def test_a_job_that_is_done_holds_no_model(job: Job, tmp_path: Path) -> None:
    predictor = BatchPredictor.load(job.run)
    alive = weakref.ref(predictor)
    columns = extra_columns(explain=1, novelty="unseen")
    predict_files(predictor, [job.raw], tmp_path / "s", extras=columns)
    del predictor
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("what", ["written to", "replaced", "gone"])
def test_a_file_that_changes_while_it_is_read_gives_no_scores(
    job: Job, predictor: BatchPredictor, tmp_path: Path, what: str
) -> None:
    """Some blocks would be of what it was, and others of what it is."""
    path, other, out = tmp_path / "rows.tsv", tmp_path / "other.tsv", tmp_path / "s"
    path.write_bytes(job.raw.read_bytes())
    other.write_text(job.raw.read_text().replace("u1\t", "u2\t"))

    def change(rows: int) -> None:
        if not other.exists():
            return
        match what:
            case "written to":
                with path.open("a") as file:
                    file.write("0\t20\t1\tu1\ti1\t\ts\n")
                other.unlink()
            case "replaced":
                other.replace(path)
            case _:
                path.unlink(missing_ok=True)

    told = rf"^{path}: (was changed while it was read|cannot be read)"
    with pytest.raises(DataError, match=told):
        predict_files(predictor, [path], out, block_bytes=BLOCK_BYTES, on_rows=change)
    assert not out.exists()


def test_a_lost_worker_is_told_with_what_to_do(
    job: Job, tmp_path: Path, predictor: BatchPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recsys_had.engines.local import ProcessPool
    from recsys_had.errors import WorkerLostError

    def lost(self: ProcessPool, function: Any, tasks: Any) -> Iterator[Any]:
        raise WorkerLostError("a worker process was killed.")
        yield

    monkeypatch.setattr(ProcessPool, "map", lost)
    with pytest.raises(WorkerLostError, match=r"killed\. Add --resume\.$"):
        predict_files(predictor, [job.raw], tmp_path / "s", num_workers=2)
    monkeypatch.undo()
    assert predict_files(predictor, [job.raw], tmp_path / "s", resume=True).rows == 3000
