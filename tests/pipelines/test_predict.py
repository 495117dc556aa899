"""``recsys-had predict``: every row once, in order, whatever the input looks like."""

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from recsys_had.errors import DataError
from recsys_had.scoring import BatchPredictor

COLUMNS = ["label", "age", "visits", "user", "item", "tags", "session"]


def scores_of(folder: Path) -> pd.DataFrame:
    parts = sorted(folder.glob("part-*.parquet"))
    return pd.concat([pq.read_table(part).to_pandas() for part in parts], ignore_index=True)


def raw_frame(job) -> pd.DataFrame:
    return pd.read_csv(job.raw, sep="\t", names=COLUMNS, dtype=str, keep_default_na=False)


def predict(cli, job, out: Path, *words: object, source: Path | None = None):
    return cli("predict", job.run, "--input", source or job.raw, "--out", out, "--json", *words)


def test_every_row_is_scored_once_in_order_with_its_kept_columns(cli, job, tmp_path) -> None:
    done = predict(cli, job, tmp_path / "s", "--keep", "session", "--keep", "user")
    assert done.code == 0, done.err
    found = scores_of(tmp_path / "s")
    assert list(found.columns) == ["row_id", "session", "user", "score"]
    assert found["row_id"].tolist() == list(range(3000))
    assert found["session"].tolist() == raw_frame(job)["session"].tolist()
    assert found["score"].dtype == np.float32
    assert found["score"].between(0, 1).all()
    assert done.json["rows"] == 3000
    assert set(done.json["oov"]) == {"visits", "user", "item", "tags"}
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert names == {"_SUCCESS", "manifest.json", "part-00000.parquet"}


def test_evaluate_equals_scikit_learn_on_what_predict_writes(cli, job, tmp_path) -> None:
    predict(cli, job, tmp_path / "s")
    score = scores_of(tmp_path / "s")["score"].to_numpy()
    for split in ("valid", "test"):
        parts = sorted((job.data / split).glob("part-*.parquet"))
        rows = pd.concat([pd.read_parquet(part) for part in parts])
        expected = roc_auc_score(rows["label"], score[rows["row_id"]])
        found = cli("evaluate", job.run, "--data", job.data, "--split", split, "--json").json
        assert found["auc"] == pytest.approx(expected, abs=1e-6)


def test_the_label_is_not_needed_and_changes_nothing(cli, job, tmp_path) -> None:
    unlabelled = tmp_path / "unlabelled.tsv"
    lines = job.raw.read_text().splitlines()
    unlabelled.write_text("\n".join(line.split("\t", 1)[1] for line in lines) + "\n")
    predict(cli, job, tmp_path / "a")
    predict(cli, job, tmp_path / "b", source=unlabelled)
    pd.testing.assert_frame_equal(scores_of(tmp_path / "a"), scores_of(tmp_path / "b"))


def test_files_count_on_in_the_order_given_and_formats_agree(cli, job, tmp_path) -> None:
    frame = raw_frame(job)
    first, second = tmp_path / "first.tsv.gz", tmp_path / "second.parquet"
    with gzip.open(first, "wt") as stream:
        stream.write("\n".join(job.raw.read_text().splitlines()[:1000]) + "\n")
    rest = frame.iloc[1000:].replace("", None)
    rest.astype({"visits": "int64", "label": "int64"}).to_parquet(second)
    predict(cli, job, tmp_path / "one")
    done = cli("predict", job.run, "--input", first, second, "--out", tmp_path / "two")
    assert done.code == 0, done.err
    pd.testing.assert_frame_equal(scores_of(tmp_path / "one"), scores_of(tmp_path / "two"))


def test_frames_of_any_type_score_as_the_file_does(cli, job, tmp_path) -> None:
    predict(cli, job, tmp_path / "s")
    expected = scores_of(tmp_path / "s")["score"].to_numpy()
    predictor = BatchPredictor.load(job.run)
    as_text = raw_frame(job)
    guessed = pd.read_csv(job.raw, sep="\t", names=COLUMNS)
    assert guessed["age"].dtype == np.float64  # pandas turns integers with gaps into floats
    for frame in (
        as_text,
        guessed,
        guessed.drop(columns=["label", "session"]),
        guessed[list(reversed(COLUMNS))],
        pl.from_pandas(as_text),
        pl.from_pandas(guessed).lazy(),
        pa.Table.from_pandas(guessed),
    ):
        np.testing.assert_allclose(predictor.score_frame(frame), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [{"age": [1]}, [[1]], None])
def test_what_is_no_frame_is_refused_with_what_is_one(job, rows: object) -> None:
    told = (
        r"^score_frame: must be a pandas DataFrame, a polars DataFrame or LazyFrame, or an Arrow "
        rf"Table; got {type(rows).__name__}\. Make it a frame, for example with "
        r"polars\.DataFrame\(rows\)\.$"
    )
    with pytest.raises(TypeError, match=told):
        BatchPredictor.load(job.run).score_frame(rows)


