"""``recsys-had ingest``: whole data folders, or one line per problem and nothing left."""

import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from recsys_had.data.encoder_files import load_encoder
from recsys_had.data.folder import DataFolder

GOOD = "1\t30\t5\tu1\ti1\tt1,t2\ts1\n0\t\t7\tu2\ti1\t\ts2\n"


def encoded(folder: Path) -> pl.DataFrame:
    """All rows of a data folder, in the order of their ids."""
    frames = [
        pl.read_parquet(part).with_columns(split=pl.lit(part.parent.name))
        for part in sorted(folder.glob("*/part-*.parquet"))
    ]
    return pl.concat(frames).sort("row_id")


def ingest(cli, job, raw: object, out: Path, *words: object):
    return cli("ingest", job.card, "--raw", raw, "--out", out, "--json", *words)


def test_the_report_holds_what_scripts_rely_on(job) -> None:
    report = job.ingested
    assert report["rows_read"] == 3000 == sum(report["rows"].values())
    assert set(report["rows"]) == {"train", "valid", "test"}
    assert report["num_embeddings"] == DataFolder.open(job.data).num_embeddings
    assert report["rows_per_s"] > 0
    assert report["peak_rss_bytes"] > 50_000_000


def test_a_data_folder_holds_shards_vocabularies_and_a_manifest_with_digests(job) -> None:
    names = {path.name for path in job.data.iterdir()}
    assert {"manifest.json", "train", "valid", "test", "vocab"} <= names
    assert ".work" not in names
    manifest = json.loads((job.data / "manifest.json").read_text())
    assert manifest["card_digest"] == DataFolder.open(job.data).card.digest
    assert manifest["vocabulary_digest"] == load_encoder(job.data).digest
    assert {"polars", "pyarrow", "recsys_had"} <= set(manifest["versions"])
    parts = {str(path.relative_to(job.data)) for path in job.data.glob("*/part-*.parquet")}
    assert set(manifest["parts"]) == parts
    for part in parts:
        metadata = pq.read_metadata(job.data / part)
        assert metadata.row_group(0).column(0).compression == "ZSTD"
        assert metadata.num_rows == manifest["parts"][part]["rows"]
    users = pl.read_parquet(job.data / "vocab" / "user.parquet")
    assert users["id"].to_list() == list(range(1, 21))


def test_a_split_given_on_the_command_line_overrules_the_card(cli, job, tmp_path: Path) -> None:
    text = job.raw.read_text().splitlines(keepends=True)
    for name, part in (("a", text[:2000]), ("b", text[2000:2500]), ("c", text[2500:])):
        (tmp_path / f"{name}.tsv").write_text("".join(part))
    done = cli(
        *("ingest", job.card, "--raw", f"train={tmp_path}/a.tsv", f"valid={tmp_path}/b.tsv"),
        *(f"test={tmp_path}/c.tsv", "--out", tmp_path / "data", "--json"),
    )
    assert done.code == 0, done.err
    assert done.json["rows"] == {"train": 2000, "valid": 500, "test": 500}
    assert encoded(tmp_path / "data")["row_id"].to_list() == list(range(3000))


def test_some_inputs_with_a_split_and_some_without_are_refused(cli, job, tmp_path: Path) -> None:
    words = ("--raw", f"train={job.raw}", str(job.raw), "--out", tmp_path / "data")
    done = cli("ingest", job.card, *words)
    assert done.code == 2
    assert done.err.startswith(f"{job.raw}: has no split, and other inputs have one.")
    done = cli("ingest", job.card, "--raw", f"trian={job.raw}", "--out", tmp_path / "data")
    assert done.code == 2
    assert "split 'trian': must be one of train, valid, test." in done.err
    assert not (tmp_path / "data").exists()


