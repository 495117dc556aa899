"""Exact quantiles of any number of float32 values, in two readings and bounded memory."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_HALF = 1 << 16


def ordered(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Whole numbers that rise with the values; -0.0 and 0.0 have the same one.

    >>> bool(np.all(np.diff(ordered(np.float32([-2, -1, 0, 1, 2])).astype(int)) > 0))
    True
    """
    bits = (values + np.float32(0)).view(np.uint32)
    return np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))


def unordered(numbers: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The values of which :func:`ordered` made the numbers.

    >>> unordered(ordered(np.float32([-1.5, 0, 3]))).tolist()
    [-1.5, 0.0, 3.0]
    """
    is_positive = numbers >> np.uint32(31)
    bits = np.where(is_positive, numbers & np.uint32(_HALF * _HALF // 2 - 1), ~numbers)
    return bits.astype(np.uint32).view(np.float32)


class Quantiles:
    """The ``ceil(q n)``-th smallest of n values for each level q, found as a radix sort would.

    The first reading counts the values by their upper 16 bits, which tells in which of 65,536
    drawers each quantile lies; the second counts those drawers by the lower 16.

    Args:
        levels: above 0, and 1 at most.

    >>> quantiles = Quantiles([Fraction(1, 2), Fraction(1)])
    >>> quantiles.count(np.float32([3, 1, 2, 10]))
    >>> quantiles.refine(np.float32([3, 1, 2, 10]))
    >>> quantiles.values().tolist()
    [2.0, 10.0]
    """

    def __init__(self, levels: Sequence[Fraction]) -> None:
        self._levels = tuple(levels)
        self._upper = np.zeros(_HALF, np.int64)
        self._drawers: NDArray[np.int64] | None = None
        self._lower = np.empty((0, _HALF), np.int64)

    def count(self, values: NDArray[np.float32]) -> None:
        """Takes values of the first reading."""
        upper = (ordered(values) >> np.uint32(16)).astype(np.int64)
        self._upper += np.bincount(upper, minlength=_HALF)

    def refine(self, values: NDArray[np.float32]) -> None:
        """Takes the same values again, when all have been counted."""
        if self._drawers is None:
            self._drawers = np.unique(np.searchsorted(np.cumsum(self._upper), self._ranks()))
            self._lower = np.zeros((len(self._drawers), _HALF), np.int64)
        whole = ordered(values)
        upper = (whole >> np.uint32(16)).astype(np.int64)
        row = np.minimum(np.searchsorted(self._drawers, upper), len(self._drawers) - 1)
        inside = self._drawers[row] == upper
        lower = (whole[inside] & np.uint32(_HALF - 1)).astype(np.int64)
        np.add.at(self._lower, (row[inside], lower), 1)

    def values(self) -> NDArray[np.float32]:
        """The quantiles, in the order of the levels; none without a value."""
        if self._drawers is None:
            return np.empty(0, np.float32)
        through = np.cumsum(self._upper)
        found = []
        for rank in self._ranks():
            drawer = int(np.searchsorted(through, rank))
            rest = rank - (int(through[drawer - 1]) if drawer else 0)
            inside = np.cumsum(self._lower[np.searchsorted(self._drawers, drawer)])
            found.append(drawer * _HALF + int(np.searchsorted(inside, rest)))
        return unordered(np.array(found, np.uint32))

    def _ranks(self) -> list[int]:
        """Ranks of the quantiles, from 1; fractions, for 0.07 x 100 is not quite 7."""
        total = int(self._upper.sum())
        return [-(-level.numerator * total // level.denominator) for level in self._levels]
