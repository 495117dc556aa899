"""RawSource: raw files as blocks of rows, each row with its number and its place in a file."""

import csv
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_had.data.files import MAX_RECORD_BYTES, ByteStream, expand, open_bytes
from recsys_had.data.lines import Dialect, Records, plain_line_ends
from recsys_had.data.normalise import blank_missing, normalise
from recsys_had.data.prepare import required_columns
from recsys_had.data.problems import Problems
from recsys_had.errors import DataError, SchemaError
from recsys_had.schema import DatasetCard, source_columns
from recsys_had.yamlfile import nearest

BLOCK_BYTES = 64 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_log = logging.getLogger("recsys_had")


@dataclass(frozen=True)
class RawBlock:
    """Consecutive rows of one file.

    Args:
        path: the file.
        input_index: which of the source's inputs the file came from.
        first_row_id: number of its first row over all inputs.
        num_rows: rows it holds.
        read: parses the rows: text columns, nulls where a value is missing; raises DataError.
        place: names a row of the block as a user finds it, ``clicks.tsv:12``.
    """

    path: Path
    input_index: int
    first_row_id: int
    num_rows: int
    read: Callable[[], pl.DataFrame]
    place: Callable[[int], str]

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The rows, parsed once and kept."""
        return self.read()


@dataclass(frozen=True)
class RawFile:
    """A raw file and the columns it was found to hold, in its own order."""

    path: Path
    input_index: int
    columns: tuple[str, ...]
    is_parquet: bool


class RawSource:
    """Reads raw files as a card describes them.

    Args:
        inputs: files or globs, .gz and .zst among them; a name ending in .parquet is read as
            Parquet whatever the card says.
        card: what the columns are.
        label: ``required``: every column of the card must be there; ``optional``: those the
            model reads. A file without a header then may have all columns but the label.
        keep: further columns to read.

    Raises:
        DataError: an input is missing, empty or unreadable, or its columns do not match; one
            line per problem.

    >>> import tempfile
    >>> from recsys_had.schema import parse_card
    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns: {click: {kind: label}, C1: {kind: categorical}}
    ... split: {by: given}
    ... ''')
    >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
    >>> _ = path.write_text("C1,click\\na,1\\n,0\\n")
    >>> [block.frame.rows() for block in RawSource([path], card).blocks()]
    [[('1', 'a'), ('0', None)]]
    """

    def __init__(
        self,
        inputs: Sequence[str | Path],
        card: DatasetCard,
        *,
        label: Literal["required", "optional"] = "required",
        keep: Sequence[str] = (),
    ) -> None:
        self._card = card
        self._label_optional = label == "optional"
        wanted = required_columns(card) if self._label_optional else source_columns(card.columns)
        self._wanted = tuple(dict.fromkeys([*wanted, *keep]))
        self._dialect = Dialect(_separator(card), card.format.type == "csv")
        problems = Problems()
        self.files = []
        for index, path in expand(inputs):
            try:
                self.files.append(self._open(index, path))
            except DataError as error:
                problems.add_error(error)
        problems.raise_any()

    @property
    def fingerprint(self) -> list[dict[str, str | int]]:
        """What tells whether the files are still the same."""
        facts = [(file.path.resolve(), file.path.stat()) for file in self.files]
        return [
            {"path": str(path), "size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
            for path, stat in facts
        ]

    def empty_block(self) -> RawBlock:
        """A block of no rows, where a place for one is needed."""
        file = self.files[-1]
        frame = pl.DataFrame(schema={name: pl.String for name in self._wanted})
        return RawBlock(file.path, file.input_index, 0, 0, lambda: frame, lambda row: str(row))

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[RawBlock]:
        """The rows of all files, in order, in blocks that depend on the files' bytes alone.

        Args:
            block_bytes: bytes of decompressed text in a block, unless one record is longer.

        Raises:
            DataError: a file cannot be read to its end.
        """
        row_id = 0
        for file in self.files:
            read = self._parquet_blocks if file.is_parquet else self._text_blocks
            for num_rows, content in read(file, block_bytes):
                yield RawBlock(
                    file.path, file.input_index, row_id, num_rows, content.read, content.place
                )
                row_id += num_rows

    def _open(self, index: int, path: Path) -> RawFile:
        """Reads what the file says of its columns and checks it."""
        is_parquet = path.suffix == ".parquet" or self._card.format.type == "parquet"
        if is_parquet:
            columns = tuple(_parquet_file(path).schema_arrow.names)
        elif self._card.format.header:
            columns = self._read_header(path)
        else:
            columns = self._columns_without_header(path)
        place = f"{path}:1" if self._card.format.header and not is_parquet else str(path)
        repeated = sorted({name for name in columns if columns.count(name) > 1})
        missing = [name for name in self._wanted if name not in columns]
        problems = [f"{place}: column {name}: stands twice. Rename one." for name in repeated]
        problems += [
            f"{place}: column {name}: is missing.{nearest(name, columns)}" for name in missing
        ]
        if problems:
            raise DataError(problems)
        known = source_columns(self._card.columns)
        extra = [name for name in columns if name not in known and name not in self._wanted]
        if extra:
            _log.info("%s: not in the card and ignored: column %s.", path, ", ".join(extra))
        return RawFile(path, index, columns, is_parquet)

    def _first_record(self, path: Path) -> bytes:
        with open_bytes(path) as stream:
            head = _read_record(stream, b"", self._dialect, place=f"{path}:1")
        record = Records(head, self._dialect)
        first = plain_line_ends(head[: record.first_bytes() or len(head)])
        first = first.removeprefix(_BYTE_ORDER_MARK)
        if not first:
            raise DataError(f"{path}: is empty. Remove it, or give the file that holds the rows.")
        return first.removesuffix(b"\n")

    def _names(self, path: Path, record: bytes) -> list[str]:
        text = _decode(record, self._card, place=lambda line: f"{path}:{1 + line}").decode()
        separator = self._card.format.column_separator
        if self._dialect.quoted:
            return next(csv.reader([text], delimiter=separator), [""])
        return text.split(separator)

    def _read_header(self, path: Path) -> tuple[str, ...]:
        return tuple(self._names(path, self._first_record(path)))

    def _columns_without_header(self, path: Path) -> tuple[str, ...]:
        """The card's columns, if the first record holds as many."""
        columns = source_columns(self._card.columns)
        width = len(self._names(path, self._first_record(path)))
        unlabelled = tuple(name for name in columns if name != self._card.label)
        if self._label_optional and width == len(unlabelled):
            return unlabelled
        if width != len(columns):
            without = f" ({len(unlabelled)} without the label)" if self._label_optional else ""
            raise DataError(
                f"{path}:1: holds {width} columns; the card of '{self._card.name}' has "
                f"{len(columns)}{without}. Is it the right file, with the right separator?"
            )
        return columns

    def _text_blocks(
        self, file: RawFile, block_bytes: int
    ) -> Iterator[tuple[int, "_TextRows"]]:
        line = 1
        with open_bytes(file.path) as stream:
            pending = stream.read(len(_BYTE_ORDER_MARK)).removeprefix(_BYTE_ORDER_MARK)
            if self._card.format.header:
                pending = _read_record(stream, pending, self._dialect, place=f"{file.path}:1")
                header = Records(pending, self._dialect).first_bytes() or len(pending)
                line += pending.count(b"\n", 0, header)
                pending = pending[header:]
            while True:
                pending += stream.read(max(0, block_bytes - len(pending)))
                if len(pending) < block_bytes:
                    cut = len(pending)
                else:
                    cut = Records(pending[:block_bytes], self._dialect).whole_bytes
                    if cut == 0:
                        pending = _read_record(
                            stream, pending, self._dialect, place=f"{file.path}:{line}"
                        )
                        cut = Records(pending, self._dialect).first_bytes() or len(pending)
                if cut == 0:
                    return
                rows = _TextRows(
                    pending[:cut], file, line, self._card, self._dialect, self._wanted
                )
                pending = pending[cut:]
                line += rows.num_lines
                yield len(rows.records), rows
                del rows

    def _parquet_blocks(
        self, file: RawFile, block_bytes: int
    ) -> Iterator[tuple[int, "_ParquetRows"]]:
        parquet = _parquet_file(file.path)
        metadata = parquet.metadata
        stored = sum(
            metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)
        )
        # Repeated values are stored once, and take a few bytes each as text.
        bytes_per_row = max(stored / max(metadata.num_rows, 1), 8 * len(self._wanted))
        first = 0
        try:
            for batch in parquet.iter_batches(
                batch_size=max(1, int(block_bytes / bytes_per_row)), columns=list(self._wanted)
            ):
                if batch.num_rows:
                    yield batch.num_rows, _ParquetRows(batch, file.path, first, self._card)
                first += batch.num_rows
        except (OSError, pa.ArrowException) as cause:
            raise DataError(f"{file.path}: cannot be read: {cause}.") from cause


@dataclass(frozen=True)
class _TextRows:
    """The bytes of a block of text, and what they mean."""

    data: bytes
    file: RawFile
    first_line: int
    card: DatasetCard
    dialect: Dialect
    wanted: tuple[str, ...]

    @cached_property
    def records(self) -> Records:
        return Records(self.data, self.dialect)

    @property
    def num_lines(self) -> int:
        return self.data.count(b"\n")

    def place(self, row: int) -> str:
        line = row if not self.records.has_quotes else int(self.records.lines[row])
        return f"{self.file.path}:{self.first_line + line}"

    def read(self) -> pl.DataFrame:
        data = _decode(plain_line_ends(self.data), self.card, place=self._line)
        records = Records(data, self.dialect)
        self._check(records)
        names = self.file.columns
        frame = pl.read_csv(
            data,
            has_header=False,
            separator=self.dialect.separator.decode(),
            quote_char='"' if records.has_quotes else None,
            schema={name: pl.String for name in names},
        ).select(self.wanted)
        missing = self.card.format.missing
        if "" not in missing:
            frame = frame.with_columns(pl.all().fill_null(""))
        elif not records.has_quotes:
            # Polars has made nulls of empty columns, unless they stand in quotes.
            missing = tuple(text for text in missing if text)
        return blank_missing(frame, missing, columns=self.wanted)

    def _line(self, line: int) -> str:
        return f"{self.file.path}:{self.first_line + line}"

    def _check(self, records: Records) -> None:
        stray = records.stray_quote()
        if stray is not None:
            raise DataError(
                f"{self._line(records.line_at(stray))}: a quote stands inside a column or is "
                "never closed. Put the column in quotes and double those inside it."
            )
        width = len(self.file.columns)
        wrong, widths = records.wrong_widths(width)
        if not len(wrong):
            return
        problems = Problems()
        bad = dict(zip(wrong.tolist(), widths.tolist(), strict=True))
        problems.add_rows(
            records.mask(wrong),
            self.place,
            lambda row: (
                "is blank. Remove the line."
                if records.is_blank(row)
                else f"holds {bad[row]} columns; {width} are expected."
            ),
        )
        problems.raise_any()


@dataclass(frozen=True)
class _ParquetRows:
    """A piece of a Parquet file."""

    batch: pa.RecordBatch
    path: Path
    first: int
    card: DatasetCard

    def place(self, row: int) -> str:
        return f"{self.path}: row {self.first + row}"

    def read(self) -> pl.DataFrame:
        try:
            frame = pl.from_arrow(self.batch)
            assert isinstance(frame, pl.DataFrame)
            return normalise(frame, self.card)
        except DataError as error:
            raise DataError([f"{self.path}: {problem}" for problem in error.problems]) from error
        except (pa.ArrowException, pl.exceptions.PolarsError) as cause:
            raise DataError(f"{self.path}: cannot be read: {cause}.") from cause


def _separator(card: DatasetCard) -> bytes:
    separator = card.format.column_separator
    if not separator.isascii() or separator in '\n\r"':
        raise SchemaError(
            f"{card.name}: format.separator: must be an ASCII character other than a quote or a "
            f"line end; got {separator!r}."
        )
    return separator.encode()


def _parquet_file(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as cause:
        raise DataError(f"{path}: is not a readable Parquet file: {cause}.") from cause


def _decode(data: bytes, card: DatasetCard, *, place: Callable[[int], str]) -> bytes:
    """The text as UTF-8."""
    if data.isascii():
        return data
    if card.format.encoding == "latin-1":
        return data.decode("latin-1").encode()
    try:
        data.decode()
    except UnicodeDecodeError as cause:
        line = data.count(b"\n", 0, cause.start)
        raise DataError(
            f"{place(line)}: must be UTF-8; got the byte 0x{data[cause.start]:02x}. Convert the "
            "file, or set format.encoding to latin-1 in the card."
        ) from cause
    return data


def _read_record(stream: ByteStream, head: bytes, dialect: Dialect, *, place: str) -> bytes:
    """Reads on until ``head`` holds a whole record or the file ends."""
    while not Records(head, dialect).first_bytes():
        if len(head) > MAX_RECORD_BYTES:
            raise DataError(
                f"{place}: the row goes on for more than {MAX_RECORD_BYTES >> 20} MiB. Is a quote "
                "never closed, or is it no text file?"
            )
        more = stream.read(max(1 << 16, len(head)))
        if not more:
            break
        head += more
    return head
