"""``recsys-had predict``: raw rows in, scores with row ids out."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from recsys_had.pipelines._column_options import column_options
from recsys_had.pipelines._command import (
    Result,
    is_first_rank,
    local_path,
    path_or_url,
    recsys_had_command,
)
from recsys_had.pipelines._mode_options import mode_options

if TYPE_CHECKING:
    from tqdm import tqdm

    from recsys_had.storage import AnyPath


@recsys_had_command("predict", shares_memory=True)
@click.argument("run", type=local_path)
@click.option(
    "--input",
    "inputs",
    required=True,
    multiple=True,
    metavar="PATH...",
    help="Raw files or globs, scored in this order; - is an Arrow stream on standard input.",
)
@click.option("--out", required=True, type=path_or_url, help="Folder of scores.")
@click.option(
    "--keep", multiple=True, metavar="COLUMN...", help="Raw columns to copy beside the score."
)
@click.option("--batch-size", default=4096, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Processes; each holds the whole model. One uses all cores, too.",
)
@click.option(
    "--engine",
    default="local",
    show_default=True,
    type=click.Choice(["local", "ray"]),
    help="Where it runs: on this machine, or on a Ray cluster.",
)
@click.option(
    "--on-error",
    default="stop",
    show_default=True,
    type=click.Choice(["stop", "reject"]),
    help="What a row does that is not as the card says; rejects go to rejects.parquet.",
)
@column_options
@mode_options
@click.option("--no-calibration", is_flag=True, help="Leave the run's calibrator out.")
@click.option("--resume", is_flag=True, help="Go on after a kill.")
@click.option("--overwrite", is_flag=True, help="Replace what OUT holds.")
def command(
    run: Path,
    inputs: tuple[str, ...],
    out: "AnyPath",
    keep: tuple[str, ...],
    batch_size: int,
    workers: int,
    engine: Literal["local", "ray"],
    on_error: Literal["stop", "reject"],
    novelty: str | None,
    explain: int | None,
    baseline: str,
    precision: Literal["fp32", "bf16"],
    tables: Literal["saved", "int8"],
    compiled: bool,
    no_calibration: bool,
    resume: bool,
    overwrite: bool,
) -> Result:
    """Score raw rows with RUN; writes part-*.parquet with row_id, kept columns and score."""
    from recsys_had.scoring import Mode, told_error

    content = predict(
        run,
        inputs=inputs,
        out=out,
        keep=keep,
        batch_size=batch_size,
        workers=workers,
        engine=engine,
        on_error=on_error,
        novelty=novelty,
        explain=explain,
        baseline=baseline,
        precision=precision,
        tables=tables,
        compiled=compiled,
        calibrate=not no_calibration,
        resume=resume,
        overwrite=overwrite,
    )
    unseen = {name: count for name, count in content["oov"].items() if count}
    told = ", ".join(f"{name} {count:,}" for name, count in unseen.items()) or "none"
    rejected = content["rows_rejected"]
    left_out = f", {rejected:,} rejected, told in {out / 'rejects.parquet'}" if rejected else ""
    text = (
        f"{content['rows']:,} rows scored{left_out} in {content['parts']} parts, "
        f"{content['rows_per_s']:,.0f} rows/s\nvalues unseen in training: {told}\nscores: {out}"
    )
    if content["score_error"] is not None:
        text += f"\n{told_error(Mode(**content['mode']), content['score_error'], of='the first')}"
    return Result(content, text)


def predict(
    run: Path,
    *,
    inputs: tuple[str, ...],
    out: "AnyPath",
    keep: tuple[str, ...] = (),
    batch_size: int = 4096,
    workers: int = 1,
    engine: Literal["local", "ray"] = "local",
    on_error: Literal["stop", "reject"] = "stop",
    novelty: str | None = None,
    explain: int | None = None,
    baseline: str = "mean",
    precision: Literal["fp32", "bf16"] = "fp32",
    tables: Literal["saved", "int8"] = "saved",
    compiled: bool = False,
    calibrate: bool = True,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """What ``--json`` prints."""
    from tqdm import tqdm

    from recsys_had.extra_columns import extra_columns
    from recsys_had.scoring import BatchPredictor, Mode, predict_files

    mode = Mode(precision, tables, compiled)
    predictor = BatchPredictor.load(run, batch_size=batch_size, calibrate=calibrate, mode=mode)
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
            extras=extra_columns(explain=explain, baseline=baseline, novelty=novelty),
            engine=engine,
            num_workers=workers,
            on_error=on_error,
            resume=resume,
            overwrite=overwrite,
            on_rows=lambda rows: _advance(bar, rows),
        )
    seconds = time.perf_counter() - begin
    return {
        "rows_read": report.rows_read,
        "rows": report.rows,
        "rows_rejected": report.rows_rejected,
        "rows_per_s": report.rows / max(seconds, 1e-9),
        "oov": report.oov,
        "parts": len(report.parts),
        "peak_rss_bytes": report.peak_rss_bytes,
        "digest": report.digest,
        "calibrated": predictor.calibrated,
        "mode": mode.content,
        "score_error": report.score_error,
    }


def _advance(bar: "tqdm[Any]", rows: int) -> None:
    bar.update(rows)
