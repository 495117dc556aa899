"""Least, greatest, mean and zeros of numbers that come in blocks."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Summary:
    """Numbers in short; what is infinite, or of no number, is None.

    Args:
        rows: how many there are.
        least: the smallest.
        greatest: the greatest.
        mean: the mean.
        zeros: share that is 0.
    """

    rows: int
    least: float | None
    greatest: float | None
    mean: float | None
    zeros: float | None


class Summing:
    """Adds numbers up to a summary.

    >>> summing = Summing()
    >>> summing.add(np.array([0.0, 3.0]))
    >>> summing.summary
    Summary(rows=2, least=0.0, greatest=3.0, mean=1.5, zeros=0.5)
    """

    def __init__(self) -> None:
        self._rows = self._zeros = 0
        self._least, self._greatest, self.total = math.inf, -math.inf, 0.0

    def add(self, numbers: NDArray[np.floating]) -> None:
        """Adds a block; it holds a number at least."""
        self._rows += len(numbers)
        self._zeros += int((numbers == 0).sum())
        self._least = min(self._least, float(numbers.min()))
        self._greatest = max(self._greatest, float(numbers.max()))
        self.total += float(numbers.sum(dtype=np.float64))

    @property
    def summary(self) -> Summary:
        """What was added."""
        if not self._rows:
            return Summary(0, None, None, None, None)
        return Summary(
            self._rows,
            finite(self._least),
            finite(self._greatest),
            finite(self.total / self._rows),
            self._zeros / self._rows,
        )


def finite(number: float) -> float | None:
    """The number, or None where JSON has none for it."""
    return number if math.isfinite(number) else None
