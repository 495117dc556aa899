"""Bodies that are Arrow streams to frames of raw rows.

Whoever made the bytes may have made them to harm: nothing is believed of them before Arrow has
validated it in full, and nothing is unpacked or decoded before its size is known.
"""

import functools
import textwrap
from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_had.data.arrow_texts import BYTES_OF, sound_texts, to_polars
from recsys_had.data.problems import MAX_PROBLEMS, Problems, quoted
from recsys_had.data.values import required_columns
from recsys_had.errors import DataError
from recsys_had.schema import DatasetCard
from recsys_had.serving.arrow_messages import unpacked_bytes
from recsys_had.serving.request_error import RequestError, match, too_many_rows

_types = pa.types
_OTHERS = (
    _types.is_null,
    _types.is_boolean,
    _types.is_integer,
    _types.is_floating,
    _types.is_decimal32,
    _types.is_decimal64,
    _types.is_decimal128,
    _types.is_fixed_size_binary,
    _types.is_date,
)
_LISTS = (_types.is_list, _types.is_large_list, _types.is_fixed_size_list)
# Types of texts and bytes, and what has their layout without being asked to be text.
_BYTES = {**BYTES_OF, **{kind: kind for kind in BYTES_OF.values()}}


def frame_of_arrow(
    body: bytes, card: DatasetCard, *, max_rows: int, max_bytes: int
) -> pl.DataFrame:
    """The columns that the card's model reads, of a body that is an Arrow IPC stream.

    Other columns are left out, whatever they hold.

    Args:
        body: the stream, its buffers plain or packed.
        card: what the columns are.
        max_rows: rows that are taken.
        max_bytes: bytes that they take once they are unpacked, and again once they are decoded:
            short texts may stand for long ones.

    Raises:
        RequestError: status 400, it is no Arrow stream, or a damaged one; 413, it is too large.
        DataError: one line per column that is missing or of a type that no raw column has, or per
            text that is no UTF-8.

    >>> from recsys_had.schema import parse_card
    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns: {click: {kind: label}, C1: {kind: categorical}, I1: {kind: integer}}
    ... split: {by: given}
    ... ''')
    >>> sink = pa.BufferOutputStream()
    >>> table = pa.table({"I1": [3, None], "C1": pa.array(["x", "y"]).dictionary_encode()})
    >>> with pa.ipc.new_stream(sink, table.schema) as stream:
    ...     stream.write_table(table)
    >>> body = sink.getvalue().to_pybytes()
    >>> frame_of_arrow(body, card, max_rows=10, max_bytes=1000).rows()
    [('x', 3), ('y', None)]
    """
    buffer = pa.py_buffer(body)
    try:
        if unpacked_bytes(buffer) > max_bytes:
            raise _too_large(max_bytes)
        batches = list(_batches(buffer, card, max_rows))
        return _frame(batches, card, max_bytes)
    except (pa.ArrowException, ValueError, OSError) as cause:
        raise RequestError(400, f"body: is no whole Arrow stream: {_reason(cause)}.") from cause


def _batches(body: pa.Buffer, card: DatasetCard, max_rows: int) -> Iterator[pa.RecordBatch]:
    """The wanted columns, batch by batch, not yet validated."""
    with pa.ipc.open_stream(body) as stream:
        schema = stream.schema
    wanted = required_columns(card)
    numbers = {name: schema.get_all_field_indices(name) for name in wanted}
    _check_columns(schema, numbers)
    options = pa.ipc.IpcReadOptions(
        included_fields=sorted(number for [number] in numbers.values()), use_threads=False
    )
    rows = 0
    with pa.ipc.open_stream(body, options=options) as stream:
        for batch in stream:
            rows += batch.num_rows
            if rows > max_rows:
                raise too_many_rows(max_rows)
            yield batch.select(wanted)


def _check_columns(schema: pa.Schema, numbers: dict[str, list[int]]) -> None:
    problems = []
    for name, found in numbers.items():
        if not found:
            problems.append(f"column {name}: is missing.{match(name, schema.names)}")
        elif len(found) > 1:
            problems.append(f"column {name}: stands {len(found)} times. Send it once.")
        elif not _is_taken(schema.field(found[0]).type):
            got = quoted(str(schema.field(found[0]).type))
            problems.append(f"column {name}: must hold text, numbers, times or lists; got {got}.")
    if problems:
        raise DataError(problems[:MAX_PROBLEMS], total=len(problems))


