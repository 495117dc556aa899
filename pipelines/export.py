"""``recsys-had export``: the embedding tables of a run, as files any program reads."""

from pathlib import Path
from typing import Any

import click
from recsys_had.pipelines._command import Result, local_path, recsys_had_command


@recsys_had_command("export")
@click.argument("run", type=local_path)
@click.option("--out", required=True, type=local_path, help="Folder of tables.")
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="NAME...",
    help="Some alone: FIELD, in all its sets, or SET.FIELD.",
)
@click.option("--overwrite", is_flag=True, help="Replace the tables that OUT holds.")
def command(run: Path, out: Path, tables: tuple[str, ...], overwrite: bool) -> Result:
    """Write the embedding tables of RUN: SET.FIELD.safetensors, and FIELD.values.parquet.

    Row = id; the values file tells the value of each id. `train --pretrained` reads both.
    """
    content = export(run, out=out, tables=tables, overwrite=overwrite)
    lines = [
        f"{name}: {table['rows']:,} rows of width {table['width']}"
        for name, table in content["tables"].items()
    ]
    return Result(content, "\n".join([*lines, f"tables: {out}"]))


def export(
    run: Path, *, out: Path, tables: tuple[str, ...] = (), overwrite: bool = False
) -> dict[str, Any]:
    """What ``--json`` prints."""
    from recsys_had.model_uri import local_run
    from recsys_had.run_folder import RunFolder
    from recsys_had.table_files import export_tables

    manifest = export_tables(RunFolder.open(local_run(run)), out, names=tables, overwrite=overwrite)
    return {name: manifest[name] for name in ("dataset", "weights_digest", "tables")}
