"""Typed frames to the text a raw file would hold, so that each value means one thing.

A Parquet file or a pandas frame brings numbers, times and lists. Nullable integers arrive as
floats: 153.0 must be the value '153', or no id would ever be found again.
"""

import re
from collections.abc import Mapping

import polars as pl

from recsys_had.columns import (
    Column,
    MultiCategoricalColumn,
    TimestampColumn,
    VectorColumn,
    source_columns,
)
from recsys_had.errors import DataError
from recsys_had.schema import DatasetCard

_TWO_DIGITS = re.compile(r"%[-_0]?[yDx]")
# Since 1970, the last one out: the years 1 to 9999, and those that two digits are read as.
_DAYS = (-719_162, 2_932_897)
_DAYS_OF_TWO_DIGITS = (0, 36_525)
_PER_DAY = {"days": 1, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def normalise(frame: pl.DataFrame, card: DatasetCard) -> pl.DataFrame:
    """Turns the card's columns of a frame into text, missing values into nulls.

    Whole numbers are written without a fraction, truths as 1 and 0, times in the format of
    their column (in UTC where they have a zone), lists stay lists of text. Not a number is
    missing. Vectors that are lists of numbers stay so. Other columns of the frame are left as
    they are.

    Raises:
        DataError: a column's type has no such text.

    >>> from recsys_had.schema import parse_card
    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns: {click: {kind: label}, C1: {kind: categorical}}
    ... split: {by: given}
    ... ''')
    >>> normalise(pl.DataFrame({"click": [True, False], "C1": [153.0, None]}), card).rows()
    [('1', '153'), ('0', None)]
    """
    return normalise_columns(frame, card.columns, missing=card.format.missing)


def normalise_columns(
    frame: pl.DataFrame, columns: Mapping[str, Column], *, missing: tuple[str, ...]
) -> pl.DataFrame:
    """The same for the columns of a side table."""
    problems = []
    texts = []
    names = [name for name in source_columns(columns) if name in frame.columns]
    for name in names:
        dtype, column = frame.schema[name], columns.get(name)
        text = _text_of(pl.col(name), dtype, column)
        if text is None:
            problems.append(f"column {name}: must hold {_wanted(column)}; got {dtype}.")
        else:
            texts.append(text)
    if problems:
        raise DataError(problems)
    return blank_missing(frame.with_columns(texts), missing, columns=tuple(names))


def blank_missing(
    frame: pl.DataFrame, missing: tuple[str, ...], *, columns: tuple[str, ...]
) -> pl.DataFrame:
    """Turns the texts that mean "no value" into nulls."""
    texts = [name for name in columns if name in frame.columns and frame.schema[name] == pl.String]
    value = pl.col(texts)
    if not texts or not missing:
        return frame
    means_missing = value == missing[0] if len(missing) == 1 else value.is_in(list(missing))
    return frame.with_columns(pl.when(~means_missing).then(value))


def _text_of(value: pl.Expr, dtype: pl.DataType, column: Column | None) -> pl.Expr | None:
    """A column as text, or lists of it or of numbers; None where its kind has no such type."""
    pattern = column.format if isinstance(column, TimestampColumn) else None
    if not isinstance(dtype, pl.List | pl.Array):
        return as_text(value, dtype, pattern)
    if isinstance(column, VectorColumn):
        return _as_vector(value, dtype)
    is_nested = isinstance(dtype.inner, pl.List | pl.Array)
    if is_nested or not isinstance(column, MultiCategoricalColumn):
        return None
    return as_text(value, dtype, pattern)


def _wanted(column: Column | None) -> str:
    match column:
        case VectorColumn():
            return "lists of numbers, or text"
        case MultiCategoricalColumn():
            return "text, numbers, times or lists of them"
        case _:
            return "text or numbers"


def _as_vector(value: pl.Expr, dtype: pl.List | pl.Array) -> pl.Expr | None:
    """A vector as a list of numbers or texts, or None where it holds neither."""
    inner = dtype.inner
    if isinstance(dtype, pl.Array):
        if len(dtype.shape) > 1:
            return None
        value = value.arr.to_list()
    if inner in (pl.Float32, pl.Float64, pl.String):
        return value
    is_number = isinstance(inner, pl.DataType) and inner.is_numeric()
    return value.cast(pl.List(pl.Float64)) if is_number or inner == pl.Null else None


def as_text(value: pl.Expr, dtype: pl.DataType, pattern: str | None = None) -> pl.Expr | None:
    """The text of a value, or None where its type has none."""
    if isinstance(dtype, pl.List | pl.Array):
        inner = as_text(pl.element(), dtype.inner, None)  # type: ignore[arg-type]
        if isinstance(dtype, pl.Array):
            value = value.arr.to_list()
        return None if inner is None else value.list.eval(inner)
    if dtype == pl.String:
        return value
    if dtype.is_integer():
        return value.cast(pl.String)
    if isinstance(dtype, pl.Decimal):
        # By way of a float, long ids would become one another.
        text = value.cast(pl.String)
        return text.str.strip_chars_end("0").str.strip_chars_end(".") if dtype.scale else text
    if dtype.is_float():
        whole = value.cast(pl.Int64, strict=False)
        is_whole = whole.cast(pl.Float64) == value.cast(pl.Float64)
        text = pl.when(is_whole).then(whole.cast(pl.String)).otherwise(value.cast(pl.String))
        return pl.when(value.is_not_nan()).then(text)
    if dtype == pl.Boolean:
        return value.cast(pl.Int8).cast(pl.String)
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return _time_as_text(value, dtype, pattern)
    if dtype in (pl.Categorical, pl.Enum, pl.Binary, pl.Null):
        return value.cast(pl.String)
    return None


def _time_as_text(value: pl.Expr, dtype: pl.DataType, pattern: str | None) -> pl.Expr:
    """The text of a time; a number that no pattern reads where the pattern cannot say the time."""
    unit = dtype.time_unit if isinstance(dtype, pl.Datetime) else "days"
    days = _DAYS_OF_TWO_DIGITS if pattern and _TWO_DIGITS.search(pattern) else _DAYS
    first, end = (day * _PER_DAY[unit] for day in days)
    number = value.to_physical()
    can_be_said = (number >= max(first, -(2**63))) & (number <= min(end - 1, 2**63 - 1))
    text = _said(pl.when(can_be_said).then(value), dtype, pattern)
    return pl.when(can_be_said).then(text).otherwise(number.cast(pl.String) + f" {unit} since 1970")


def _said(value: pl.Expr, dtype: pl.DataType, pattern: str | None) -> pl.Expr:
    time = value.cast(pl.Datetime("us")) if dtype == pl.Date else value
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        time = time.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if pattern == "unix":
        return time.dt.epoch("s").cast(pl.String)
    if pattern == "unix_ms":
        return time.dt.epoch("ms").cast(pl.String)
    if pattern is not None:
        return time.dt.strftime(pattern)
    return value.cast(pl.String)
