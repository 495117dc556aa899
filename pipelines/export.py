"""``recsys-had export``: a run as other programs read it: tables, a bundle, torch or ONNX."""

from pathlib import Path
from typing import Any

import click
from recsys_had.pipelines._command import Result, local_path, recsys_had_command

KINDS = ("tables", "bundle", "torch-export", "onnx")


@recsys_had_command("export")
@click.argument("run", type=local_path)
@click.option("--out", required=True, type=local_path, help="Folder to write.")
@click.option(
    "--to",
    "kind",
    type=click.Choice(KINDS),
    default="tables",
    show_default=True,
    help="tables: files of embeddings. bundle: the run without what scoring does not need. "
    "torch-export, onnx: the model as a program.",
)
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="NAME...",
    help="Some tables alone: FIELD, in all its sets, or SET.FIELD.",
)
@click.option("--overwrite", is_flag=True, help="Replace an export of this kind that OUT holds.")
def command(run: Path, out: Path, kind: str, tables: tuple[str, ...], overwrite: bool) -> Result:
    """Write RUN, a run folder or an MLflow model URI, for other programs.

    Tables are SET.FIELD.safetensors, and FIELD.values.parquet: row = id; the values file tells the
    value of each id. `train --pretrained` reads both.
    """
    content = export(run, out=out, kind=kind, tables=tables, overwrite=overwrite)
    return Result(content, "\n".join(_told(content, kind, out)))


def export(
    run: Path,
    *,
    out: Path,
    kind: str = "tables",
    tables: tuple[str, ...] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """What ``--json`` prints."""
    from recsys_had.errors import ConfigError
    from recsys_had.model_uri import local_run
    from recsys_had.run_folder import RunFolder

    if kind != "tables" and tables:
        raise ConfigError(f"--table {tables[0]}: is for --to tables. Leave it out of --to {kind}.")
    if kind == "tables":
        from recsys_had.table_files import export_tables

        opened = RunFolder.open(local_run(run))
        manifest = export_tables(opened, out, names=tables, overwrite=overwrite)
        return {name: manifest[name] for name in ("dataset", "weights_digest", "tables")}
    if kind == "bundle":
        from recsys_had.scoring.bundle import write_bundle

        manifest = write_bundle(RunFolder.open(local_run(run)), out, overwrite=overwrite)
        told = ("dataset", "weights_digest", "digest", "bundle_of")
        return {**{name: manifest[name] for name in told}, "files": sorted(manifest["files"])}

    from recsys_had.scoring import BatchPredictor
    from recsys_had.scoring.onnx_program import export_onnx
    from recsys_had.scoring.torch_program import export_torch

    write = export_torch if kind == "torch-export" else export_onnx
    return write(BatchPredictor.load(run), out, overwrite=overwrite)


def _told(content: dict[str, Any], kind: str, out: Path) -> list[str]:
    """What is printed without ``--json``."""
    if kind == "tables":
        lines = [
            f"{name}: {table['rows']:,} rows of width {table['width']}"
            for name, table in content["tables"].items()
        ]
        return [*lines, f"tables: {out}"]
    if kind == "bundle":
        return [f"{len(content['files'])} files", f"bundle: {out}"]
    what = "the whole model" if content["lookups"] else "what follows the lookups"
    error = content["largest_score_error"]
    checked = (
        "not checked: onnxruntime is not installed"
        if error is None
        else f"largest difference of a score {error:.1e} (batches of "
        f"{', '.join(map(str, content['checked_batch_sizes']))})"
    )
    inputs = ", ".join(
        f"{given['name']} ({', '.join(map(str, given['shape']))})" for given in content["inputs"]
    )
    shift = content["shift"]
    told = f"score = sigmoid(logit - {-shift:.6f})" if shift else "score = sigmoid(logit)"
    if content["run_has_calibrator"]:
        told += ", before the run's calibrator, which is not part of it"
    return [f"{what}; {checked}", told, f"inputs: {inputs}", f"{kind}: {out / content['program']}"]
