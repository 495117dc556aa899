"""Quantile bins: intervals of a number that hold about equally many training rows each.

The bins depend on the training rows alone, never on their order or on the blocks they came in.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys_had.data.crosses import crossed, crosses
from recsys_had.data.vocabulary import Vocabulary
from recsys_had.schema import DatasetCard

# Distinct numbers that are told apart; 16 bytes each, and exact quantiles up to so many.
MAX_DISTINCT = 1 << 18
_SIGN = np.uint64(1 << 63)


class NumberCounts:
    """How many rows hold each number, in memory that does not grow.

    Up to ``max_distinct`` numbers are counted one by one. Where there are more, those that agree in
    their upper bits share a count, with as many bits as leave ``max_distinct`` counts at most. How
    many that is depends on all numbers together, so any order and any cut of them comes to the
    same counts.

    Args:
        max_distinct: counts at most; 2 or more.

    >>> counts = NumberCounts()
    >>> counts.add(np.array([2.0, -1.0, 2.0]))
    >>> [part.tolist() for part in counts.told()]
    [[-1.0, 2.0], [1, 2]]
    """

    def __init__(self, *, max_distinct: int = MAX_DISTINCT) -> None:
        self._max_distinct = max_distinct
        self._dropped_bits = 0
        self._least = np.empty(0, np.uint64)
        self._counts = np.empty(0, np.int64)

    def add(self, numbers: NDArray[np.float64]) -> None:
        """Adds finite numbers."""
        distinct, counts = np.unique(_ordered_bits(numbers), return_counts=True)
        self._merge(distinct, counts, 0)

    def merge(self, other: "NumberCounts") -> None:
        """Adds what another has counted."""
        self._merge(other._least, other._counts, other._dropped_bits)

    def told(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The least of the numbers that share a count, rising, and the counts."""
        return _numbers(self._least), self._counts

    def _merge(self, least: NDArray[np.uint64], counts: NDArray[np.int64], dropped: int) -> None:
        least = np.concatenate([self._least, least])
        counts = np.concatenate([self._counts, counts])
        order = np.argsort(least, kind="stable")
        dropped = max(dropped, self._dropped_bits)
        least, counts = _shared(least[order], counts[order], dropped)
        while len(least) > self._max_distinct:
            dropped += 1
            least, counts = _shared(least, counts, dropped)
        self._least, self._counts, self._dropped_bits = least, counts, dropped


class QuantileBins:
    """Bins of a number, from below the first edge to the last edge and above.

    Args:
        edges: rising; each is the least number of the bin above it. Ids count the bins from 1.

    >>> bins = QuantileBins([2.5, 7.0])
    >>> bins.intervals
    ['(-inf, 2.5)', '[2.5, 7)', '[7, inf)']
    >>> bins.texts(pa.array([7.0, None, -1.0])).to_pylist()
    ['[7, inf)', None, '(-inf, 2.5)']
    """

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = np.array(edges, np.float64)
        written = [_shortest(edge) for edge in self.edges.tolist()]
        ends = zip(["-inf", *written], [*written, "inf"], strict=True)
        self.intervals = [f"{'[' if at else '('}{a}, {b})" for at, (a, b) in enumerate(ends)]

    @classmethod
    def fit(cls, counts: NumberCounts, num_bins: int) -> tuple["QuantileBins", Vocabulary]:
        """Bins of the counted numbers, and the vocabulary of their intervals.

        From the least number on, each bin takes its part of the rows that are left, ``rows left /
        bins left``, or as near to it as whole numbers come, the fewer rows of two equally near.
        So a number that half of all rows hold fills one bin, and the other bins share the rest.
        Where as many numbers are left as bins, each number is a bin.
        """
        least, rows = counts.told()
        starts = _starts(rows, num_bins)
        bins = cls(least[starts[1:]].tolist())
        held = np.add.reduceat(rows, starts) if len(rows) else np.zeros(1, np.int64)
        return bins, Vocabulary(pl.Series(bins.intervals, dtype=pl.String), pl.Series(held))

    def texts(self, numbers: pa.Array) -> pa.DictionaryArray:
        """The interval each number lies in, as text; null where it is missing."""
        values: NDArray[np.float64] = numbers.to_numpy(zero_copy_only=False)
        codes = np.searchsorted(self.edges, values, side="right").astype(np.int32)
        return pa.DictionaryArray.from_arrays(
            pa.array(codes, mask=np.isnan(values)), pa.array(self.intervals, pa.large_string())
        )


def with_bins(
    values: pa.RecordBatch, card: DatasetCard, bins: Mapping[str, QuantileBins]
) -> pa.RecordBatch:
    """Values of rows in which numbers have become the texts of their bins, crosses of them added.

    Args:
        values: what :func:`recsys_had.data.prepare.prepare` has read.
        card: which columns are binned, and crossed.
        bins: of each binned column.
    """
    for field in card.fields:
        if field.source == "quantile":
            at = values.schema.get_field_index(field.name)
            texts = bins[field.name].texts(values.column(at))
            values = values.set_column(at, field.name, texts)
    for field in crosses(card, of_bins=True):
        cross = crossed([values.column(part) for part in field.of])
        values = values.append_column(field.name, cross)
    return values


def _starts(rows: NDArray[np.int64], num_bins: int) -> NDArray[np.int64]:
    """Where each bin begins, of numbers in order that ``rows`` rows hold; no bin is empty."""
    ends = np.cumsum(rows)
    starts, taken = [0], 0
    for bins_left in range(num_bins, 1, -1):
        first = starts[-1]
        if len(rows) - first <= bins_left:
            starts += range(first + 1, len(rows))
            break
        rows_left = int(ends[-1]) - taken
        # The first number with which the bin has its part, or the one before it.
        last = int(np.searchsorted(ends, taken - (-rows_left // bins_left)))
        over = (int(ends[last]) - taken) * bins_left - rows_left
        if last > first and over >= rows_left - (int(ends[last - 1]) - taken) * bins_left:
            last -= 1
        starts.append(last + 1)
        taken = int(ends[last])
    return np.array(starts, np.int64)


def _shared(
    least: NDArray[np.uint64], counts: NDArray[np.int64], dropped_bits: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """One count for all numbers, given in order, that agree in all bits but the dropped ones."""
    if not len(least):
        return least, counts
    upper = least >> np.uint64(dropped_bits)
    first = np.flatnonzero(np.append(True, upper[1:] != upper[:-1]))
    return least[first], np.add.reduceat(counts, first)


def _ordered_bits(numbers: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Whole numbers in the order of the floats; -0.0 is 0.0."""
    bits = (numbers + 0.0).view(np.uint64)
    return np.where(bits >= _SIGN, ~bits, bits | _SIGN)


def _numbers(ordered: NDArray[np.uint64]) -> NDArray[np.float64]:
    bits = np.where(ordered >= _SIGN, ordered ^ _SIGN, ~ordered)
    return bits.view(np.float64)


def _shortest(number: float) -> str:
    """The shortest text that reads as this number."""
    return repr(number).removesuffix(".0")
