"""The quality of scores: exact and streaming AUC, logloss, normalized entropy, calibration.

Every metric is computed from float32 scores, those `predict` writes, and from integers: pairs
are counted in int64, sums are kept in fixed point. So a metric does not depend on the order of
the rows, on how they are cut into batches, or on how many ranks hold them.
"""

import math
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

HIGHER_IS_BETTER: dict[str, bool] = {"auc": True, "logloss": False, "normalized_entropy": False}

# scikit-learn clips a float64 score at this distance from 0 and 1: a sure miss costs 36.04.
EPSILON = float(np.finfo(np.float64).eps)

_BLOCK_ROWS = 1 << 20  # keeps the float64 temporaries small whatever the number of rows
_FRACTION_BITS = 52
_WORD_BITS = 30
_NUM_BINS = 1 << 16
_MAX_LOGIT = 16.0  # a float32 score cannot come closer to 1 than a logit of 16.6

Clicked = NDArray[np.bool_]
Scores = NDArray[np.float32]


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
    return _logloss(_Totals.of(clicked, scores))


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
    return _normalized_entropy(_Totals.of(clicked, scores))


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
    return _calibration(_Totals.of(clicked, scores))


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
    runs = _TieRuns.of(_keys(clicked, scores) | (_group_codes(group, len(scores)) << np.uint64(33)))
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
    return _block(_auc(clicked, scores), _Totals.of(clicked, scores))


class StreamingMetrics:
    """Gathers the block of metrics batch by batch, in one megabyte whatever the number of rows.

    The rows are counted by label in 65,536 bins, equally wide in the logit of the score from
    -16 to 16 (the outer bins hold what lies beyond). ``logloss``, ``normalized_entropy`` and
    ``calibration`` equal ``evaluate_scores`` to the last bit. ``auc`` takes the scores of one bin,
    whose odds differ by less than 0.05 %, for ties, so

    ``|auc - exact auc| <= sum_bins(clicks * misses) / (2 * P * N)``,

    which ``auc_error_bound`` computes. All state is one int64 array, ``state``, that adds up:
    reducing it over the ranks with SUM, in place, gives the metrics of all rows, in any order.

    >>> first, second = StreamingMetrics(), StreamingMetrics()
    >>> first.add([1, 0], [0.5, 0.25])
    >>> second.add([0], [0.75])
    >>> first.merge(second)
    >>> first.result()["auc"], first.auc_error_bound
    (0.5, 0.0)
    """

    def __init__(self) -> None:
        self.state: NDArray[np.int64] = np.zeros(2 * _NUM_BINS + 4, dtype=np.int64)

    def add(self, label: ArrayLike, score: ArrayLike) -> None:
        """Counts a batch, which may have no rows.

        Args:
            label: 0 or 1 per row.
            score: the predicted probability of a 1.

        Raises:
            ValueError: as for ``logloss``; nothing of the batch is counted then.
        """
        clicked, scores = check_scores(
            "StreamingMetrics.add", label, score, probability=True, allow_empty=True
        )
        for start in range(0, len(scores), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            log_click, log_miss = _log_probabilities(scores[block])
            logit = np.clip(log_click - log_miss, -_MAX_LOGIT, _MAX_LOGIT)
            bins_per_logit = _NUM_BINS / (2 * _MAX_LOGIT)
            bin_ = ((logit + _MAX_LOGIT) * bins_per_logit).astype(np.int64)
            cell = np.minimum(bin_, _NUM_BINS - 1) + clicked[block] * _NUM_BINS
            self.state[:-4] += np.bincount(cell, minlength=2 * _NUM_BINS)
            self.state[-4:-2] += _fixed_sum(-np.where(clicked[block], log_click, log_miss))
            self.state[-2:] += _fixed_sum(scores[block].astype(np.float64))

    def merge(self, other: "StreamingMetrics") -> None:
        """Adds the rows that another object has counted."""
        self.state += other.state

    def result(self) -> dict[str, float | None]:
        """Gives the same block as ``evaluate_scores``, of all rows counted so far."""
        misses, clicks = self._counts()
        misses_below = np.cumsum(misses) - misses
        twice_wins = int((clicks * (2 * misses_below + misses)).sum())
        totals = _Totals(
            int(misses.sum() + clicks.sum()),
            int(clicks.sum()),
            _fixed_value(self.state[-4:-2]),
            _fixed_value(self.state[-2:]),
        )
        return _block(_area(twice_wins, totals.clicks, totals.rows - totals.clicks), totals)

    @property
    def auc_error_bound(self) -> float | None:
        """The most by which the AUC of ``result`` can differ from the exact one, either way."""
        misses, clicks = self._counts()
        return _area(int((clicks * misses).sum()), int(clicks.sum()), int(misses.sum()))

    def _counts(self) -> NDArray[np.int64]:
        return self.state[:-4].reshape(2, _NUM_BINS)


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


def check_scores(
    place: str,
    label: ArrayLike,
    score: ArrayLike,
    *,
    probability: bool = False,
    allow_empty: bool = False,
) -> tuple[Clicked, Scores]:
    """Turns labels and scores into clean arrays, or tells all that is wrong with them.

    Args:
        place: the name of the caller, which opens every line of the message.
        label: 0 or 1 per row, in any numeric type.
        score: one number per row.
        probability: whether the scores must lie in [0, 1].
        allow_empty: whether zero rows will do.

    Returns:
        Whether each row was clicked, bool, and its score, float32.

    Raises:
        ValueError: one line per problem.

    >>> check_scores("demo", [0, 1], [0.25, 0.5])
    (array([False,  True]), array([0.25, 0.5 ], dtype=float32))
    """
    labels, raw_scores = np.asarray(label), np.asarray(score)
    problems = []
    for name, array in (("label", labels), ("score", raw_scores)):
        if array.ndim != 1:
            problems.append(f"{name} must have one axis; got shape {array.shape}. Flatten it.")
        elif array.dtype.kind not in "biuf":
            problems.append(f"{name} must hold numbers; got {array.dtype}. Cast it first.")
    if problems:
        raise ValueError("\n".join(f"{place}: {problem}" for problem in problems))

    if len(labels) != len(raw_scores):
        problems.append(
            f"label and score must have the same number of rows; got {len(labels)} and "
            f"{len(raw_scores)}. Pass one score per label."
        )
    elif len(labels) == 0 and not allow_empty:
        problems.append("label must have at least one row; got 0. Leave out empty splits.")
    clicked = labels == 1
    if (wrong := ~clicked & (labels != 0)).any():
        found = _first(labels, wrong)
        problems.append(f"label must be 0 or 1; got {found}. Map clicks to 1 and the rest to 0.")
    with np.errstate(over="ignore"):  # beyond float32 a score becomes infinite and keeps its order
        scores = raw_scores.astype(np.float32)
    if (wrong := np.isnan(scores)).any():
        found = _first(raw_scores, wrong)
        problems.append(f"score must not be NaN; got {found}. Look for weights that diverged.")
    if probability and (wrong := (raw_scores < 0) | (raw_scores > 1)).any():
        found = _first(raw_scores, wrong)
        problems.append(f"score must lie in [0, 1]; got {found}. Pass probabilities, not logits.")
    if problems:
        raise ValueError("\n".join(f"{place}: {problem}" for problem in problems))
    return clicked, scores


def _first(values: NDArray[np.generic], wrong: NDArray[np.bool_]) -> str:
    row, total = int(np.argmax(wrong)), int(wrong.sum())
    others = "" if total == 1 else f", the first of {total} such rows"
    return f"{values[row]} in row {row}{others}"


class _TieRuns(NamedTuple):
    """The rows sorted by key, with equal keys as one run."""

    key: NDArray[np.uint64]
    clicks: NDArray[np.int64]
    misses: NDArray[np.int64]
    misses_before: NDArray[np.int64]

    @staticmethod
    def of(packed: NDArray[np.uint64]) -> "_TieRuns":
        """Sorts ``packed`` in place: the label in the lowest bit, the key above it."""
        packed.sort()
        key = packed >> np.uint64(1)
        last = np.flatnonzero(np.append(key[1:] != key[:-1], True))
        clicks_through = np.cumsum(packed & np.uint64(1), dtype=np.int64)[last]
        misses_through = last + 1 - clicks_through
        clicks = np.diff(clicks_through, prepend=0)
        misses = np.diff(misses_through, prepend=0)
        return _TieRuns(key[last], clicks, misses, misses_through - misses)


def _keys(clicked: Clicked, scores: Scores) -> NDArray[np.uint64]:
    """Packs 32 bits that sort as the float32 scores do, above one bit for the label."""
    bits = (scores + np.float32(0)).view(np.uint32)  # adding 0 makes -0.0 and 0.0 tie
    ordered = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))
    return (ordered.astype(np.uint64) << np.uint64(1)) | clicked


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
    runs = _TieRuns.of(_keys(clicked, scores))
    # At most 2 * P * N, which int64 holds up to four billion rows.
    twice_wins = int((runs.clicks * (2 * runs.misses_before + runs.misses)).sum())
    return _area(twice_wins, num_clicks, len(clicked) - num_clicks)


