"""StreamSource: rows of an Arrow stream, which can be read once, as blocks."""

import hashlib
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
        try:
            self._reader = pa.ipc.open_stream(stream)
        except _UNREADABLE as cause:
            raise DataError(f"{STANDARD_INPUT}: is not an Arrow stream: {cause}.") from cause
        self._wanted = tuple(dict.fromkeys([*required_columns(card), *keep]))
        check_columns(self._reader.schema.names, self._wanted, place=str(STANDARD_INPUT))
        self._stream = _Stream(STANDARD_INPUT, card.columns, card.format.missing)

    @property
    def fingerprint(self) -> list[dict[str, str | int]]:
        """Nothing tells whether a stream will be the same; each block's own digest does."""
        return [{"path": str(STANDARD_INPUT)}]

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[RawBlock]:
        """The rows, in order, in blocks that depend on the stream's batches alone.

        Args:
            block_bytes: bytes of a block, unless one batch has more.

        Raises:
            DataError: the stream is damaged or cut off.
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

    def _block(self, batches: list[pa.RecordBatch], row_id: int) -> RawBlock:
        whole = pa.Table.from_batches(batches).combine_chunks()
        batch = whole.to_batches()[0] if len(whole) else batches[0]
        digest = hashlib.sha256(batch.serialize()).hexdigest()
        rows = TableRows(self._stream, batch, row_id, self._wanted)
        return RawBlock(STANDARD_INPUT, 0, row_id, batch.num_rows, rows, digest)
