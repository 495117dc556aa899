"""The reader for training: encoded Parquet in, one global sequence of batches out.

The order of rows depends on the seed and the epoch alone. Row groups are put in a random
order and gathered into pools; the rows of a pool are shuffled in memory. Of the global batch
of step ``k``, each rank takes its slice, so step ``k`` holds the same rows at any world size.
Where a run stands is two integers: the epoch and the rows already read.
"""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_had.batch import Batch, EncodedRows, Ragged
from recsys_had.data.vectors import vectors_from_column
from recsys_had.errors import DataError
from recsys_had.layout import Layout
from recsys_had.storage import AnyPath, for_each, open_parquet, reading, sorted_glob


@dataclass(frozen=True)
class Position:
    """Where a reader stands: rows of the epoch dealt to all ranks so far."""

    epoch: int
    row: int


@dataclass(frozen=True)
class Step:
    """One step of a rank.

    Args:
        batch: this rank's rows; may be empty in the last step of an epoch.
        global_rows: rows of this step over all ranks.
        after: where the reader stands when the step is done.
        global_weight: sum of the weights of those rows, or None where they have none.
    """

    batch: Batch
    global_rows: int
    after: Position
    global_weight: float | None = None

    @property
    def total(self) -> float:
        """What the sum of the losses is divided by: the rows, or the sum of their weights."""
        return self.global_rows if self.global_weight is None else self.global_weight


def rows_from_table(table: pa.Table, layout: Layout) -> EncodedRows:
    """Turns an encoded Arrow table into arrays; a missing column is an error."""
    num_rows = table.num_rows
    ids = np.empty((num_rows, len(layout.single)), layout.id_dtype)
    for position, name in enumerate(layout.single):
        ids[:, position] = table.column(name).to_numpy()
    dense = np.empty((num_rows, len(layout.dense)), np.float32)
    for position, name in enumerate(layout.dense):
        dense[:, position] = table.column(name).to_numpy()
    lists = {
        name: _ragged(table.column(name), layout) for name in layout.fields if name in layout.multi
    }
    vectors = {
        name: vectors_from_column(table.column(name), size) for name, size in layout.vectors.items()
    }
    label = None
    if "label" in table.column_names:
        label = table.column("label").to_numpy().astype(np.float32)
    weight = None
    if layout.has_weight and "weight" in table.column_names:
        weight = table.column("weight").to_numpy().astype(np.float32)
    row_id = table.column("row_id").to_numpy()
    return EncodedRows(layout, row_id, label, ids, lists, dense, vectors, weight)


def _ragged(column: pa.ChunkedArray, layout: Layout) -> Ragged:
    parts = []
    for chunk in column.chunks:
        offsets = chunk.offsets.to_numpy().astype(np.int64)
        values = chunk.values.to_numpy()[offsets[0] : offsets[-1]]
        parts.append(Ragged(offsets - offsets[0], values.astype(layout.id_dtype)))
    if not parts:
        return Ragged(np.zeros(1, np.int64), np.empty(0, layout.id_dtype))
    return Ragged.concat(parts)


