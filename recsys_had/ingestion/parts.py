"""The second pass over a shard: its values become ids, its rows a Parquet file for each split."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_had.data.encode import Encoder
from recsys_had.data.split import Splits
from recsys_had.ingestion.counting import counted_fields
from recsys_had.ingestion.shard import Shard, splits_of
from recsys_had.ingestion.vocabularies import ids_of
from recsys_had.schema import SPLITS
from recsys_had.whole_files import file_digest, unfinished, write_whole

_ROW_GROUP_ROWS = 1 << 16


@dataclass(frozen=True)
class PartWriter:
    """Writes the parts of shards; a plain function that can be sent to another process.

    Args:
        encoder: gives all values an id but those of fields with a vocabulary.
        stage: folder of the data folder to be.
        work: folder of the staged shards.
    """

    encoder: Encoder
    stage: Path
    work: Path

    def __call__(
        self, task: tuple[Shard, Mapping[str, str], Splits | None]
    ) -> dict[str, dict[str, Any]]:
        """Writes one shard's parts, unless an earlier try has done so.

        Args:
            task: the shard, the name of its part of each split it has rows of, and the split of
                each row where it was not staged.

        Returns:
            By name, the rows and the digest of each part.
        """
        shard, names, splits = task
        note = self.work / f"parts-{shard.number:06d}.json"
        if note.is_file():
            found: dict[str, dict[str, Any]] = json.loads(note.read_text())
            if all(self._is_whole(name, part["sha256"]) for name, part in found.items()):
                return found
        values = shard.read()
        fields = self.encoder.card.fields
        known = {
            field.name: ids_of(self.work, field.name, shard.number)
            for field in counted_fields(self.encoder.card)
        }
        encoded = self.encoder.encode_values(values, known=known)
        encoded = encoded.add_column(0, "row_id", pa.array(shard.row_ids(values)))
        splits = splits_of(values, splits)
        parts = {}
        for split, name in names.items():
            rows = np.flatnonzero(splits == SPLITS.index(split))
            _write_part(encoded, rows, self.stage / name, fields=[each.name for each in fields])
            parts[name] = {"rows": len(rows), "sha256": file_digest(self.stage / name)}
        write_whole(note, json.dumps(parts))
        return parts

    def _is_whole(self, name: str, digest: str) -> bool:
        path = self.stage / name
        return path.is_file() and file_digest(path) == digest


def part_names(rows: list[tuple[int, ...]]) -> list[dict[str, str]]:
    """The parts of each shard, numbered within their split; a shard may have none of it.

    Args:
        rows: of each shard, the rows of each split.

    >>> part_names([(5, 0, 1), (2, 3, 0)])[1]
    {'train': 'train/part-00001.parquet', 'valid': 'valid/part-00000.parquet'}
    """
    numbers = dict.fromkeys(SPLITS, 0)
    names: list[dict[str, str]] = []
    for held in rows:
        names.append({})
        for split, number in zip(SPLITS, held, strict=True):
            if number:
                names[-1][split] = f"{split}/part-{numbers[split]:05d}.parquet"
                numbers[split] += 1
    return names


def _write_part(
    encoded: pa.Table, rows: NDArray[np.int64], path: Path, *, fields: Sequence[str]
) -> None:
    table = encoded if len(rows) == encoded.num_rows else encoded.take(pa.array(rows))
    fresh = unfinished(path)
    pq.write_table(
        table,
        fresh,
        compression="zstd",
        row_group_size=_ROW_GROUP_ROWS,
        # A number that stands in a row or two has no use for one.
        use_dictionary=[*fields, *(f"{name}.list.element" for name in fields)],
    )
    fresh.rename(path)
