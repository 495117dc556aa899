"""The first pass over a shard: its rows read, split, counted and staged as an Arrow file.

A staged shard holds every value that has an id as a number of the shard's own, and the distinct
values once; the second pass turns those numbers into ids when all shards have been counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from recsys_had.data.duplicates import read_ids, write_ids
from recsys_had.data.lookups import SideTable
from recsys_had.data.raw import RawBlock
from recsys_had.data.read_block import SPLIT, id_columns, read_block, with_row_ids
from recsys_had.errors import DataError
from recsys_had.ingestion.counting import count
from recsys_had.ingestion.shard import ROW, Shard, Staged, write_batch
from recsys_had.schema import DatasetCard, Lookup, StratifiedSplit


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
            values = values.append_column(ROW, pa.array(found.kept))
            rejects = with_row_ids(found.rejects, block)
            write_batch(rejects.combine_chunks().to_batches()[0], shard.rejects_path)
        kept = np.arange(block.num_rows) if found.kept is None else found.kept
        for name, ids in found.ids.items():
            lines = block.rows.numbers(kept)
            row_ids = kept + block.first_row_id
            write_ids(ids, row_ids, lines, shard.ids_path(name), file=str(block.path))
        # The last: what is there is whole.
        write_batch(values, shard.path)


def save_side_tables(lookups: Mapping[str, SideTable], work: Path) -> dict[str, Path]:
    """Puts the side tables where every worker finds them; their files."""
    # Its own name for every content: a process keeps what it has read of one.
    paths = {
        name: work / f"lookup-{number}-{table.digest}.parquet"
        for number, (name, table) in enumerate(lookups.items())
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
