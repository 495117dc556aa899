"""``recsys-had evaluate``: a run's quality on a split of encoded rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from recsys_had.pipelines._command import Result, local_path, path_or_url, recsys_had_command

if TYPE_CHECKING:
    from recsys_had.storage import AnyPath


@recsys_had_command("evaluate")
@click.argument("run", type=local_path)
@click.option("--data", required=True, type=path_or_url, help="Encoded rows.")
@click.option("--split", default="test", show_default=True, help="train, valid or test.")
@click.option("--no-calibration", is_flag=True, help="Leave the run's calibrator out.")
def command(run: Path, data: "AnyPath", split: str, no_calibration: bool) -> Result:
    """Measure RUN on a split: AUC, logloss, normalized entropy, calibration and its error."""
    content = evaluate(run, data=data, split=split, calibrate=not no_calibration)
    lines = [f"{name:<20} {_told(value)}" for name, value in content.items()]
    return Result(content, "\n".join(lines))


def _told(value: float | bool | None) -> str:
    match value:
        case None:
            return "undefined"
        case bool():
            return "yes" if value else "no"
        case _:
            return format(value, ".6g")


def evaluate(
    run: Path, *, data: "AnyPath", split: str = "test", calibrate: bool = True
) -> dict[str, Any]:
    """What ``--json`` prints: the metrics of the very scores ``predict`` would write.

    Of the split that a calibrator was fitted on they are too good: it has seen the labels.
    """
    from recsys_had.data.folder import DataFolder
    from recsys_had.metrics import evaluate_with_ece
    from recsys_had.scoring import BatchPredictor, score_split

    predictor = BatchPredictor.load(run, calibrate=calibrate)
    folder = DataFolder.open(data)
    label, score = score_split(predictor, folder, split)
    found = evaluate_with_ece(label, score, folder.weights(split))
    return {**found, "calibrated": predictor.calibrated}
