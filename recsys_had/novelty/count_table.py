"""Counts of very many keys in little memory: a count-min sketch of rounded counts.

Letters: S buckets.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

# A level of n > 0 is 1 + round(20 ln n), so a count is kept within 2.6 % in a byte.
_LEVELS_PER_E = 20.0
_LEAST_BITS, _MOST_BITS = 12, 22
_COUNT_OF_LEVEL = np.concatenate([[0.0], np.exp(np.arange(255) / _LEVELS_PER_E)])


class CountTable:
    """How often each key was counted, about: never less than it was, but for rounding.

    A key has a bucket in each of two rows, and its count is the smaller of the two buckets'. A key
    that was never counted is told as 0 unless both its buckets are another key's: one in seventy
    at most where the table has eight buckets a key.

    Paper: Cormode & Muthukrishnan 2005, An Improved Data Stream Summary: The Count-Min Sketch.
    Differs from the paper: counts are rounded to a byte, by their logarithm.

    Args:
        levels: ``(2, S)`` uint8, S a power of 2.

    >>> table = CountTable.of(np.array([7, 8], np.uint64), np.array([1, 1000]))
    >>> table.counts(np.array([7, 8, 9], np.uint64)).round().tolist()
    [1.0, 992.0, 0.0]
    """

    def __init__(self, levels: NDArray[np.uint8]) -> None:
        size = levels.shape[-1]
        if levels.ndim != 2 or len(levels) != 2 or size & (size - 1) or not size:
            raise ValueError(f"counts of shape {levels.shape}")
        self.levels = levels

    @classmethod
    def of(cls, keys: Keys, counts: NDArray[Any]) -> "CountTable":
        """The counts of distinct keys; eight buckets a key at least, but 2^22 at most."""
        bits = int(np.clip(int(np.ceil(np.log2(8 * len(keys) + 1))), _LEAST_BITS, _MOST_BITS))
        sums = np.stack(
            [np.bincount(at, weights=counts, minlength=1 << bits) for at in _buckets(keys, bits)]
        )
        with np.errstate(divide="ignore"):
            levels = np.where(sums > 0, 1 + np.rint(_LEVELS_PER_E * np.log(sums)), 0)
        return cls(np.minimum(levels, 255).astype(np.uint8))

    def counts(self, keys: Keys) -> NDArray[np.float64]:
        """About how often each key was counted, in the keys' shape."""
        first, second = _buckets(keys, self.levels.shape[1].bit_length() - 1)
        found: NDArray[np.float64] = _COUNT_OF_LEVEL[
            np.minimum(self.levels[0][first], self.levels[1][second])
        ]
        return found


def mixed(keys: Keys) -> Keys:
    """Keys whose every bit depends on every bit of the given ones: the finaliser of SplitMix64.

    >>> mixed(np.array([0, 1], np.uint64)).tolist()
    [0, 6238072747940578789]
    """
    keys = keys ^ (keys >> np.uint64(30))
    keys *= np.uint64(0xBF58476D1CE4E5B9)
    keys ^= keys >> np.uint64(27)
    keys *= np.uint64(0x94D049BB133111EB)
    keys ^= keys >> np.uint64(31)
    return keys


def _buckets(keys: Keys, bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each key, its bucket in the first row and in the second."""
    found = mixed(keys)
    mask = np.uint64((1 << bits) - 1)
    return (found & mask).astype(np.int64), (found >> np.uint64(64 - bits)).astype(np.int64)