BAD = {
    "a row with too few columns": (GOOD + "1\t3\n", ":3: holds 2 columns; 7 are expected."),
    "a row with too many": (
        GOOD + "1\t3\t4\tu\ti\tt\ts\tx\n",
        ":3: holds 8 columns; 7 are expected.",
    ),
    "text for an integer": (
        GOOD.replace("30", "young"),
        ":1: column age: must be a whole number; got 'young'.",
    ),
    "a label of 2": (
        "2" + GOOD[1:],
        ":1: column label: must be 0 or 1; got '2'. If it is a rating, let positive_from in the "
        "card say from where on it counts as 1.",
    ),
    "a label in words": (
        "True" + GOOD[1:],
        ":1: column label: must be 0 or 1; got 'True'. Write 1 and 0 in the raw rows.",
    ),
    "no label": (GOOD[1:], ":1: column label: must be 0 or 1; got nothing."),
    "an empty file": ("", ": is empty. Remove it, or give the file that holds the rows."),
    "a blank line": (GOOD + "\n" + GOOD, ":3: is blank. Remove the line."),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_row_is_told_with_its_file_and_line_and_nothing_is_left(
    cli, job, tmp_path: Path, case: str
) -> None:
    text, told = BAD[case]
    raw = tmp_path / "rows.tsv"
    raw.write_text(text)
    done = ingest(cli, job, raw, tmp_path / "data")
    assert done.code == 2
    assert done.err == f"{raw}{told}\n"
    assert done.out == ""
    assert not (tmp_path / "data").exists()


def test_every_problem_is_told_up_to_twenty_and_their_number(cli, job, tmp_path: Path) -> None:
    raw = tmp_path / "rows.tsv"
    raw.write_text(GOOD + "3\t3\t4\tu\ti\tt\ts\n" * 30)
    done = ingest(cli, job, raw, tmp_path / "data")
    assert done.code == 2
    lines = done.err.splitlines()
    assert lines[0].startswith(f"{raw}:3: column label: must be 0 or 1; got '3'. If it is a rating")
    assert lines[19].startswith(f"{raw}:22: ")
    assert lines[20:] == ["30 problems in all; the first 20 are shown."]


def test_a_missing_file_and_a_glob_of_nothing_are_told(cli, job, tmp_path: Path) -> None:
    done = ingest(cli, job, tmp_path / "nowhere.tsv", tmp_path / "data", f"{tmp_path}/*.tsv")
    assert done.code == 2
    done = cli(
        *("ingest", job.card, "--raw", tmp_path / "nowhere.tsv", f"{tmp_path}/*.tsv"),
        *("--out", tmp_path / "data"),
    )
    assert done.code == 2
    assert f"{tmp_path}/nowhere.tsv: there is no such file." in done.err
    assert f"{tmp_path}/*.tsv: no file matches the pattern." in done.err
    assert not (tmp_path / "data").exists()


def test_an_unreadable_file_is_told(
    cli, job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by hand, because root may read any file."""
    raw = tmp_path / "rows.tsv"
    raw.write_text(GOOD)
    before = Path.open

    def refuse(self: Path, *arguments, **options):
        if self == raw:
            raise PermissionError(errno.EACCES, "Permission denied")
        return before(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    done = ingest(cli, job, raw, tmp_path / "data")
    assert done.code == 2
    assert done.err == f"{raw}: cannot be read: Permission denied.\n"
    assert not (tmp_path / "data").exists()


def test_a_truncated_gzip_is_told_and_nothing_is_left(cli, job, tmp_path: Path) -> None:
    raw = tmp_path / "rows.tsv.gz"
    raw.write_bytes(gzip.compress(job.raw.read_bytes())[:-200])
    done = ingest(cli, job, raw, tmp_path / "data")
    assert done.code == 2
    assert done.err.startswith(f"{raw}: cannot be decompressed to its end; the file is cut off")
    assert not (tmp_path / "data").exists()


def test_a_quote_means_nothing_in_tsv(cli, job, tmp_path: Path) -> None:
    raw = tmp_path / "rows.tsv"
    raw.write_text(GOOD.replace("u1", '"u1') * 20)
    done = cli("ingest", job.card, "--raw", f"train={raw}", "--out", tmp_path / "data", "--json")
    assert done.code == 0, done.err
    assert done.json["rows"] == {"train": 40}
    values = pl.read_parquet(tmp_path / "data" / "vocab" / "user.parquet")["value"].to_list()
    assert values == ['"u1', "u2"]


def test_a_header_that_does_not_match_the_card_is_told(cli, job, tmp_path: Path) -> None:
    card = tmp_path / "card.yaml"
    card.write_text(job.card.read_text().replace("tsv, header: false", "csv"))
    raw = tmp_path / "rows.csv"
    raw.write_text("label,age,visits,usr,item,tags,session\n1,30,5,u1,i1,t1,s1\n")
    done = cli("ingest", card, "--raw", raw, "--out", tmp_path / "data")
    assert done.code == 2
    assert done.err == f"{raw}:1: column user: is missing. Did you mean 'usr'?\n"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("min_count", "min_cout", "8: columns.item.min_cout: unknown key. Did you mean"),
        (
            "min_count: 2",
            "min_count: two",
            "8: columns.item.min_count: must be a whole number; got 'two'.",
        ),
        ("kind: id", "kind: idd", "10: columns.session.kind: unknown kind 'idd'. Did you mean"),
    ],
)
def test_a_wrong_card_is_told_with_its_line(
    cli, job, tmp_path: Path, old: str, new: str, told: str
) -> None:
    card = tmp_path / "card.yaml"
    card.write_text(job.card.read_text().replace(old, new))
    done = cli("ingest", card, "--raw", job.raw, "--out", tmp_path / "data")
    assert done.code == 2
    assert done.err.startswith(f"{card}:{told}")
    assert not (tmp_path / "data").exists()


def headed(job, folder: Path) -> Path:
    """The job's card for files with a header, comma separated."""
    card = folder / "headed.yaml"
    card.write_text(job.card.read_text().replace("tsv, header: false", "csv"))
    return card


def test_a_file_of_another_separator_is_told_once(cli, job, tmp_path: Path) -> None:
    raw = tmp_path / "rows.csv"
    raw.write_text("label\tage\tvisits\tuser\titem\ttags\tsession\n" + GOOD)
    done = cli("ingest", headed(job, tmp_path), "--raw", raw, "--out", tmp_path / "data")
    assert done.code == 2
    assert done.err == (
        f"{raw}:1: holds 1 column, and 7 are asked for. The line holds tabs. Is format.type 'csv' "
        "right, which looks for commas?\n"
    )


def test_files_with_a_header_and_no_row_are_told_by_their_names(cli, job, tmp_path: Path) -> None:
    raw = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path in raw:
        path.write_text("label,age,visits,user,item,tags,session\n")
    done = cli("ingest", headed(job, tmp_path), "--raw", *raw, "--out", tmp_path / "data")
    assert done.code == 2
    assert done.err == "".join(
        f"{path}: holds no row. Give the file that holds them.\n" for path in raw
    )
    assert not (tmp_path / "data").exists()
    raw[1].write_text(raw[1].read_text() + "1,30,5,u1,i1,t1,s1\n")
    words = ("--raw", *(f"train={path}" for path in raw), "--out", tmp_path / "data")
    assert cli("ingest", headed(job, tmp_path), *words).code == 0


def test_a_card_whose_splits_are_files_asks_for_them_by_the_path_given(
    cli, job, tmp_path: Path
) -> None:
    card = tmp_path / "given.yaml"
    text = job.card.read_text()
    card.write_text(text[: text.index("split:")] + "split: {by: given}\n")
    done = cli("ingest", card, "--raw", job.raw, "--out", tmp_path / "data")
    assert done.code == 2
    assert done.err == (
        f"{card}: its splits are given as files. Write `recsys-had ingest {card} "
        "--raw train=PATH --raw valid=PATH --out DATA`.\n"
    )


def test_an_unknown_dataset_suggests_the_nearest(cli, job, tmp_path: Path) -> None:
    done = cli("ingest", "creteo", "--raw", job.raw, "--out", tmp_path / "data")
    assert done.code == 2
    assert "creteo: no bundled dataset of this name. Did you mean 'criteo'?" in done.err


def test_a_split_rule_that_leaves_nothing_to_train_on_is_told(cli, job, tmp_path: Path) -> None:
    done = cli("ingest", job.card, "--raw", f"test={job.raw}", "--out", tmp_path / "data")
    assert done.code == 2
    assert done.err.startswith("split: none of the 3,000 rows is in the training split. ")
    assert not (tmp_path / "data").exists()


def test_an_output_folder_of_somebody_else_is_left_alone(cli, job, tmp_path: Path) -> None:
    out = tmp_path / "data"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for words in ((), ("--overwrite",)):
        done = ingest(cli, job, job.raw, out, *words)
        assert done.code == 2
        assert "is not empty and holds no manifest.json" in done.err
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_finished_folder_is_kept_unless_told_otherwise(cli, job, tmp_path: Path) -> None:
    out = tmp_path / "data"
    shutil.copytree(job.data, out)
    refused = ingest(cli, job, job.raw, out)
    assert refused.code == 2
    assert "Add --overwrite" in refused.err
    assert ingest(cli, job, job.raw, out, "--overwrite").code == 0
    assert encoded(out).equals(encoded(job.data))


@pytest.mark.parametrize("writer", ["stage.write_batch", "parts._write_part"])
def test_a_full_disk_is_told_and_leaves_nothing(
    cli, job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"recsys_had.ingestion.{writer}", full)
    done = ingest(cli, job, job.raw, tmp_path / "data")
    assert done.code == 2
    assert "No space is left on the device." in done.err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_ingest_goes_on_where_it_was(
    cli, job, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """A process of its own, stopped for real; whole shards are not read again."""
    out = tmp_path / "data"
    raw = [tmp_path / f"{part:02d}.tsv" for part in range(12)]
    lines = job.raw.read_text().splitlines(keepends=True)
    for part, path in enumerate(raw):
        path.write_text("".join(lines[part * 250 : (part + 1) * 250]))
    slowed = (
        "import time, recsys_had.ingestion.stage as stage\n"
        "before = stage.write_batch\n"
        "def slow(*arguments):\n"
        "    before(*arguments)\n"
        "    time.sleep(0.1)\n"
        "stage.write_batch = slow\n"
        "from recsys_had.pipelines.cli import main\n"
        f"main(['ingest', {str(job.card)!r}, '--raw', {str(tmp_path / '*.tsv')!r}, "
        f"'--out', {str(out)!r}])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", slowed], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(out.glob(".work/state/*.arrow"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, number)
    told = process.communicate(timeout=300)[1]
    assert process.returncode == code, told
    assert "Traceback" not in told
    assert not (out / "manifest.json").exists()
    done = ingest(cli, job, tmp_path / "*.tsv", out)
    assert done.code == 0, done.err
    assert "shards were found staged by an earlier try." in done.err
    assert encoded(out).equals(encoded(job.data))
    assert load_encoder(out).digest == load_encoder(job.data).digest


def test_raw_rows_that_changed_are_not_taken_from_an_earlier_try(
    cli, job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    raw, out = tmp_path / "rows.tsv", tmp_path / "data"
    raw.write_text(GOOD * 50)
    with monkeypatch.context() as patch:
        patch.setattr("recsys_had.ingestion.parts._write_part", interrupt)
        assert ingest(cli, job, f"train={raw}", out).code == 130
    raw.write_text(GOOD.replace("u1", "u9") * 50)
    done = ingest(cli, job, f"train={raw}", out)
    assert done.code == 0
    assert "earlier try" not in done.err
    assert "u9" in pl.read_parquet(out / "vocab" / "user.parquet")["value"].to_list()


def test_wrong_rows_are_rejected_where_that_is_asked_for(cli, job, tmp_path: Path) -> None:
    raw, out = tmp_path / "rows.tsv", tmp_path / "data"
    raw.write_text(GOOD + GOOD.replace("30", "x") + "short\n" + GOOD)
    assert ingest(cli, job, f"train={raw}", out).code == 2
    words = ("ingest", job.card, "--raw", f"train={raw}", "--on-error", "reject", "--out")
    done = cli(*words, out, "--json")
    assert done.code == 0, done.err
    report = done.json
    assert (report["rows_read"], report["rows"], report["rows_rejected"]) == (7, {"train": 5}, 2)
    assert pl.read_parquet(out / "rejects.parquet")["line"].to_list() == [3, 5]
    told = cli(*words, tmp_path / "again")
    assert f"; 2 rejected, told in {tmp_path / 'again' / 'rejects.parquet'}" in told.out


def test_rows_of_one_identifier_are_counted_and_the_first_are_told(
    cli, job, tmp_path: Path
) -> None:
    raw = [tmp_path / "a.tsv", tmp_path / "b.tsv"]
    for path in raw:
        path.write_text(GOOD)
    done = ingest(cli, job, f"train={raw[0]}", tmp_path / "once")
    assert done.json["duplicate_ids"] == {"session": 0}
    assert "identifier" not in done.err
    words = ("--raw", f"train={raw[0]}", f"train={raw[1]}", f"train={raw[0]}", "--json")
    done = cli("ingest", job.card, *words, "--out", tmp_path / "data")
    assert done.json["duplicate_ids"] == {"session": 4}
    told = f"first {raw[1]}:1 (row 2, as row 0), {raw[1]}:2 (row 3, as row 1), {raw[0]}:1 (row 4, "
    assert "column session: 4 rows have the identifier of an earlier row, " + told in done.err
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert manifest["duplicate_ids"] == {"session": 4}
