"""Which of two values of a metric is the better one."""

import math
from collections.abc import Mapping
from difflib import get_close_matches

HIGHER_IS_BETTER: dict[str, bool] = {
    "auc": True,
    "logloss": False,
    "normalized_entropy": False,
    "auc_minus_logloss": True,
}


def monitored(metrics: Mapping[str, float | None], metric: str) -> float | None:
    """The value an epoch is judged by; None where the rows do not define it.

    Args:
        metrics: the block of :func:`recsys_had.metrics.evaluate_scores`.
        metric: a name in ``HIGHER_IS_BETTER``.

    >>> monitored({"auc": 0.75, "logloss": 0.5}, "auc_minus_logloss")
    0.25
    """
    if metric != "auc_minus_logloss":
        return metrics[metric]
    auc, logloss = metrics["auc"], metrics["logloss"]
    return None if auc is None or logloss is None else auc - logloss


def improves(metric: str, value: float, best: float | None, min_delta: float = 0.0) -> bool:
    """Says whether a value beats the best one so far by more than ``min_delta``.

    Args:
        metric: a name in ``HIGHER_IS_BETTER``.
        value: the new value; NaN never improves.
        best: the best value so far, None at the first.
        min_delta: the gain, in units of the metric, that does not yet count.

    Raises:
        ValueError: ``metric`` has no better direction, or ``min_delta`` is negative.

    >>> improves("auc", 0.80, best=0.79), improves("logloss", 0.45, best=0.44)
    (True, False)
    """
    if metric not in HIGHER_IS_BETTER:
        near = get_close_matches(metric, HIGHER_IS_BETTER, n=1)
        advice = f"Did you mean {near[0]!r}?" if near else "Choose one of them."
        known = ", ".join(HIGHER_IS_BETTER)
        raise ValueError(f"improves: metric must be one of {known}; got {metric!r}. {advice}")
    if not min_delta >= 0:
        raise ValueError(
            f"improves: min_delta must not be negative; got {min_delta}. Use 0 to count any gain."
        )
    if math.isnan(value):
        return False
    if best is None:
        return True
    return value > best + min_delta if HIGHER_IS_BETTER[metric] else value < best - min_delta
