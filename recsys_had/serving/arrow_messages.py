"""Messages of an Arrow stream, seen to end where it says and to unpack to no more than is allowed.

A packed buffer begins with the length it will have, and Arrow sets that much memory aside before
it unpacks a byte: 100 bytes may ask for terabytes. So the lengths are read first, from the
FlatBuffers that tell of the buffers.
"""

import struct
from dataclasses import dataclass

import pyarrow as pa

_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
# Of the tables Message, DictionaryBatch and RecordBatch in the format's Message.fbs and Schema.fbs.
_HEADER_TYPE, _HEADER = 1, 2
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_DICTIONARY_DATA = 1
_BUFFERS, _COMPRESSION = 2, 3


def unpacked_bytes(body: pa.Buffer) -> int:
    """Bytes that the packed buffers of a stream ask for when they are unpacked; 0 without any.

    Raises:
        ValueError: it is no whole stream: it ends early, or goes on after its end.
        pa.ArrowInvalid: a message cannot be read.

    >>> sink = pa.BufferOutputStream()
    >>> table = pa.table({"a": [7] * 1000})
    >>> packed = pa.ipc.IpcWriteOptions(compression="zstd")
    >>> with pa.ipc.new_stream(sink, table.schema, options=packed) as stream:
    ...     stream.write_table(table)
    >>> unpacked_bytes(sink.getvalue())
    8000
    """
    source = pa.BufferReader(body)
    messages = pa.ipc.MessageReader.open_stream(source)
    total = 0
    while True:
        begin = source.tell()
        try:
            message = messages.read_next_message()
        except StopIteration:
            break
        total += _unpacked_bytes(message)
    end = body.slice(begin).to_pybytes()[: len(_END) + 1]
    if end != _END:
        early = _END.startswith(end)
        raise ValueError("its end is missing" if early else "it goes on after its end")
    return total


def _unpacked_bytes(message: pa.ipc.Message) -> int:
    try:
        return _of_table(_Table.root(message.metadata.to_pybytes()), message.body)
    except (struct.error, IndexError) as cause:
        raise ValueError("its metadata cannot be read") from cause


def _of_table(root: "_Table", body: pa.Buffer | None) -> int:
    kind, header = root.byte(_HEADER_TYPE), root.table(_HEADER)
    if kind == _DICTIONARY_BATCH and header is not None:
        header = header.table(_DICTIONARY_DATA)
    elif kind != _RECORD_BATCH:
        return 0
    if header is None or body is None or header.table(_COMPRESSION) is None:
        return 0
    total = 0
    for offset, length in header.pairs(_BUFFERS):
        if length > 0:
            # -1: the buffer stands as it is, behind the length.
            (declared,) = struct.unpack("<q", body.slice(offset, 8).to_pybytes())
            total += length if declared == -1 else declared
            if declared < -1:
                raise ValueError("a buffer has a negative length")
    return total


@dataclass(frozen=True)
class _Table:
    """A table of FlatBuffers: offsets to fields by their number."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        return cls(data, _read("<I", data, 0))

    def byte(self, field: int) -> int:
        place = self._place(field)
        return 0 if place is None else self.data[place]

    def table(self, field: int) -> "_Table | None":
        place = self._place(field)
        return None if place is None else _Table(self.data, place + _read("<I", self.data, place))

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """A vector of structs of two 64-bit numbers."""
        place = self._place(field)
        if place is None:
            return []
        begin = place + _read("<I", self.data, place)
        count = _read("<I", self.data, begin)
        flat = struct.unpack_from(f"<{2 * count}q", self.data, begin + 4)
        return list(zip(flat[::2], flat[1::2], strict=True))

    def _place(self, field: int) -> int | None:
        fields = self.at - _read("<i", self.data, self.at)
        entry = 4 + 2 * field
        if fields < 0 or entry >= _read("<H", self.data, fields):
            return None
        offset = _read("<H", self.data, fields + entry)
        return self.at + offset if offset else None


def _read(form: str, data: bytes, at: int) -> int:
    (number,) = struct.unpack_from(form, data, at)
    return int(number)