def _is_taken(dtype: pa.DataType, *, inside: bool = False) -> bool:
    if _types.is_dictionary(dtype) and not inside:
        return _is_taken(dtype.value_type, inside=True)
    if any(check(dtype) for check in _LISTS) and not inside:
        return _is_taken(dtype.value_type, inside=True)
    if _types.is_timestamp(dtype):
        return _is_zone(dtype)
    return dtype in _BYTES or any(check(dtype) for check in _OTHERS)


def _is_zone(dtype: pa.TimestampType) -> bool:
    """Whether the name of a time's zone is a text at all."""
    try:
        return dtype.tz is None or dtype.tz.isprintable()
    except UnicodeDecodeError:
        return False


def _frame(batches: list[pa.RecordBatch], card: DatasetCard, max_bytes: int) -> pl.DataFrame:
    wanted = required_columns(card)
    problems = Problems()
    frames: list[pl.DataFrame] = []
    first = size = 0
    for batch in batches:
        columns = [_validated(column) for column in batch.columns]
        size += sum(_decoded_bytes(column) for column in columns)
        if size > max_bytes:
            raise _too_large(max_bytes)
        sound = sound_texts(
            pa.RecordBatch.from_arrays([_plain(column) for column in columns], list(wanted)),
            place=functools.partial(_place, first),
            problems=problems,
        )
        try:
            frames.append(to_polars(sound))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as cause:
            # A time zone that is not known, for one.
            raise DataError(f"body: holds what cannot be read: {_reason(cause)}.") from cause
        first += batch.num_rows
    problems.raise_any()
    return pl.concat(frames) if frames else pl.DataFrame(schema=dict.fromkeys(wanted, pl.Null))


def _place(first: int, row: int) -> str:
    return f"row {first + row}"


def _validated(column: pa.Array) -> pa.Array:
    """A column whose every offset, length and index is seen to be right; texts are bytes.

    Raises:
        pa.ArrowInvalid: one is not.
    """
    if _types.is_dictionary(column.type):
        indices, dictionary = column.indices, _validated(column.dictionary)
        indices.validate(full=True)
        # Looks whether every index is within.
        column = pa.DictionaryArray.from_arrays(indices, dictionary)
    elif column.type in _BYTES:
        column = column.view(_BYTES[column.type])
    column.validate(full=True)
    return column


def _plain(column: pa.Array) -> pa.Array:
    """A column, validated, as polars takes it: no dictionary, no names inside its type."""
    if _types.is_dictionary(column.type):
        return column.dictionary_decode()
    if _types.is_fixed_size_list(column.type):
        return column.cast(pa.list_(column.type.value_type, column.type.list_size))
    if _types.is_large_list(column.type):
        return column.cast(pa.large_list(column.type.value_type))
    if _types.is_list(column.type):
        # The name of the values may be no text, which polars does not expect.
        return column.cast(pa.list_(column.type.value_type))
    return column


def _decoded_bytes(column: pa.Array) -> int:
    """Bytes of a column, validated, in which every value is written out."""
    if _types.is_dictionary(column.type):
        indices = column.indices.drop_null().to_numpy()
        lengths = _byte_lengths(column.dictionary)
        if lengths is None:
            return len(indices) * _width(column.dictionary.type)
        return int(lengths[indices].sum())
    if any(check(column.type) for check in _LISTS):
        return _decoded_bytes(column.values)
    lengths = _byte_lengths(column)
    return len(column) * _width(column.type) if lengths is None else int(lengths.sum())


def _byte_lengths(column: pa.Array) -> NDArray[np.int64] | None:
    """Length of each text; None where all values are of one width."""
    if column.type not in _BYTES:
        return None
    if column.type not in (pa.binary_view(), pa.string_view()):
        lengths: NDArray[np.int64] = pc.binary_length(column).fill_null(0).to_numpy()
        return lengths.astype(np.int64)
    # Arrow has no kernel for views: 16 bytes each, of which the first four are the length.
    views = np.frombuffer(column.buffers()[1] or b"", np.int32)[::4]
    found = views[column.offset : column.offset + len(column)].astype(np.int64)
    return np.where(column.is_valid().to_numpy(zero_copy_only=False), found, 0)


def _width(dtype: pa.DataType) -> int:
    return 1 if _types.is_null(dtype) else max(1, int(dtype.bit_width) // 8)


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(
        413,
        f"body: takes more than {max_bytes:,} bytes once it is unpacked. Send fewer rows, or "
        "serve with --max-body-bytes.",
    )


def _reason(cause: BaseException) -> str:
    """The first line of what a library says."""
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return textwrap.shorten(lines[0], 300, placeholder=" ...").rstrip(" .")
