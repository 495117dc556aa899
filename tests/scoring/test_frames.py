"""Frames of raw rows: a value of a pandas column of mixed kinds is the one it is elsewhere."""

from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from recsys_had.errors import DataError
from recsys_had.scoring.frames import as_polars, texts_of


@pytest.mark.parametrize(
    "value, text",
    [
        (12, "12"),
        (12.0, "12"),
        ("12", "12"),
        ("12.0", "12.0"),
        (np.int8(12), "12"),
        (np.float64(12), "12"),
        (np.float32(12), "12"),
        (np.float32(0.1), "0.1"),
        (0.1, "0.1"),
        (True, "1"),
        (np.bool_(False), "0"),
        (10**20, "100000000000000000000"),
        (None, None),
        (float("nan"), None),
        (b"\xc3\xa9", "\u00e9"),
        (Decimal("12.50"), "12.5"),
        (Decimal("1E+2"), "100"),
    ],
)
def test_a_value_has_one_text_whatever_stands_beside_it(value: object, text: str | None) -> None:
    assert texts_of([value, "x"]) == [text, "x"]
    column = pd.Series([value, "x", 3, 2.5], dtype=object)
    found = as_polars(pd.DataFrame({"a": column}))
    assert found["a"].to_list() == [text, "x", "3", "2.5"]


def test_a_column_of_one_kind_stays_of_that_kind() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, None], "c": ["x", None]})
    assert as_polars(frame).schema == {"a": pl.Int64, "b": pl.Float64, "c": pl.String}


LEFT = {"b": [object()], "label": ["?"], "z": [{"deep": {1, 2}}]}


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": ["x"], **LEFT}),
        pd.concat([pd.DataFrame({"z": [1], "a": ["x"]}), pd.DataFrame({"z": [2]})], axis=1),
        pl.DataFrame({"a": ["x"], "b": [b"\xff"]}),
        pl.DataFrame({"a": ["x"], "b": [b"\xff"]}).lazy(),
        pa.table([["x"], [1], [1]], ["a", "z", "z"]),
        pa.table({"a": ["x"], "z": pa.array([None], pa.decimal256(50, 2))}),
        pa.record_batch({"a": ["x"], "z": pa.array([None], pa.month_day_nano_interval())}),
    ],
)
def test_what_other_columns_hold_does_not_matter(frame: object) -> None:
    assert as_polars(frame, ["a"]).rows() == [("x",)]


BAD = pa.array([b"x", b"\xff"])
UTF_8 = "row 1: column a: must be UTF-8; got the byte 0xff."


@pytest.mark.parametrize(
    "frame, told",
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "column a: stands twice. Rename one of them."),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "column a: is missing. Known: 1, 1."),
        (pa.table([[1], [2]], ["a", "a"]), "column a: stands twice. Rename one of them."),
        (pl.DataFrame({"aa": [1]}), "column a: is missing. Did you mean 'aa'?"),
        (pl.LazyFrame({"b": [1]}), "column a: is missing. Known: b."),
        (pl.DataFrame({"a": [b"x", b"\xff"]}), UTF_8),
        (pd.DataFrame({"a": [b"x", b"\xff"]}), UTF_8),
        (pd.DataFrame({"a": ["x", b"\xff"]}), UTF_8),
        (pa.table({"a": BAD}), UTF_8),
        (pa.table({"a": BAD.view(pa.string())}), UTF_8),
        (pa.table({"a": pa.chunked_array([BAD[:1], BAD[1:]])}), UTF_8),
        (
            pa.table({"a": pa.DictionaryArray.from_arrays([0, 1], BAD.view(pa.string()))}),
            UTF_8,
        ),
        (
            pa.table({"a": pa.array([None], pa.decimal256(50, 2))}),
            "column a: must hold text, numbers, times or lists of them; got decimal256(50, 2).",
        ),
        (
            pd.DataFrame({"a": pd.Series(["x", "\ud800"], dtype=object)}),
            "row 1: column a: must be Unicode; got half of a pair of surrogates in '\\ud800'.",
        ),
        (
            pd.DataFrame({"a": pd.Series([["x"], "y|z", None], dtype=object)}),
            "row 1: column a: must be a list, as others of its column are; got 'y|z'.",
        ),
        (
            pd.DataFrame({"a": pd.Series([["x"], [1, ["y"]]], dtype=object)}),
            "row 1: column a: must hold text or numbers; got a list in a list.",
        ),
        (
            pd.DataFrame({"a": pd.Series(["x", {"y": 1}], dtype=object)}),
            "row 1: column a: must be text, a number, a truth, a time or a list; got \"{'y': 1}\".",
        ),
    ],
)
def test_what_is_no_column_of_rows_is_told(frame: object, told: str) -> None:
    with pytest.raises(DataError) as error:
        as_polars(frame, ["a"])
    assert error.value.problems == (told,)


def test_lists_of_mixed_kinds_are_lists_of_text() -> None:
    lists = pd.Series([["t1", 2], np.array([3.0]), None, ()], dtype=object)
    found = as_polars(pd.DataFrame({"tags": lists}))["tags"]
    assert found.to_list() == [["t1", "2"], ["3"], None, []]


def test_no_rows_of_arrow_keep_their_columns() -> None:
    for kind in (pa.string(), pa.int8(), pa.list_(pa.string())):
        assert as_polars(pa.table({"a": pa.array([], kind)})).shape == (0, 1)
