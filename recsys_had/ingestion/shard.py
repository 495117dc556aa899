"""Shard: what a shard's work has left on the disk, and how it is read again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_had.data.duplicates import IdFile
from recsys_had.data.read_block import SPLIT
from recsys_had.data.sampling import join_splits
from recsys_had.data.split import Splits
from recsys_had.data.statistics import Statistics
from recsys_had.errors import DataError
from recsys_had.whole_files import unfinished

# Which rows of the shard were kept, where some were rejected; no field's name holds a dot.
ROW = ".row"


@dataclass(frozen=True)
class Shard:
    """A shard's rows as they are staged in a folder of work.

    Args:
        number: of the shard, from 0 over all inputs.
        first_row_id: row id of its first row.
        work: the folder.
    """

    number: int
    first_row_id: int
    work: Path

    @property
    def path(self) -> Path:
        """The Arrow file."""
        return self.work / f"shard-{self.number:06d}.arrow"

    @property
    def counts_path(self) -> Path:
        """How many training rows hold each of its distinct values."""
        return self.work / f"counts-{self.number:06d}.arrow"

    @property
    def crosses_path(self) -> Path:
        """The same, and the values, of crosses of bins, which are found after all were staged."""
        return self.work / f"crosses-{self.number:06d}.arrow"

    @property
    def rejects_path(self) -> Path:
        """The rows that were rejected; there is no such file where none were."""
        return self.work / f"rejects-{self.number:06d}.arrow"

    def ids_path(self, column: str) -> Path:
        """The hashes of a column of row identifiers."""
        return self.work / f"identifiers-{column}-{self.number:06d}.npy"

    def read(self) -> pa.RecordBatch:
        """The values, mapped from the disk and not copied."""
        return read_batch(self.path)

    def row_ids(self, values: pa.RecordBatch) -> NDArray[np.int64]:
        """Row id of each of its rows."""
        if ROW not in values.schema.names:
            return np.arange(self.first_row_id, self.first_row_id + values.num_rows)
        rows: NDArray[np.int64] = values.column(ROW).to_numpy() + self.first_row_id
        return rows

    def rejects(self) -> pa.RecordBatch | None:
        """Its rejected rows, with their row ids; None where there are none."""
        return read_batch(self.rejects_path) if self.rejects_path.is_file() else None

    def counted(self, field: str) -> tuple[pa.Array, NDArray[np.int64]]:
        """The distinct values of a field, and how many training rows hold each."""
        staged = self.read()
        if field in staged.schema.names:
            values, counts = distinct_of(staged.column(field)), read_batch(self.counts_path)
        else:
            counts = read_batch(self.crosses_path)
            values = counts.column(values_of(field)).flatten()
        return values.cast(pa.large_string()), counts.column(field).flatten().to_numpy().astype(
            np.int64
        )


@dataclass(frozen=True)
class Staged:
    """What staging a shard has shown.

    Args:
        shard: where it lies.
        num_rows: rows read.
        num_kept: rows that were not rejected.
        rows: rows of each split, in the order of ``SPLITS``; all 0 where labels are waited for.
        num_distinct: distinct values of each field that has a vocabulary.
        statistics: of the training rows; empty where labels are waited for.
        labels: of all rows, where the splits need those of all shards.
        ids: what is kept of each column of row identifiers.
        was_there: whether an earlier try had staged it.
        problems: what is wrong with its rows; then nothing else is known.
    """

    shard: Shard
    num_rows: int
    num_kept: int = 0
    rows: tuple[int, ...] = ()
    num_distinct: Mapping[str, int] | None = None
    statistics: Statistics | None = None
    labels: NDArray[np.int8] | None = None
    ids: Mapping[str, IdFile] | None = None
    was_there: bool = False
    problems: DataError | None = None


def splits_of(values: pa.RecordBatch, late: Splits | None) -> Splits:
    """The split of each row of a staged shard.

    Args:
        values: what was staged.
        late: the splits that were known later, where none could be staged.
    """
    early: Splits = values.column(SPLIT).to_numpy()
    return early if late is None else join_splits(early, late)


def distinct_of(values: pa.Array) -> pa.Array:
    """The distinct values of a column of dictionaries, or of lists of them."""
    return (values.values if isinstance(values, pa.LargeListArray) else values).dictionary


def values_of(field: str) -> str:
    """The column of a cross's values beside that of their counts."""
    return f"{field}.values"


def write_batch(batch: pa.RecordBatch, path: Path) -> None:
    """Arrow's own format keeps the dictionaries as they are; the rename makes it whole."""
    fresh = unfinished(path)
    with pa.OSFile(str(fresh), "wb") as sink:
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
    fresh.rename(path)


def read_batch(path: Path) -> pa.RecordBatch:
    """What :func:`write_batch` wrote, mapped from the disk."""
    with pa.memory_map(str(path)) as stream:
        return pa.ipc.open_file(stream).get_batch(0)
