"""Problems: what is wrong with raw rows, the first in words and all of them as a number."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recsys_had.errors import DataError

# Names a row, counted from the first of a block, as a user finds it: ``clicks.tsv:12``.
Place = Callable[[int], str]

MAX_PROBLEMS = 20


class Problems:
    """Collects problems and raises them together.

    >>> problems = Problems()
    >>> problems.add("a.tsv:2: column I1: must be a whole number; got 'x'.")
    >>> problems.raise_any()
    Traceback (most recent call last):
    recsys_had.errors.DataError: a.tsv:2: column I1: must be a whole number; got 'x'.
    """

    def __init__(self) -> None:
        self.total = 0
        self._first: list[tuple[int, str]] = []

    def add(self, problem: str, *, row: int = -1) -> None:
        """Adds one problem; ``row`` decides its place among those of the same block."""
        self.total += 1
        self._keep([(row, problem)])

    def add_rows(
        self, bad: NDArray[np.bool_], place: Place, describe: Callable[[int], str]
    ) -> None:
        """Adds one problem for every row where ``bad`` holds."""
        rows = np.flatnonzero(bad)
        self.total += len(rows)
        self._keep(
            [(int(row), f"{place(int(row))}: {describe(int(row))}") for row in rows[:MAX_PROBLEMS]]
        )

    def add_error(self, error: DataError) -> None:
        """Adds the problems of an error after those already known."""
        self.total += error.total
        last = max((row for row, _ in self._first), default=-1)
        self._keep([(last, problem) for problem in error.problems])

    def raise_any(self) -> None:
        """Raises what was found, if anything was.

        Raises:
            DataError: the first problems in the order of their rows, and their total.
        """
        if self.total:
            raise DataError([problem for _, problem in self._first], total=self.total)

    def _keep(self, problems: list[tuple[int, str]]) -> None:
        # Stable: of one row, the columns stand in the card's order.
        ordered = sorted([*self._first, *problems], key=lambda problem: problem[0])
        self._first = ordered[:MAX_PROBLEMS]
