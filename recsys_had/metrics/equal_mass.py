"""Rows in order of their scores, cut into bins of about equal mass."""

import numpy as np
from numpy.typing import NDArray

from recsys_had.metrics.rows import Scores


def bin_starts(
    ascending: Scores, bins: int, weights: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """First row of each bin; rows of one score never part, so there may be fewer bins.

    Bin ``k`` ends with the rows of the score at which ``k / bins`` of the mass are reached.

    Args:
        ascending: ``(B,)``, at least one score, in rising order.
        bins: number of bins, at most.
        weights: ``(B,)``, above 0, what each row counts for; None for 1 each.

    >>> bin_starts(np.array([0.1, 0.2, 0.2, 0.9], np.float32), 2).tolist()
    [0, 3]
    >>> bin_starts(np.array([0.1, 0.2, 0.3, 0.9], np.float32), 2, np.array([3.0, 1, 1, 1])).tolist()
    [0, 1]
    """
    if weights is None:
        last = -(-np.arange(1, bins + 1) * len(ascending) // bins) - 1
    else:
        mass = np.cumsum(weights)
        last = np.searchsorted(mass, mass[-1] * np.arange(1, bins + 1) / bins)
    cut = np.searchsorted(ascending, ascending[last], side="right")
    return np.append(0, np.unique(cut)[:-1])
