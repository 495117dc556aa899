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
    "--explain",
    type=click.IntRange(min=1),
    metavar="K",
    help="Also write the K fields and pairs of fields that moved each score most.",
)
@click.option(
    "--baseline",
    default="mean",
    show_default=True,
    type=click.Choice(["mean", "unseen"]),
    help="What --explain compares a row with: the mean of the training rows, or a row of values "
    "that were never seen.",
)
@click.option("--batch-size", default=8192, show_default=True, type=click.IntRange(min=1))
@click.option("--resume", is_flag=True, help="Go on after a kill.")
@click.option("--overwrite", is_flag=True, help="Replace what OUT holds.")
def command(
    run: Path,
    inputs: tuple[str, ...],
    out: "AnyPath",
    keep: tuple[str, ...],
    explain: int | None,
    baseline: str,
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
        explain=explain,
        baseline=baseline,
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
    explain: int | None = None,
    baseline: str = "mean",
    batch_size: int = 8192,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """What ``--json`` prints."""
    from recsys_had.versions import check_trio

    check_trio()

    from tqdm import tqdm

    from recsys_had.explanation import ExplanationColumn, explainer_of_run
    from recsys_had.scoring import BatchPredictor, RowColumns, predict_files

    predictor = BatchPredictor.load(run, batch_size=batch_size)
    extras: list[RowColumns] = []
    if explain is not None:
        extras.append(ExplanationColumn(explainer_of_run(predictor, baseline), top=explain))
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
