"""Expected calibration error: how far promised click rates are from those that came."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_had.metrics.equal_mass import bin_starts
from recsys_had.metrics.rows import check_scores
from recsys_had.metrics.weighted import check_weights, evaluate_rows

Floats = NDArray[np.float64]

_DRAWS = 1_000
_SEED = 20_150  # of the bootstrap: the same rows give the same interval
_TAIL = 0.025


class CalibrationError(NamedTuple):
    """The error in bins, what is left of it without chance's share, and a 95 % interval.

    Args:
        ece: the error as it is seen.
        debiased: the true error under which as much would be seen on average.
        low: the least true error that agrees with what is seen.
        high: the greatest one.
        bins: number of bins.
    """

    ece: float
    debiased: float
    low: float
    high: float
    bins: int


class _Bins(NamedTuple):
    """Per bin: its share of the rows' mass, mean score, that less the click rate, rows."""

    share: Floats
    promised: Floats
    gap: Floats
    rows: Floats


def expected_calibration_error(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None, *, bins: int = 15
) -> CalibrationError:
    """Averages, over bins of equal mass, the distance of the mean score from the click rate.

    ``ECE = sum_b m_b * |mean_b(score) - mean_b(label)|`` where ``m_b`` is the bin's share of the
    rows, or of their weight. Chance alone makes every distance positive: an ECE of few rows is
    too high even of perfect scores, and that of resampled rows higher still, so that percentiles
    of a plain bootstrap would leave a true error of 0 out. The bootstrap is parametric, and its
    interval that of a test turned round: of true errors ``t * ECE``, whose distances are ``t``
    times those that are seen, it holds all for which the ECE that is seen lies between the 2.5 %
    and the 97.5 % quantile of what they make likely; and the same of true errors whose distances
    are ``t`` times those that are seen less the variance that chance gives them, because errors
    may lie in few bins or in all. ``debiased`` is the first kind's for which it is the mean. Clicks
    of a bin are taken for normal, so bins of few clicks make limits rough. ``ece`` itself may lie
    above ``high`` where chance is most of it.

    All three are of the error in these bins, which is at most that of the scores themselves:
    errors of both signs within one bin cancel.

    Shape: ``(B,), (B,) -> ()``.
    Paper: Naeini et al. 2015, Obtaining well calibrated probabilities using Bayesian binning;
    Nixon et al. 2019, Measuring calibration in deep learning (arXiv:1904.01685), for bins of equal
    mass; Kumar et al. 2019, Verified uncertainty calibration (arXiv:1909.10155), for the bias.
    Differs from the paper: the error of a click's probability, not of the likelier class; the
    bias is taken away by the same test as the interval, not by a difference of means.

    Args:
        label: 0 or 1 per row.
        score: the predicted probability of a 1.
        weight: what each row counts for, 0 or more; None for 1 each.
        bins: number of bins; there are fewer where rows share a score.

    Raises:
        ValueError: as for :func:`recsys_had.metrics.evaluate_rows`, no row that counts, or fewer
            than 1 bins.

    >>> found = expected_calibration_error([0, 1, 0, 0], [0.25, 0.25, 0.75, 0.75], bins=2)
    >>> found.ece  # (|0.25 - 0.5| + |0.75 - 0|) / 2
    0.5
    """
    place = "expected_calibration_error"
    if bins < 1:
        raise ValueError(f"{place}: bins must be at least 1; got {bins}. Leave it out for 15.")
    clicked, scores = check_scores(place, label, score, probability=True)
    weights = None if weight is None else check_weights(place, weight, len(scores))
    if weights is not None:
        counts = weights > 0
        clicked, scores, weights = clicked[counts], scores[counts], weights[counts]
        if not len(scores):
            raise ValueError(f"{place}: weight must be above 0 in some row. Pass rows that count.")
        order = np.lexsort((weights, clicked, scores))
        weights = weights[order]
    else:
        order = np.argsort(scores)
    found = _binned(scores[order], clicked[order], weights, bins)
    ece = float(found.share @ np.abs(found.gap))
    noise = np.random.default_rng(_SEED).standard_normal((_DRAWS, len(found.share)))
    seen, less = (_agreeing(found, gap, noise) for gap in (found.gap, _beyond_chance(found)))
    low, high = min(seen[0], less[0]), max(seen[2], less[2])
    return CalibrationError(ece, seen[1], low, high, len(found.share))


