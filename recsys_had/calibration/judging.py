"""Whether a calibrator helps: each row is judged by a map that was not fitted to it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_had.calibration.calibrator import Segments
from recsys_had.calibration.fitting import Method, fit_calibrator
from recsys_had.calibration.scores import Scores, ToScores
from recsys_had.metrics import evaluate_with_ece

Metrics = dict[str, float | None]

_SEED = 7


@dataclass(frozen=True)
class Judgement:
    """Figures before and after, on the same rows, each the mean over the two halves.

    Args:
        before: of corrected scores, see :func:`recsys_had.metrics.evaluate_with_ece`.
        after: the same of calibrated scores.
        scores_before: ``(B,)``.
        scores_after: ``(B,)``, each from the map that the row's own half had no part in.
        in_first: ``(B,)``, which half a row belongs to.
    """

    before: Metrics
    after: Metrics
    scores_before: Scores
    scores_after: Scores
    in_first: NDArray[np.bool_]


def judge(
    label: NDArray[np.generic],
    logits: NDArray[np.float32],
    weight: NDArray[np.floating[Any]] | None = None,
    *,
    shift: float = 0.0,
    method: Method,
    field: str | None = None,
    segments: Segments | None = None,
    min_segment_rows: int = 1000,
    place: str = "calibration",
) -> Judgement:
    """Fits on one half of the rows and scores the other with it, and the other way round.

    Halves are drawn at random by a fixed seed, and measured apart. Taken together they would look
    too good: where one half happens to have more clicks, its map promises the other too many, and
    the other's promises it too few, which cancels. Nor would a single map let rows of different
    halves change places, as two maps do.

    Args:
        label: ``(B,)``, 0 or 1.
        logits: ``(B,)``, not corrected.
        weight: ``(B,)``, what each row counts for; None for 1 each.
        shift: the correction, see :func:`recsys_had.calibration.scores.log_kept_share`.
        method: kind of the maps.
        field: the field whose values are segments, or None.
        segments: ``(B,)``, each row's id in it.
        min_segment_rows: rows a segment needs; of a half, half as many.
        place: opens every message.

    Raises:
        DataError: a half cannot be fitted to, see :func:`fit_calibrator`.
    """
    in_first = np.zeros(len(label), np.bool_)
    in_first[np.random.default_rng(_SEED).permutation(len(label))[: len(label) // 2]] = True
    corrected = logits.astype(np.float64) + shift
    before = ToScores(shift=shift)(logits)
    after = np.empty_like(before)
    for half in (in_first, ~in_first):
        fitted = fit_calibrator(
            label[half],
            corrected[half],
            None if weight is None else weight[half],
            method=method,
            field=field,
            segments=None if segments is None else segments[half],
            min_segment_rows=-(-min_segment_rows // 2),
            place=f"{place}, one half of it",
        )
        to_scores = ToScores(shift=shift, calibrator=fitted)
        after[~half] = to_scores(logits[~half], None if segments is None else segments[~half])
    return Judgement(
        _judged(label, before, weight, in_first),
        _judged(label, after, weight, in_first),
        before,
        after,
        in_first,
    )


def _judged(
    label: NDArray[np.generic],
    score: Scores,
    weight: NDArray[np.floating[Any]] | None,
    in_first: NDArray[np.bool_],
) -> Metrics:
    halves = [
        evaluate_with_ece(label[half], score[half], None if weight is None else weight[half])
        for half in (in_first, ~in_first)
    ]
    one, other = halves
    return {name: _mean(one[name], other[name]) for name in one if name != "rows"}


def _mean(one: float | None, other: float | None) -> float | None:
    """Both halves have rows of both labels, or nothing was fitted to them."""
    return None if one is None or other is None else (one + other) / 2
