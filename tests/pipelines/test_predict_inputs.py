"""Whole inputs of ``recsys-had predict`` that are faulty, or only seem so."""

import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from recsys_had.scoring import BatchPredictor
from tests.pipelines.every_kind import COLUMNS, right_rows
from tests.pipelines.mistaken_inputs import (
    KINDS,
    ROWS,
    Predict,
    bare,
    csv,
    parquet,
    stream,
    table,
    told_of,
    tsv,
    without,
    wrong_rows,
    zst,
)


def with_line(content: bytes, number: int, line: bytes) -> bytes:
    lines = content.split(b"\n")
    lines[number] = line
    return b"\n".join(lines)


SEEMING = {
    "a mark": ("csv", b"\xef\xbb\xbf" + csv(ROWS)),
    "returns": ("csv", csv(ROWS).replace(b"\n", b"\r\n")),
    "no last line end": ("csv", csv(ROWS)[:-1]),
    "quotes": ("csv", csv(ROWS).replace(b"u2,", b'"u2",').replace(b"click,", b'"click",')),
    "a mark, TSV": ("tsv", b"\xef\xbb\xbf" + tsv(ROWS)),
    "returns, TSV": ("tsv", tsv(ROWS).replace(b"\n", b"\r\n")),
    "two parts, gz": ("tsv.gz", gzip.compress(tsv(ROWS[:9])) + gzip.compress(tsv(ROWS[9:]))),
    "other columns' order": ("csv", csv([dict(reversed(row.items())) for row in ROWS])),
    "no label": ("csv", csv(without("click"))),
    "no label, no header": ("csv without a header", bare(without("click"))),
    "a label that is none": ("csv", csv([{**row, "click": "perhaps"} for row in ROWS])),
    "no session": ("csv", csv(without("session"))),
}


@pytest.mark.parametrize("name, content", SEEMING.values(), ids=SEEMING)
def test_what_is_no_mistake(predict: Predict, name: str, content: bytes, expected: Any) -> None:
    done = predict(KINDS[name], content)
    assert (done.code, done.err) == (0, ""), done.err
    np.testing.assert_array_equal(predict.scores()["score"], expected)


def test_a_quote_means_nothing_in_tsv(predict: Predict, kind_predictor: BatchPredictor) -> None:
    """An open one does not swallow the rows that follow it, and is part of the value."""
    rows = [{**row, "user": '"' + row["user"]} if number == 2 else row for number, row in
            enumerate(ROWS)]  # fmt: skip
    done = predict(KINDS["tsv"], tsv(rows))
    assert (done.code, done.json["rows"], done.json["oov"]["user"]) == (0, 30, 1), done.err
    np.testing.assert_array_equal(
        predict.scores()["score"], kind_predictor.score_frame(pl.DataFrame(rows))
    )


ZIPPED = gzip.compress(tsv(right_rows(5000)))
TWICE = pa.table([pa.array(["a"])] * 9, [*COLUMNS, "user"])
FAULTY = {
    "empty": ("csv", b"", "{file}: is empty. Remove it, or give the file that holds the rows."),
    "empty, gz": ("tsv.gz", gzip.compress(b""), "{file}: is empty. Remove it, or give the file "),
    "cut, gz": ("tsv.gz", ZIPPED[:-2000], "{file}: cannot be decompressed to its end; the file is"),
    "cut, zst": ("csv.zst", zst(csv(ROWS))[:-20], "{file}: cannot be decompressed to its end; "),
    "not squeezed": ("tsv.gz", tsv(ROWS), "{file}: cannot be decompressed to its end; the file "),
    "no column": ("csv", csv(without("user")), "{file}:1: column user: is missing. Known: "),
    "a near name": (
        "csv", csv(ROWS).replace(b"user", b"usr", 1),
        "{file}:1: column user: is missing. Did you mean 'usr'?",
    ),
    "a column twice": (
        "csv", csv(ROWS).replace(b"session", b"user", 1), "{file}:1: column user: stands twice. "
    ),
    "another separator": (
        "csv", csv(ROWS).replace(b",", b"\t"),
        "{file}:1: holds 1 column, and 6 are asked for. The line holds tabs. Is format.type 'csv' "
    ),
    "no header": ("csv", bare(ROWS), "{file}:1: column age: is missing. Known: "),
    "a header that is none": ("tsv", b"\t".join(c.encode() for c in COLUMNS) + b"\n" + tsv(ROWS),
                              "{file}:1: column age: must be a whole number; got 'age'."),
    "fewer columns": (
        "tsv", b"1\t2\n", "{file}:1: holds 2 columns; the card has 8 (7 without click). "
    ),
    "an open quote": (
        "csv", with_line(csv(ROWS), 4, b'0,20,1,,"u1,,,s3'),
        "{file}:5: a quote stands inside a column or is never closed. Put the column in quotes ",
    ),
    "UTF-16": ("csv", csv(ROWS).decode().encode("utf-16"), "{file}:1: must be UTF-8; got the byte"),
    "no Parquet": ("parquet", csv(ROWS), "{file}: is not a readable Parquet file: "),
    "cut, Parquet": ("parquet", parquet(table(ROWS))[:-50], "{file}: is not a readable Parquet "),
    "no column, Parquet": (
        "parquet", parquet(table(without("user"))), "{file}: column user: is missing. Known: "
    ),
    "twice, Parquet": ("parquet", parquet(TWICE), "{file}: column user: stands twice. Rename one "),
    "of structs, Parquet": (
        "parquet", parquet(pa.table({**table(ROWS).to_pydict(), "user": [{"a": 1}] * 30})),
        "{file}: column user: must hold text or numbers; got Struct({{'a': Int64}}).",
    ),
    "of lists, Parquet": (
        "parquet", parquet(pa.table({**table(ROWS).to_pydict(), "age": [[1]] * 30})),
        "{file}: column age: must hold text or numbers; got List(Int64).",
    ),
    "decimals of 256 bits, Parquet": (
        "parquet",
        parquet(table(ROWS).set_column(1, "age", pa.array([Decimal(1)] * 30, pa.decimal256(50)))),
        "{file}: column age: must hold text, numbers, times or lists of them; got decimal256(50, ",
    ),
    "empty stream": ("stream", b"", "{file}: is not an Arrow stream: "),
    "no stream": ("stream", csv(ROWS), "{file}: is not an Arrow stream: "),
    "a stream cut": ("stream", stream(table(ROWS))[:-200], "{file}: cannot be read to its end: "),
    "a stream without its end": (
        "stream", stream(table(ROWS))[:-8], "{file}: is cut off: the mark that ends an Arrow str"
    ),
    "two streams": (
        "stream", stream(table(ROWS)) * 2, "{file}: goes on after the end of the Arrow stream. "
    ),
    "no column, stream": (
        "stream", stream(table(without("user"))), "{file}: column user: is missing. Known: "
    ),
    "of unions, stream": (
        "stream",
        stream(table(ROWS).set_column(4, "user", pa.UnionArray.from_sparse(
            pa.array([0] * 30, pa.int8()), [pa.array(["u1"] * 30)]))),
        "{file}: column user: must hold text, numbers, times or lists of them; got sparse_union",
    ),
}  # fmt: skip


