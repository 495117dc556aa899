"""``recsys-had ingest``: raw click logs in, encoded Parquet shards and vocabularies out."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from recsys_had.pipelines._command import (
    Result,
    is_first_rank,
    local_path,
    path_or_url,
    recsys_had_command,
)

if TYPE_CHECKING:
    from tqdm import tqdm

    from recsys_had.storage import AnyPath


@recsys_had_command("ingest", shares_memory=True)
@click.argument("dataset")
@click.option(
    "--raw",
    required=True,
    multiple=True,
    metavar="[SPLIT=]PATH...",
    help="Raw files or globs (.gz and .zst too). SPLIT is train, valid or test.",
)
@click.option("--out", required=True, type=path_or_url, help="Data folder.")
@click.option(
    "--update",
    type=local_path,
    metavar="DATA",
    help="Earlier data folder: its values keep their ids, new ones follow. It stays as it is.",
)
@click.option("--overwrite", is_flag=True, help="Replace the data folder OUT holds.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes.  [default: one a core, or what the Ray cluster has]",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or tasks of a Ray cluster.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "reject"]),
    default="stop",
    show_default=True,
    help="What a wrong row does: end it all, or go into OUT/rejects.parquet with its reason.",
)
def command(
    dataset: str,
    raw: tuple[str, ...],
    out: "AnyPath",
    update: Path | None,
    overwrite: bool,
    workers: int | None,
    engine: Literal["local", "ray"],
    on_error: Literal["stop", "reject"],
) -> Result:
    """Encode the raw rows of DATASET (a bundled name or the path of a dataset.yaml).

    Without SPLIT= the card's split rule decides which rows train. An interrupted run goes on
    when the same command is given again. What comes out is the same whatever the engine and the
    number of workers.
    """
    content = ingest(
        dataset,
        raw=raw,
        out=out,
        update=update,
        overwrite=overwrite,
        workers=workers,
        engine=engine,
        on_error=on_error,
    )
    return Result(content, _as_text(content, out))


def ingest(
    name: str,
    *,
    raw: tuple[str, ...],
    out: "AnyPath",
    update: Path | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    on_error: Literal["stop", "reject"] = "stop",
) -> dict[str, Any]:
    """Encodes raw rows into a data folder; returns what ``--json`` prints."""
    from tqdm import tqdm

    from recsys_had.ingestion.ingest import ingest as ingest_files
    from recsys_had.schema import load_card

    card = load_card(name)
    # Each row is told twice: when it was read, and when it was encoded.
    with tqdm(
        desc="ingest (reading and encoding)",
        unit=" rows",
        unit_scale=0.5,
        disable=not (is_first_rank() and os.isatty(2)),
    ) as bar:
        return ingest_files(
            card,
            [_split_and_path(text) for text in raw],
            out,
            name=name,
            update=update,
            overwrite=overwrite,
            engine=engine,
            num_workers=workers,
            on_error=on_error,
            on_rows=lambda rows: _advance(bar, rows),
        )


def _advance(bar: "tqdm[Any]", rows: int) -> None:
    bar.update(rows)


def _split_and_path(text: str) -> tuple[str | None, str]:
    """``train=rows.tsv`` in two; a path that holds a ``=`` may follow, or stand alone.

    >>> _split_and_path("train=day=1.tsv"), _split_and_path("logs/day=1.tsv")
    (('train', 'day=1.tsv'), (None, 'logs/day=1.tsv'))
    """
    split, equals, path = text.partition("=")
    if equals and split.isidentifier() and not Path(text).exists():
        return split, path
    return None, text


def _rejected(content: dict[str, Any], out: "AnyPath") -> str:
    number = content["rows_rejected"]
    return f"; {number:,} rejected, told in {out / 'rejects.parquet'}" if number else ""


def _grown(content: dict[str, Any]) -> str:
    if "update" not in content:
        return ""
    kept, new = (sum(each[key] for each in content["update"].values()) for key in ("kept", "new"))
    return f": {kept:,} values kept theirs, {new:,} are new"


def _as_text(content: dict[str, Any], out: "AnyPath") -> str:
    rows = ", ".join(f"{split} {number:,}" for split, number in content["rows"].items())
    tables = content["num_embeddings"]
    sampling = content.get("sampling")
    left_out = "" if sampling is None else f", {sampling['left_out']:,} of label 0 left out"
    return "\n".join(
        [
            f"{content['rows_read']:,} rows read: {rows}{left_out}{_rejected(content, out)}",
            f"{len(tables)} fields with {sum(tables.values()):,} ids{_grown(content)}",
            f"{content['rows_per_s']:,.0f} rows/s, "
            f"{content['peak_rss_bytes'] / 2**20:,.0f} MiB of memory at most",
            f"data folder: {out}",
        ]
    )
