"""Statistics: what training rows say of each column, the same in any order and any shards."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_had.columns import FloatColumn, IntegerColumn
from recsys_had.data.quantiles import NumberCounts, QuantileBins
from recsys_had.data.ranges import Range
from recsys_had.data.vocabulary import Vocabulary
from recsys_had.schema import DatasetCard

_HALF_BITS = 26
# np.frexp of a float64 gives exponents from -1073 to 1024.
_EXPONENT_OFFSET = 1100


class Fitted(Protocol):
    """What a card's transforms need to know of training rows."""

    @property
    def scales(self) -> Mapping[str, "Scale"]:
        """Mean and deviation of each standardised column."""
        ...

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Least and greatest number of each column of transform ``min_max``."""
        ...

    @property
    def bins(self) -> Mapping[str, tuple[QuantileBins, Vocabulary]]:
        """Bins of each column of transform ``quantile_bins``, and the rows they hold."""
        ...


class Statistics:
    """What training rows hold: moments, ranges and counts of numbers; those of shards add up.

    Args:
        card: which columns are standardised, scaled or binned.
    """

    def __init__(self, card: DatasetCard) -> None:
        self.num_rows = 0
        numbers = {
            name: column
            for name, column in card.all_columns.items()
            if isinstance(column, IntegerColumn | FloatColumn)
        }
        of = {name: column.transform for name, column in numbers.items()}
        self._moments = {name: Moments() for name in of if of[name] == "standardise"}
        self._ranges = {name: Range() for name in of if of[name] == "min_max"}
        self._num_bins = {
            name: column.num_bins for name, column in numbers.items() if column.num_bins is not None
        }
        self._numbers = {name: NumberCounts() for name in self._num_bins}

    def add(self, values: pa.RecordBatch, rows: NDArray[np.bool_]) -> None:
        """Adds those rows of a shard where ``rows`` holds."""
        self.num_rows += int(rows.sum())
        for name in (*self._moments, *self._ranges, *self._numbers):
            number = values.column(name).to_numpy(zero_copy_only=False)[rows]
            number = number[~np.isnan(number)]
            if name in self._moments:
                self._moments[name].add(number)
            elif name in self._ranges:
                self._ranges[name] = self._ranges[name].wider(number)
            else:
                self._numbers[name].add(number)

    def merge(self, other: "Statistics") -> None:
        """Adds those of other rows."""
        self.num_rows += other.num_rows
        for name, moments in self._moments.items():
            moments.merge(other._moments[name])
        for name, found in self._ranges.items():
            self._ranges[name] = found.union(other._ranges[name])
        for name, numbers in self._numbers.items():
            numbers.merge(other._numbers[name])

    @property
    def scales(self) -> dict[str, "Scale"]:
        """Mean and deviation of each standardised column."""
        return {name: moments.scale() for name, moments in self._moments.items()}

    @property
    def ranges(self) -> dict[str, Range]:
        """Least and greatest number of each column of transform ``min_max``."""
        return {
            name: found if found.low <= found.high else Range(0.0, 0.0)
            for name, found in self._ranges.items()
        }

    @cached_property
    def bins(self) -> dict[str, tuple[QuantileBins, Vocabulary]]:
        """Bins of each column of transform ``quantile_bins``, and the rows they hold.

        Asked for when all rows have been added.
        """
        return {
            name: QuantileBins.fit(numbers, self._num_bins[name])
            for name, numbers in self._numbers.items()
        }


def rows_per_value(values: Any, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of the rows hold each distinct value of a field.

    Args:
        values: a dictionary array, or a list of one (a value repeated in a row counts once).
        rows: which rows count.

    >>> values = pa.array(["b", "a", None, "b"]).dictionary_encode()
    >>> rows_per_value(values, np.array([True, True, True, False])).tolist()
    [1, 1]
    """
    if isinstance(values, pa.LargeListArray):
        codes, distinct = _codes_per_row(values, rows)
        return np.bincount(codes, minlength=len(distinct))
    size = len(values.dictionary)
    return np.bincount(_codes(values)[rows], minlength=size + 1)[:size]


def _codes(values: pa.DictionaryArray) -> NDArray[np.integer]:
    """Which value each row holds, as many as there are where it is missing."""
    codes: NDArray[np.integer] = values.indices.fill_null(len(values.dictionary)).to_numpy()
    return codes


def _codes_per_row(
    values: pa.LargeListArray, rows: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], pa.Array]:
    kept = values.filter(pa.array(rows))
    elements = kept.flatten()
    lengths = np.diff(kept.offsets.to_numpy())
    row = np.repeat(np.arange(len(kept)), lengths)
    size = max(len(elements.dictionary), 1)
    pairs = np.unique(row * size + elements.indices.to_numpy().astype(np.int64))
    return pairs % size, elements.dictionary


@dataclass(frozen=True)
class Scale:
    """Mean and population deviation of a column over the training rows."""

    mean: float
    std: float

    def apply(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(x - mean) / std``, or 0 where the training rows hold one number only.

        >>> Scale(mean=2.0, std=0.5).apply(np.array([2.0, 3.0])).tolist()
        [0.0, 2.0]
        """
        return np.zeros_like(numbers) if self.std == 0 else (numbers - self.mean) / self.std


class Moments:
    """Exact sums of numbers and of their squares.

    >>> moments = Moments()
    >>> moments.add(np.array([1e16, 1.0, -1e16, 3.0]))
    >>> moments.scale().mean
    1.0
    """

    def __init__(self) -> None:
        self._count = 0
        self._sum = Fraction(0)
        self._squares = Fraction(0)

    def add(self, numbers: NDArray[np.float64]) -> None:
        """Adds finite numbers."""
        self._count += len(numbers)
        self._sum += exact_sum(numbers)
        # A square has more digits than a float64; those of two halves lose next to nothing.
        bits = np.ascontiguousarray(numbers, np.float64).view(np.int64)
        high = (bits & ~np.int64((2 << _HALF_BITS) - 1)).view(np.float64)
        low = numbers - high
        for product in (high * high, 2 * high * low, low * low):
            self._squares += exact_sum(product)

    def merge(self, other: "Moments") -> None:
        """Adds the sums of other numbers."""
        self._count += other._count
        self._sum += other._sum
        self._squares += other._squares

    def scale(self) -> Scale:
        """Mean and population deviation; 0 and 0 where nothing was added."""
        if not self._count:
            return Scale(0.0, 0.0)
        mean = self._sum / self._count
        variance = self._squares / self._count - mean * mean
        return Scale(float(mean), math.sqrt(max(variance, Fraction(0))))


def exact_sum(numbers: NDArray[np.float64]) -> Fraction:
    """The sum without any rounding, so that the order of the numbers does not matter.

    >>> exact_sum(np.array([0.1, 1e20, -1e20])) == Fraction(0.1)
    True
    """
    mantissa, exponent = np.frexp(numbers)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    place = exponent + _EXPONENT_OFFSET
    # Halves of 27 and 26 bits: their sums stay below 2^53, where a float64 is exact.
    high = np.bincount(place, weights=(whole >> _HALF_BITS).astype(np.float64))
    low = np.bincount(place, weights=(whole & ((1 << _HALF_BITS) - 1)).astype(np.float64))
    total = Fraction(0)
    for at in np.flatnonzero((high != 0) | (low != 0)).tolist():
        part = (int(high[at]) << _HALF_BITS) + int(low[at])
        total += part * Fraction(2) ** (at - _EXPONENT_OFFSET - 53)
    return total
