"""Frames of raw rows, of whichever library, as one kind."""

import pandas as pd
import polars as pl
import pyarrow as pa


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
        except (TypeError, pa.ArrowException, pl.exceptions.PolarsError):
            values = [
                None if pd.api.types.is_scalar(value) and pd.isna(value) else str(value)
                for value in column
            ]
            columns[str(name)] = pl.Series(values, dtype=pl.String)
    return pl.DataFrame(columns)
