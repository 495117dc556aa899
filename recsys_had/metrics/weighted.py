"""The quality of scores of weighted rows: what scikit-learn gives for ``sample_weight``.

Weights are no integers, so sums are of float64. Rows are put into an order that depends on what
they hold alone: a metric does not depend on the order they came in, nor on how many ranks hold
them.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_had.metrics.counts import EPSILON
from recsys_had.metrics.exact import evaluate_scores
from recsys_had.metrics.rows import Clicked, Scores, check_scores

Weights = NDArray[np.float64]


def evaluate_rows(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None
) -> dict[str, float | None]:
    """Gives the block of metrics that every command reports, of rows with or without weights.

    ``auc = sum_(click i, miss j) w_i w_j [s_i > s_j] / sum_(click i, miss j) w_i w_j``, a tie
    counted half; ``logloss = sum(w * loss) / sum(w)``; normalized_entropy and calibration are of
    weighted means likewise. Rows of weight 0 change nothing but the number of rows.

    Shape: ``(B,), (B,), (B,) -> ()``.
    Paper: none; see :mod:`recsys_had.metrics` for each metric's own.
    Differs from the paper: the weights.

    Args:
        label: 0 or 1 per row.
        score: the predicted probability of a 1.
        weight: what each row counts for, 0 or more; None for 1 each.

    Returns:
        What :func:`recsys_had.metrics.evaluate_scores` returns; None also for what rows of
        weight 0 do not define.

    Raises:
        ValueError: as for ``evaluate_scores``, and a weight that is negative or not finite.

    >>> evaluate_rows([1, 0, 0], [0.5, 0.25, 0.75], [1, 3, 1])["auc"]  # 1*3 of 1*3 + 1*1 pairs
    0.75
    >>> evaluate_rows([1, 0], [0.5, 0.5]) == evaluate_scores([1, 0], [0.5, 0.5])
    True
    """
    if weight is None:
        return evaluate_scores(label, score)
    clicked, scores = check_scores(
        "evaluate_rows", label, score, probability=True, allow_empty=True
    )
    weights = check_weights("evaluate_rows", weight, len(scores))
    num_rows = len(scores)
    counts = weights > 0
    clicked, scores, weights = _in_order(clicked[counts], scores[counts], weights[counts])
    total, clicks = float(weights.sum()), float(weights[clicked].sum())
    loss = _logloss(clicked, scores, weights) if num_rows and total else None
    promised = float((weights * scores.astype(np.float64)).sum())
    return {
        "auc": _auc(clicked, scores, weights),
        "logloss": loss,
        "normalized_entropy": _normalized_entropy(loss, clicked, clicks, total),
        "calibration": promised / clicks if clicks else None,
        "rows": num_rows,
    }


def check_weights(place: str, weight: ArrayLike, num_rows: int) -> Weights:
    """Turns weights into a clean array, float64.

    Args:
        place: the name of the caller, which opens the message.
        weight: one number per row.
        num_rows: how many there must be.

    Raises:
        ValueError: there are more or fewer, or one is negative or not finite.
    """
    weights = np.asarray(weight, np.float64)
    if weights.shape != (num_rows,):
        raise ValueError(
            f"{place}: weight must have one entry per row; got shape {weights.shape} for "
            f"{num_rows} rows. Pass the weight of every row."
        )
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{place}: weight must be a finite number, 0 or more; got {weights[row]} in "
            f"row {row}. Leave out rows that do not count, or give them 0."
        )
    return weights


def _in_order(
    clicked: Clicked, scores: Scores, weights: Weights
) -> tuple[Clicked, Scores, Weights]:
    """Rows by score, then label, then weight: rows that change places are the same in all."""
    order = np.lexsort((weights, clicked, scores))
    return clicked[order], scores[order], weights[order]


def _auc(clicked: Clicked, scores: Scores, weights: Weights) -> float | None:
    if not len(scores) or clicked.all() or not clicked.any():
        return None
    start = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
    clicks = np.add.reduceat(np.where(clicked, weights, 0.0), start)
    misses = np.add.reduceat(np.where(clicked, 0.0, weights), start)
    misses_below = np.cumsum(misses) - misses
    wins = float((clicks * (misses_below + misses / 2)).sum())
    return wins / (float(clicks.sum()) * float(misses.sum()))


def _logloss(clicked: Clicked, scores: Scores, weights: Weights) -> float:
    p = np.clip(scores.astype(np.float64), EPSILON, 1 - EPSILON)
    loss = -np.where(clicked, np.log(p), np.log(1 - p))
    return float((weights * loss).sum() / weights.sum())


def _normalized_entropy(
    loss: float | None, clicked: Clicked, clicks: float, total: float
) -> float | None:
    if loss is None or clicked.all() or not clicked.any():
        return None
    rate = clicks / total
    return loss / -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))
