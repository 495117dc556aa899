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
def command(run: Path, data: "AnyPath", split: str) -> Result:
    """Measure RUN on a split: AUC, logloss, normalized entropy, calibration."""
    content = evaluate(run, data=data, split=split)
    lines = [
        f"{name:<20} {'undefined' if number is None else format(number, '.6g')}"
        for name, number in content.items()
    ]
    return Result(content, "\n".join(lines))


def evaluate(run: Path, *, data: "AnyPath", split: str = "test") -> dict[str, Any]:
    """What ``--json`` prints: the metrics of the very scores ``predict`` would write."""
    from recsys_had.data.folder import DataFolder
    from recsys_had.metrics import evaluate_rows
    from recsys_had.scoring import BatchPredictor

    predictor = BatchPredictor.load(run)
    folder = DataFolder.open(data)
    label, score = predictor.score_split(folder, split)
    return evaluate_rows(label, score, folder.weights(split))
