"""One block of raw rows to values: read, checked and split, the wrong rows told or rejected."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys_had.columns import source_columns
from recsys_had.data.lookups import SideTable
from recsys_had.data.prepare import prepare
from recsys_had.data.problems import Place, Problems
from recsys_had.data.raw import RawBlock
from recsys_had.data.sampling import leave_out_negatives
from recsys_had.data.split import Splits, split_by_content, split_by_time, split_times
from recsys_had.errors import DataError
from recsys_had.schema import ContentHashSplit, DatasetCard, TimeSplit

# A column of the values; no field's name holds a dot.
SPLIT = ".split"

REJECTS = pa.schema(
    {
        "row": pa.int64(),
        "file": pa.string(),
        "line": pa.int64(),
        "reason": pa.string(),
        "text": pa.large_string(),
    }
)
_MAX_REASON = 1000
_MAX_TEXT_BYTES = 4096


@dataclass(frozen=True)
class ReadBlock:
    """What a block of raw rows says.

    Args:
        values: of the rows that are right, and their split (a place in ``SPLITS``; -1 where it is
            known when all labels are) in a column of its own.
        kept: which rows of the block those are, counted from 0; None where it is all of them.
        rejects: the others: ``row`` in the block, ``file``, ``line`` (of a Parquet file the row,
            from 0), ``reason`` and ``text``: the row as it stands in the file, at most 4 KiB of
            it, null where the file is no text.
        ids: text of each column that identifies the rows that are right.
    """

    values: pa.RecordBatch
    kept: NDArray[np.int64] | None
    rejects: pa.Table
    ids: Mapping[str, pl.Series]


def read_block(
    block: RawBlock,
    card: DatasetCard,
    lookups: Mapping[str, SideTable],
    given: Sequence[int] | None,
    *,
    reject: bool = False,
) -> ReadBlock:
    r"""Reads a block, its values and its splits.

    The values of the rows that are right are those they have in a file without the others. Memory
    is bounded by the block: a reason ends after 1,000 characters.

    Args:
        block: the rows.
        card: what the columns are.
        lookups: the card's side tables.
        given: split of each input, or None where the card's rule decides.
        reject: whether rows that are not as the card says are left out and told, not an error.

    Raises:
        DataError: the file is not usable, or, without ``reject``, one line per problem of a row.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from recsys_had.data.raw import RawSource
    >>> from recsys_had.schema import parse_card
    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns: {click: {kind: label}, I1: {kind: integer}}
    ... split: {by: given}
    ... ''')
    >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
    >>> _ = path.write_text("click,I1\n1,5\n?,x\n\n0,7\n")
    >>> [block] = RawSource([path], card).blocks()
    >>> read = read_block(block, card, {}, [0], reject=True)
    >>> read.values["I1"].to_pylist(), read.kept.tolist()
    ([5.0, 7.0], [0, 3])
    >>> read.rejects.drop(["file"]).to_pylist()[1]
    {'row': 2, 'line': 4, 'reason': 'is blank. Remove the line.', 'text': ''}
    >>> read.rejects["reason"][0].as_py()
    "column click: must be 0 or 1; got '?'.; column I1: must be a whole number; got 'x'."
    """
    try:
        frame = block.read()
        values = _values(block, frame, card, lookups, given)
    except DataError:
        # Most blocks are right; only one that is not is gone through row by row.
        if not reject:
            raise
        return _read_sifted(block, card, lookups, given)
    return ReadBlock(values, None, REJECTS.empty_table(), _ids(frame, card))


def _values(
    block: RawBlock,
    frame: pl.DataFrame,
    card: DatasetCard,
    lookups: Mapping[str, SideTable],
    given: Sequence[int] | None,
    *,
    kept: NDArray[np.int64] | None = None,
) -> pa.RecordBatch:
    values = prepare(frame, card, lookups, place=block.place, require_label=True)
    splits = leave_out_negatives(
        _splits(block, frame, card, given, is_whole=kept is None),
        frame,
        card,
        labels=values.column("label").to_numpy(),
        row_ids=block.first_row_id + (np.arange(block.num_rows) if kept is None else kept),
    )
    return values.append_column(SPLIT, pa.array(splits))


def _splits(
    block: RawBlock,
    frame: pl.DataFrame,
    card: DatasetCard,
    given: Sequence[int] | None,
    *,
    is_whole: bool,
) -> Splits:
    rule = card.split
    if given is not None:
        return np.full(len(frame), given[block.input_index], np.int8)
    if isinstance(rule, ContentHashSplit):
        texts = block.row_texts(source_columns(card.columns)) if is_whole else None
        return split_by_content(frame, card, rule, texts=texts)
    if isinstance(rule, TimeSplit):
        return split_by_time(frame, card, rule, place=block.place)
    return np.full(len(frame), -1, np.int8)  # known when all labels are


def _read_sifted(
    block: RawBlock,
    card: DatasetCard,
    lookups: Mapping[str, SideTable],
    given: Sequence[int] | None,
) -> ReadBlock:
    def check(frame: pl.DataFrame, place: Place, problems: Problems) -> None:
        prepare(frame, card, lookups, place=place, require_label=True, problems=problems)
        if given is None and isinstance(card.split, TimeSplit):
            split_times(frame, card, card.split, place=place, problems=problems)

    sifted = sift_block(block, check)
    return ReadBlock(
        _values(block, sifted.frame, card, lookups, given, kept=sifted.kept),
        sifted.kept,
        sifted.rejects,
        _ids(sifted.frame, card),
    )


@dataclass(frozen=True)
class Sifted:
    """The rows of a block that are right, and the others.

    Args:
        frame: the raw columns of those that are right.
        kept: which rows of the block they are, counted from 0.
        rejects: the others; see :class:`ReadBlock`.
    """

    frame: pl.DataFrame
    kept: NDArray[np.int64]
    rejects: pa.Table


def sift_block(block: RawBlock, check: Callable[[pl.DataFrame, Place, Problems], object]) -> Sifted:
    """Leaves out rows that are not as the format asks, then those a value of which is wrong.

    Args:
        block: the rows.
        check: of rows that are as the format asks, tells the problems of their values.

    Raises:
        DataError: the file is not usable.
    """
    form, content = Problems(every_row=True), Problems(every_row=True)
    frame = block.sift(form)
    whole = np.flatnonzero(~form.bad_rows(block.num_rows))
    check(frame, lambda row: block.place(int(whole[row])), content)
    right = ~content.bad_rows(len(frame))
    reasons = _Reasons()
    reasons.add(form, np.arange(block.num_rows))
    reasons.add(content, whole)
    kept = frame.filter(pl.Series(right, dtype=pl.Boolean))
    return Sifted(kept, whole[right], reasons.table(block))


def rejects_of(block: RawBlock, problems: Problems, rows: NDArray[np.int64]) -> pa.Table:
    """The rows of a block that something is wrong with; see :class:`ReadBlock`.

    Args:
        block: the rows.
        problems: what is wrong, of every row.
        rows: the places in the block of those it is told of.
    """
    reasons = _Reasons()
    reasons.add(problems, rows)
    return reasons.table(block)


def with_row_ids(rejects: pa.Table, block: RawBlock) -> pa.Table:
    """Rejected rows of a block, by their number over all inputs in place of that in the block."""
    row_id = pa.array(rejects["row"].to_numpy() + block.first_row_id)
    return rejects.drop_columns(["row"]).add_column(0, "row_id", row_id)


def id_columns(card: DatasetCard) -> list[str]:
    """The columns that identify rows; keys of side tables do not: many rows may have the same."""
    keys = {lookup.key for lookup in card.lookups.values()}
    return [
        name for name, column in card.columns.items() if column.kind == "id" and name not in keys
    ]


def _ids(frame: pl.DataFrame, card: DatasetCard) -> dict[str, pl.Series]:
    return {name: frame[name] for name in id_columns(card)}


class _Reasons:
    """Why rows are rejected."""

    def __init__(self) -> None:
        self._of: dict[int, list[str]] = {}

    def add(self, problems: Problems, rows: NDArray[np.int64]) -> None:
        """Adds what is wrong; ``rows`` are the places in the block of those it is told of."""
        for found in problems.rows:
            for row in np.flatnonzero(found.bad).tolist():
                told = self._of.setdefault(int(rows[row]), [])
                reason = found.describe(row)
                # A time is read for its parts and for the split.
                if reason not in told:
                    told.append(reason)

    def table(self, block: RawBlock) -> pa.Table:
        """The rejects, in the order of their rows."""
        rows = np.array(sorted(self._of), np.int64)
        columns = [
            pa.array(rows),
            pa.array([str(block.path)] * len(rows), pa.string()),
            pa.array(block.rows.numbers(rows)),
            pa.array([_joined(self._of[row]) for row in rows.tolist()], pa.string()),
            pa.array(
                [block.rows.text(row, max_bytes=_MAX_TEXT_BYTES) for row in rows.tolist()],
                pa.large_string(),
            ),
        ]
        return pa.Table.from_arrays(columns, schema=REJECTS)


def _joined(reasons: list[str]) -> str:
    text = "; ".join(reasons)
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."
