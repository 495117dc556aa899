"""The rows an ingestion left out: one Parquet file of where they stand and why."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_had.ingestion.shard import Staged


def write_rejects(shards: Sequence[Staged], path: Path) -> None:
    """Writes the rejected rows of all shards, in the order of their row ids; no file of none.

    Its columns: ``row_id``, ``file``, ``line`` (of a Parquet file the row, from 0), ``reason``, and
    ``text``, the beginning of the row as it stands in the file (null of Parquet).
    """
    writer: pq.ParquetWriter | None = None
    try:
        for staged in shards:
            rejects = staged.shard.rejects()
            if rejects is None:
                continue
            if writer is None:
                writer = pq.ParquetWriter(path, rejects.schema, compression="zstd")
            writer.write_table(pa.Table.from_batches([rejects]))
    finally:
        if writer is not None:
            writer.close()
