"""StreamSource: rows of an Arrow stream, which can be read once, as blocks."""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa

from recsys_had.columns import Column
from recsys_had.data.raw import BLOCK_BYTES, RawBlock
from recsys_had.data.rawfile import check_columns
from recsys_had.data.table import TableRows
from recsys_had.data.values import required_columns
from recsys_had.errors import DataError
from recsys_had.schema import DatasetCard

STANDARD_INPUT = Path("standard input")
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
        self._bytes = _Watched(stream)
        try:
            self._reader = pa.ipc.open_stream(self._bytes)
        except _UNREADABLE as cause:
            raise DataError(f"{STANDARD_INPUT}: is not an Arrow stream: {cause}.") from cause
        self._wanted = tuple(dict.fromkeys([*required_columns(card), *keep]))
        check_columns(self._reader.schema.names, self._wanted, place=str(STANDARD_INPUT))
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
            DataError: the stream is damaged, cut off or without the mark of its end.
        """
        waiting: list[pa.RecordBatch] = []
        row_id = size_bytes = 0
        for batch in self._batches():
            if waiting and size_bytes + batch.nbytes > block_bytes:
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
                found = batch.select(list(self._wanted))
                # What lies about its own sizes would end the process later, without a word.
                found.validate(full=True)
                yield found
        except _UNREADABLE as cause:
            raise DataError(f"{STANDARD_INPUT}: cannot be read to its end: {cause}.") from cause
        if self._bytes.ran_dry:
            # Arrow takes it for the end, and it may be that of a writer who was stopped.
            raise DataError(
                f"{STANDARD_INPUT}: ends without the mark of its end, so rows may be missing. Send "
                "it whole, from a writer that is closed."
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


class _Watched(io.RawIOBase):
    """Bytes that are read, and whether more were asked for than came."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.ran_dry = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        found = self._stream.read(size)
        self.ran_dry = not found and size != 0
        return found


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
    """SHA-256 of all that decides what becomes of rows, their first one's number among it."""
    sink = pa.BufferOutputStream()
    # A serialised batch alone would have neither types nor dictionaries.
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    found = hashlib.sha256(f"{row_id}:".encode())
    found.update(sink.getvalue())
    return found.hexdigest()
