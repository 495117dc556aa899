"""Exact metrics of rows that are all at hand."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_had.metrics.counts import TieRuns, Totals, area, keys
from recsys_had.metrics.rows import Clicked, Scores, check_scores


class GroupedAuc(NamedTuple):
    """Grouped AUC, and the number of groups that have both classes and so count in it."""

    auc: float | None
    num_groups: int


def auc(label: ArrayLike, score: ArrayLike) -> float | None:
    """Counts the (click, no click) pairs that the scores order rightly, as a share of all pairs.

    ``AUC = (#{s[click] > s[no click]} + #{s[click] = s[no click]} / 2) / (P * N)``
    with P clicks and N other rows. The pairs are counted exactly, by one sort of integers.

    Shape: ``(B,), (B,) -> ()``.
    Paper: Hanley and McNeil 1982, The meaning and use of the area under a ROC curve.
    Differs from the paper: nothing.

    Args:
        label: 0 or 1 per row.
        score: any number that grows with the chance of a click; rounded to float32, so that
            float64 scores closer than that are ties.

    Returns:
        The area, or None where all rows are of one class.

    Raises:
        ValueError: no rows, unequal lengths, a label that is neither 0 nor 1, a NaN score.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return _auc(*check_scores("auc", label, score))


def logloss(label: ArrayLike, score: ArrayLike) -> float:
    """Averages the negative log-likelihood of the labels, in nats.

    ``logloss = -mean(label * log(p) + (1 - label) * log(1 - p))`` where ``p`` is the float32
    score, cast to float64 and clipped to ``[EPSILON, 1 - EPSILON]``: what scikit-learn's
    ``log_loss`` gives for ``score.astype(np.float64)``.

    Shape: ``(B,), (B,) -> ()``.
    Paper: He et al. 2014, Practical lessons from predicting clicks on ads at Facebook,
    sec. 2, the numerator of NE.
    Differs from the paper: the clipping.

    Args:
        label: 0 or 1 per row.
        score: the predicted probability of a 1.

    Raises:
        ValueError: as for ``auc``, and a score outside [0, 1].

    >>> round(logloss([1, 0], [0.5, 0.25]), 6)  # (log 2 + log 4/3) / 2
    0.490415
    """
    clicked, scores = check_scores("logloss", label, score, probability=True)
    return Totals.of(clicked, scores).logloss()


def normalized_entropy(label: ArrayLike, score: ArrayLike) -> float | None:
    """Divides logloss by what always predicting the mean label would cost.

    ``NE = logloss / -(q * log(q) + (1 - q) * log(1 - q))`` with ``q = mean(label)``; below 1 is
    better than knowing the click rate alone.

    Shape: ``(B,), (B,) -> ()``.
    Paper: He et al. 2014, Practical lessons from predicting clicks on ads at Facebook, sec. 2.
    Differs from the paper: nothing.

    Args:
        label: 0 or 1 per row.
        score: the predicted probability of a 1.

    Returns:
        The ratio, or None where all rows are of one class.

    Raises:
        ValueError: as for ``logloss``.

    >>> round(normalized_entropy([1, 0], [0.5, 0.5]), 12)
    1.0
    """
    clicked, scores = check_scores("normalized_entropy", label, score, probability=True)
    return Totals.of(clicked, scores).normalized_entropy()


def calibration(label: ArrayLike, score: ArrayLike) -> float | None:
    """Divides the clicks that the scores promise by those that came.

    ``calibration = mean(score) / mean(label)``; above 1 the model promises too many.

    Shape: ``(B,), (B,) -> ()``.
    Paper: He et al. 2014, Practical lessons from predicting clicks on ads at Facebook, sec. 2.
    Differs from the paper: nothing.

    Args:
        label: 0 or 1 per row.
        score: the predicted probability of a 1.

    Returns:
        The ratio, or None where no label is 1.

    Raises:
        ValueError: as for ``logloss``.

    >>> calibration([1, 0, 0, 0], [0.25, 0.25, 0.5, 0.5])
    1.5
    """
    clicked, scores = check_scores("calibration", label, score, probability=True)
    return Totals.of(clicked, scores).calibration()


def grouped_auc(label: ArrayLike, score: ArrayLike, group: ArrayLike) -> GroupedAuc:
    """Averages the AUC inside each group, say of each user, weighted by the group's rows.

    ``GAUC = sum_g(rows[g] * AUC[g]) / sum_g(rows[g])`` over the groups with both classes; the
    others have no AUC and carry no weight. Two sorts, no loop over groups, memory linear in rows.

    Shape: ``(B,), (B,), (B,) -> ()``.
    Paper: Zhou et al. 2018, Deep interest network, the section on metrics (arXiv:1706.06978).
    Differs from the paper: says that groups of one class are left out; the paper is silent.

    Args:
        label: 0 or 1 per row.
        score: any number that grows with the chance of a click; rounded to float32.
        group: an integer or a string per row.

    Returns:
        The mean, None where no group has both classes, and the number of groups in it.

    Raises:
        ValueError: as for ``auc``, and a group that is neither an integer nor a string.

    >>> grouped_auc([0, 1, 1, 0, 1], [0.1, 0.2, 0.3, 0.4, 0.5], ["a", "a", "b", "b", "c"])
    GroupedAuc(auc=0.5, num_groups=2)
    """
    clicked, scores = check_scores("grouped_auc", label, score)
    runs = TieRuns.of(keys(clicked, scores) | (_group_codes(group, len(scores)) << np.uint64(33)))
    group_of_run = runs.key >> np.uint64(32)
    first = np.flatnonzero(np.append(True, group_of_run[1:] != group_of_run[:-1]))
    misses_before_group = np.repeat(
        runs.misses_before[first], np.diff(first, append=len(group_of_run))
    )
    misses_below = runs.misses_before - misses_before_group
    twice_wins = np.add.reduceat(runs.clicks * (2 * misses_below + runs.misses), first)
    num_clicks = np.add.reduceat(runs.clicks, first)
    num_misses = np.add.reduceat(runs.misses, first)
    counts = (num_clicks > 0) & (num_misses > 0)
    if not counts.any():
        return GroupedAuc(None, 0)
    area = twice_wins[counts] / (2.0 * num_clicks[counts] * num_misses[counts])
    mean = np.average(area, weights=(num_clicks + num_misses)[counts])
    return GroupedAuc(float(mean), int(counts.sum()))


def evaluate_scores(label: ArrayLike, score: ArrayLike) -> dict[str, float | None]:
    """Gives the block of metrics that every command reports.

    Args:
        label: 0 or 1 per row.
        score: the predicted probability of a 1.

    Returns:
        auc, logloss, normalized_entropy, calibration and the number of rows, ready for JSON; None
        for what the rows do not define: all four without rows, auc and normalized_entropy
        with rows of one class, calibration without a click.

    Raises:
        ValueError: as for ``logloss``, but zero rows are welcome.

    >>> evaluate_scores([1, 0], [0.5, 0.5])["auc"], evaluate_scores([], [])["rows"]
    (0.5, 0)
    """
    clicked, scores = check_scores(
        "evaluate_scores", label, score, probability=True, allow_empty=True
    )
    return Totals.of(clicked, scores).block(_auc(clicked, scores))


def _group_codes(group: ArrayLike, num_rows: int) -> NDArray[np.uint64]:
    groups = np.asarray(group)
    if groups.shape != (num_rows,):
        raise ValueError(
            f"grouped_auc: group must have one entry per row; got shape {groups.shape} for "
            f"{num_rows} rows. Pass the group of every row."
        )
    unfit = ValueError(
        f"grouped_auc: group must hold integers or strings; got {groups.dtype}. Cast it, and give "
        "missing values a group of their own."
    )
    if groups.dtype.kind not in "biuUSTO":
        raise unfit
    try:
        return np.unique(groups, return_inverse=True)[1].astype(np.uint64)
    except TypeError as error:  # objects that do not compare, such as None among strings
        raise unfit from error


def _auc(clicked: Clicked, scores: Scores) -> float | None:
    num_clicks = int(clicked.sum())
    if num_clicks in (0, len(clicked)):
        return None
    runs = TieRuns.of(keys(clicked, scores))
    # At most 2 * P * N, which int64 holds up to four billion rows.
    twice_wins = int((runs.clicks * (2 * runs.misses_before + runs.misses)).sum())
    return area(twice_wins, num_clicks, len(clicked) - num_clicks)
