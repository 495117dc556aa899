"""Frames of raw rows: a value of a pandas column of mixed kinds is the one it is elsewhere."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

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
