"""Texts of Arrow columns, seen to be UTF-8: Arrow and polars trust whoever says so."""

import numpy as np
import polars as pl
import pyarrow as pa

from recsys_had.data.problems import Place, Problems
from recsys_had.errors import DataError
from recsys_had.utf8 import told, wrong_byte

_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BINARY = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)

# What polars does not know; some of it ends the process that shows it to polars.
_UNKNOWN = (
    pa.types.is_decimal256,
    pa.types.is_interval,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
    pa.types.is_run_end_encoded,
    pa.types.is_union,
)
# Types of texts, and the type of bytes of the same layout.
BYTES_OF = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def sound_texts(batch: pa.RecordBatch, *, place: Place, problems: Problems) -> pa.RecordBatch:
    r"""The rows with bytes as text; one that is no UTF-8 is a problem, and null.

    Args:
        batch: the rows.
        place: names a row in a problem.
        problems: takes the rows with a text that is none.

    Raises:
        DataError: a column is of a type that no raw column has, or texts inside its lists are not
            UTF-8.

    >>> batch = pa.record_batch({"a": pa.array([b"x", b"\xff"])})
    >>> sound_texts(batch, place=str, problems=Problems()).to_pydict()
    {'a': ['x', None]}
    """
    unknown = [
        f"column {field.name}: must hold text, numbers, times or lists of them; got {field.type}."
        for field in batch.schema
        if _is_unknown(field.type)
    ]
    if unknown:
        raise DataError(unknown)
    for number, field in enumerate(batch.schema):
        column = batch.column(number)
        if pa.types.is_dictionary(column.type) and _is_binary(column.type.value_type):
            column = column.dictionary_decode()
        is_binary = _is_binary(column.type)
        try:
            column.validate(full=True)
            if pa.types.is_dictionary(column.type):
                column.dictionary.validate(full=True)
            if not is_binary:
                continue
            texts = column.cast(pa.large_binary()).cast(pa.large_string())
        except pa.ArrowInvalid as cause:
            texts = _sound(column, field.name, place, problems)
            if texts is None:
                raise DataError(f"column {field.name}: cannot be read: {cause}.") from cause
        batch = batch.set_column(number, field.name, texts)
    # Without what the file says beside the columns, which may be no text either.
    return pa.RecordBatch.from_arrays(batch.columns, batch.schema.names)


def to_polars(batch: pa.RecordBatch) -> pl.DataFrame:
    """Sound texts and numbers as polars has them.

    >>> to_polars(pa.record_batch({"a": ["x", None]})).rows()
    [('x',), (None,)]
    """
    # Its constructor takes decimals of 32 bits for those of 128, which ends the process.
    return pl.DataFrame(pl.from_arrow(batch))


def _is_unknown(dtype: pa.DataType) -> bool:
    """Whether a type, or one inside it, is unknown to polars."""
    inside = [dtype.field(number).type for number in range(dtype.num_fields)]
    if pa.types.is_dictionary(dtype):
        inside = [dtype.value_type]
    return any(check(dtype) for check in _UNKNOWN) or any(map(_is_unknown, inside))


def _is_binary(dtype: pa.DataType) -> bool:
    return any(check(dtype) for check in _BINARY)


def _sound(column: pa.Array, name: str, place: Place, problems: Problems) -> pa.Array | None:
    """Texts row by row, or None where the column holds none."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not any(check(column.type) for check in (*_TEXT, *_BINARY)):
        return None
    data = column.cast(pa.large_binary()).to_pylist()
    wrong = np.array([row is not None and wrong_byte(row) is not None for row in data], np.bool_)
    problems.add_rows(wrong, place, lambda row: f"column {name}: {told(data[row])}")
    texts = [
        None if row is None or bad else row.decode()
        for row, bad in zip(data, wrong.tolist(), strict=True)
    ]
    return pa.array(texts, pa.large_string())
