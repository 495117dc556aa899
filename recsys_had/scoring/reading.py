"""A block of raw rows as the model reads it, the wrong rows told or rejected."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys_had.batch import EncodedRows
from recsys_had.data.encode import Encoder
from recsys_had.data.folder import layout_of
from recsys_had.data.parquet import rows_from_table
from recsys_had.data.raw import RawBlock
from recsys_had.data.read_block import REJECTS, sift_block, with_row_ids
from recsys_had.errors import DataError


@dataclass(frozen=True)
class ReadRows:
    """Rows to be scored.

    Args:
        rows: as the model reads them; ``row_id`` counts through all inputs.
        kept: the raw columns that are copied beside the scores.
        unseen: per field, values that training never saw.
        rejects: the rows that were left out; see :class:`recsys_had.data.read_block.ReadBlock`.
    """

    rows: EncodedRows
    kept: dict[str, pa.Array]
    unseen: dict[str, int]
    rejects: pa.Table


def read_rows(
    block: RawBlock, encoder: Encoder, *, keep: Sequence[str] = (), reject: bool = False
) -> ReadRows:
    """Reads and encodes a block.

    Args:
        block: raw rows.
        encoder: the run's own.
        keep: raw columns to copy.
        reject: whether rows that are not as the card says are left out, not an error.

    Raises:
        DataError: the file is not usable, or, without ``reject``, one line per problem of a row.
    """
    places = np.arange(block.num_rows)
    rejects = REJECTS.empty_table()
    try:
        frame = block.read()
        values = encoder.prepare(frame, place=block.place)
    except DataError:
        # Most blocks are right; only one that is not is gone through row by row.
        if not reject:
            raise
        sifted = sift_block(
            block, lambda rows, place, found: encoder.prepare(rows, place=place, problems=found)
        )
        frame, places, rejects = sifted.frame, sifted.kept, sifted.rejects
        values = encoder.prepare(frame)
    encoded = encoder.encode_values(values)
    return ReadRows(
        _numbered(encoded, encoder, block.first_row_id + places),
        {name: frame[name].to_arrow() for name in keep},
        encoder.unseen(values, encoded),
        with_row_ids(rejects, block),
    )


def read_frame(frame: pl.DataFrame, encoder: Encoder) -> ReadRows:
    """Reads and encodes a frame; its rows are numbered from 0.

    Raises:
        DataError: a column is missing, or one line per value that is not what its column asks.
    """
    values = encoder.prepare(frame)
    encoded = encoder.encode_values(values)
    rows = _numbered(encoded, encoder, np.arange(len(frame)))
    return ReadRows(rows, {}, encoder.unseen(values, encoded), REJECTS.empty_table())


def _numbered(encoded: pa.Table, encoder: Encoder, row_id: NDArray[np.int64]) -> EncodedRows:
    numbered = encoded.append_column("row_id", pa.array(row_id))
    return rows_from_table(numbered, layout_of(encoder.card))
