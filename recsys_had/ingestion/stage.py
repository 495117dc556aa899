"""The first pass over a shard: its rows read, split, counted and staged as an Arrow file.

A staged shard holds every value that has an id as a number of the shard's own, and the distinct
values once; the second pass turns those numbers into ids when all shards have been counted.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_had.columns import Field
from recsys_had.data.crosses import crosses
from recsys_had.data.duplicates import IdFile, read_ids, write_ids
from recsys_had.data.lookups import SideTable
from recsys_had.data.quantiles import QuantileBins, with_bins
from recsys_had.data.raw import RawBlock
from recsys_had.data.read_block import SPLIT, id_columns, read_block
from recsys_had.data.sampling import join_splits
from recsys_had.data.split import Splits
from recsys_had.data.statistics import Statistics, rows_per_value
from recsys_had.errors import DataError
from recsys_had.schema import SPLITS, DatasetCard, Lookup, StratifiedSplit

# Which rows of the shard were kept, where some were rejected; no field's name holds a dot.
_ROW = ".row"


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
        if _ROW not in values.schema.names:
            return np.arange(self.first_row_id, self.first_row_id + values.num_rows)
        rows: NDArray[np.int64] = values.column(_ROW).to_numpy() + self.first_row_id
        return rows

    def rejects(self) -> pa.RecordBatch | None:
        """Its rejected rows, with their row ids; None where there are none."""
        return read_batch(self.rejects_path) if self.rejects_path.is_file() else None

    def counted(self, field: str) -> tuple[pa.Array, NDArray[np.int64]]:
        """The distinct values of a field, and how many training rows hold each."""
        staged = self.read()
        if field in staged.schema.names:
            values, counts = _distinct(staged.column(field)), read_batch(self.counts_path)
        else:
            counts = read_batch(self.crosses_path)
            values = counts.column(_values_of(field)).flatten()
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


@dataclass(frozen=True)
class Stager:
    """Stages shards; a plain function that can be sent to another process.

    Args:
        card: what the columns are.
        given: split of each input, or None where the card's rule decides.
        lookups: file of each side table.
        work: folder of staged shards.
        reject: whether rows that are not as the card says are left out, not an error.
    """

    card: DatasetCard
    given: tuple[int, ...] | None
    lookups: Mapping[str, Path]
    work: Path
    reject: bool = False

    @property
    def waits_for_labels(self) -> bool:
        """Whether no row's split is known before the labels of all are."""
        return self.given is None and isinstance(self.card.split, StratifiedSplit)

    def __call__(self, task: tuple[int, RawBlock]) -> Staged:
        """Stages one shard, unless an earlier try has done so."""
        number, block = task
        shard = Shard(number, block.first_row_id, self.work)
        was_there = shard.path.is_file()
        if not was_there:
            try:
                self._stage(block, shard)
            except DataError as error:
                return Staged(shard, block.num_rows, problems=error)
        values = shard.read()
        ids = {
            name: read_ids(shard.ids_path(name), file=str(block.path))
            for name in id_columns(self.card)
        }
        known = Staged(shard, block.num_rows, values.num_rows, ids=ids, was_there=was_there)
        if self.waits_for_labels:
            return replace(known, labels=values.column("label").to_numpy().astype(np.int8))
        return count(self.card, known, values, values.column(SPLIT).to_numpy())

    def _stage(self, block: RawBlock, shard: Shard) -> None:
        lookups = {
            name: _side_table(lookup.model_dump_json(), self.lookups[name])
            for name, lookup in self.card.lookups.items()
        }
        found = read_block(block, self.card, lookups, self.given, reject=self.reject)
        values = _narrow(found.values)
        if found.kept is not None:
            values = values.append_column(_ROW, pa.array(found.kept))
            row_id = pa.array(found.rejects["row"].to_numpy() + block.first_row_id)
            rejects = found.rejects.drop(["row"]).add_column(0, "row_id", row_id)
            write_batch(rejects.combine_chunks().to_batches()[0], shard.rejects_path)
        kept = np.arange(block.num_rows) if found.kept is None else found.kept
        for name, ids in found.ids.items():
            lines = block.rows.numbers(kept)
            row_ids = kept + block.first_row_id
            write_ids(ids, row_ids, lines, shard.ids_path(name), file=str(block.path))
        # The last: what is there is whole.
        write_batch(values, shard.path)


@dataclass(frozen=True)
class Counter:
    """Counts shards whose splits are known only now."""

    card: DatasetCard

    def __call__(self, task: tuple[Staged, Splits | None]) -> Staged:
        """Counts one shard, given the split of each of its rows."""
        staged, splits = task
        values = staged.shard.read()
        return count(self.card, staged, values, splits_of(values, splits))


