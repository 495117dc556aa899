"""Encoded rows read a few columns at a time, in blocks, whatever their number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_had.data.folder import DataFolder
from recsys_had.data.shards import pieces_of
from recsys_had.errors import DataError
from recsys_had.storage import open_parquet, sorted_glob

BLOCK_ROWS = 1 << 16


@dataclass(frozen=True)
class Block:
    """Some rows of a column.

    Args:
        clicked: whether each was clicked.
        values: the column.
    """

    clicked: NDArray[np.bool_]
    values: pa.Array


def read(
    data: DataFolder, split: str, names: Sequence[str], *, block_rows: int = BLOCK_ROWS
) -> Iterator[pa.RecordBatch]:
    """Blocks of some columns of a split, in row order; none where there is no such split.

    Raises:
        DataError: a part cannot be read, or lacks a column.
    """
    for path in sorted_glob(data.path / split, "part-*.parquet"):
        for piece in pieces_of(path, names, rows=block_rows):
            if piece.num_rows:
                yield piece


def blocks(
    data: DataFolder, split: str, name: str, *, block_rows: int = BLOCK_ROWS
) -> Iterator[Block]:
    """Blocks of one column of a split beside the labels.

    Raises:
        DataError: a part cannot be read, or a label is neither 0 nor 1.
    """
    for batch in read(data, split, ["label", name], block_rows=block_rows):
        yield Block(clicked_of(batch.column("label"), data, split), batch.column(name))


def clicked_of(labels: pa.Array, data: DataFolder, split: str) -> NDArray[np.bool_]:
    """Labels as what they mean.

    Raises:
        DataError: one is neither 0 nor 1.
    """
    numbers: NDArray[np.float32] = labels.to_numpy(zero_copy_only=False)
    clicked: NDArray[np.bool_] = numbers == 1
    wrong = ~clicked & (numbers != 0)
    if wrong.any():
        raise DataError(
            f"{data.path / split}: label: must be 0 or 1; got {numbers[wrong][0]}. "
            "Re-run `recsys-had ingest`."
        )
    return clicked


def numbers_of(column: pa.Array, place: str) -> NDArray[np.float32]:
    """A dense input.

    Raises:
        DataError: it holds what is no number; an encoder writes none.
    """
    numbers: NDArray[np.float32] = column.to_numpy(zero_copy_only=False).astype(np.float32)
    if np.isnan(numbers).any():
        raise DataError(f"{place}: holds what is no number. Re-run `recsys-had ingest`.")
    return numbers


@dataclass(frozen=True)
class RowIds:
    """Ids of a field: each row's distinct ones, one row after the other.

    Args:
        ids: the ids.
        lengths: how many of them each row has.
    """

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @property
    def row(self) -> NDArray[np.int64]:
        """The row each id is of."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @classmethod
    def of(cls, column: Any) -> "RowIds":
        """Reads an encoded field; an id that a row holds twice counts once.

        >>> RowIds.of(pa.array([[3, 1, 3], [0]]))
        RowIds(ids=array([1, 3, 0]), lengths=array([2, 1]))
        """
        if not isinstance(column, pa.ListArray):
            ids = column.to_numpy(zero_copy_only=False).astype(np.int64)
            return cls(ids, np.ones(len(ids), np.int64))
        lengths = np.diff(column.offsets.to_numpy())
        row = np.repeat(np.arange(len(lengths)), lengths)
        ids = column.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        order = np.lexsort((ids, row))
        ids, row = ids[order], row[order]
        is_first = np.ones(len(ids), np.bool_)
        is_first[1:] = (ids[1:] != ids[:-1]) | (row[1:] != row[:-1])
        return cls(ids[is_first], np.bincount(row[is_first], minlength=len(lengths)))


def values_of(data: DataFolder, name: str, ids: list[int]) -> dict[int, str]:
    """Text of some ids of a vocabulary, read in pieces.

    Raises:
        DataError: the vocabulary is missing, cannot be read or lacks an id.
    """
    path = data.path / "vocab" / f"{name}.parquet"
    wanted = pa.array(ids, pa.int64())
    found: dict[int, str] = {}
    try:
        with open_parquet(path) as vocabulary:
            for batch in vocabulary.iter_batches(columns=["id", "value"]):
                is_wanted = pc.is_in(batch.column("id").cast(pa.int64()), value_set=wanted)
                chosen = batch.filter(is_wanted)
                pairs = zip(chosen.column("id"), chosen.column("value"), strict=True)
                found |= {number.as_py(): value.as_py() for number, value in pairs}
    except (OSError, pa.ArrowException, KeyError) as cause:
        raise DataError(f"{path}: cannot be read: {cause}. Re-run `recsys-had ingest`.") from cause
    missing = sorted(set(ids) - set(found))
    if missing:
        raise DataError(
            f"{path}: has no value of id {missing[0]}, which training rows hold. "
            "Re-run `recsys-had ingest`."
        )
    return found
