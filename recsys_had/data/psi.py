"""The population stability index of a column, and the classes it is taken over."""

from dataclasses import dataclass

import numpy as np

from recsys_had.data.tallies import Counts, NumberTally

_TOP = 20
_FLOOR = 1e-4
_MODERATE, _LARGE = 0.1, 0.25


@dataclass(frozen=True)
class Psi:
    """A population stability index.

    Args:
        value: the index.
        by_chance: what two samples of one population, as large as these, have in the mean.
    """

    value: float
    by_chance: float

    @property
    def verdict(self) -> str:
        """``stable`` below 0.1, ``moderate`` below 0.25, else ``large``.

        The usual thresholds (Siddiqi 2006, Credit Risk Scorecards). They take no account of the
        number of rows: a value of the order of ``by_chance`` says nothing.

        >>> [Psi(value, 0.0).verdict for value in (0.05, 0.1, 0.25)]
        ['stable', 'moderate', 'large']
        """
        return (
            "stable" if self.value < _MODERATE else "moderate" if self.value < _LARGE else "large"
        )


def psi_of(old: Counts, new: Counts) -> Psi:
    """How far a distribution over classes has moved.

    ``sum_i (q_i - p_i) ln(q_i / p_i)`` with the shares p of old and q of new, a share below 0.0001
    taken for 0.0001. Under no change it is ``1/n + 1/m`` times a chi-squared number with one degree
    of freedom less than there are classes (Yurdakul and Naranjo 2020, Statistical properties of the
    population stability index), whose mean is told.

    Args:
        old: rows of each class.
        new: the same of the newer rows.

    >>> psi_of(np.array([50, 50]), np.array([90, 10]))  # .4 ln 1.8 + .4 ln 5; 1/100 + 1/100
    Psi(value=0.8788898309344878, by_chance=0.02)
    """
    shares = [np.maximum(counts / counts.sum(), _FLOOR) for counts in (old, new)]
    value = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    classes = int(((old > 0) | (new > 0)).sum())
    return Psi(value, (classes - 1) * float(1 / old.sum() + 1 / new.sum()))


def id_classes(old: Counts, new: Counts) -> tuple[Counts, Counts]:
    """The 20 ids most frequent in old, all others, and id 0; of equally frequent ids the lower.

    Args:
        old: how often each id occurs.
        new: the same of the newer rows, by the same ids.

    >>> id_classes(np.array([3, 1, 5]), np.array([0, 7, 1]))
    (array([5, 1, 0, 3]), array([1, 7, 0, 0]))
    """
    top = 1 + np.argsort(-old[1:], kind="stable")[:_TOP]
    first, second = (
        np.array([*counts[top], counts[1:].sum() - counts[top].sum(), counts[0]])
        for counts in (old, new)
    )
    return first, second


def number_classes(old: NumberTally, new: NumberTally) -> tuple[Counts, Counts]:
    """The deciles of old, and encoded zeros, among them missing numbers, as a class of their own.

    A class ends with the number that is the decile, which it holds. Where a decile is the least or
    the greatest number of old, what lies beyond is another class.
    """
    reached = np.cumsum(old.codes)
    edges = np.searchsorted(10 * reached, np.arange(1, 10) * reached[-1])
    least = int(np.searchsorted(reached, 1))
    if edges[0] == least:
        edges = np.append(least - 1, edges)
    ends = np.concatenate([[0], np.unique(edges) + 1, [len(reached)]])
    first, second = (
        np.append(np.diff(np.append(0, np.cumsum(tally.codes))[ends]), tally.zeros)
        for tally in (old, new)
    )
    return first, second
