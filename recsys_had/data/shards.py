"""Shards: the encoded rows of a data folder, read piece by piece in memory that does not grow."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from recsys_had.data.encode import Encoder
from recsys_had.data.encoder_files import load_encoder
from recsys_had.data.folder import DataFolder
from recsys_had.errors import CheckpointError, ConfigError, DataError
from recsys_had.storage import AnyPath, open_parquet, sorted_glob
from recsys_had.suggest import nearest

# As many as ingestion writes into a row group.
_PIECE_ROWS = 1 << 16


def encoder_of(data: DataFolder, *, in_memory: bool = True) -> Encoder:
    """The encoder whose ids a data folder's rows hold.

    Args:
        data: the folder.
        in_memory: whether its vocabularies are held; see
            :func:`recsys_had.data.encoder_files.load_encoder`.

    Raises:
        CheckpointError: it cannot be read, or is not the one the rows were encoded with.
    """
    encoder = load_encoder(data.path, in_memory=in_memory)
    if encoder.digest != data.manifest.get("vocabulary_digest"):
        raise CheckpointError(
            f"{data.path}: its vocabularies are not those its rows were encoded with. Restore "
            "them or ingest again."
        )
    return encoder


def existing_splits(data: DataFolder, asked: Sequence[str] = ()) -> tuple[str, ...]:
    """The splits that are asked for, or all there are.

    Raises:
        ConfigError: one line per split the folder has no row in.
    """
    held = tuple(data.manifest["rows"])
    problems = [
        f"{data.path}: has no row in split '{split}'.{nearest(split, held)}"
        for split in asked
        if split not in held
    ]
    if problems:
        raise ConfigError(problems)
    return tuple(dict.fromkeys(asked)) or held


def shards_of(data: DataFolder, split: str) -> list[AnyPath]:
    """The files of a split, in row order.

    Raises:
        DataError: there is none.
    """
    paths = sorted_glob(data.path / split, "part-*.parquet")
    if not paths:
        raise DataError(
            f"{data.path / split}: holds no part-*.parquet, and the manifest tells of "
            f"{data.rows(split):,} rows. Restore it or ingest again."
        )
    return paths


def pieces_of(
    path: AnyPath, columns: Sequence[str], *, rows: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows of one shard, so many at a time, with the columns named.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    try:
        with open_parquet(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise DataError(
                    f"{path}: column {missing[0]} is missing. Restore the file or ingest again."
                )
            yield from file.iter_batches(batch_size=rows or _PIECE_ROWS, columns=list(columns))
    except (OSError, pa.ArrowException) as cause:
        raise DataError(f"{path}: cannot be read: {cause}.") from cause