SEVERAL = {
    "no header": ("age", "price", "time", "user", "tags", "image"),
    "a header that is none": ("age", "price", "time", "image"),
}


@pytest.mark.parametrize("on_error", ["stop", "reject"])
@pytest.mark.parametrize("named", FAULTY)
def test_a_faulty_input_is_told_and_leaves_nothing(
    predict: Predict, named: str, on_error: str
) -> None:
    """In one line, or in one for each column."""
    name, content, told = FAULTY[named]
    kind = KINDS[name]
    done = predict(kind, content, "--on-error", on_error)
    if on_error == "reject" and named == "a header that is none":
        assert done.json["rows_rejected"] == 1  # a row like any other
        return
    lines = done.err.splitlines()
    assert lines[0].startswith(told.format(file=predict.place(kind))), done.err
    assert len(lines) == (len(SEVERAL[named]) if named in SEVERAL else 1)
    for told_of_column, column in zip(lines, SEVERAL.get(named, []), strict=False):
        assert f": column {column}: " in told_of_column
    predict.refused(done, *lines)


def test_of_several_files_each_faulty_one_is_told(predict: Predict, kind_runs: dict[str, Path],
                                                  cli: Any) -> None:  # fmt: skip
    folder = predict.folder
    (folder / "a.csv").write_bytes(csv(ROWS))
    (folder / "b.csv").write_bytes(b"")
    (folder / "c.csv").write_bytes(csv(without("user")))
    (folder / "sub").mkdir()
    run, out = kind_runs["csv"], predict.out
    words = ("predict", run, "--out", out, "--input")
    missing = f"{folder}/nowhere.csv: there is no such file."
    predict.refused(
        cli(*words, folder / "*.csv", folder / "x*.csv", folder / "nowhere.csv", folder / "sub"),
        f"{folder}/b.csv: is empty. Remove it, or give the file that holds the rows.",
        f"{folder}/x*.csv: no file matches the pattern.",
        missing,
        f"{folder}/sub: is a folder. Name its files, for example '{folder}/sub/*'.",
    )
    (folder / "b.csv").write_bytes(csv(without("time")))
    done = cli(*words, folder / "*.csv")
    places = [told.split(" is missing")[0] for told in done.err.splitlines()]
    assert places == [f"{folder}/b.csv:1: column time:", f"{folder}/c.csv:1: column user:"]
    predict.refused(done, *done.err.splitlines())
    # A wrong row in the last file, after the others have been scored.
    (folder / "b.csv").write_bytes(csv(ROWS))
    (folder / "c.csv").write_bytes(csv(wrong_rows()[:1]))
    predict.refused(cli(*words, folder / "*.csv"), f"{folder}/c.csv:2: {told_of(0)}")
    done = cli(*words, folder / "*.csv", "--on-error", "reject", "--json")
    assert (done.json["rows_read"], done.json["rows"], done.json["rows_rejected"]) == (61, 60, 1)
    assert pl.read_parquet(out / "rejects.parquet")["row_id"].to_list() == [60]


def test_further_columns_of_many_files_are_told_once(predict: Predict, kind_runs: dict[str, Path],
                                                     cli: Any) -> None:  # fmt: skip
    for name in ("a", "b", "c"):
        rows = [{**row, "colour": "red"} for row in ROWS]
        (predict.folder / f"{name}.csv").write_bytes(csv(rows))
    words = ("predict", kind_runs["csv"], "--input", predict.folder / "*.csv", "--out", predict.out)
    done = cli(*words)
    assert done.code == 0
    assert done.err == (
        f"{predict.folder}/a.csv and 2 other files: not in the card and so not read: colour.\n"
    )
