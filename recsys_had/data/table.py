"""TableFile: a Parquet file as blocks of rows, its values turned to text."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_had.columns import Column
from recsys_had.data.arrow_texts import sound_texts, to_polars
from recsys_had.data.footer import check_footer
from recsys_had.data.normalise import normalise_columns
from recsys_had.data.problems import Problems
from recsys_had.errors import DataError
from recsys_had.storage import AnyPath, local_copy, open_parquet, reading

# Arrow does not get to its own error where the message would quote bytes that are no text.
_UNREADABLE = (OSError, pa.ArrowException, UnicodeDecodeError)


class TableFile:
    """A Parquet file whose columns are known.

    Args:
        path: the file.
        card_columns: what the columns are.
        missing: texts that mean "no value".

    Raises:
        DataError: it cannot be read.
    """

    def __init__(
        self, path: AnyPath, card_columns: Mapping[str, Column], *, missing: tuple[str, ...]
    ) -> None:
        self.path = path
        self.card_columns = card_columns
        self.missing = missing
        _, self.columns = self._open()

    @property
    def header_place(self) -> str:
        """Where its columns are named."""
        return str(self.path)

    def blocks(
        self, wanted: tuple[str, ...], *, block_bytes: int
    ) -> Iterator[tuple[int, "TableRows"]]:
        """Pieces of about ``block_bytes`` and their numbers of rows.

        Raises:
            DataError: the file cannot be read to its end.
        """
        parquet, _ = self._open()
        metadata = parquet.metadata
        stored = sum(
            metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)
        )
        # A repeated value is stored once, and takes a few bytes wherever it stands as text.
        bytes_per_row = max(stored / max(metadata.num_rows, 1), 8 * len(wanted))
        size = max(1, int(block_bytes / bytes_per_row))
        gapped = _gapped_arrays(parquet, wanted)
        others = [name for name in wanted if name not in gapped]
        first = 0
        try:
            with reading(self.path), local_copy(self.path) if gapped else nullcontext() as local:
                for batch in parquet.iter_batches(batch_size=size, columns=others):
                    if local is not None:
                        batch = _with_arrays(batch, local, gapped, first)
                    if batch.num_rows:
                        yield batch.num_rows, TableRows(self, batch, first, wanted)
                    first += batch.num_rows
        except (*_UNREADABLE, pl.exceptions.PolarsError) as cause:
            raise DataError(f"{self.path}: cannot be read: {cause}.") from cause
        # A page of fewer values than its column should have is no error to Arrow.
        if first != metadata.num_rows:
            raise DataError(
                f"{self.path}: is damaged: it must hold {metadata.num_rows} rows; got {first}. "
                "Fetch it again."
            )

    def _open(self) -> tuple[pq.ParquetFile, tuple[str, ...]]:
        """The file, and the names of its columns."""
        try:
            parquet = open_parquet(self.path)
            check_footer(self.path, parquet.metadata)
            return parquet, tuple(parquet.schema_arrow.names)
        except _UNREADABLE as cause:
            raise DataError(f"{self.path}: is not a readable Parquet file: {cause}.") from cause


def _with_arrays(batch: pa.RecordBatch, path: Path, names: list[str], first: int) -> pa.RecordBatch:
    """Adds the rows of columns that Arrow cannot read, as lists."""
    rows = pl.scan_parquet(path, glob=False).slice(first, batch.num_rows)
    lists = rows.select(pl.col(names).arr.to_list()).collect()
    for name in names:
        batch = batch.append_column(name, lists[name].to_arrow())
    return batch


def _gapped_arrays(parquet: pq.ParquetFile, wanted: tuple[str, ...]) -> list[str]:
    """Columns of fixed-size lists that may hold nulls: Arrow writes them and cannot read them."""
    schema, metadata = parquet.schema_arrow, parquet.metadata
    found = []
    for name in wanted:
        if not pa.types.is_fixed_size_list(schema.field(name).type):
            continue
        leaf = next(
            number
            for number in range(metadata.num_columns)
            if metadata.schema.column(number).path.split(".")[0] == name
        )
        groups = range(metadata.num_row_groups)
        statistics = [metadata.row_group(group).column(leaf).statistics for group in groups]
        if not all(known is not None and known.null_count == 0 for known in statistics):
            found.append(name)
    return found


class Table(Protocol):
    """What rows in columns come from."""

    @property
    def path(self) -> AnyPath:
        """Its name in an error."""

    @property
    def card_columns(self) -> Mapping[str, Column]:
        """What the columns are."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Texts that mean "no value"."""


@dataclass(frozen=True)
class TableRows:
    """Rows of a Parquet file, or of an Arrow stream.

    Args:
        file: what they come from.
        batch: the rows.
        first: number of the first of them in the file.
        wanted: columns to read.
    """

    file: Table
    batch: pa.RecordBatch
    first: int
    wanted: tuple[str, ...]

    def place(self, row: int) -> str:
        """File and row, counted from 0."""
        return f"{self.file.path}: row {self.first + row}"

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of each of some rows in the file, counted from 0."""
        return self.first + rows

    def text(self, row: int, *, max_bytes: int) -> None:
        """None: the file is no text."""
        return None

    def read(self) -> pl.DataFrame:
        """Turns the card's columns to text; see :func:`recsys_had.data.normalise.normalise`.

        Raises:
            DataError: a column's type has no text, or one line per text that is not UTF-8.
        """
        problems = Problems()
        frame = self.parse(problems)
        problems.raise_any()
        return frame

    def parse(self, problems: Problems) -> pl.DataFrame:
        """The same; a row with a text that is not UTF-8 is a problem.

        Raises:
            DataError: a column's type has no text.
        """
        try:
            batch = sound_texts(self.batch, place=self.place, problems=problems)
            frame = to_polars(batch).select(self.wanted)
            return normalise_columns(frame, self.file.card_columns, missing=self.file.missing)
        except DataError as error:
            told = [f"{self.file.path}: {problem}" for problem in error.problems]
            raise DataError(told) from error
        except (pa.ArrowException, pl.exceptions.PolarsError) as cause:
            raise DataError(f"{self.file.path}: cannot be read: {cause}.") from cause
