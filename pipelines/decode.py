"""``recsys-had decode``: encoded rows back to raw values, ids to what they stand for."""

import os
from pathlib import Path
from typing import Any, Literal

import click
from recsys_had.pipelines._command import Result, is_first_rank, local_path, recsys_had_command

_FORMATS = ("parquet", "csv", "tsv")


@recsys_had_command("decode")
@click.argument("data", type=local_path)
@click.option("--out", required=True, type=local_path, help="Folder to write.")
@click.option("--split", "splits", multiple=True, metavar="SPLIT...", help="Some alone.")
@click.option("--rows", type=click.IntRange(min=1), help="The first so many of each split.")
@click.option("--columns", multiple=True, metavar="NAME...", help="Some alone, beside row_id.")
@click.option("--format", "file_format", type=click.Choice(_FORMATS), default="parquet")
@click.option("--overwrite", is_flag=True, help="Replace the decoded rows OUT holds.")
def command(
    data: Path,
    out: Path,
    splits: tuple[str, ...],
    rows: int | None,
    columns: tuple[str, ...],
    file_format: Literal["parquet", "csv", "tsv"],
    overwrite: bool,
) -> Result:
    """Write the rows of DATA as raw values: SPLIT/part-*, in row order.

    An id that is 0, a missing or an unseen value, comes back as null. Numbers come back within
    the rounding of float32. Hashed and managed fields keep their ids: a hash has no way back.
    """
    content = decode(
        data,
        out=out,
        splits=splits,
        rows=rows,
        columns=columns,
        file_format=file_format,
        overwrite=overwrite,
    )
    return Result(content, _as_text(content, out))


def decode(
    data: Path,
    *,
    out: Path,
    splits: tuple[str, ...] = (),
    rows: int | None = None,
    columns: tuple[str, ...] = (),
    file_format: Literal["parquet", "csv", "tsv"] = "parquet",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Decodes a data folder; returns what ``--json`` prints."""
    from tqdm import tqdm

    from recsys_had.data.decoded_files import decode_folder
    from recsys_had.data.folder import DataFolder

    with tqdm(
        desc="decode",
        unit=" rows",
        unit_scale=True,
        disable=not (is_first_rank() and os.isatty(2)),
    ) as bar:
        manifest = decode_folder(
            DataFolder.open(data),
            out,
            splits=splits,
            rows=rows,
            columns=columns,
            file_format=file_format,
            overwrite=overwrite,
            on_rows=bar.update,
        )
    wanted = ("rows", "format", "decoded", "not_decoded", "id_0", "missing_as")
    return {name: manifest[name] for name in wanted}


def _as_text(content: dict[str, Any], out: Path) -> str:
    rows = ", ".join(f"{split} {number:,}" for split, number in content["rows"].items())
    nulls = sum(content["id_0"].values())
    lines = [
        f"{sum(content['rows'].values()):,} rows decoded: {rows}",
        f"{len(content['decoded'])} columns came back; {nulls:,} of their values had id 0, "
        "missing or unseen, and are null",
    ]
    lines += [f"{name}: kept as encoded: {why}" for name, why in content["not_decoded"].items()]
    lines += [
        f"{name}: a missing number was encoded as 0.0, which reads {number:g}"
        for name, number in content["missing_as"].items()
    ]
    return "\n".join([*lines, f"decoded rows: {out}"])
