"""Files of embedding tables: a run's, as any program reads them, and back.

``SET.FIELD.safetensors`` holds one tensor, ``weight``, whose row is an id. ``FIELD.values.parquet``
beside it tells the value of each id; that of id 0, a missing or an unseen value, is null. A
hashed or managed field has no such file, for a hash has no way back.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recsys_had.data.encode import Encoder
from recsys_had.data.encoder_files import load_encoder
from recsys_had.errors import ConfigError, DataError
from recsys_had.model.embeddings import is_field_table, table_of_weight
from recsys_had.output import OutputFolder, refuse_other_kinds
from recsys_had.run_folder import RunFolder
from recsys_had.suggest import nearest
from recsys_had.versions import library_versions
from recsys_had.whole_files import file_digest

_MANIFEST = "manifest.json"
_WEIGHT = "weight"


def export_tables(
    run: RunFolder, out: Path, *, names: Sequence[str] = (), overwrite: bool = False
) -> dict[str, Any]:
    """Writes a run's tables, one in memory at a time.

    Args:
        run: the trained model.
        out: folder to write.
        names: which tables, FIELD (in all its sets) or SET.FIELD; all where there is none.
        overwrite: replace tables that ``out`` holds.

    Returns:
        The manifest.

    Raises:
        ConfigError: there is no such table.
        DataError: ``out`` holds something this may not replace.
    """
    with safe_open(run.path / "weights.safetensors", framework="pt") as saved:
        held = list(saved.keys())
        weights = {table_of_weight(name): name for name in held if is_field_table(name)}
        chosen = _chosen(list(weights), names)
        refuse_other_kinds(out, _MANIFEST, kind="tables", told="export")
        encoder = load_encoder(run.encoder_path)
        nameless = {field.name for field in run.card.fields if not field.has_vocabulary}
        with OutputFolder(out, marker=_MANIFEST, overwrite=overwrite) as folder:
            tables = {}
            for name in chosen:
                table = saved.get_tensor(weights[name])
                save_file({_WEIGHT: table.float()}, folder.stage / f"{name}.safetensors")
                tables[name] = {"rows": table.shape[0], "width": table.shape[1]}
            for field in {name.partition(".")[2] for name in chosen} - nameless:
                _write_values(encoder, field, folder.stage / f"{field}.values.parquet")
            files = sorted(folder.stage.iterdir())
            manifest = {
                "kind": "tables",
                "dataset": run.card.name,
                "weights_digest": run.manifest["weights_digest"],
                "tables": tables,
                "versions": library_versions(),
                "files": {path.name: file_digest(path) for path in files},
            }
            (folder.stage / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            folder.publish()
    return manifest


def parts_of(path: Path) -> tuple[Path, ...]:
    """The files that say what a table's file says: with an exported table, its values.

    >>> [part.name for part in parts_of(Path("fields.item.safetensors"))]
    ['fields.item.safetensors', 'item.values.parquet']
    >>> len(parts_of(Path("vectors.parquet")))
    1
    """
    if path.suffix != ".safetensors":
        return (path,)
    return path, path.with_name(f"{path.stem.rpartition('.')[2]}.values.parquet")


def read_table(path: Path) -> tuple[pl.Series, Tensor]:
    """What :func:`export_tables` wrote: the values, null that of id 0, and the row of each.

    Raises:
        DataError: one of the two files cannot be read, or they do not belong together.
    """
    path, values_path = parts_of(path)
    try:
        with safe_open(path, framework="pt") as file:
            if _WEIGHT not in set(file.keys()):
                raise DataError(
                    f"{path}: holds no tensor '{_WEIGHT}'. Give a file that `recsys-had export` "
                    "wrote."
                )
            table = file.get_tensor(_WEIGHT)
    except (OSError, SafetensorError) as cause:
        raise DataError(f"{path}: cannot be read: {cause}.") from cause
    frame = read_columns(values_path, ("id", "value"))
    if table.dim() != 2 or not np.array_equal(frame["id"].to_numpy(), np.arange(len(table))):
        raise DataError(
            f"{values_path}: its ids must be those of the rows of {path.name}, "
            f"{tuple(table.shape)}, in order. Export both again."
        )
    return frame["value"].cast(pl.String), table.float()


def read_columns(path: Path, names: tuple[str, ...]) -> pl.DataFrame:
    """Columns of a Parquet file.

    Raises:
        DataError: it cannot be read, or one line per column that is missing.
    """
    try:
        with pq.ParquetFile(path) as file:
            held = file.schema_arrow.names
            if missing := [name for name in names if name not in held]:
                raise DataError(
                    [f"{path}: has no column '{name}'.{nearest(name, held)}" for name in missing]
                )
            return pl.DataFrame(pl.from_arrow(file.read(columns=list(names))))
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as cause:
        raise DataError(f"{path}: cannot be read: {cause}.") from cause


def _chosen(tables: list[str], names: Sequence[str]) -> list[str]:
    """The tables that are named, in their own order."""
    fields = {table.partition(".")[2] for table in tables}
    problems = [
        f"--table {name}: the run has no such table.{nearest(name, {*tables, *fields})}"
        for name in names
        if name not in fields and name not in tables
    ]
    if problems:
        raise ConfigError(problems)
    return [
        table for table in tables if not names or table in names or table.partition(".")[2] in names
    ]


def _write_values(encoder: Encoder, field: str, path: Path) -> None:
    ids = pl.Series("id", np.arange(encoder.num_embeddings[field], dtype=np.int32))
    values = encoder.value_of(field, ids).alias("value")
    pq.write_table(pl.DataFrame([ids, values]).to_arrow(), path, compression="zstd")
