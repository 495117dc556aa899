"""Mistakes in rows that are scored: a table of them, tried on every kind of file and stream.

Whatever the kind, a mistake is one line with its place and exit code 2, nothing is left behind, and
no value is taken for another; what a whole input may be like is in test_predict_inputs.py, frames
and HTTP bodies are in test_frame_mistakes.py.
"""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.pipelines.every_kind import COLUMNS, Row
from tests.pipelines.mistaken_inputs import (
    KINDS,
    ROWS,
    TEXT_KINDS,
    VALUES,
    Kind,
    Predict,
    bare,
    coded,
    csv,
    every_kind,
    line,
    parquet,
    stream,
    table,
    told_of,
    tsv,
    wrong_rows,
    zst,
)


@every_kind
def test_right_rows_score_alike(predict: Predict, kind: Kind, expected: Any) -> None:
    done = predict(kind, kind.write(ROWS))
    assert done.code == 0, done.err
    scores = predict.scores()
    assert scores["row_id"].to_list() == list(range(30))
    np.testing.assert_array_equal(scores["score"], expected)


@every_kind
def test_a_wrong_value_is_told_with_its_place_or_rejected(
    predict: Predict, kind: Kind, expected: Any
) -> None:
    content = kind.write(wrong_rows())
    place = predict.place(kind)
    told = [f"{place}{kind.place(number)}: {told_of(number)}" for number in range(len(VALUES))]
    predict.refused(predict(kind, content), *told)
    done = predict(kind, content, "--on-error", "reject", "--keep", "session")
    assert done.code == 0, done.err
    assert (done.json["rows_read"], done.json["rows"]) == (30, 30 - len(VALUES))
    assert done.json["rows_rejected"] == len(VALUES)
    rejects = pl.read_parquet(predict.out / "rejects.parquet")
    assert rejects["row_id"].to_list() == list(range(len(VALUES)))
    assert rejects["reason"].to_list() == [told_of(number) for number in range(len(VALUES))]
    scores = predict.scores()
    assert scores["session"].to_list() == [row["session"] for row in ROWS[len(VALUES) :]]
    np.testing.assert_array_equal(scores["score"], expected[len(VALUES) :])


# A line in the place of the fourth row, and what is told. Of CSV alone: the last two.
LINES = [
    (b"1,2", b"1\t2", "holds 2 columns; 8 are expected."),
    (b"1,2,3,4,5,6,7,8,9", b"1\t2\t3\t4\t5\t6\t7\t8\t9", "holds 9 columns; 8 are expected."),
    (b"", b"", "is blank. Remove the line."),
    (b"0,5,\xff,,,,,", b"0\t5\t\xff\t\t\t\t\t", "must be UTF-8; got the byte 0xff."),
    (b'0,5,,,"u"1,,,', None, "a quote stands inside a column"),
]


@pytest.mark.parametrize("name", TEXT_KINDS)
def test_a_line_that_is_no_row_is_told_or_rejected(
    predict: Predict, name: str, expected: Any
) -> None:
    kind = KINDS[name]
    for of_csv, of_tsv, told in LINES:
        wrong = of_csv if kind.run != "tsv" else of_tsv
        if wrong is None:
            continue
        lines = (csv if kind.run == "csv" else bare if kind.run == "bare" else tsv)(ROWS).split(
            b"\n"
        )
        lines[3 + (kind.run == "csv")] = wrong
        content = b"\n".join(lines)
        content = {".gz": gzip.compress, ".zst": zst}.get(Path(kind.name).suffix, bytes)(content)
        done = predict(kind, content)
        place = f"{predict.place(kind)}{kind.place(3)}"
        assert done.err.startswith(f"{place}: {told}")
        predict.refused(done, done.err.strip("\n"))
        done = predict(kind, content, "--on-error", "reject")
        assert done.code == 0, done.err
        assert (done.json["rows_read"], done.json["rows_rejected"]) == (30, 1)
        rejects = pl.read_parquet(predict.out / "rejects.parquet")
        assert rejects["row_id"].to_list() == [3]
        assert f"{rejects['file'][0]}:{rejects['line'][0]}" == place
        assert rejects["reason"][0].startswith(told)
        np.testing.assert_array_equal(predict.scores()["score"], np.delete(expected, 3))


