"""Ranges: the least and the greatest number of a column over the training rows."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Range:
    """The least and the greatest of some numbers; of none, infinity and its negative.

    >>> Range().wider(np.array([2.0, 6.0])).wider(np.array([4.0]))
    Range(low=2.0, high=6.0)
    """

    low: float = math.inf
    high: float = -math.inf

    def wider(self, numbers: NDArray[np.float64]) -> "Range":
        """The range of these and of further numbers."""
        low, high = numbers.min(initial=self.low), numbers.max(initial=self.high)
        return Range(float(low), float(high))

    def union(self, other: "Range") -> "Range":
        """The range of the numbers of both."""
        return Range(min(self.low, other.low), max(self.high, other.high))

    def apply(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(x - low) / (high - low)``, or 0 where there is one number only, or none.

        >>> Range(2.0, 6.0).apply(np.array([2.0, 3.0, 8.0])).tolist()
        [0.0, 0.25, 1.5]
        """
        if self.low >= self.high:
            return np.zeros_like(numbers)
        return (numbers - self.low) / (self.high - self.low)
