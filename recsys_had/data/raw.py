"""RawSource: raw files as blocks of rows, each row with its number and its place in a file."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_had.columns import source_columns
from recsys_had.data.files import expand
from recsys_had.data.problems import Problems
from recsys_had.data.rawfile import check_header, open_raw, told_of_further
from recsys_had.data.sift import sift_table, sift_text
from recsys_had.data.table import TableFile, TableRows
from recsys_had.data.text import TextFile, TextRows
from recsys_had.data.values import required_columns
from recsys_had.errors import DataError
from recsys_had.schema import DatasetCard
from recsys_had.storage import AnyPath
from recsys_had.store_path import StorePath

BLOCK_BYTES = 32 << 20
_log = logging.getLogger("recsys_had")


@dataclass(frozen=True)
class _NoRows:
    """In place of a file's rows, where there are none."""

    columns: tuple[str, ...]

    def read(self) -> pl.DataFrame:
        return pl.DataFrame(schema=dict.fromkeys(self.columns, pl.String))

    def place(self, row: int) -> str:
        raise IndexError(row)

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows

    def text(self, row: int, *, max_bytes: int) -> str | None:
        raise IndexError(row)


@dataclass(frozen=True)
class RawBlock:
    """Consecutive rows of one file.

    Args:
        path: the file.
        input_index: which of the source's inputs the file came from.
        first_row_id: number of its first row over all inputs.
        num_rows: rows it holds.
        rows: what they are read from.
        digest: of the rows, where there is no file to be looked at again.
    """

    path: AnyPath
    input_index: int
    first_row_id: int
    num_rows: int
    rows: TextRows | TableRows | _NoRows
    digest: str | None = None

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The rows, parsed once and kept.

        Raises:
            DataError: one line per row that is not as the file's format asks.
        """
        return self.read()

    def unread(self) -> "RawBlock":
        """The same without what was kept of reading it: of a plain file, a place alone."""
        return replace(self, rows=replace(self.rows))

    def read(self) -> pl.DataFrame:
        """Parses the rows: columns of text, nulls where a value is missing.

        Raises:
            DataError: one line per row that is not as the file's format asks.
        """
        return self.rows.read()

    def sift(self, problems: Problems) -> pl.DataFrame:
        """Parses the rows that are as the file's format asks.

        Args:
            problems: takes the other rows; it must remember every row.

        Raises:
            DataError: the file is not usable.
        """
        match self.rows:
            case TextRows():
                return sift_text(self.rows, problems)
            case TableRows():
                return sift_table(self.rows, problems)
            case _:
                return self.read()

    def row_texts(self, columns: tuple[str, ...]) -> list[bytes] | None:
        """The text each row is known by, where it simply stands in the file; else None.

        Args:
            columns: those of the card, in its order.
        """
        return self.rows.row_texts(columns) if isinstance(self.rows, TextRows) else None

    def place(self, row: int) -> str:
        """Names a row of the block as a user finds it, ``clicks.tsv:12``."""
        return self.rows.place(row)


class RawSource:
    r"""Reads raw files as a card describes them.

    Args:
        inputs: files, URLs or globs, .gz and .zst among them; a name ending in .parquet is read as
            Parquet whatever the card says.
        card: what the columns are.
        label: ``required``: every column of the card must be there; ``optional``: those the
            model reads. A file without a header then may have all columns but the label, or but
            label and weight.
        keep: further columns to read.

    Raises:
        DataError: an input is missing, empty or unreadable, or its columns do not match; one
            line per problem.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from recsys_had.schema import parse_card
    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns: {click: {kind: label}, C1: {kind: categorical}}
    ... split: {by: given}
    ... ''')
    >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
    >>> _ = path.write_text("C1,click\na,1\n,0\n")
    >>> [block.frame.rows() for block in RawSource([path], card).blocks()]
    [[('1', 'a'), ('0', None)]]
    """

    def __init__(
        self,
        inputs: Sequence[str | AnyPath],
        card: DatasetCard,
        *,
        label: Literal["required", "optional"] = "required",
        keep: Sequence[str] = (),
    ) -> None:
        may_lack = [card.label, *([card.weight] if card.weight is not None else [])]
        self._optional = may_lack if label == "optional" else []
        wanted = required_columns(card) if self._optional else source_columns(card.columns)
        self._wanted = tuple(dict.fromkeys([*wanted, *keep]))
        self._files: list[tuple[int, TextFile | TableFile]] = []
        problems = Problems()
        told: dict[str, list[AnyPath]] = {}
        for index, path in expand(inputs):
            try:
                file = self._open(path, card)
            except DataError as error:
                problems.add_error(error)
                continue
            self._files.append((index, file))
            if further := told_of_further(file.columns, card, self._wanted):
                told.setdefault(further, []).append(path)
        problems.raise_any()
        for further, (first, *others) in told.items():
            _log.info("%s%s: %s", first, _and_so_many(len(others)), further)

    @property
    def paths(self) -> list[tuple[int, AnyPath]]:
        """The files, each with the number of its input."""
        return [(index, file.path) for index, file in self._files]

    @property
    def fingerprint(self) -> list[dict[str, str | int]]:
        """What tells whether the files are still the same."""
        return [_fingerprint(path) for _, path in self.paths]

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[RawBlock]:
        """The rows of all files, in order, in blocks that depend on the files' bytes alone.

        Args:
            block_bytes: bytes of decompressed text in a block, unless one record is longer.

        Raises:
            DataError: a file cannot be read to its end.
        """
        row_id = 0
        for index, file in self._files:
            for num_rows, rows in file.blocks(self._wanted, block_bytes=block_bytes):
                yield RawBlock(file.path, index, row_id, num_rows, rows)
                row_id += num_rows
                del rows

    def empty_block(self) -> RawBlock:
        """A block of no rows, where one is needed nevertheless."""
        index, file = self._files[0]
        return RawBlock(file.path, index, 0, 0, _NoRows(self._wanted))

    def _open(self, path: AnyPath, card: DatasetCard) -> TextFile | TableFile:
        file = open_raw(path, card.format, card.columns, optional=self._optional)
        check_header(file, self._wanted)
        return file


class Fingerprinted(Protocol):
    """What rows come from."""

    @property
    def fingerprint(self) -> list[dict[str, str | int]]:
        """What tells whether it is still the same."""


def require_unchanged(source: Fingerprinted, before: Sequence[Mapping[str, str | int]]) -> None:
    """Asks of the inputs to be what they were: some rows were read before, others after.

    Args:
        source: of the rows.
        before: its fingerprint when reading began.

    Raises:
        DataError: a file is another, or gone; one line per file.
    """
    try:
        now = source.fingerprint
    except OSError as cause:
        raise DataError(
            f"{cause.filename}: was changed while it was read: {cause.strerror}."
        ) from cause
    changed = [str(was["path"]) for was, is_ in zip(before, now, strict=True) if was != is_]
    if changed:
        told = "was changed while it was read. Run the command again when it is whole."
        raise DataError([f"{path}: {told}" for path in changed])


def _and_so_many(others: int) -> str:
    if not others:
        return ""
    return f" and {others:,} other file{'s' if others > 1 else ''}"


def _fingerprint(path: AnyPath) -> dict[str, str | int]:
    stat = path.stat()
    facts: dict[str, str | int] = {
        "path": str(path.resolve()),
        "size_bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
    }
    # A store tells seconds alone.
    if isinstance(path, StorePath) and (etag := path.etag()) is not None:
        facts["etag"] = etag
    return facts
