"""Frames of raw rows, of whichever library, as one kind."""

import warnings
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from recsys_had.data.arrow_texts import sound_texts, to_polars
from recsys_had.data.normalise import as_text
from recsys_had.data.problems import Problems, quoted
from recsys_had.errors import DataError
from recsys_had.suggest import nearest
from recsys_had.utf8 import is_unicode, told, wrong_byte

_LISTS = (list, tuple, set, frozenset, np.ndarray)


def as_polars(frame: object, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """A frame of raw rows as polars has it.

    Args:
        frame: of pandas, polars or Arrow.
        columns: those to take, whatever the others hold; None: all.

    Raises:
        TypeError: it is no frame.
        DataError: one line per column that is missing, stands twice or is of a type that no raw
            column has, or per value that is none.
    """
    match frame:
        case pl.DataFrame():
            found = frame.select(_chosen(frame.columns, columns))
        case pl.LazyFrame():
            found = frame.select(_chosen(frame.collect_schema().names(), columns)).collect()
        case pd.DataFrame():
            names = list(map(str, frame.columns))
            chosen = _chosen(names, columns)
            found = pl.DataFrame(
                [_from_pandas(name, frame.iloc[:, names.index(name)]) for name in chosen]
            )
        case pa.Table() | pa.RecordBatch():
            return _from_arrow(frame.select(_chosen(frame.schema.names, columns)))
        case _:
            raise TypeError(
                "score_frame: must be a pandas DataFrame, a polars DataFrame or LazyFrame, or an "
                f"Arrow Table; got {type(frame).__name__}. Make it a frame, for example "
                "with polars.DataFrame(rows)."
            )
    return _with_sound_bytes(found)


def _chosen(names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """The columns to take, each of which must stand in the frame once."""
    chosen = list(dict.fromkeys(names if columns is None else columns))
    problems = [
        f"column {name}: is missing.{nearest(name, names)}" for name in chosen if name not in names
    ]
    problems += [
        f"column {name}: stands twice. Rename one of them."
        for name in chosen
        if names.count(name) > 1
    ]
    if problems:
        raise DataError(problems)
    return chosen


def _from_arrow(table: pa.Table | pa.RecordBatch) -> pl.DataFrame:
    """The rows; texts are not trusted to be UTF-8."""
    whole = pa.table(table) if isinstance(table, pa.RecordBatch) else table
    # Of no batch the types are looked at all the same.
    batches = whole.to_batches() or [pa.RecordBatch.from_pylist([], whole.schema)]
    problems = Problems()
    frames: list[pl.DataFrame] = []
    for batch in batches:
        place = _counted_from(sum(map(len, frames)))
        frames.append(to_polars(sound_texts(batch, place=place, problems=problems)))
    problems.raise_any()
    return pl.concat(frames)


def _counted_from(first: int) -> Callable[[int], str]:
    return lambda row: f"row {first + row}"


def _with_sound_bytes(frame: pl.DataFrame) -> pl.DataFrame:
    """Bytes as the text they are."""
    names = [name for name, dtype in frame.schema.items() if dtype == pl.Binary]
    return frame.with_columns(_from_arrow(frame.select(names).to_arrow())) if names else frame


def _from_pandas(name: str, column: "pd.Series[Any]") -> pl.Series:
    """A column; one of mixed kinds becomes text, or lists of it, as the raw file had it.

    Raises:
        DataError: one line per value that is neither.
    """
    try:
        with warnings.catch_warnings():
            # Of times with a zone pandas warns whoever reads them, Arrow among them.
            warnings.filterwarnings("ignore", message="Series.values returning an ndarray")
            return pl.from_pandas(column, nan_to_null=True).alias(name)
    except (TypeError, ValueError, OverflowError, pa.ArrowException, pl.exceptions.PolarsError):
        values = [
            None if pd.api.types.is_scalar(value) and pd.isna(value) else value for value in column
        ]
    holds_lists = any(isinstance(value, _LISTS) for value in values)
    wrong = [_wrong(value, holds_lists=holds_lists) for value in values]
    problems = Problems()
    bad = np.array([line is not None for line in wrong], np.bool_)
    problems.add_rows(bad, _counted_from(0), lambda row: f"column {name}: {wrong[row]}")
    problems.raise_any()
    if not holds_lists:
        return pl.Series(name, texts_of(values), dtype=pl.String)
    written = iter(texts_of([each for value in values if value is not None for each in value]))
    lists = [None if value is None else [next(written) for _ in value] for value in values]
    return pl.Series(name, lists, dtype=pl.List(pl.String))


def _wrong(value: object, *, holds_lists: bool) -> str | None:
    """What is wrong with a value of a column of mixed kinds, None where nothing is."""
    match value:
        case None:
            return None
        case str() if not is_unicode(value):
            return f"must be Unicode; got half of a pair of surrogates in {quoted(value)}."
        case bytes() if wrong_byte(value) is not None:
            return told(value)
        case dict() | complex() | np.complexfloating():
            return f"must be text, a number, a truth, a time or a list; got {quoted(str(value))}."
    if not holds_lists:
        return None
    if not isinstance(value, _LISTS):
        return f"must be a list, as others of its column are; got {quoted(str(value))}."
    inside = [
        "must hold text or numbers; got a list in a list."
        if isinstance(each, _LISTS)
        else _wrong(each, holds_lists=False)
        for each in value
    ]
    return next((line for line in inside if line is not None), None)


def texts_of(values: Sequence[object]) -> list[str | None]:
    """The text of each value: the one it has in a column of its own kind alone.

    Whole numbers are written without a fraction and truths as 1 and 0, whatever stands beside
    them, decimals without the zeros at their end, and bytes are UTF-8; what is none of these is
    written as Python does.

    >>> texts_of([12, "12", 12.0, 0.5, True, None])
    ['12', '12', '12', '0.5', '1', None]
    """
    numbers = [_number(value) for value in values]
    floats = pl.Series([value for value in numbers if isinstance(value, float)], dtype=pl.Float64)
    text = as_text(pl.lit(floats), pl.Float64())
    assert text is not None
    written = iter(pl.select(text).to_series().to_list())
    return [
        next(written) if isinstance(value, float) else None if value is None else _written(value)
        for value in numbers
    ]


def _written(value: object) -> str:
    match value:
        case bytes():
            return value.decode()
        case Decimal():
            text = f"{value:f}"
            return text.rstrip("0").rstrip(".") if "." in text else text
        case _:
            return str(value)


def _number(value: object) -> object:
    """A number or truth of NumPy's or Python's as an int or a float; else the value itself."""
    match value:
        case bool() | np.bool_() | np.integer():
            return int(value)
        case np.floating():
            # By its text: a float32 of 0.1 is 0.10000000149 in 64 bits.
            return float(str(value))
        case _:
            return value
