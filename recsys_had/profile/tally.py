"""Tallies: how many rows hold each id of a field, and how many of them were clicked.

A tally of ids 0..n-1 is two arrays. Ids that are hashes have no end; of them a tally keeps the
smallest, which are a uniform sample of the values, because hashes know nothing of what they are
of. Whatever is kept was counted from the first row on, so each count is exact.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_had.errors import DataError

HASH_END = 2**63  # managed fields hold 63 bits
SAMPLE_VALUES = 1 << 20

Ints = NDArray[np.int64]


class Tally(Protocol):
    """Rows and clicks of ids; the first place is that of id 0."""

    @property
    def rows(self) -> Ints:
        """Rows at each place."""

    @property
    def clicks(self) -> Ints:
        """Clicks at each place."""

    @property
    def ids(self) -> Ints:
        """The id of each place."""

    def add(self, ids: Ints, clicked: NDArray[np.bool_]) -> None:
        """Counts ids, each beside whether its row was clicked."""

    def places(self, ids: Ints) -> Ints:
        """Where each id is counted: -1 for one that is not among the sampled values.

        A hash that was never added has the last place, where there is no row.
        """

    @property
    def sampled_share(self) -> float:
        """Share of all values that are counted: 1 unless there are too many."""

    @property
    def num_values(self) -> int:
        """Distinct ids other than 0, estimated where they are a sample."""


class IdTally:
    """A tally of ids from 0 to ``num_ids - 1``.

    Args:
        num_ids: of the field, id 0 included.
        place: whose ids they are, for an error.

    >>> tally = IdTally(3, place="user")
    >>> tally.add(np.array([2, 0, 2]), np.array([True, False, False]))
    >>> tally.rows.tolist(), tally.clicks.tolist(), tally.num_values
    ([1, 0, 2], [0, 0, 1], 1)
    """

    sampled_share = 1.0

    def __init__(self, num_ids: int, *, place: str) -> None:
        self.rows = np.zeros(num_ids, np.int64)
        self.clicks = np.zeros(num_ids, np.int64)
        self._num_ids = num_ids
        self._place = place

    @property
    def ids(self) -> Ints:
        """The ids, in the order of their places."""
        return np.arange(len(self.rows))

    @property
    def num_values(self) -> int:
        """Distinct ids other than 0 that were counted."""
        return int((self.rows[1:] > 0).sum())

    def add(self, ids: Ints, clicked: NDArray[np.bool_]) -> None:
        """Counts ids.

        Raises:
            DataError: one is none of the field's.
        """
        self.places(ids)
        for counts, chosen in ((self.rows, ids), (self.clicks, ids[clicked])):
            if len(counts) <= 4 * len(chosen):
                counts += np.bincount(chosen, minlength=len(counts))
            else:
                np.add.at(counts, chosen, 1)

    def places(self, ids: Ints) -> Ints:
        """The ids themselves.

        Raises:
            DataError: one is none of the field's.
        """
        wrong = (ids < 0) | (ids >= self._num_ids)
        if wrong.any():
            raise DataError(
                f"{self._place}: must hold ids from 0 to {self._num_ids - 1:,}; got "
                f"{ids[wrong][0]}. Re-run `recsys-had ingest`."
            )
        return ids


class HashTally:
    """A tally of 63-bit hashes: of all values, or of a uniform sample of them.

    With k values kept, the greatest of them ``m``, there are about ``(k - 1) 2^63 / m`` in all,
    give or take a share of ``1 / sqrt(k - 2)``.

    Paper: Beyer et al. 2007, On synopses for distinct-value estimation, sec. 4.
    Differs from the paper: nothing.

    Args:
        capacity: values kept.

    >>> tally = HashTally()
    >>> tally.add(np.array([7 << 50, 0, 7 << 50]), np.array([True, False, False]))
    >>> tally.rows.tolist(), tally.clicks.tolist(), tally.num_values
    ([1, 2, 0], [0, 1, 0], 1)
    """

    def __init__(self, capacity: int = SAMPLE_VALUES) -> None:
        self._capacity = capacity
        self._end = HASH_END  # hashes from here on are not counted
        self._ids = np.zeros(1, np.int64)
        self._rows = np.zeros(1, np.int64)
        self._clicks = np.zeros(1, np.int64)
        self._waiting: list[tuple[Ints, Ints]] = []
        self._num_waiting = 0

    @property
    def ids(self) -> Ints:
        """The hashes that are counted, rising, and what stands for those without a row."""
        self._merge()
        return np.append(self._ids, -1)

    @property
    def rows(self) -> Ints:
        """Rows of each."""
        self._merge()
        return np.append(self._rows, 0)

    @property
    def clicks(self) -> Ints:
        """Clicks of each."""
        self._merge()
        return np.append(self._clicks, 0)

    @property
    def sampled_share(self) -> float:
        """Share of the values that are counted."""
        self._merge()
        return 1.0 if self._end == HASH_END else self._end / HASH_END

    @property
    def num_values(self) -> int:
        """Distinct hashes, estimated where they are a sample."""
        self._merge()
        known = len(self._ids) - 1
        if self._end == HASH_END:
            return known
        return round((known - 1) * HASH_END / int(self._ids[-1]))

    def add(self, ids: Ints, clicked: NDArray[np.bool_]) -> None:
        """Counts hashes."""
        counted = ids < self._end
        self._waiting.append((ids[counted], clicked[counted].astype(np.int64)))
        self._num_waiting += int(counted.sum())
        if self._num_waiting > self._capacity:
            self._merge()

    def places(self, ids: Ints) -> Ints:
        """Where each hash is counted; the last place for an unknown one, -1 beyond the sample."""
        self._merge()
        place = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        place = np.where(self._ids[place] == ids, place, len(self._ids))
        return np.where(ids < self._end, place, -1)

    def _merge(self) -> None:
        if not self._waiting:
            return
        added = np.concatenate([ids for ids, _ in self._waiting])
        clicks = np.concatenate([clicks for _, clicks in self._waiting])
        ids, place = np.unique(np.concatenate([self._ids, added]), return_inverse=True)
        ones = np.ones(len(added), np.int64)
        self._rows = _summed(place, np.concatenate([self._rows, ones]), len(ids))
        self._clicks = _summed(place, np.concatenate([self._clicks, clicks]), len(ids))
        self._ids = ids
        self._waiting, self._num_waiting = [], 0
        if len(ids) > self._capacity + 1:  # id 0 is no value
            self._end = int(ids[self._capacity + 1])
            kept = slice(0, self._capacity + 1)
            self._ids, self._rows, self._clicks = ids[kept], self._rows[kept], self._clicks[kept]


def _summed(place: Ints, numbers: Ints, size: int) -> Ints:
    found = np.zeros(size, np.int64)
    np.add.at(found, place, numbers)
    return found
