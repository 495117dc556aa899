"""Metrics gathered batch by batch, in little memory."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_had.metrics.counts import (
    BLOCK_ROWS,
    Totals,
    area,
    fixed_sum,
    fixed_value,
    log_probabilities,
)
from recsys_had.metrics.rows import check_scores

_NUM_BINS = 1 << 16
_MAX_LOGIT = 16.0  # a float32 score cannot come closer to 1 than a logit of 16.6


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
        for start in range(0, len(scores), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            log_click, log_miss = log_probabilities(scores[block])
            logit = np.clip(log_click - log_miss, -_MAX_LOGIT, _MAX_LOGIT)
            bins_per_logit = _NUM_BINS / (2 * _MAX_LOGIT)
            bin_ = ((logit + _MAX_LOGIT) * bins_per_logit).astype(np.int64)
            cell = np.minimum(bin_, _NUM_BINS - 1) + clicked[block] * _NUM_BINS
            self.state[:-4] += np.bincount(cell, minlength=2 * _NUM_BINS)
            self.state[-4:-2] += fixed_sum(-np.where(clicked[block], log_click, log_miss))
            self.state[-2:] += fixed_sum(scores[block].astype(np.float64))

    def merge(self, other: "StreamingMetrics") -> None:
        """Adds the rows that another object has counted."""
        self.state += other.state

    def result(self) -> dict[str, float | None]:
        """Gives the same block as ``evaluate_scores``, of all rows counted so far."""
        misses, clicks = self._counts()
        misses_below = np.cumsum(misses) - misses
        twice_wins = int((clicks * (2 * misses_below + misses)).sum())
        totals = Totals(
            int(misses.sum() + clicks.sum()),
            int(clicks.sum()),
            fixed_value(self.state[-4:-2]),
            fixed_value(self.state[-2:]),
        )
        return totals.block(area(twice_wins, totals.clicks, totals.rows - totals.clicks))

    @property
    def auc_error_bound(self) -> float | None:
        """The most by which the AUC of ``result`` can differ from the exact one, either way."""
        misses, clicks = self._counts()
        return area(int((clicks * misses).sum()), int(clicks.sum()), int(misses.sum()))

    def _counts(self) -> NDArray[np.int64]:
        return self.state[:-4].reshape(2, _NUM_BINS)