def evaluate_with_ece(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None
) -> dict[str, float | None]:
    """The block of :func:`recsys_had.metrics.evaluate_rows`, and the calibration error in 15 bins.

    Args:
        label: 0 or 1 per row.
        score: the predicted probability of a 1.
        weight: what each row counts for, 0 or more; None for 1 each.

    Returns:
        The block with ece, ece_low, ece_high and ece_debiased; None for these without a row that
        counts.

    Raises:
        ValueError: as for ``evaluate_rows``.

    >>> evaluate_with_ece([], [])["ece"] is None
    True
    """
    block = evaluate_rows(label, score, weight)
    error = None
    if block["logloss"] is not None:
        error = expected_calibration_error(label, score, weight)
    return {
        **block,
        "ece": None if error is None else error.ece,
        "ece_low": None if error is None else error.low,
        "ece_high": None if error is None else error.high,
        "ece_debiased": None if error is None else error.debiased,
    }


def _binned(
    ascending: NDArray[np.float32],
    clicked: NDArray[np.bool_],
    weights: Floats | None,
    bins: int,
) -> _Bins:
    start = bin_starts(ascending, bins, weights)
    if weights is None:
        mass = np.diff(start, append=len(ascending)).astype(np.float64)
        clicks = np.add.reduceat(clicked.astype(np.float64), start)
        promised = np.add.reduceat(ascending.astype(np.float64), start)
        rows = mass
    else:
        mass = np.add.reduceat(weights, start)
        clicks = np.add.reduceat(np.where(clicked, weights, 0.0), start)
        promised = np.add.reduceat(ascending.astype(np.float64) * weights, start)
        # So many rows of one weight would have a mean of the same variance.
        rows = mass**2 / np.add.reduceat(weights**2, start)
    return _Bins(mass / mass.sum(), promised / mass, (promised - clicks) / mass, rows)


def _agreeing(bins: _Bins, gap: Floats, noise: Floats) -> tuple[float, float, float]:
    """The least, the middle and the greatest multiple of true distances that agree with the ECE."""
    ece, unit = float(bins.share @ np.abs(bins.gap)), float(bins.share @ np.abs(gap))

    def likely(factor: float) -> Floats:
        return np.abs(factor * gap + _deviation(bins, factor * gap) * noise) @ bins.share

    low = _factor(lambda factor: float(np.quantile(likely(factor), 1 - _TAIL)), ece)
    middle = _factor(lambda factor: float(likely(factor).mean()), ece)
    high = _factor(lambda factor: float(np.quantile(likely(factor), _TAIL)), ece)
    return unit * low, unit * middle, unit * high


def _deviation(bins: _Bins, gap: Floats) -> Floats:
    """Standard deviation of each bin's click rate if its true distance were ``gap``."""
    rate = np.clip(bins.promised - gap, 0.0, 1.0)
    # A bin without a click is not sure to have none.
    rate = (rate * bins.rows + 1) / (bins.rows + 2)
    return np.asarray(np.sqrt(rate * (1 - rate) / bins.rows))


def _beyond_chance(bins: _Bins) -> Floats:
    """The distances, each less what chance is likely to have in it; as seen if none is left."""
    squared = bins.gap**2
    left = np.maximum(squared - _deviation(bins, bins.gap) ** 2, 0.0)
    found = np.divide(bins.gap * left, squared, out=np.zeros_like(left), where=squared > 0)
    return found if found.any() else bins.gap


def _factor(statistic: Callable[[float], float], target: float) -> float:
    """Where a rising function of a factor, 0 or more, reaches the target; 0 if it begins there."""
    if statistic(0.0) >= target:
        return 0.0
    low, high = 0.0, 1.0
    while statistic(high) < target:
        low, high = high, 2 * high
    for _ in range(16):
        middle = (low + high) / 2
        if statistic(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2
