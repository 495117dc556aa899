"""Fits a calibrator on a run's validation rows, judges it, and adds it to the run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from recsys_had.calibration import Calibrator, Judgement, Method, fit_calibrator, judge
from recsys_had.calibration.calibrator import Segments
from recsys_had.data.folder import DataFolder
from recsys_had.errors import DataError
from recsys_had.reliability_plot import reliability_png
from recsys_had.run_folder import RunFolder
from recsys_had.scoring.predictor import BatchPredictor
from recsys_had.scoring.splits import split_logits


@dataclass(frozen=True)
class Calibrated:
    """What came of a calibration.

    Args:
        run: the run with the calibrator.
        calibrator: what was added to it.
        judgement: figures before and after, of halves.
        content: what a command reports.
    """

    run: RunFolder
    calibrator: Calibrator
    judgement: Judgement
    content: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        """What is tracked: figures before and after by name."""
        return {
            f"calibration_{name}_{when}": float(value)
            for when, found in (("before", self.judgement.before), ("after", self.judgement.after))
            for name, value in found.items()
            if value is not None
        }


def calibrate_run(
    predictor: BatchPredictor,
    data: DataFolder,
    *,
    split: str = "valid",
    method: str = "centered_isotonic",
    segment: str | None = None,
    min_segment_rows: int = 1000,
    plot: Path | None = None,
) -> Calibrated:
    """Fits a calibrator to a split, judges it on halves, and adds it to the run.

    Args:
        predictor: scores the split; whether it calibrates makes no difference.
        data: encoded rows.
        split: rows that did not train.
        method: a name in :data:`recsys_had.calibration.METHODS`.
        segment: a field of one value a row whose frequent values have maps of their own, or None.
        min_segment_rows: rows that such a value has at least.
        plot: where a PNG of the reliability before and after goes, of one half by the map that
            was fitted on the other; or None.

    Raises:
        ConfigError: the segment is no field of one value a row.
        DataError: the split cannot be fitted to, or holds rows that trained; the plot's folder is
            not there.
        SchemaError, CheckpointError: as for :func:`recsys_had.scoring.splits.split_logits` and
            :meth:`RunFolder.add`.
    """
    predictor.run.require_changeable()
    if split == "train":
        raise DataError(
            f"{data.path}/train: the model has seen these labels and promises what it learned of "
            "them; a calibrator of them would make scores worse. Give another split."
        )
    if plot is not None and not plot.parent.is_dir():
        raise DataError(f"{plot}: its folder is not there. Make it first.")
    label, logits, segments = split_logits(predictor, data, split, segment=segment)
    weight = data.weights(split)
    place = f"{data.path}/{split}"
    chosen = cast(Method, method)
    # What all rows cannot be fitted to, no half can; and this message says it plainer.
    calibrator = fit_calibrator(
        label,
        logits.astype(np.float64) + predictor.shift,
        weight,
        method=chosen,
        field=segment,
        segments=segments,
        min_segment_rows=min_segment_rows,
        fitted_on={"split": split, "vocabulary_digest": data.manifest["vocabulary_digest"]},
        place=place,
    )
    judgement = judge(
        label,
        logits,
        weight,
        shift=predictor.shift,
        method=chosen,
        field=segment,
        segments=segments,
        min_segment_rows=min_segment_rows,
        place=place,
    )
    if plot is not None:
        seen = ~judgement.in_first
        reliability_png(
            label[seen],
            judgement.scores_before[seen],
            judgement.scores_after[seen],
            plot,
            weight=None if weight is None else weight[seen],
        )
    run = predictor.run.add("calibrator", calibrator.to_text())
    content = {
        "method": method,
        "split": split,
        "rows": len(label),
        "segment": segment,
        "segments": len(calibrator.segments),
        "segment_rows": _rows_of(calibrator, segments),
        "before": judgement.before,
        "after": judgement.after,
        "run_digest": run.manifest["digest"],
    }
    return Calibrated(run, calibrator, judgement, content)


def _rows_of(calibrator: Calibrator, segments: Segments | None) -> int:
    """Rows whose segment has a map of its own."""
    return 0 if segments is None else int(np.isin(segments, list(calibrator.segments)).sum())
