"""A block of raw rows as the model reads it, the wrong rows told or rejected."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys_had.batch import EncodedRows
from recsys_had.data.encode import Encoder
from recsys_had.data.folder import layout_of
from recsys_had.data.parquet import rows_from_table
from recsys_had.data.problems import Problems
from recsys_had.data.raw import RawBlock
from recsys_had.data.read_block import REJECTS, rejects_of, sift_block, with_row_ids
from recsys_had.errors import DataError


@dataclass(frozen=True)
class ReadRows:
    """Rows to be scored.

    Args:
        rows: as the model reads them; ``row_id`` counts through all inputs.
        kept: the raw columns that are copied beside the scores.
        rejects: the rows that were left out; see :class:`recsys_had.data.read_block.ReadBlock`.
    """

    rows: EncodedRows
    kept: dict[str, pa.Array]
    rejects: pa.Table

    @property
    def unseen(self) -> dict[str, int]:
        """Per field, values that training never saw."""
        assert self.rows.unseen is not None, "raw values were looked at"
        counts = self.rows.unseen.sum(axis=0, dtype=np.int64).tolist()
        return dict(zip(self.rows.layout.fields, counts, strict=True))


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
    # What is kept of the text goes no further than this.
    values, kept, places, rejects = _read(block.unread(), encoder, keep, reject=reject)
    rows = _encoded(values, encoder, block.first_row_id + places)
    return ReadRows(rows, kept, with_row_ids(rejects, block))


def _read(
    block: RawBlock, encoder: Encoder, keep: Sequence[str], *, reject: bool
) -> tuple[pa.RecordBatch, dict[str, pa.Array], NDArray[np.int64], pa.Table]:
    """The values of a block's rows, what is copied of them, their places in it; and the rejects."""
    places = np.arange(block.num_rows)
    rejects = REJECTS.empty_table()
    try:
        frame = block.read()
        values = encoder.prepare(_inputs(frame, encoder), place=block.place)
    except DataError:
        # Most blocks are right; only one that is not is gone through row by row.
        if not reject:
            raise
        sifted = sift_block(
            block,
            lambda rows, place, found: encoder.prepare(
                _inputs(rows, encoder), place=place, problems=found
            ),
        )
        frame, places, rejects = sifted.frame, sifted.kept, sifted.rejects
        values = encoder.prepare(_inputs(frame, encoder))
    return values, {name: frame[name].to_arrow() for name in keep}, places, rejects


def without_rows(
    read: ReadRows, bad: NDArray[np.bool_], block: RawBlock, reason: str, *, reject: bool
) -> ReadRows:
    """Leaves out rows of which nothing was known to be wrong while they were read.

    Args:
        read: the rows of a block.
        bad: one truth a row.
        block: where they come from.
        reason: what is wrong with each.
        reject: whether they are told among the rejects, not as an error.

    Raises:
        DataError: without ``reject``, one line per row.
    """
    places = read.rows.row_id - block.first_row_id
    problems = Problems(every_row=True)
    problems.add_rows(bad, lambda row: block.place(int(places[row])), lambda row: reason)
    if not reject:
        problems.raise_any()
    rejects = pa.concat_tables(
        [read.rejects, with_row_ids(rejects_of(block, problems, places), block)]
    )
    kept = pa.array(~bad)
    return ReadRows(
        read.rows.take(np.flatnonzero(~bad)),
        {name: column.filter(kept) for name, column in read.kept.items()},
        rejects.sort_by("row_id"),
    )


def read_frame(frame: pl.DataFrame, encoder: Encoder) -> ReadRows:
    """Reads and encodes a frame; its rows are numbered from 0.

    Raises:
        DataError: a column is missing, or one line per value that is not what its column asks.
    """
    rows = _encoded(encoder.prepare(_inputs(frame, encoder)), encoder, np.arange(len(frame)))
    return ReadRows(rows, {}, REJECTS.empty_table())


def _inputs(frame: pl.DataFrame, encoder: Encoder) -> pl.DataFrame:
    """What the model reads: whatever a label or a kept column holds is no mistake here."""
    return frame.select([name for name in encoder.required_columns if name in frame.columns])


def _encoded(values: pa.RecordBatch, encoder: Encoder, row_id: NDArray[np.int64]) -> EncodedRows:
    encoded = encoder.encode_values(values)
    unseen = encoder.unseen_by_row(values, encoded)
    numbered = encoded.append_column("row_id", pa.array(row_id))
    return replace(rows_from_table(numbered, layout_of(encoder.card)), unseen=unseen)
