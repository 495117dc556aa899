"""How much of the label one column alone tells.

Each value's click rate, learned from training rows and drawn towards the mean of all, is the score
of the rows that hold it; of other rows than it was learned from, for a rate that has seen a row's
own label gives that label away.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_had.metrics import auc
from recsys_had.profile.rates import Rate, auc_interval

STRENGTH = 20  # rows of the mean click rate that every value begins with
SUSPECT_AUC = 0.9
_OUTSTANDING_AUC = 0.7
_OUTSTANDING = 2.0  # times as far from guessing as the next column
_MAX_ROWS = 1 << 22  # their AUC is known to a thousandth


@dataclass(frozen=True)
class Trial:
    """Which rows a column's scores are measured on.

    Args:
        split: the split; train's own rows are halved, every second one measured. None where no
            split has both classes.
        every: one in so many blocks of rows is measured.
        rows: rows measured; about as many where blocks are left out.
    """

    split: str | None
    every: int
    rows: int

    @classmethod
    def choose(cls, splits: Mapping[str, Rate], *, max_rows: int = _MAX_ROWS) -> "Trial":
        """Valid rows, else test rows, else training rows: the first that have both classes.

        >>> Trial.choose({"train": Rate.of(10, 3), "valid": Rate.of(4, 0)})
        Trial(split='train', every=1, rows=5)
        """
        for split in ("valid", "test", "train"):
            rate = splits.get(split)
            if rate is not None and rate.has_both_classes:
                rows = rate.rows // 2 if split == "train" else rate.rows
                every = math.ceil(rows / max_rows)
                return cls(split, every, rows // every)
        return cls(None, 1, 0)

    def learns(self, num_rows: int) -> NDArray[np.bool_]:
        """Which rows of a block of training rows the rates are learned from."""
        learned = np.ones(num_rows, np.bool_)
        if self.split == "train":
            learned[1::2] = False
        return learned

    def measures(self, split: str, block: int, num_rows: int) -> NDArray[np.bool_]:
        """Which rows of a block of a split are measured; ``block`` counts from 0."""
        measured = np.full(num_rows, split == self.split and block % self.every == 0)
        if split == "train":
            measured[::2] = False
        return measured


@dataclass(frozen=True)
class Auc:
    """An AUC, its 95 % interval, and what the score was.

    Args:
        auc: never below 0.5 where the direction of the score is free.
        low: the lower end.
        high: the upper end.
        score: ``rate of the value``, ``the value``, ``the value, falling`` or ``rate of the bin``.
    """

    auc: float
    low: float
    high: float
    score: str


class Scored:
    """The scored rows of a trial."""

    def __init__(self) -> None:
        self._clicked: list[NDArray[np.bool_]] = []
        self._scores: list[NDArray[np.float32]] = []

    def add(self, clicked: NDArray[np.bool_], scores: NDArray[np.floating]) -> None:
        """Adds rows; those whose score is not known, NaN, are left out."""
        known = ~np.isnan(scores)
        self._clicked.append(clicked[known])
        self._scores.append(scores[known].astype(np.float32))

    def auc(self, score: str, *, falling: str | None = None) -> Auc | None:
        """The AUC of all rows added; None where they are of one class.

        Args:
            score: what the scores are.
            falling: the same with the opposite sign, where that may count.
        """
        clicked = np.concatenate([np.empty(0, np.bool_), *self._clicked])
        found = auc(clicked, np.concatenate(self._scores)) if len(clicked) else None
        if found is None:
            return None
        if falling is not None and found < 0.5:
            found, score = 1 - found, falling
        clicks = int(clicked.sum())
        return Auc(found, *auc_interval(found, clicks, len(clicked) - clicks), score)


def smoothed(
    rows: NDArray[np.int64], clicks: NDArray[np.int64], mean: float
) -> NDArray[np.float64]:
    """Click rates drawn towards the mean: ``(clicks + s mean) / (rows + s)`` with ``s = 20``.

    Paper: Micci-Barreca 2001, A preprocessing scheme for high-cardinality categorical attributes
    in classification and prediction problems, eq. 3.
    Differs from the paper: its weight of a value's own rate is ``rows / (rows + s)``.

    >>> smoothed(np.array([0, 20]), np.array([0, 20]), 0.5).tolist()
    [0.5, 0.75]
    """
    rates = clicks.astype(np.float64)  # and in place from here on: there may be many ids
    rates += STRENGTH * mean
    rates /= rows + STRENGTH
    return rates


def mean_of_rows(rates: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of each row's known rates, NaN where it has none.

    >>> mean_of_rows(np.array([0.2, 0.4, np.nan]), np.array([2, 1])).round(6).tolist()
    [0.3, nan]
    """
    row = np.repeat(np.arange(len(lengths)), lengths)
    known = ~np.isnan(rates)
    counted = np.bincount(row[known], minlength=len(lengths))
    summed = np.bincount(row[known], weights=rates[known], minlength=len(lengths))
    return np.where(counted > 0, summed / np.maximum(counted, 1), np.nan)


@dataclass(frozen=True)
class Suspect:
    """A column that tells the label so well that it may have been written after the click.

    Args:
        name: the column.
        auc: what it reaches alone.
        reason: why it is suspect.
    """

    name: str
    auc: float
    reason: str


def suspects(ranking: Sequence[tuple[str, Auc]]) -> list[Suspect]:
    """Which columns of a ranking, best first, are suspect.

    >>> found = suspects([("a", Auc(.8, .79, .81, "")), ("b", Auc(.6, .59, .61, ""))])
    >>> [(suspect.name, suspect.reason) for suspect in found]
    [('a', 'far above the next column, b with AUC 0.6000')]
    """
    found = [
        Suspect(name, measured.auc, f"AUC of {SUSPECT_AUC} or more")
        for name, measured in ranking
        if measured.auc >= SUSPECT_AUC
    ]
    if found or len(ranking) < 2:
        return found
    (name, best), (second, after) = ranking[:2]
    is_far = best.auc - 0.5 >= _OUTSTANDING * (after.auc - 0.5) and best.low > after.high
    if is_far and best.auc >= _OUTSTANDING_AUC:
        told = f"far above the next column, {second} with AUC {after.auc:.4f}"
        found.append(Suspect(name, best.auc, told))
    return found