def _area(twice_wins: int, num_clicks: int, num_misses: int) -> float | None:
    pairs = num_clicks * num_misses
    return twice_wins / (2 * pairs) if pairs else None


class _Totals(NamedTuple):
    """Whole numbers from which the metrics other than AUC follow; sums in units of 2**-52."""

    rows: int
    clicks: int
    loss: int
    score: int

    @staticmethod
    def of(clicked: Clicked, scores: Scores) -> "_Totals":
        loss = score = 0
        for start in range(0, len(scores), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            log_click, log_miss = _log_probabilities(scores[block])
            loss += _fixed_value(_fixed_sum(-np.where(clicked[block], log_click, log_miss)))
            score += _fixed_value(_fixed_sum(scores[block].astype(np.float64)))
        return _Totals(len(scores), int(clicked.sum()), loss, score)


def _log_probabilities(scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p = np.clip(scores.astype(np.float64), EPSILON, 1 - EPSILON)
    return np.log(p), np.log(1 - p)


def _fixed_sum(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sums values below 64, rounded to 2**-52, in two words that add up without overflow.

    Integers add up to the same in any order; floats do not.
    """
    fixed = np.rint(values * 2.0**_FRACTION_BITS).astype(np.int64)
    low = fixed & np.int64((1 << _WORD_BITS) - 1)
    return np.array([(fixed >> np.int64(_WORD_BITS)).sum(), low.sum()], dtype=np.int64)


def _fixed_value(words: NDArray[np.int64]) -> int:
    return (int(words[0]) << _WORD_BITS) + int(words[1])


def _logloss(totals: _Totals) -> float:
    return totals.loss / (totals.rows << _FRACTION_BITS)


def _normalized_entropy(totals: _Totals) -> float | None:
    if totals.clicks in (0, totals.rows):
        return None
    rate = totals.clicks / totals.rows
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))
    return _logloss(totals) / entropy


def _calibration(totals: _Totals) -> float | None:
    return totals.score / (totals.clicks << _FRACTION_BITS) if totals.clicks else None


def _block(area: float | None, totals: _Totals) -> dict[str, float | None]:
    return {
        "auc": area,
        "logloss": _logloss(totals) if totals.rows else None,
        "normalized_entropy": _normalized_entropy(totals),
        "calibration": _calibration(totals),
        "rows": totals.rows,
    }
