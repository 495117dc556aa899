"""Frames of raw rows, of whichever library, as one kind."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from recsys_had.data.normalise import as_text


def as_polars(frame: object) -> pl.DataFrame:
    """A frame of raw rows as polars has it.

    Raises:
        TypeError: it is no frame.
    """
    match frame:
        case pl.DataFrame():
            return frame
        case pl.LazyFrame():
            return frame.collect()
        case pd.DataFrame():
            return _from_pandas(frame)
        case pa.Table() | pa.RecordBatch():
            return pl.DataFrame(frame)
        case _:
            raise TypeError(
                "score_frame: must be a pandas DataFrame, a polars DataFrame or LazyFrame, or an "
                f"Arrow Table; got {type(frame).__name__}. Make it a frame, for example "
                "with polars.DataFrame(rows)."
            )


def _from_pandas(frame: pd.DataFrame) -> pl.DataFrame:
    """Column by column: a pandas column of mixed kinds becomes text, as the raw file had it."""
    columns = {}
    for name in frame.columns:
        column = frame[name]
        try:
            columns[str(name)] = pl.from_pandas(column, nan_to_null=True)
        except (TypeError, OverflowError, pa.ArrowException, pl.exceptions.PolarsError):
            values = [
                None if pd.api.types.is_scalar(value) and pd.isna(value) else value
                for value in column
            ]
            columns[str(name)] = pl.Series(texts_of(values), dtype=pl.String)
    return pl.DataFrame(columns)


def texts_of(values: Sequence[object]) -> list[str | None]:
    """The text of each value: the one it has in a column of its own kind alone.

    Whole numbers are written without a fraction and truths as 1 and 0, whatever stands beside
    them; what is neither text, number nor truth is written as Python does.

    >>> texts_of([12, "12", 12.0, 0.5, True, None])
    ['12', '12', '12', '0.5', '1', None]
    """
    numbers = [_number(value) for value in values]
    floats = pl.Series([value for value in numbers if isinstance(value, float)], dtype=pl.Float64)
    text = as_text(pl.lit(floats), pl.Float64())
    assert text is not None
    written = iter(pl.select(text).to_series().to_list())
    return [
        next(written) if isinstance(value, float) else None if value is None else str(value)
        for value in numbers
    ]


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