class SplitReader:
    """Reads one split of an encoded data folder.

    Args:
        folder: ``DATA/train`` or another split.
        layout: names and order of the model's inputs.
        batch_size: rows per rank and step.
        rank: this process.
        world_size: number of processes the global batches are dealt to.
        seed: of the order of rows; None reads them in the order of the files.
        pool_rows: rows shuffled together in memory (at least one row group).

    Raises:
        DataError: the split has no part or a part lacks a column.
    """

    def __init__(
        self,
        folder: AnyPath,
        *,
        layout: Layout,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int | None = None,
        pool_rows: int = 1 << 19,
    ) -> None:
        self._folder = folder
        self._layout = layout
        self._global_batch = batch_size * world_size
        self._rank = rank
        self._world_size = world_size
        self._seed = seed
        self._pool_rows = pool_rows
        own = ("row_id", "label", *(("weight",) if layout.has_weight else ()))
        self._columns = [*own, *layout.fields, *layout.dense, *layout.vectors]
        paths = sorted_glob(folder, "part-*.parquet")
        if not paths:
            raise DataError(f"{folder}: holds no part-*.parquet. Run `recsys-had ingest` first.")
        self._groups: list[tuple[AnyPath, int, int]] = []
        for path, metadata in zip(paths, for_each(folder, _metadata, paths), strict=True):
            missing = sorted(set(self._columns) - set(metadata.schema.to_arrow_schema().names))
            if missing:
                raise DataError(
                    f"{path}: column {missing[0]} is missing. Re-run `recsys-had ingest`."
                )
            for group in range(metadata.num_row_groups):
                self._groups.append((path, group, metadata.row_group(group).num_rows))

    @property
    def layout(self) -> Layout:
        """Names and order of the model's inputs."""
        return self._layout

    @property
    def num_rows(self) -> int:
        """Rows of the split."""
        return sum(rows for _, _, rows in self._groups)

    @property
    def num_steps(self) -> int:
        """Steps of an epoch; the last one may hold fewer rows."""
        return -(-self.num_rows // self._global_batch)

    def steps(self, start: Position) -> Iterator[Step]:
        """This rank's steps of the epoch from ``start`` on, read ahead by a thread.

        The position travels with each step, so what was read ahead and not used is not lost.
        """
        return _read_ahead(self._steps(start), depth=4)

    def every(self, step: int) -> EncodedRows:
        """The first row of the split and each ``step``-th after it, read a pool at a time."""
        kept: list[EncodedRows] = []
        row = 0
        for pool in self._pools(Position(0, 0)):
            kept.append(pool.take(np.arange(-row % step, len(pool), step)))
            row += len(pool)
        return EncodedRows.concat(kept)

    def _steps(self, start: Position) -> Iterator[Step]:
        rest: EncodedRows | None = None
        row = start.row
        for pool in self._pools(start):
            rows = pool if rest is None else EncodedRows.concat([rest, pool])
            whole = len(rows) // self._global_batch * self._global_batch
            for first in range(0, whole, self._global_batch):
                row += self._global_batch
                last = first + self._global_batch
                yield self._deal(rows, first, last, Position(start.epoch, row))
            rest = rows.take(np.arange(whole, len(rows)))
        if rest is not None and len(rest) > 0:
            after = Position(start.epoch, row + len(rest))
            yield self._deal(rest, 0, len(rest), after)

    def _deal(self, rows: EncodedRows, first: int, last: int, after: Position) -> Step:
        share, extra = divmod(last - first, self._world_size)
        begin = first + self._rank * share + min(self._rank, extra)
        end = begin + share + (self._rank < extra)
        mine = rows.take(np.arange(begin, end))
        batch = mine.to_batch(sparse_rows=share + (extra > 0))
        # Every rank reads the rows of all, and so knows the sum without asking.
        weight = None if rows.weight is None else rows.weight[first:last].sum(dtype=np.float64)
        return Step(batch, last - first, after, None if weight is None else float(weight))

    def _pools(self, start: Position) -> Iterator[EncodedRows]:
        """Pools of shuffled rows, the rows before ``start.row`` left out."""
        order = np.arange(len(self._groups))
        if self._seed is not None:
            order = np.random.default_rng([self._seed, start.epoch]).permutation(order)
        skip = start.row
        for number, groups in enumerate(self._gather(order)):
            size = sum(self._groups[group][2] for group in groups)
            if skip >= size:
                skip -= size
                continue
            index = np.arange(size)
            if self._seed is not None:
                generator = np.random.default_rng([self._seed, start.epoch, 1 + number])
                index = generator.permutation(index)
            yield self._read(groups).take(index[skip:])
            skip = 0

    def _gather(self, order: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[list[int]]:
        pool: list[int] = []
        size = 0
        for group in order.tolist():
            rows = self._groups[group][2]
            if pool and size + rows > self._pool_rows:
                yield pool
                pool, size = [], 0
            pool.append(group)
            size += rows
        if pool:
            yield pool

    def _read(self, groups: list[int]) -> EncodedRows:
        return EncodedRows.concat(for_each(self._folder, self._read_group, groups))

    def _read_group(self, group: int) -> EncodedRows:
        path, number, _ = self._groups[group]
        try:
            with reading(path):
                with open_parquet(path, ahead=True) as file:
                    table = file.read_row_group(number, columns=self._columns)
        except (OSError, pa.ArrowException) as cause:
            raise DataError(f"{path}: cannot be read: {cause}.") from cause
        return rows_from_table(table, self._layout)


def _metadata(path: AnyPath) -> pq.FileMetaData:
    try:
        with open_parquet(path) as file:
            return file.metadata
    except (OSError, pa.ArrowException) as cause:
        raise DataError(f"{path}: is not a readable Parquet file: {cause}.") from cause


def _read_ahead(steps: Iterator[Step], *, depth: int) -> Iterator[Step]:
    """Runs an iterator in a thread; ends the thread when the consumer stops early."""
    waiting: queue.Queue[Step | BaseException | None] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: Step | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for step in steps:
                if not put(step):
                    return
            put(None)
        except BaseException as error:  # told to the consumer, which raises it
            put(error)

    thread = threading.Thread(target=work, name="recsys_had-reader", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