def test_a_frame_without_a_column_is_refused_with_the_nearest_name(job) -> None:
    frame = raw_frame(job).rename(columns={"user": "usr"})
    with pytest.raises(DataError, match=r"^column user: is missing\. Did you mean 'usr'\?$"):
        BatchPredictor.load(job.run).score_frame(frame)


def test_batches_of_any_size_give_the_same_scores(job) -> None:
    frame = raw_frame(job)
    whole = BatchPredictor.load(job.run).score_frame(frame)
    for batch_size in (1, 7):
        some = BatchPredictor.load(job.run, batch_size=batch_size).score_frame(frame[:100])
        np.testing.assert_allclose(some, whole[:100], rtol=0, atol=1e-6)


def test_values_never_seen_are_counted_and_missing_ones_are_not(cli, job, tmp_path) -> None:
    raw = tmp_path / "new.tsv"
    raw.write_text("30\t5\tu1\tnew\tt1,never,t9\ts\n" + "\t\t\t\t\ts\n")
    done = predict(cli, job, tmp_path / "s", source=raw)
    assert done.code == 0, done.err
    assert done.json["oov"] == {"visits": 0, "user": 0, "item": 1, "tags": 2}
    assert np.isfinite(scores_of(tmp_path / "s")["score"]).all()


def test_a_row_of_values_never_seen_scores_as_one_of_missing_values(cli, job, tmp_path) -> None:
    raw = tmp_path / "strange.tsv"
    raw.write_text("30\t\tu999\ti999\tt999\ts\n" * 5 + "30\t\t\t\t\ts\n" * 5)
    done = predict(cli, job, tmp_path / "s", source=raw)
    assert done.code == 0, done.err
    assert done.json["oov"] == {"visits": 0, "user": 5, "item": 5, "tags": 5}
    scores = scores_of(tmp_path / "s")["score"]
    assert np.isfinite(scores).all()
    assert scores.nunique() == 1


def test_a_file_in_which_everything_is_missing_is_scored(cli, job, tmp_path) -> None:
    raw = tmp_path / "missing.tsv"
    raw.write_text("\t\t\t\t\t\n" * 300)
    done = predict(cli, job, tmp_path / "s", source=raw)
    assert done.code == 0, done.err
    assert done.json["rows"] == 300
    assert sum(done.json["oov"].values()) == 0
    assert scores_of(tmp_path / "s")["score"].between(0, 1, inclusive="neither").all()


def test_no_rows_give_no_scores_and_a_whole_folder(cli, job, tmp_path) -> None:
    empty = tmp_path / "none.parquet"
    pl.DataFrame({name: pl.Series([], dtype=pl.String) for name in COLUMNS}).write_parquet(empty)
    done = predict(cli, job, tmp_path / "s", source=empty)
    assert done.code == 0, done.err
    assert done.json["rows"] == 0
    assert scores_of(tmp_path / "s").columns.tolist() == ["row_id", "score"]
    assert (tmp_path / "s" / "_SUCCESS").exists()


def test_wrong_input_is_told_and_leaves_nothing(cli, job, tmp_path) -> None:
    cases = {
        "empty.tsv": ("", "empty.tsv: "),
        "short.tsv": ("30\t5\tu1\ti1\tt1\ts\n30\t5\tu1\n", "short.tsv:2: "),
        "text.tsv": ("30\tmany\tu1\ti1\tt1\ts\n", "text.tsv:1: "),
    }
    for name, (text, told) in cases.items():
        (tmp_path / name).write_text(text)
        done = predict(cli, job, tmp_path / "s", source=tmp_path / name)
        assert done.code == 2, name
        assert told in done.err
        assert "Traceback" not in done.err
        assert not (tmp_path / "s").exists()
    missing = predict(cli, job, tmp_path / "s", source=tmp_path / "nowhere.tsv")
    assert missing.code == 2
    assert "nowhere.tsv" in missing.err


def test_keeping_a_column_that_is_not_there_is_refused(cli, job, tmp_path) -> None:
    done = predict(cli, job, tmp_path / "s", "--keep", "sesion")
    assert done.code == 2
    assert "sesion" in done.err
    assert "Did you mean 'session'?" in done.err
    assert not (tmp_path / "s").exists()


