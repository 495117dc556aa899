"""Columns of text to values: what a row says, before values become ids.

A categorical field becomes a dictionary array: the distinct values of the block, and which of
them each row holds. Counting and encoding then touch each distinct value once.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys_had.columns import (
    CategoricalColumn,
    Column,
    FloatColumn,
    IntegerColumn,
    MultiCategoricalColumn,
    TimestampColumn,
    VectorColumn,
    source_columns,
)
from recsys_had.data.numbers import (
    add_problems,
    clip,
    log_squared_bucket,
    parse_floats,
    parse_integers,
)
from recsys_had.data.problems import Place, Problems
from recsys_had.data.times import parse_times
from recsys_had.data.vectors import parse_vectors
from recsys_had.schema import DatasetCard


def required_columns(card: DatasetCard) -> tuple[str, ...]:
    """Raw columns the model's inputs are made of, in the card's order; label and weight are none.

    >>> from recsys_had.schema import parse_card
    >>> required_columns(parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns: {id: {kind: id}, click: {kind: label}, C1: {kind: categorical}}
    ... split: {by: given}
    ... '''))
    ('C1',)
    """
    keys = {lookup.key for lookup in card.lookups.values()}
    return source_columns(
        {name: column for name, column in card.columns.items() if name in keys or _is_used(column)}
    )


def _is_used(column: Column) -> bool:
    if isinstance(column, TimestampColumn):
        return bool(column.parts)
    return column.kind not in {"label", "weight", "id", "ignored"}


def column_values(
    columns: Mapping[str, Column], frame: pl.DataFrame, *, place: Place, problems: Problems
) -> Iterator[tuple[str, pa.Array]]:
    """Yields each field, dense input and vector that the columns make, and its values.

    A field is a dictionary array, null where the value is missing; a multi-valued one a list of
    them. A dense input is float64, null where missing, not yet transformed; so is a number whose
    bins are yet to be found. A content vector is as the model reads it.

    Args:
        columns: what the columns are.
        frame: the columns as text; vectors may be lists of numbers.
        place: names a row in a problem.
        problems: takes what is wrong.
    """
    for name, column in columns.items():
        match column:
            case CategoricalColumn():
                text = frame[name]
                if column.missing is not None:
                    text = text.fill_null(column.missing)
                yield name, _distinct(text)
            case MultiCategoricalColumn(flags=None):
                yield name, _split_lists(column, frame[name])
            case MultiCategoricalColumn():
                yield name, _flag_lists(column, frame, place, problems)
            case IntegerColumn():
                numbers = parse_integers(frame[name], place=place, problems=problems)
                if column.missing is not None:
                    numbers = numbers.fill_null(column.missing)
                if column.transform == "log_squared_bucket":
                    yield name, _as_values(log_squared_bucket(clip(numbers, column.clip)))
                else:
                    yield name, clip(numbers, column.clip).cast(pl.Float64).to_arrow()
            case FloatColumn():
                numbers = parse_floats(frame[name], place=place, problems=problems)
                if column.missing is not None:
                    numbers = numbers.fill_null(column.missing)
                yield name, clip(numbers, column.clip).to_arrow()
            case VectorColumn():
                yield (
                    name,
                    parse_vectors(column, frame[name], place=place, problems=problems),
                )
            case TimestampColumn() if column.parts:
                times = parse_times(frame[name], column.format, place=place, problems=problems)
                for part, field in column.parts.items():
                    yield field, _as_values(_part(times, part))
            case _:
                pass


def _distinct(text: pl.Series) -> pa.DictionaryArray:
    """The texts as a dictionary array."""
    # As views, which is how polars holds them: nothing is copied but the distinct ones.
    found = text.to_arrow(compat_level=pl.CompatLevel.newest()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(found.indices, found.dictionary.cast(pa.large_string()))


def _buckets(numbers: pl.Series) -> pa.DictionaryArray:
    """The numbers' buckets, each distinct number worked on once."""
    found = numbers.to_arrow().dictionary_encode()
    buckets = _as_values(log_squared_bucket(pl.Series(found.dictionary)))
    return pa.DictionaryArray.from_arrays(buckets.indices.take(found.indices), buckets.dictionary)


def _part(times: pl.Series, part: str) -> pl.Series:
    weekday = times.dt.weekday() - 1
    match part:
        case "hour":
            return times.dt.hour()
        case "weekday":
            return weekday
        case _:
            return weekday >= 5


def _as_values(numbers: pl.Series) -> pa.DictionaryArray:
    """The numbers' text as a dictionary array."""
    codes = numbers.cast(pl.Int64).to_arrow().dictionary_encode()
    return pa.DictionaryArray.from_arrays(codes.indices, codes.dictionary.cast(pa.large_string()))


def _split_lists(column: MultiCategoricalColumn, cell: pl.Series) -> pa.LargeListArray:
    lists = cell.str.split(column.separator) if cell.dtype == pl.String else cell
    known = pl.element().filter(pl.element().is_not_null() & (pl.element() != ""))
    lists = lists.cast(pl.List(pl.String)).list.eval(known)
    if column.max_length is not None:
        lists = lists.list.head(column.max_length)
    lengths = lists.list.len().fill_null(0).to_numpy()
    values = lists.drop_nulls().filter(lists.drop_nulls().list.len() > 0).explode()
    return _lists(lengths, _distinct(values.cast(pl.String)))


def _flag_lists(
    column: MultiCategoricalColumn, frame: pl.DataFrame, place: Place, problems: Problems
) -> pa.LargeListArray:
    flags = list(column.flags or ())
    for name in flags:
        bad = frame[name].is_not_null() & ~frame[name].is_in(["0", "1"]).fill_null(False)
        add_problems(problems, bad, frame[name], "must be 0 or 1", place)
    set_flags = frame.select((pl.col(flags) == "1").fill_null(False)).to_numpy()
    if column.max_length is not None:
        set_flags = set_flags & (set_flags.cumsum(axis=1) <= column.max_length)
    codes = pa.array(np.nonzero(set_flags)[1].astype(np.int32))
    dictionary = pa.array(flags, pa.large_string())
    return _lists(set_flags.sum(axis=1), pa.DictionaryArray.from_arrays(codes, dictionary))


def _lists(lengths: NDArray[np.integer], values: pa.DictionaryArray) -> pa.LargeListArray:
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), values)
