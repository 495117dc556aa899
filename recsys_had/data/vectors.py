"""Content vectors: lists of numbers, or text with separators, to an array of fixed-size rows."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys_had.columns import VectorColumn
from recsys_had.data.problems import Place, Problems, quoted

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def parse_vectors(
    column: VectorColumn, cell: pl.Series, *, place: Place, problems: Problems
) -> pa.FixedSizeListArray:
    """Vectors as the model reads them: float32, transformed, all zeros where missing.

    A vector is missing where the cell is null, an empty text or an empty list.

    Args:
        column: size, separator and transform.
        cell: texts, or lists of numbers.
        place: names a row in a problem.
        problems: takes a row of another length, or the first of its elements that is no finite
            number of float32's range.

    >>> column = VectorColumn(kind="vector", size=2, transform="l2")
    >>> cell = pl.Series("image", ["3|4", None])
    >>> parse_vectors(column, cell, place=str, problems=Problems()).to_pylist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lists = cell
    if cell.dtype == pl.String:
        lists = cell.replace("", None).str.split(column.separator)
    lengths = lists.list.len().fill_null(0).to_numpy()
    fits = lengths == column.size
    problems.add_rows(
        (lengths > 0) & ~fits,
        place,
        lambda row: f"column {cell.name}: must hold {_numbers(column.size)}; got {lengths[row]}.",
    )
    elements = lists.filter(pl.Series(fits)).explode()
    numbers = elements.cast(pl.Float64, strict=False)
    # A NaN compares as larger than any number.
    is_number = numbers.abs() <= _FLOAT32_MAX
    wrong = ~is_number.fill_null(False).to_numpy().reshape(-1, column.size)
    _add_wrong_elements(problems, wrong, elements, np.flatnonzero(fits), cell, place)
    found = np.zeros((len(cell), column.size), np.float32)
    if not wrong.any():
        vectors = numbers.to_numpy().reshape(-1, column.size)
        found[fits] = _to_length_one(vectors) if column.transform == "l2" else vectors
    return pa.FixedSizeListArray.from_arrays(pa.array(found.reshape(-1)), column.size)


def _add_wrong_elements(
    problems: Problems,
    wrong: NDArray[np.bool_],
    elements: pl.Series,
    rows: NDArray[np.int64],
    cell: pl.Series,
    place: Place,
) -> None:
    """One problem a row, of its first element that is no finite number."""
    size = wrong.shape[1]
    first = {
        int(rows[vector]): (vector, int(np.argmax(wrong[vector])))
        for vector in np.flatnonzero(wrong.any(axis=1)).tolist()
    }
    if not first:
        return

    def describe(row: int) -> str:
        vector, position = first[row]
        element = elements[vector * size + position]
        got = "nothing" if element is None else quoted(element)
        return f"column {cell.name}: must hold finite numbers; got {got} as number {position + 1}."

    bad = np.zeros(len(cell), np.bool_)
    bad[list(first)] = True
    problems.add_rows(bad, place, describe)


def _to_length_one(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """``x / |x|``; the largest element comes out first, so that no square over- or underflows."""
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    scaled = vectors / np.where(largest > 0, largest, 1.0)
    length = np.sqrt(np.square(scaled).sum(axis=1, keepdims=True))
    unit: NDArray[np.float64] = scaled / np.where(length > 0, length, 1.0)
    return unit


def _numbers(size: int) -> str:
    return "1 number" if size == 1 else f"{size} numbers"


def vectors_from_column(column: pa.ChunkedArray, size: int) -> NDArray[np.float32]:
    """An encoded column of vectors as ``(B, size)``.

    >>> column = pa.chunked_array([pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0]), 2)])
    >>> vectors_from_column(column, 2).tolist()
    [[1.0, 2.0]]
    """
    parts: list[Any] = [np.empty(0, np.float32)]
    # A slice's `values` are those of the whole; flattened are its own.
    parts += [chunk.flatten().to_numpy().astype(np.float32) for chunk in column.chunks]
    whole: NDArray[np.float32] = np.concatenate(parts).reshape(len(column), size)
    return whole