def test_a_column_of_a_side_table_cannot_be_kept(cli, tmp_path: Path) -> None:
    card, experiment = tmp_path / "shop.yaml", tmp_path / "fm.yaml"
    card.write_text(
        "name: shop\nformat: {type: csv}\n"
        "columns: {click: {kind: label}, item: {kind: categorical}}\n"
        "lookups:\n  items:\n    file: items.csv\n    key: item\n    format: {type: csv}\n"
        "    columns: {item: {kind: id}, brand: {kind: categorical}}\n"
        "split: {by: content_hash, ratios: {train: 0.8, valid: 0.2}}\n"
    )
    (tmp_path / "items.csv").write_text("item,brand\na,x\nb,y\n")
    raw = tmp_path / "rows.csv"
    raw.write_text("click,item\n" + "1,a\n0,b\n" * 50)
    experiment.write_text("dataset: shop.yaml\nmodel: {nodes: [fm]}\n")
    data, run = tmp_path / "data", tmp_path / "run"
    assert cli("ingest", card, "--raw", f"train={raw}", "--out", data).code == 0
    done = cli("train", experiment, "--data", data, "--out", run, "--no-tracking")
    assert done.code == 0, done.err
    words = ("predict", run, "--input", raw, "--out", tmp_path / "s")
    done = cli(*words, "--keep", "item", "brand")
    assert done.code == 2
    assert done.err == (
        "--keep brand: comes from the side table items.csv, not from the raw rows, and cannot be "
        "kept. Keep item and join by it.\n"
    )
    assert not (tmp_path / "s").exists()
    assert cli(*words, "--keep", "item").code == 0


@pytest.mark.parametrize("name", ["score", "row_id"])
def test_a_kept_column_may_not_take_the_place_of_the_scores_own(
    cli, job, tmp_path, name: str
) -> None:
    done = predict(cli, job, tmp_path / "s", "--keep", name)
    assert done.code == 2
    assert f"--keep {name}: scores have a column {name} of their own." in done.err
    assert not (tmp_path / "s").exists()


def test_extra_columns_are_ignored_and_said_once(cli, job, tmp_path) -> None:
    source = tmp_path / "more.parquet"
    raw_frame(job).assign(colour="red").to_parquet(source)
    done = predict(cli, job, tmp_path / "s", source=source)
    assert done.code == 0
    assert done.err.count("colour") == 1


def test_a_full_disk_leaves_nothing(cli, job, tmp_path, monkeypatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    done = predict(cli, job, tmp_path / "s")
    assert done.code == 2
    assert "No space is left on the device" in done.err
    assert not (tmp_path / "s").exists()


def test_a_finished_folder_is_kept_unless_told_otherwise(cli, job, tmp_path) -> None:
    predict(cli, job, tmp_path / "s")
    assert predict(cli, job, tmp_path / "s").code == 2
    assert predict(cli, job, tmp_path / "s", "--overwrite").code == 0


def test_a_killed_prediction_goes_on_and_ends_the_same(cli, job, tmp_path) -> None:
    """kill -9 in a process of its own; the parts already whole are not written again."""
    raw = tmp_path / "many"
    raw.mkdir()
    lines = job.raw.read_text().splitlines(keepends=True)
    for number in range(12):
        (raw / f"{number:02d}.tsv").write_text("".join(lines[number * 250 : (number + 1) * 250]))
    out = tmp_path / "s"
    slowed = (
        "import time, pathlib, recsys_had.scoring as p\n"
        "before = p.BatchPredictor.score_rows\n"
        "def slow(self, rows, **options):\n"
        "    time.sleep(0.05)\n"
        "    return before(self, rows, **options)\n"
        "p.BatchPredictor.score_rows = slow\n"
        f"p.predict_files(p.BatchPredictor.load({str(job.run)!r}), "
        f"[{str(raw / '*.tsv')!r}], pathlib.Path({str(out)!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", slowed])
    deadline = time.monotonic() + 120
    while len(list(out.glob(".work/state/*.json"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in out.glob(".work/publish/part-*.parquet")}
    assert not (out / "_SUCCESS").exists()
    resumed = cli("predict", job.run, "--input", raw / "*.tsv", "--out", out, "--resume", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["rows"] == 3000
    published = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert len(kept) >= 3
    assert all(published[path.name] == time_ns for path, time_ns in kept.items())
    predict(cli, job, tmp_path / "whole")
    pd.testing.assert_frame_equal(scores_of(out), scores_of(tmp_path / "whole"))
    manifest = json.loads((out / "manifest.json").read_text())
    assert sum(part["rows"] for part in manifest["parts"]) == 3000


def test_an_interrupted_prediction_exits_130_and_keeps_its_work(
    cli, job, tmp_path, monkeypatch
) -> None:
    def interrupt(self: BatchPredictor, rows: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BatchPredictor, "score_rows", interrupt)
        assert predict(cli, job, tmp_path / "s").code == 130
    assert (tmp_path / "s" / ".work").exists()
    assert "holds unfinished work" in predict(cli, job, tmp_path / "s").err
    assert predict(cli, job, tmp_path / "s", "--resume").json["rows"] == 3000


def test_scores_are_tables_anyone_can_read(cli, job, tmp_path) -> None:
    predict(cli, job, tmp_path / "s")
    schema = pq.read_schema(tmp_path / "s" / "part-00000.parquet")
    assert schema.field("row_id").type == pa.int64()
    assert schema.field("score").type == pa.float32()
