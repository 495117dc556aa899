"""Whole numbers that metrics follow from: pairs won, and sums in fixed point.

Integers add up to the same in any order and on any number of ranks; floats do not.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_had.metrics.rows import Clicked, Scores

# scikit-learn clips a float64 score at this distance from 0 and 1: a sure miss costs 36.04.
EPSILON = float(np.finfo(np.float64).eps)

BLOCK_ROWS = 1 << 20  # keeps the float64 temporaries small whatever the number of rows
_FRACTION_BITS = 52
_WORD_BITS = 30


class TieRuns(NamedTuple):
    """The rows sorted by key, with equal keys as one run."""

    key: NDArray[np.uint64]
    clicks: NDArray[np.int64]
    misses: NDArray[np.int64]
    misses_before: NDArray[np.int64]

    @staticmethod
    def of(packed: NDArray[np.uint64]) -> "TieRuns":
        """Sorts ``packed`` in place: the label in the lowest bit, the key above it."""
        packed.sort()
        key = packed >> np.uint64(1)
        last = np.flatnonzero(np.append(key[1:] != key[:-1], True))
        clicks_through = np.cumsum(packed & np.uint64(1), dtype=np.int64)[last]
        misses_through = last + 1 - clicks_through
        clicks = np.diff(clicks_through, prepend=0)
        misses = np.diff(misses_through, prepend=0)
        return TieRuns(key[last], clicks, misses, misses_through - misses)


def keys(clicked: Clicked, scores: Scores) -> NDArray[np.uint64]:
    """Packs 32 bits that sort as the float32 scores do, above one bit for the label."""
    bits = (scores + np.float32(0)).view(np.uint32)  # adding 0 makes -0.0 and 0.0 tie
    ordered = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))
    return (ordered.astype(np.uint64) << np.uint64(1)) | clicked


def area(twice_wins: int, num_clicks: int, num_misses: int) -> float | None:
    """Pairs won, a tie half, as a share of all; None where there is no pair."""
    pairs = num_clicks * num_misses
    return twice_wins / (2 * pairs) if pairs else None


class Totals(NamedTuple):
    """Whole numbers from which the metrics other than AUC follow; sums in units of 2**-52."""

    rows: int
    clicks: int
    loss: int
    score: int

    @staticmethod
    def of(clicked: Clicked, scores: Scores) -> "Totals":
        """Counts rows, a block at a time."""
        loss = score = 0
        for start in range(0, len(scores), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            log_click, log_miss = log_probabilities(scores[block])
            loss += fixed_value(fixed_sum(-np.where(clicked[block], log_click, log_miss)))
            score += fixed_value(fixed_sum(scores[block].astype(np.float64)))
        return Totals(len(scores), int(clicked.sum()), loss, score)

    def logloss(self) -> float:
        """Mean loss of a row, in nats."""
        return self.loss / (self.rows << _FRACTION_BITS)

    def normalized_entropy(self) -> float | None:
        """The mean loss over that of the rate of clicks; None where there is one class."""
        if self.clicks in (0, self.rows):
            return None
        rate = self.clicks / self.rows
        entropy = -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))
        return self.logloss() / entropy

    def calibration(self) -> float | None:
        """Clicks promised for each click; None without one."""
        return self.score / (self.clicks << _FRACTION_BITS) if self.clicks else None

    def block(self, auc: float | None) -> dict[str, float | None]:
        """The block of metrics that every command reports."""
        return {
            "auc": auc,
            "logloss": self.logloss() if self.rows else None,
            "normalized_entropy": self.normalized_entropy(),
            "calibration": self.calibration(),
            "rows": self.rows,
        }


def log_probabilities(scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of the chance of a click, and of none."""
    p = np.clip(scores.astype(np.float64), EPSILON, 1 - EPSILON)
    return np.log(p), np.log(1 - p)


def fixed_sum(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sums values below 64, rounded to 2**-52, in two words that add up without overflow.

    Integers add up to the same in any order; floats do not.
    """
    fixed = np.rint(values * 2.0**_FRACTION_BITS).astype(np.int64)
    low = fixed & np.int64((1 << _WORD_BITS) - 1)
    return np.array([(fixed >> np.int64(_WORD_BITS)).sum(), low.sum()], dtype=np.int64)


def fixed_value(words: NDArray[np.int64]) -> int:
    """The whole number that two words of :func:`fixed_sum` stand for."""
    return (int(words[0]) << _WORD_BITS) + int(words[1])
