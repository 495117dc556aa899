"""StreamSource: rows of an Arrow stream, which can be read once, as blocks."""

import hashlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa

from recsys_had.columns import Column
from recsys_had.data.arrow_texts import BYTES_OF
from recsys_had.data.raw import BLOCK_BYTES, RawBlock
from recsys_had.data.rawfile import check_columns, told_of_further
from recsys_had.data.table import TableRows
from recsys_had.data.values import required_columns
from recsys_had.errors import DataError
from recsys_had.schema import DatasetCard

STANDARD_INPUT = Path("standard input")
_log = logging.getLogger("recsys_had")
_UNREADABLE = (OSError, pa.ArrowException, UnicodeDecodeError)


@dataclass(frozen=True)
class _Stream:
    """In place of a file."""

    path: Path
    card_columns: Mapping[str, Column]
    missing: tuple[str, ...]


class StreamSource:
    """Reads rows to be scored from an Arrow IPC stream.

    Args:
        stream: the bytes.
        card: what the columns are.
        keep: further columns to read.

    Raises:
        DataError: it is no Arrow stream, or a column is missing.

    >>> import io
    >>> from recsys_had.schema import parse_card
    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns: {click: {kind: label}, C1: {kind: categorical}}
    ... split: {by: given}
    ... ''')
    >>> sink, rows = io.BytesIO(), pa.table({"C1": ["a", None]})
    >>> with pa.ipc.new_stream(sink, rows.schema) as writer:
    ...     writer.write_table(rows)
    >>> [block] = StreamSource(io.BytesIO(sink.getvalue()), card).blocks()
    >>> block.frame.rows()
    [('a',), (None,)]
    """

    def __init__(self, stream: IO[bytes], card: DatasetCard, *, keep: Sequence[str] = ()) -> None:
        self._bytes = _Bytes(stream)
        try:
            self._reader = pa.ipc.open_stream(pa.PythonFile(self._bytes, "r"))
        except _UNREADABLE as cause:
            raise DataError(f"{STANDARD_INPUT}: is not an Arrow stream: {cause}.") from cause
        self._wanted = tuple(dict.fromkeys([*required_columns(card), *keep]))
        names = self._reader.schema.names
        check_columns(names, self._wanted, place=str(STANDARD_INPUT))
        if told := told_of_further(names, card, self._wanted):
            _log.info("%s: %s", STANDARD_INPUT, told)
        self._stream = _Stream(STANDARD_INPUT, card.columns, card.format.missing)

    @property
    def fingerprint(self) -> list[dict[str, str | int]]:
        """Nothing tells whether a stream will be the same; each block's own digest does.

        It is of the rows, of their types and dictionaries, and of the first one's number.
        """
        return [{"path": str(STANDARD_INPUT)}]

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[RawBlock]:
        """The rows, in order, in blocks that depend on the stream's batches alone.

        Args:
            block_bytes: bytes of a block, unless one batch has more.

        Raises:
            DataError: the stream is damaged, cut off, without the mark of its end, or goes on
                after it.
        """
        waiting: list[pa.RecordBatch] = []
        row_id = size_bytes = 0
        for batch in self._batches():
            is_full = size_bytes + batch.nbytes > block_bytes
            if waiting and (is_full or batch.schema != waiting[0].schema):
                yield self._block(waiting, row_id)
                row_id += sum(each.num_rows for each in waiting)
                waiting, size_bytes = [], 0
            if batch.num_rows:
                waiting.append(batch)
                size_bytes += batch.nbytes
        if waiting:
            yield self._block(waiting, row_id)

    def empty_block(self) -> RawBlock:
        """A block of no rows, where one is needed nevertheless."""
        schema = self._reader.schema
        empty = pa.RecordBatch.from_pylist([], pa.schema([schema.field(n) for n in self._wanted]))
        return self._block([empty], 0)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._reader:
                yield _validated(batch.select(list(self._wanted)))
        except _UNREADABLE as cause:
            raise DataError(f"{STANDARD_INPUT}: cannot be read to its end: {cause}.") from cause
        if self._bytes.are_over:
            raise DataError(
                f"{STANDARD_INPUT}: is cut off: the mark that ends an Arrow stream is missing. "
                "Was its sender stopped, or its writer not closed? Send it again."
            )
        if self._bytes.read(1):
            raise DataError(
                f"{STANDARD_INPUT}: goes on after the end of the Arrow stream. Send all rows in "
                "one stream."
            )

    def _block(self, batches: list[pa.RecordBatch], row_id: int) -> RawBlock:
        try:
            whole = pa.Table.from_batches([_widely_indexed(batch) for batch in batches])
            whole = whole.combine_chunks()
        except pa.ArrowException as cause:
            raise DataError(f"{STANDARD_INPUT}: cannot be read: {cause}.") from cause
        batch = whole.to_batches()[0] if len(whole) else batches[0]
        rows = TableRows(self._stream, batch, row_id, self._wanted)
        return RawBlock(STANDARD_INPUT, 0, row_id, batch.num_rows, rows, _digest(batch, row_id))


class _Bytes(io.RawIOBase):
    """A stream's bytes, and whether there are no more: to Arrow that is an end like any other."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__()
        self._stream = stream
        self.are_over = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        found = self._stream.read(size)
        self.are_over |= size < 0 or len(found) < size
        return found


class _Digest(io.RawIOBase):
    """A file of which nothing but the digest is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = memoryview(data)  # type: ignore[arg-type]
        self.sha256.update(piece)
        return piece.nbytes


def _widely_indexed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose dictionaries have room for those of others."""
    for place, column in enumerate(batch.columns):
        if pa.types.is_dictionary(column.type) and column.type.index_type.bit_width < 32:
            wide = pa.DictionaryArray.from_arrays(
                column.indices.cast(pa.int32()), column.dictionary, ordered=column.type.ordered
            )
            batch = batch.set_column(place, batch.schema.names[place], wide)
    return batch


def _digest(batch: pa.RecordBatch, row_id: int) -> str:
    """SHA-256 of all that decides what becomes of rows, their first one's number among it.

    Types and dictionaries too: of a batch alone Arrow writes neither.
    """
    digest = _Digest()
    digest.sha256.update(f"{row_id}:".encode())
    with pa.ipc.new_stream(pa.PythonFile(digest, "w"), batch.schema) as writer:
        writer.write_batch(batch)
    return digest.sha256.hexdigest()


def _validated(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch that does not lie about its own sizes, which would end the process later.

    Texts that are no UTF-8 become bytes, to be told with their rows.

    Raises:
        pa.ArrowInvalid: it does.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        columns = list(map(_as_bytes, batch.columns))
        batch = pa.RecordBatch.from_arrays(columns, batch.schema.names)
        batch.validate(full=True)
    return batch


def _as_bytes(column: pa.Array) -> pa.Array:
    """A column, whose texts are bytes."""
    if pa.types.is_dictionary(column.type) and column.type.value_type in BYTES_OF:
        return pa.DictionaryArray.from_arrays(column.indices, _as_bytes(column.dictionary))
    return column.view(BYTES_OF[column.type]) if column.type in BYTES_OF else column
