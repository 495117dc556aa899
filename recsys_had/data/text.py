"""TextFile: a TSV or CSV file as blocks of records, cut at bytes that depend on the file alone."""

import codecs
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_had.data.files import MAX_RECORD_BYTES, ByteStream, FileRange, is_plain, open_bytes
from recsys_had.data.lines import Dialect, Records, plain_line_ends
from recsys_had.data.normalise import blank_missing
from recsys_had.data.problems import Problems
from recsys_had.errors import DataError, SchemaError
from recsys_had.schema import FileFormat
from recsys_had.storage import AnyPath

# Between the columns of the text a row is known by.
ROW_SEPARATOR = b"\x1f"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class TextFile:
    """A text file whose first record was read.

    Args:
        path: the file; .gz and .zst are decompressed.
        file_format: how it is written.
        columns: names of its columns where it has no header.
        optional: those of them that it may lack: the first, or the first two, and so on.

    Raises:
        DataError: it is empty, cannot be read or has another number of columns.
    """

    def __init__(
        self,
        path: AnyPath,
        file_format: FileFormat,
        *,
        columns: tuple[str, ...],
        optional: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.format = file_format
        self.dialect = Dialect(_separator(file_format), file_format.type == "csv")
        names = self._first_names()
        if file_format.header:
            self.columns = names
        elif len(columns) - len(optional) <= len(names) <= len(columns):
            lacking = optional[: len(columns) - len(names)]
            self.columns = tuple(name for name in columns if name not in lacking)
        else:
            others = [
                f"{len(columns) - number} without {' and '.join(optional[:number])}"
                for number in range(1, len(optional) + 1)
            ]
            without = f" ({', '.join(others)})" if others else ""
            raise DataError(
                f"{path}:1: holds {len(names)} columns; the card has {len(columns)}{without}. "
                "Is it the right file, and the right separator?"
            )

    @property
    def header_place(self) -> str:
        """Where its columns are named."""
        return f"{self.path}:1" if self.format.header else str(self.path)

    def blocks(
        self, wanted: tuple[str, ...], *, block_bytes: int
    ) -> Iterator[tuple[int, "TextRows"]]:
        """Pieces of at most ``block_bytes`` that end with a record, and their numbers of rows.

        A record that is longer than that is a block of its own.

        Raises:
            DataError: the file cannot be read to its end.
        """
        line = 1
        # An object of a store is fetched once, and so is what has to be decompressed.
        again = self.path if isinstance(self.path, Path) and is_plain(self.path) else None
        with open_bytes(self.path) as stream:
            pending = stream.read(len(_BYTE_ORDER_MARK))
            offset = len(pending)
            pending = pending.removeprefix(_BYTE_ORDER_MARK)
            offset -= len(pending)
            if self.format.header:
                pending = self._read_record(stream, pending, line)
                header = Records(pending, self.dialect).first_bytes or len(pending)
                line += pending.count(b"\n", 0, header)
                offset += header
                pending = pending[header:]
            while True:
                if again is not None:
                    # Cheaper than a copy of what is there: the block is read where it is parsed.
                    stream.seek(offset)
                    pending = b""
                pending += stream.read(max(0, block_bytes - len(pending)))
                cut = len(pending)
                if cut >= block_bytes:
                    begin = pending if cut == block_bytes else pending[:block_bytes]
                    cut = Records(begin, self.dialect).whole_bytes
                    del begin
                    if cut == 0:
                        pending = self._read_record(stream, pending, line)
                        cut = Records(pending, self.dialect).first_bytes or len(pending)
                if cut == 0:
                    return
                num_rows, num_lines = Records(pending, self.dialect).numbers_in(cut)
                source: bytes | FileRange
                if again is None:
                    source, pending = pending[:cut], pending[cut:]
                else:
                    source, pending = FileRange(again, offset, cut), b""
                rows = TextRows(self, source, line, wanted)
                del source  # a block is large: it must not live on while the next is read
                yield num_rows, rows
                del rows
                offset += cut
                line += num_lines

    def _first_names(self) -> tuple[str, ...]:
        """What stands in the first record."""
        with open_bytes(self.path) as stream:
            head = self._read_record(stream, b"", 1)
        first = plain_line_ends(head[: Records(head, self.dialect).first_bytes or len(head)])
        first = first.removeprefix(_BYTE_ORDER_MARK)
        self.check_quotes(Records(first, self.dialect), 1)
        if not first:
            raise DataError(
                f"{self.path}: is empty. Remove it, or give the file that holds the rows."
            )
        text = self.decode(first.removesuffix(b"\n"), 1).decode()
        separator = self.dialect.separator.decode()
        if self.dialect.quoted:
            try:
                return tuple(next(csv.reader([text], delimiter=separator), [""]))
            except csv.Error as cause:
                raise DataError(
                    f"{self.path}:1: is not a row of CSV ({cause}). Are its line ends those of "
                    "an old system, or is it no text?"
                ) from cause
        return tuple(text.split(separator))

    def _read_record(self, stream: ByteStream, head: bytes, line: int) -> bytes:
        """Reads on until ``head`` holds a whole record or the file ends."""
        while not Records(head, self.dialect).first_bytes:
            if len(head) > MAX_RECORD_BYTES:
                raise DataError(
                    f"{self.path}:{line}: the row goes on for more than "
                    f"{MAX_RECORD_BYTES >> 20} MiB. Is a quote never closed, or is it no text?"
                )
            more = stream.read(max(1 << 16, len(head)))
            if not more:
                break
            head += more
        return head

    def check_quotes(self, records: Records, first_line: int) -> None:
        """Refuses a quote that RFC 4180 does not allow.

        Raises:
            DataError: the first such quote, with its line.
        """
        strays = records.stray_quotes()
        if len(strays):
            self.refuse_quote(records, int(strays[0]), first_line)

    def refuse_quote(self, records: Records, stray: int, first_line: int) -> NoReturn:
        """Tells of a quote that no row of CSV can have."""
        line, begin = records.line_at(stray), records.start_line(stray)
        where = "" if begin == line else f" in the row that begins in line {first_line + begin}"
        raise DataError(
            f"{self.path}:{first_line + line}: a quote stands inside a column or is never "
            f"closed{where}. Put the column in quotes and double those inside it."
        )

    def decode(self, data: bytes, first_line: int) -> bytes:
        """The text as UTF-8."""
        if data.isascii():
            return data
        if self.format.encoding == "latin-1":
            return data.decode("latin-1").encode()
        try:
            data.decode()
        except UnicodeDecodeError as cause:
            line = first_line + data.count(b"\n", 0, cause.start)
            raise DataError(
                f"{self.path}:{line}: must be UTF-8; got the byte 0x{data[cause.start]:02x}. "
                "Convert the file, or set format.encoding to latin-1 in the card."
            ) from cause
        return data


@dataclass(frozen=True)
class TextRows:
    """The bytes of a block, and how to read them.

    Args:
        file: the file.
        source: the bytes, or where in a plain file they stand: so blocks that wait, or are sent to
            another process, weigh nothing.
        first_line: line of the first of them.
        wanted: columns to read.
    """

    file: TextFile
    source: bytes | FileRange
    first_line: int
    wanted: tuple[str, ...]

    @cached_property
    def data(self) -> bytes:
        """The bytes, as they stand in the file."""
        return self.source if isinstance(self.source, bytes) else self.source.read()

    @cached_property
    def records(self) -> Records:
        """The rows, not yet parsed."""
        return Records(self.data, self.file.dialect)

    @cached_property
    def _decoded(self) -> bytes:
        """The same in UTF-8, with plain line ends."""
        return self.file.decode(plain_line_ends(self.data), self.first_line)

    def place(self, row: int) -> str:
        """File and line of a row."""
        return f"{self.file.path}:{self.numbers(np.array([row]))[0]}"

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The line of each of some rows, counted from 1."""
        return self.first_line + (self.records.lines[rows] if self.records.has_quotes else rows)

    def read(self) -> pl.DataFrame:
        """Parses the rows into columns of text, nulls where a value is missing.

        Raises:
            DataError: a row has too few or too many columns, a quote or a byte is wrong.
        """
        data = self._decoded
        records = Records(data, self.file.dialect)
        self.file.check_quotes(records, self.first_line)
        problems = Problems()
        self.add_wrong_widths(records, problems)
        problems.raise_any()
        return self.parse(data, has_quotes=records.has_quotes)

    def row_texts(self, columns: tuple[str, ...]) -> list[bytes] | None:
        """What :func:`recsys_had.data.split.row_texts` makes of the rows, but from their bytes.

        None where a text is not simply its line with other separators.

        Args:
            columns: those of the card, in its order.
        """
        is_plain = self.file.format.missing == ("",) and not self.records.has_quotes
        if not is_plain or self.file.columns != columns:
            return None
        lines = self._decoded.replace(self.file.dialect.separator, ROW_SEPARATOR).split(b"\n")
        return lines if lines[-1] else lines[:-1]

    def text(self, row: int, *, max_bytes: int) -> str:
        r"""The row as it stands in the file, or its beginning.

        A byte that is no text is written as ``\xff``.
        """
        data = self.records.record(row).removesuffix(b"\r")
        decoder = codecs.getincrementaldecoder(self.file.format.encoding)("backslashreplace")
        return decoder.decode(data[:max_bytes], final=len(data) <= max_bytes)

    def parse(self, data: bytes, *, has_quotes: bool) -> pl.DataFrame:
        """Reads rows that are as the format asks, in UTF-8 and with plain line ends."""
        if not data:
            return pl.DataFrame(schema=dict.fromkeys(self.wanted, pl.String))
        frame = self._parse(data, has_quotes=has_quotes)
        missing = self.file.format.missing
        if "" not in missing:
            frame = frame.with_columns(pl.all().fill_null(""))
        elif not has_quotes:
            # Polars has made nulls of empty columns, unless they stand in quotes.
            missing = tuple(text for text in missing if text)
        return blank_missing(frame, missing, columns=self.wanted)

    def _parse(self, data: bytes, *, has_quotes: bool) -> pl.DataFrame:
        """Columns of text, nulls where a column is empty and not in quotes."""
        # Polars takes a mark at the start of a block for the file's, and drops one.
        if data.startswith(_BYTE_ORDER_MARK):
            data = _BYTE_ORDER_MARK + data
        # It drops a return before a separator, too. One that ends no line is a character.
        stand_in = None
        if b"\r" in data:
            stand_in = _unused_character(data)
            data = data.replace(b"\r", stand_in.encode())
        frame = pl.read_csv(
            data,
            has_header=False,
            separator=self.file.dialect.separator.decode(),
            quote_char='"' if has_quotes else None,
            schema=dict.fromkeys(self.file.columns, pl.String),
        ).select(self.wanted)
        if stand_in is not None:
            frame = frame.with_columns(pl.all().str.replace_all(stand_in, "\r", literal=True))
        return frame

    def add_wrong_widths(self, records: Records, problems: Problems) -> None:
        """Adds a problem for every row with too few or too many columns."""
        width = len(self.file.columns)
        wrong, widths = records.wrong_widths(width)
        if not len(wrong):
            return

        def describe(row: int) -> str:
            if records.is_blank(row):
                return "is blank. Remove the line."
            return f"holds {found[row]} columns; {width} are expected."

        found = dict(zip(wrong.tolist(), widths.tolist(), strict=True))
        problems.add_rows(records.mask(wrong), self.place, describe)


def _unused_character(data: bytes) -> str:
    """A character for private use that is not in the text."""
    return next(chr(code) for code in range(0xE000, 0xF900) if chr(code).encode() not in data)


def _separator(file_format: FileFormat) -> bytes:
    separator = file_format.column_separator
    if not separator.isascii() or separator in '\n\r"':
        raise SchemaError(
            "format.separator: must be an ASCII character other than a quote or a line end; "
            f"got {separator!r}."
        )
    return separator.encode()
