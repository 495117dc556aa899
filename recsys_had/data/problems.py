"""Problems: what is wrong with raw rows, the first in words and all of them as a number."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_had.errors import DataError

# Names a row, counted from the first of a block, as a user finds it: ``clicks.tsv:12``.
Place = Callable[[int], str]

MAX_PROBLEMS = 20
_MAX_QUOTED = 100


@dataclass(frozen=True)
class BadRows:
    """One thing that is wrong with some rows of a block.

    Args:
        bad: one truth a row.
        describe: says what is wrong with a row.
    """

    bad: NDArray[np.bool_]
    describe: Callable[[int], str]


def quoted(value: object) -> str:
    """A value as an error quotes it: of a long one, the beginning and its length.

    >>> quoted("x"), quoted("x" * 1000)[98:]
    ("'x'", "xxx'... (1000 characters)")
    """
    if isinstance(value, str) and len(value) > _MAX_QUOTED:
        return f"{value[:_MAX_QUOTED]!r}... ({len(value)} characters)"
    return repr(value)


class Problems:
    """Collects problems and raises them together.

    Args:
        every_row: whether ``rows`` holds what :meth:`add_rows` was told, for who rejects them.

    >>> problems = Problems()
    >>> problems.add("a.tsv:2: column I1: must be a whole number; got 'x'.")
    >>> problems.raise_any()
    Traceback (most recent call last):
    recsys_had.errors.DataError: a.tsv:2: column I1: must be a whole number; got 'x'.
    """

    def __init__(self, *, every_row: bool = False) -> None:
        self.total = 0
        self.rows: list[BadRows] = []
        self._every_row = every_row
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
        if self._every_row and len(rows):
            self.rows.append(BadRows(bad, describe))
        self._keep(
            [(int(row), f"{place(int(row))}: {describe(int(row))}") for row in rows[:MAX_PROBLEMS]]
        )

    def bad_rows(self, num_rows: int) -> NDArray[np.bool_]:
        """One truth a row: whether something is wrong with it."""
        bad = np.zeros(num_rows, np.bool_)
        for found in self.rows:
            bad |= found.bad
        return bad

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
