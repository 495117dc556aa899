"""``recsys-had predict``: raw rows in, scores with row ids out."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

# What --novelty means where no method is named.
LAST = "last"


@recsys_had_command("predict")
@click.argument("run", type=local_path)
@click.option(
    "--input",
    "inputs",
    required=True,
    multiple=True,
    metavar="PATH...",
    help="Raw files or globs, scored in this order.",
)
@click.option("--out", required=True, type=path_or_url, help="Folder of scores.")
@click.option(
    "--keep", multiple=True, metavar="COLUMN...", help="Raw columns to copy beside the score."
)
@click.option(
    "--novelty",
    is_flag=False,
    flag_value=LAST,
    default=None,
    metavar="[METHOD]",
    help="Add a column novelty: how unlike the training rows each row is, higher is more unlike. "
    "By the method the run was given last, or by METHOD.",
)
@click.option("--batch-size", default=8192, show_default=True, type=click.IntRange(min=1))
@click.option("--resume", is_flag=True, help="Go on after a kill.")
@click.option("--overwrite", is_flag=True, help="Replace what OUT holds.")
def command(
    run: Path,
    inputs: tuple[str, ...],
    out: "AnyPath",
    keep: tuple[str, ...],
    novelty: str | None,
    batch_size: int,
    resume: bool,
    overwrite: bool,
) -> Result:
    """Score raw rows with RUN; writes part-*.parquet with row_id, kept columns and score."""
    content = predict(
        run,
        inputs=inputs,
        out=out,
        keep=keep,
        novelty=novelty,
        batch_size=batch_size,
        resume=resume,
        overwrite=overwrite,
    )
    unseen = {name: count for name, count in content["oov"].items() if count}
    told = ", ".join(f"{name} {count:,}" for name, count in unseen.items()) or "none"
    text = (
        f"{content['rows']:,} rows scored in {content['parts']} parts, "
        f"{content['rows_per_s']:,.0f} rows/s\nvalues unseen in training: {told}\nscores: {out}"
    )
    return Result(content, text)


def predict(
    run: Path,
    *,
    inputs: tuple[str, ...],
    out: "AnyPath",
    keep: tuple[str, ...] = (),
    novelty: str | None = None,
    batch_size: int = 8192,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """What ``--json`` prints.

    Args:
        run: the run folder.
        inputs: raw files, in order.
        out: folder of scores.
        keep: raw columns to copy.
        novelty: a method, LAST for the one the run was given last, None for no such column.
        batch_size: rows scored together.
        resume: go on after a kill.
        overwrite: replace what ``out`` holds.
    """
    from recsys_had.versions import check_trio

    check_trio()

    from tqdm import tqdm

    from recsys_had.scoring import BatchPredictor, NoveltyColumn, load_novelty, predict_files

    predictor = BatchPredictor.load(run, batch_size=batch_size)
    extras = []
    if novelty is not None:
        method, column = load_novelty(predictor, None if novelty == LAST else novelty)
        extras.append(NoveltyColumn(predictor, column, how=method))
    begin = time.perf_counter()
    with tqdm(
        desc="predict",
        unit=" rows",
        unit_scale=True,
        disable=not (is_first_rank() and os.isatty(2)),
    ) as bar:
        report = predict_files(
            predictor,
            inputs,
            out,
            keep=keep,
            extras=extras,
            resume=resume,
            overwrite=overwrite,
            on_rows=lambda rows: _advance(bar, rows),
        )
    seconds = time.perf_counter() - begin
    return {
        "rows": report.rows,
        "rows_per_s": report.rows / max(seconds, 1e-9),
        "oov": report.oov,
        "parts": len(report.parts),
    }


def _advance(bar: "tqdm[Any]", rows: int) -> None:
    bar.update(rows)