@every_kind
def test_a_row_without_a_score_is_told_or_rejected(
    predict: Predict, kind: Kind, expected: Any
) -> None:
    """A number that is finite, and too large for the model."""
    rows = [{**row, "price": "3e38"} if number in (3, 29) else row for number, row in
            enumerate(ROWS)]  # fmt: skip
    rows[5] = {**rows[5], "age": "old"}
    told = "has a score that is not a number. Are its numbers too large, or the run's weights bad?"
    place = predict.place(kind)
    right = kind.write([row for number, row in enumerate(rows) if number != 5])
    predict.refused(
        predict(kind, right), *[f"{place}{kind.place(number)}: {told}" for number in (3, 28)]
    )
    words = ("--on-error", "reject", "--explain", "2", "--keep", "user")
    done = predict(kind, kind.write(rows), *words)
    assert done.code == 0, done.err
    assert (done.json["rows_read"], done.json["rows"], done.json["rows_rejected"]) == (30, 27, 3)
    rejects = pl.read_parquet(predict.out / "rejects.parquet")
    assert rejects["row_id"].to_list() == [3, 5, 29]
    assert rejects["reason"].to_list() == [
        told, "column age: must be a whole number; got 'old'.", told
    ]  # fmt: skip
    scores = predict.scores()
    assert scores["user"].to_list() == [row["user"] for row in np.delete(ROWS, [3, 5, 29])]
    assert scores["explanation"].list.len().to_list() == [2] * 27
    np.testing.assert_array_equal(scores["score"], np.delete(expected, [3, 5, 29]))


@every_kind
def test_files_and_streams_at_scoring(predict: Predict, kind: Kind, expected: Any) -> None:
    def scored(rows: Sequence[Row]) -> Any:
        done = predict(kind, kind.write(rows))
        assert done.code == 0, done.err
        return predict.scores()["score"].to_numpy(), done

    found, done = scored([{**row, "click": "perhaps"} for row in ROWS])
    np.testing.assert_array_equal(found, expected)
    if kind.place is not line:
        found, done = scored([{**row, "colour": "red", "z": "1"} for row in ROWS])
        np.testing.assert_array_equal(found, expected)
        told = f"{predict.place(kind)}: not in the card and so not read: colour, z.\n"
        assert done.err == told
    unseen, done = scored([{**row, "user": "never", "tags": "never"} for row in ROWS])
    assert (done.json["oov"]["user"], done.json["oov"]["tags"]) == (30, 30)
    missing, done = scored([{**row, "user": "", "tags": ""} for row in ROWS])
    assert done.json["oov"]["user"] == 0
    np.testing.assert_array_equal(unseen, missing)
    nothing, done = scored([dict.fromkeys(COLUMNS, "") for _ in ROWS])
    assert np.isfinite(nothing).all() and sum(done.json["oov"].values()) == 0


@pytest.mark.parametrize("name", ["csv", "csv.zst", "parquet", "stream"])
def test_no_rows_are_a_whole_folder(predict: Predict, name: str) -> None:
    kind = KINDS[name]
    content = {
        "csv": csv(ROWS[:1]).split(b"\n")[0] + b"\n",
        "csv.zst": zst(csv(ROWS[:1]).split(b"\n")[0]),
        "parquet": parquet(table(ROWS).slice(0, 0)),
        "stream": stream(coded(ROWS).slice(0, 0)),
    }[name]
    for on_error in ("stop", "reject"):
        done = predict(kind, content, "--on-error", on_error, "--keep", "session")
        assert (done.code, done.json["rows_read"], done.json["rows"]) == (0, 0, 0), done.err
        assert (predict.out / "_SUCCESS").exists()
        assert predict.scores().schema["score"] == pl.Float32
