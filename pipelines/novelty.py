"""``recsys-had novelty``: what tells how unlike the training rows a scored row is, for a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from recsys_had.pipelines._command import Result, local_path, path_or_url, recsys_had_command

if TYPE_CHECKING:
    from recsys_had.storage import AnyPath


@recsys_had_command("novelty")
@click.argument("run", type=local_path)
@click.option("--data", required=True, type=path_or_url, help="The encoded rows of its training.")
@click.option(
    "--method",
    default="likelihood",
    show_default=True,
    help="likelihood, costarr, mahalanobis, max_probability, energy or unseen.",
)
def command(run: Path, data: "AnyPath", method: str) -> Result:
    """Fit a method of novelty on RUN's training rows and keep it in RUN.

    `recsys-had predict RUN --novelty` then adds a column of it. See docs/novelty.md.
    """
    content = novelty(run, data=data, method=method)
    text = (
        f"{method} fitted on {content['rows']:,} training rows, {content['bytes']:,} bytes: {run}"
    )
    return Result(content, text)


def novelty(run: Path, *, data: "AnyPath", method: str = "likelihood") -> dict[str, Any]:
    """What ``--json`` prints."""
    from recsys_had.data.folder import DataFolder
    from recsys_had.scoring import BatchPredictor, fit_novelty
    from recsys_had.scoring.novelty import ADDITION
    from recsys_had.tracking import record_later

    predictor = BatchPredictor.load(run)
    predictor.run.require_changeable()
    fitted = fit_novelty(predictor, DataFolder.open(data), method)
    added = predictor.run.add(ADDITION, fitted.text)
    recorded = record_later(
        added.path, added.card, added.manifest.get("mlflow_run_id"), logs_model=True
    )
    return {
        "method": method,
        "rows": fitted.num_rows,
        "bytes": len(added.addition(ADDITION) or ""),
        "run_digest": added.manifest["digest"],
        **recorded,
    }
