"""Between the passes: the counts of all shards become vocabularies, and values become ids.

Each field is merged on its own. Its distinct values, a shard's after another's, are grouped; the
groups that enough training rows hold are ordered and numbered; and what is kept for the second pass
is the id of each shard's each distinct value, so that nobody has to look a value up again.

A field with more distinct values than are held at once is grouped in several passes, each over the
values of one share of all hashes; what the passes kept is sorted by itself, and merged by ranges.

The values of an earlier vocabulary come before those of all shards, so that they are the first
groups: they keep their ids and gain what the shards have counted; only other groups are ordered.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from recsys_had.columns import Field
from recsys_had.data.vocabulary import VocabularyFile, VocabularyWriter
from recsys_had.ingestion.shard import Shard
from recsys_had.ingestion.sorted_runs import SortedRuns, in_order
from recsys_had.whole_files import write_whole

# Distinct values of shards that are grouped together in memory.
MAX_VALUES = 1 << 21


@dataclass(frozen=True)
class Merger:
    """Merges the counts of fields; a plain function that can be sent to another process.

    Args:
        shards: all of them, and for each field how many distinct values each holds.
        vocab: folder of the vocabularies.
        work: folder of the ids.
        max_values: distinct values that are grouped together.
        earlier: of some fields, a vocabulary whose ids are kept.
    """

    shards: tuple[Shard, ...]
    vocab: Path
    work: Path
    max_values: int = MAX_VALUES
    earlier: Mapping[str, VocabularyFile] | None = None

    def __call__(self, task: tuple[Field, Sequence[int]]) -> VocabularyFile:
        """The vocabulary of one field, unless an earlier try has made it.

        Args:
            task: the field, and how many distinct values each shard holds.
        """
        field, sizes = task
        note = self.work / f"merged-{field.name}.json"
        path = self.vocab / f"{field.name}.parquet"
        if note.is_file():
            # A kill while results are moved into place has taken files away from their notes.
            known = VocabularyFile(path, **json.loads(note.read_text()))
            if path.is_file() and VocabularyFile.open(path) == known:
                return known
        merge = _Merge(self, field, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
        made = merge.in_one() if merge.num_values <= self.max_values else merge.in_passes()
        told = {"num_embeddings": made.num_embeddings, "digest": made.digest}
        write_whole(note, json.dumps(told))
        return made


def ids_of(work: Path, field: str, shard: int) -> NDArray[np.int32]:
    """The id of each distinct value of a field in a shard."""
    offsets = np.load(work / f"offsets-{field}.npy")
    ids = np.load(work / f"ids-{field}.npy", mmap_mode="r")
    found: NDArray[np.int32] = ids[offsets[shard] : offsets[shard + 1]]
    return found


class _Merge:
    """The merging of one field.

    Args:
        merger: of all fields.
        field: this one.
        offsets: where each shard's distinct values begin among all of them, and where they end.
    """

    def __init__(self, merger: Merger, field: Field, offsets: NDArray[np.int64]) -> None:
        self._merger = merger
        self._field = field
        self._offsets = offsets
        self._earlier = (merger.earlier or {}).get(field.name)
        self._num_earlier = 0 if self._earlier is None else self._earlier.num_embeddings - 1
        np.save(merger.work / f"offsets-{field.name}.npy", offsets)

    @property
    def num_values(self) -> int:
        """Distinct values: the earlier ones, then each shard's."""
        return self._num_earlier + int(self._offsets[-1])

    def in_one(self) -> VocabularyFile:
        """Groups everything at once."""
        grouped, groups = self._grouped([(values, counts) for _, values, counts in self._counted()])
        writer = self._writer()
        id_of_group = np.zeros(len(grouped), np.int32)
        id_of_group[: self._num_earlier] = writer.add(grouped[: self._num_earlier])
        kept = self._kept(grouped, np.arange(len(grouped)))
        self._number(in_order(kept), writer, id_of_group)
        self._save(id_of_group[groups[self._num_earlier :]])
        return writer.close()

    def in_passes(self) -> VocabularyFile:
        """Groups the values of one share of all hashes after another's."""
        num_passes = -(-self.num_values // self._merger.max_values)
        groups = self._memmap("groups", self.num_values)
        earlier_counts = self._memmap("earlier", self._num_earlier)
        kept = SortedRuns(self._merger.work, self._field.name, at_once=self._merger.max_values)
        num_groups = self._num_earlier
        for share in range(num_passes):
            taken, where = [], []
            for first, values, counts in self._counted():
                places = np.flatnonzero((_hashes(values) % np.uint64(num_passes)) == share)
                taken.append((values.take(pa.array(places)), counts[places]))
                where.append(first + places)
            grouped, found = self._grouped(taken)
            places = np.concatenate(where)
            # The first groups are the earlier values, numbered as those are; then come others.
            earlier = places[places < self._num_earlier]
            num_new = len(grouped) - len(earlier)
            numbers = np.concatenate([earlier, np.arange(num_groups, num_groups + num_new)])
            num_groups += num_new
            groups[places] = numbers[found]
            earlier_counts[earlier] = grouped["count"].head(len(earlier)).to_numpy()
            kept.add(self._kept(grouped, numbers))
        writer = self._writer()
        id_of_group = np.zeros(num_groups, np.int32)
        for piece in self._earlier_pieces():
            places = piece["id"].to_numpy() - 1
            counted = piece.with_columns(pl.Series("count", earlier_counts[places]))
            id_of_group[places] = writer.add(counted)
        for ordered in kept.merged():
            self._number(ordered, writer, id_of_group)
        self._save_ids(groups, id_of_group)
        for name in ("groups", "earlier"):
            self._memmap_path(name).unlink()
        return writer.close()

    def _number(
        self, ordered: pl.DataFrame, writer: VocabularyWriter, id_of_group: NDArray[np.int32]
    ) -> None:
        """Gives ids to the next groups, to as many as the field has."""
        if self._field.top_k is not None:
            ordered = ordered.head(max(0, self._field.top_k - writer.num_values))
        id_of_group[ordered["group"].to_numpy()] = writer.add(ordered)

    def _writer(self) -> VocabularyWriter:
        return VocabularyWriter(self._merger.vocab / f"{self._field.name}.parquet")

    def _counted(self) -> Iterator[tuple[int, pa.Array, NDArray[np.int64]]]:
        """Distinct values and their counts, after how many others; the earlier ones come first."""
        first = 0
        for piece in self._earlier_pieces():
            values = pa.array(piece["value"].to_arrow(), pa.large_string())
            yield first, values, piece["count"].to_numpy()
            first += len(piece)
        for number, shard in enumerate(self._merger.shards):
            yield first + int(self._offsets[number]), *shard.counted(self._field.name)

    def _earlier_pieces(self) -> Iterator[pl.DataFrame]:
        return iter(()) if self._earlier is None else self._earlier.pieces()

    def _grouped(
        self, taken: list[tuple[Any, NDArray[np.int64]]]
    ) -> tuple[pl.DataFrame, NDArray[np.int32]]:
        """The values that differ, with their counts added up; and of each value which it is."""
        encoded = pa.chunked_array(
            [values for values, _ in taken], pa.large_string()
        ).dictionary_encode()
        if not encoded.num_chunks:
            return _no_groups(), np.empty(0, np.int32)
        distinct = encoded.chunk(encoded.num_chunks - 1).dictionary
        groups = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
        counts = np.concatenate([counts for _, counts in taken])
        total = np.zeros(len(distinct), np.int64)
        np.add.at(total, groups, counts)
        frame = pl.DataFrame(
            {"value": pl.Series(pl.from_arrow(distinct)).cast(pl.String), "count": total}
        )
        return frame, groups

    def _kept(self, grouped: pl.DataFrame, numbers: NDArray[np.int64]) -> pl.DataFrame:
        """The groups that get a new id; ``group`` is their number."""
        return grouped.with_columns(pl.Series("group", numbers)).filter(
            pl.col("group") >= self._num_earlier, pl.col("count") >= self._field.min_count
        )

    def _memmap_path(self, name: str) -> Path:
        return self._merger.work / f"{name}-{self._field.name}.npy"

    def _memmap(self, name: str, size: int) -> NDArray[np.int64]:
        # Half the memory, where that will do.
        kind = np.int32 if self.num_values < 2**31 and name == "groups" else np.int64
        return self._on_disk(name, kind, size)

    def _on_disk(self, name: str, kind: type[np.signedinteger[Any]], size: int) -> NDArray[Any]:
        """Numbers in a file, for which there is room."""
        path = self._memmap_path(name)
        made: NDArray[Any] = open_memmap(path, mode="w+", dtype=kind, shape=(size,))
        if hasattr(os, "posix_fallocate"):
            # A disk that is full is told here; later it would end the process without a word.
            with path.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return made

    def _save(self, ids: NDArray[np.int32]) -> None:
        np.save(self._memmap_path("ids"), ids)

    def _save_ids(self, groups: NDArray[np.int64], id_of_group: NDArray[np.int32]) -> None:
        ids = self._on_disk("ids", np.int32, int(self._offsets[-1]))
        of_shards = groups[self._num_earlier :]
        for first in range(0, len(ids), self._merger.max_values):
            piece = slice(first, first + self._merger.max_values)
            ids[piece] = id_of_group[of_shards[piece]]


def _no_groups() -> pl.DataFrame:
    return pl.DataFrame(schema={"value": pl.String, "count": pl.Int64})


def _hashes(values: Any) -> NDArray[np.uint64]:
    """Some number of each value; which one changes nothing but how values are shared out."""
    return pl.Series(pl.from_arrow(values)).hash(seed=0).to_numpy()
