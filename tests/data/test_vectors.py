"""Content vectors: lists and texts to float32 rows, and what is told of wrong ones."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_had.columns import VectorColumn
from recsys_had.data.encode import Encoder
from recsys_had.data.normalise import normalise
from recsys_had.data.problems import Problems
from recsys_had.data.raw import RawSource
from recsys_had.data.split import row_texts
from recsys_had.data.vectors import parse_vectors, vectors_from_column
from recsys_had.errors import DataError, SchemaError
from recsys_had.schema import parse_card

CARD = """\
name: shop
format: {type: csv}
columns:
  click: {kind: label}
  item: {kind: categorical}
  image: {kind: vector, size: 3, separator: ";"}
  text: {kind: vector, size: 2, separator: ";", transform: l2}
split: {by: given}
"""
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)
# 3-4-5: of length 1 it is 0.6, 0.8.
IMAGES: list[list[float] | None] = [[1.5, -2.0, 0.25], None, [0.0, 1e-30, 3e38]]
TEXTS: list[list[float] | None] = [[3.0, 4.0], [], [0.0, 0.0]]
FOUND_IMAGES = np.array([[1.5, -2.0, 0.25], [0, 0, 0], [0, 1e-30, 3e38]], np.float32)
FOUND_TEXTS = np.array([[0.6, 0.8], [0, 0], [0, 0]], np.float32)


def encoded(frame: Any) -> dict[str, np.ndarray[Any, Any]]:
    rows = Encoder.fit_frame(parse_card(CARD), frame).encode(frame)
    return {name: rows[name].to_numpy() for name in ("image", "text")}


def parse(cells: Any, size: int, **options: Any) -> np.ndarray[Any, Any]:
    column = VectorColumn(kind="vector", size=size, **options)
    problems = Problems()
    found = parse_vectors(column, pl.Series("v", cells), place=str, problems=problems)
    problems.raise_any()
    return vectors_from_column(pa.chunked_array([found]), size)


@pytest.mark.parametrize("inner", [pa.float32(), pa.float64()])
@pytest.mark.parametrize("kind", ["list", "large_list", "fixed_size_list"])
def test_parquet_lists_of_any_kind_are_read(tmp_path: Path, kind: str, inner: pa.DataType) -> None:
    make: dict[str, Callable[[int], pa.DataType]] = {
        "list": lambda _: pa.list_(inner),
        "large_list": lambda _: pa.large_list(inner),
        "fixed_size_list": lambda size: pa.list_(inner, size),
    }
    # A list of a fixed size is never empty.
    texts = [None if kind == "fixed_size_list" and not text else text for text in TEXTS]
    table = pa.table(
        {
            "click": [1, 0, 1],
            "item": ["a", "b", "a"],
            "image": pa.array(IMAGES, make[kind](3)),
            "text": pa.array(texts, make[kind](2)),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    (block,) = RawSource([tmp_path / "rows.parquet"], parse_card(CARD)).blocks()
    found = encoded(block.frame)
    assert found["image"].dtype == np.float32
    np.testing.assert_array_equal(found["image"], FOUND_IMAGES)
    np.testing.assert_array_equal(found["text"], FOUND_TEXTS)


def test_pandas_columns_of_arrays_and_lists_are_read_from_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame({"click": [1, 0, 1], "item": ["a", "b", "a"]})
    frame["image"] = [None if image is None else np.array(image) for image in IMAGES]
    frame["text"] = TEXTS
    frame.to_parquet(tmp_path / "rows.parquet")
    (block,) = RawSource([tmp_path / "rows.parquet"], parse_card(CARD)).blocks()
    np.testing.assert_array_equal(encoded(block.frame)["image"], FOUND_IMAGES)
    np.testing.assert_array_equal(encoded(block.frame)["text"], FOUND_TEXTS)


def test_text_gives_what_the_numbers_give(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("click,item,image,text\n1,a,1.5;-2;0.25,3;4\n0,b,,\n1,a,0.0;1e-30;3e38,0;0\n")
    (block,) = RawSource([path], parse_card(CARD)).blocks()
    np.testing.assert_array_equal(encoded(block.frame)["image"], FOUND_IMAGES)
    np.testing.assert_array_equal(encoded(block.frame)["text"], FOUND_TEXTS)


def test_whole_numbers_and_lists_of_texts_are_numbers_too() -> None:
    assert parse([[1, 2]], 2).tolist() == [[1.0, 2.0]]
    assert parse(["1|2e1", "-3|.5"], 2).tolist() == [[1.0, 20.0], [-3.0, 0.5]]
    frame = pl.DataFrame({"click": [1], "item": ["a"], "image": [["1", "2", "3"]], "text": [None]})
    assert encoded(frame)["image"].tolist() == [[1, 2, 3]]


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.lists(FLOATS, min_size=4, max_size=4)), max_size=6))
def test_vectors_are_numpys_and_of_length_1_where_asked(
    vectors: list[list[float] | None],
) -> None:
    cells = pl.Series(vectors, dtype=pl.List(pl.Float32))
    oracle = np.array([vector or [0.0] * 4 for vector in vectors], np.float64).reshape(-1, 4)
    np.testing.assert_array_equal(parse(cells, 4), oracle.astype(np.float32))
    length = np.linalg.norm(oracle, axis=1, keepdims=True)
    unit = np.divide(oracle, length, out=np.zeros_like(oracle), where=length > 0)
    np.testing.assert_allclose(parse(cells, 4, transform="l2"), unit, rtol=1e-6, atol=1e-44)
    text = ["" if vector is None else ",".join(map(repr, vector)) for vector in vectors]
    cells = pl.Series(text, dtype=pl.String)
    np.testing.assert_array_equal(parse(cells, 4, separator=","), oracle.astype(np.float32))


def test_lengths_beyond_the_range_of_squares_come_out_as_1() -> None:
    # In float32 the squares would be infinite, or 0.
    for scale in (3e38, 1e-30):
        found = parse([[scale, scale]], 2, transform="l2")
        np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5]], rtol=1e-7)


def test_a_wrong_vector_is_told_with_file_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = ["1,a,1;2;3,1;2", "0,b,1;2,1;x", "1,a,1;2;3;4,inf;1", "0,b,;2;3, 1;2"]
    path.write_text("click,item,image,text\n" + "\n".join([*lines, "0,b,nan;2;3,1e39;0"]) + "\n")
    card = parse_card(CARD)
    (block,) = RawSource([path], card).blocks()
    with pytest.raises(DataError) as caught:
        Encoder.fit_frame(card, block.frame.head(1)).encode(block.frame, place=block.place)
    assert caught.value.problems == (
        f"{path}:3: column image: must hold 3 numbers; got 2.",
        f"{path}:3: column text: must hold finite numbers; got 'x' as number 2.",
        f"{path}:4: column image: must hold 3 numbers; got 4.",
        f"{path}:4: column text: must hold finite numbers; got 'inf' as number 1.",
        f"{path}:5: column image: must hold finite numbers; got '' as number 1.",
        f"{path}:5: column text: must hold finite numbers; got ' 1' as number 1.",
        f"{path}:6: column image: must hold finite numbers; got 'nan' as number 1.",
        f"{path}:6: column text: must hold finite numbers; got '1e39' as number 1.",
    )


def test_nothing_and_infinity_among_typed_numbers_are_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    images = [[1.0, None, 2.0], [float("nan"), 0.0, 0.0], [0.0, 0.0, float("-inf")]]
    table = {"click": [1, 0, 1], "item": ["a"] * 3, "image": images, "text": [[0.0]] * 3}
    pq.write_table(pa.table(table), path)
    card = parse_card(CARD)
    (block,) = RawSource([path], card).blocks()
    rows = pl.DataFrame({"click": [1], "item": ["a"], "image": [None], "text": [None]})
    with pytest.raises(DataError) as caught:
        Encoder.fit_frame(card, rows).encode(block.frame, place=block.place)
    assert caught.value.problems == (
        f"{path}: row 0: column image: must hold finite numbers; got nothing as number 2.",
        f"{path}: row 0: column text: must hold 2 numbers; got 1.",
        f"{path}: row 1: column image: must hold finite numbers; got nan as number 1.",
        f"{path}: row 1: column text: must hold 2 numbers; got 1.",
        f"{path}: row 2: column image: must hold finite numbers; got -inf as number 3.",
        f"{path}: row 2: column text: must hold 2 numbers; got 1.",
    )


@pytest.mark.parametrize(
    ("image", "dtype"),
    [
        ([[True] * 3], "List(Boolean)"),
        ([[[1.0]]], "List(List(Float64))"),
        ([{"type": 1}], "Struct({'type': Int64})"),
    ],
)
def test_a_type_that_holds_no_numbers_is_refused(image: Any, dtype: str) -> None:
    frame = pl.DataFrame({"click": [1], "item": ["a"], "image": image, "text": [None]})
    told = f"column image: must hold lists of numbers, or text; got {dtype}."
    with pytest.raises(DataError, match=f"^{re.escape(told)}$"):
        normalise(frame, parse_card(CARD))


def test_a_row_is_known_by_the_same_text_whatever_holds_its_numbers() -> None:
    card = parse_card(CARD)
    rest = {"click": ["1"], "item": ["a"], "text": ["3;4"]}
    texts = [
        row_texts(normalise(pl.DataFrame({**rest, "image": image}), card), card)
        for image in (
            ["1;0.5;2"],
            [[1.0, 0.5, 2.0]],
            pl.Series([[1.0, 0.5, 2.0]], dtype=pl.Array(pl.Float32, 3)),
        )
    ]
    assert texts[0] == texts[1] == texts[2] == [b"1\x1fa\x1f1;0.5;2\x1f3;4"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("size: 3, ", "", "c.yaml:6: columns.image.size: the key is missing. Add it."),
        ("size: 3", "size: 0", "c.yaml:6: columns.image.size: must be at least 1; got 0."),
        (
            "transform: l2",
            "transform: l3",
            "c.yaml:7: columns.text.transform: must be 'none' or 'l2'; got 'l3'.",
        ),
        ("kind: vector, size: 3", "kind: vectr", "Did you mean 'vector'?"),
    ],
)
def test_a_wrong_card_is_told(old: str, new: str, problem: str) -> None:
    with pytest.raises(SchemaError) as caught:
        parse_card(CARD.replace(old, new), path="c.yaml")
    assert problem in "\n".join(caught.value.problems)
