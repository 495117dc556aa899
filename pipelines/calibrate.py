"""``recsys-had calibrate``: fits a run's calibrator on rows that did not train."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from recsys_had.pipelines._command import Result, local_path, path_or_url, recsys_had_command

if TYPE_CHECKING:
    from recsys_had.storage import AnyPath

_FIGURES = ("ece", "ece_low", "ece_high", "ece_debiased", "logloss", "auc", "calibration")


@recsys_had_command("calibrate")
@click.argument("run", type=local_path)
@click.option("--data", type=path_or_url, help="Encoded rows.")
@click.option("--split", default="valid", show_default=True, help="Rows that did not train.")
@click.option(
    "--method",
    default="centered_isotonic",
    show_default=True,
    type=click.Choice(["platt", "temperature", "beta", "isotonic", "centered_isotonic"]),
)
@click.option("--segment", metavar="FIELD", help="A map for each frequent value of FIELD.")
@click.option(
    "--min-segment-rows",
    default=1000,
    show_default=True,
    type=click.IntRange(min=100),
    help="Values of fewer rows share the map of all rows.",
)
@click.option("--plot", type=local_path, help="PNG of the reliability before and after.")
@click.option("--remove", is_flag=True, help="Take the run's calibrator away.")
@click.option("--no-tracking", is_flag=True, help="Keep it out of MLflow.")
def command(
    run: Path,
    data: "AnyPath | None",
    split: str,
    method: str,
    segment: str | None,
    min_segment_rows: int,
    plot: Path | None,
    remove: bool,
    no_tracking: bool,
) -> Result:
    """Fit a calibrator on a split, judge it, and add it to RUN, which applies it from then on.

    It is judged on halves of the split, each by what was fitted on the other; what is added is
    fitted on all rows.
    """
    if remove:
        content = remove_calibrator(run)
        told = "calibrator removed" if content["removed"] else "there was no calibrator"
        return Result(content, f"{told}: {run}")
    if data is None:
        raise click.UsageError("Missing option '--data'.")
    content = calibrate(
        run,
        data=data,
        split=split,
        method=method,
        segment=segment,
        min_segment_rows=min_segment_rows,
        plot=plot,
        tracking=not no_tracking,
    )
    return Result(content, _as_text(content, run))


def calibrate(
    run: Path,
    *,
    data: "AnyPath",
    split: str = "valid",
    method: str = "centered_isotonic",
    segment: str | None = None,
    min_segment_rows: int = 1000,
    plot: Path | None = None,
    tracking: bool = True,
) -> dict[str, Any]:
    """What ``--json`` prints."""
    from recsys_had.data.folder import DataFolder
    from recsys_had.scoring import BatchPredictor
    from recsys_had.scoring.calibrating import calibrate_run
    from recsys_had.tracking import record_later

    predictor = BatchPredictor.load(run, calibrate=False)
    done = calibrate_run(
        predictor,
        DataFolder.open(data),
        split=split,
        method=method,
        segment=segment,
        min_segment_rows=min_segment_rows,
        plot=plot,
    )
    recorded = record_later(
        done.run.path,
        done.run.card,
        done.run.manifest.get("mlflow_run_id") if tracking else None,
        metrics=done.metrics,
        picture=plot,
        logs_model=True,
    )
    return {**done.content, "plot": None if plot is None else str(plot), **recorded}


def remove_calibrator(run: Path) -> dict[str, Any]:
    """Takes the calibrator of a run away; tells whether there was one."""
    from recsys_had.model_uri import local_run
    from recsys_had.run_folder import RunFolder

    folder = RunFolder.open(local_run(run))
    folder.require_changeable()
    removed = folder.addition("calibrator") is not None
    if removed:
        folder = folder.drop("calibrator")
    return {"removed": removed, "run_digest": folder.manifest["digest"]}


def _as_text(content: dict[str, Any], run: Path) -> str:
    lines = [f"{'':<14}{'before':>12}{'after':>12}"]
    for name in _FIGURES:
        before, after = content["before"][name], content["after"][name]
        lines.append(f"{name:<14}{before:>12.6g}{after:>12.6g}")
    lines.append(
        f"{content['method']} on {content['rows']:,} rows of split '{content['split']}'; the "
        "figures are means of its halves, each judged by what was fitted on the other"
    )
    if content["segment"] is not None:
        lines.append(
            f"{content['segments']:,} values of {content['segment']} have maps of their own, "
            f"{content['segment_rows']:,} rows; the others share one"
        )
    if content["plot"] is not None:
        lines.append(f"reliability diagram: {content['plot']}")
    if content["mlflow_run_id"] is not None and content["mlflow_error"] is None:
        lines.append(f"MLflow run: {content['mlflow_run_id']} at {content['mlflow_uri']}")
    lines.append(f"calibrator added: {run}")
    return "\n".join(lines)