@dataclass(frozen=True)
class CrossCounter:
    """Counts the crosses of quantile bins, which all shards together have to be known for.

    Args:
        card: what the columns are.
        bins: of each binned column.
    """

    card: DatasetCard
    bins: Mapping[str, QuantileBins]

    def __call__(self, task: tuple[Staged, Splits | None]) -> Staged:
        """Counts one shard, given the split of each of its rows where it was not staged."""
        staged, splits = task
        values = staged.shard.read()
        is_training = splits_of(values, splits) == SPLITS.index("train")
        values = with_bins(values, self.card, self.bins)
        held: dict[str, pa.Array] = {}
        num_distinct = dict(staged.num_distinct or {})
        for field in crosses_to_count(self.card):
            column = values.column(field.name)
            held[_values_of(field.name)] = pa.array(
                [_distinct(column).to_pylist()], pa.large_list(pa.large_string())
            )
            counts = rows_per_value(column, is_training)
            held[field.name] = pa.array([counts], pa.list_(pa.int32()))
            num_distinct[field.name] = len(counts)
        write_batch(pa.RecordBatch.from_pydict(held), staged.shard.crosses_path)
        return replace(staged, num_distinct=num_distinct)


def crosses_to_count(card: DatasetCard) -> list[Field]:
    """The crosses that are counted when the bins are known."""
    return [field for field in crosses(card, of_bins=True) if field.has_vocabulary]


def counted_fields(card: DatasetCard) -> list[Field]:
    """The fields whose values are counted, to become a vocabulary, in card order."""
    return [field for field in card.fields if field.has_vocabulary and field.source != "quantile"]


def count(card: DatasetCard, staged: Staged, values: pa.RecordBatch, splits: Splits) -> Staged:
    """Counts a shard's training rows; the counts of its values are left in a file."""
    is_training = splits == SPLITS.index("train")
    late = crosses_to_count(card)
    counts = {
        field.name: rows_per_value(values.column(field.name), is_training)
        for field in counted_fields(card)
        if field not in late
    }
    if counts:
        lists = {name: pa.array([found], pa.list_(pa.int32())) for name, found in counts.items()}
        write_batch(pa.RecordBatch.from_pydict(lists), staged.shard.counts_path)
    statistics = Statistics(card)
    statistics.add(values, is_training)
    return replace(
        staged,
        rows=tuple(int((splits == code).sum()) for code in range(len(SPLITS))),
        num_distinct={name: len(found) for name, found in counts.items()},
        statistics=statistics,
        labels=None,
    )


def splits_of(values: pa.RecordBatch, late: Splits | None) -> Splits:
    """The split of each row of a staged shard.

    Args:
        values: what was staged.
        late: the splits that were known later, where none could be staged.
    """
    early: Splits = values.column(SPLIT).to_numpy()
    return early if late is None else join_splits(early, late)


def _distinct(values: pa.Array) -> pa.Array:
    """The distinct values of a column of dictionaries, or of lists of them."""
    return (values.values if isinstance(values, pa.LargeListArray) else values).dictionary


def _values_of(field: str) -> str:
    return f"{field}.values"


def save_side_tables(lookups: Mapping[str, SideTable], work: Path) -> dict[str, Path]:
    """Puts the side tables where every worker finds them; their files."""
    # Its own name for every content: a process keeps what it has read of one.
    paths = {
        name: work / f"lookup-{name}-{table.digest}.parquet" for name, table in lookups.items()
    }
    for name, table in lookups.items():
        table.save(paths[name])
    return paths


@lru_cache(maxsize=64)
def _side_table(lookup: str, path: Path) -> SideTable:
    """A side table, read once a process.

    Args:
        lookup: what the card says of it, as JSON.
        path: its file.
    """
    return SideTable.load(Lookup.model_validate_json(lookup), path)


def _narrow(values: pa.RecordBatch) -> pa.RecordBatch:
    """The same with the numbers of values in as few bytes as they need."""
    columns = []
    for column in values.columns:
        if isinstance(column, pa.DictionaryArray):
            size = len(column.dictionary)
            # One more than there are values: a missing value gets that number.
            kind = pa.uint8() if size < 2**8 else pa.uint16() if size < 2**16 else pa.int32()
            column = pa.DictionaryArray.from_arrays(column.indices.cast(kind), column.dictionary)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, values.schema.names)


def write_batch(batch: pa.RecordBatch, path: Path) -> None:
    """Arrow's own format keeps the dictionaries as they are; the rename makes it whole."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with pa.OSFile(str(unfinished), "wb") as sink:
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
    unfinished.rename(path)


def read_batch(path: Path) -> pa.RecordBatch:
    """What :func:`write_batch` wrote, mapped from the disk."""
    with pa.memory_map(str(path)) as stream:
        return pa.ipc.open_file(stream).get_batch(0)
