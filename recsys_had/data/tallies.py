"""Tallies: how often each id and each number occurs in a data folder's rows.

They are arrays of counts, so they add up over shards, and their size depends on the card and the
vocabularies alone, never on the number of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_had.data.decode import Decoder
from recsys_had.data.encode import Encoder
from recsys_had.data.folder import DataFolder
from recsys_had.data.shards import pieces_of, shards_of
from recsys_had.schema import DatasetCard

Counts = NDArray[np.int64]

# Hashes are folded into as many classes, whatever their number.
MAX_HASHES = 1 << 20
_NUM_CODES = 1 << 16
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_SIGN = np.uint32(1 << 31)


def codes_of(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers rounded to 8 significant bits (bfloat16), as codes that keep their order.

    The whole numbers to 256 in size stay apart, and so do any two that differ by a hundredth.

    >>> codes = codes_of(np.array([-2.0, 0.0, 1.0, 1.001, 255.0, 256.0]))
    >>> np.diff(codes).tolist()
    [16384, 16256, 0, 1023, 1]
    """
    bits = np.clip(numbers, -_FLOAT32_MAX, _FLOAT32_MAX).astype(np.float32).view(np.uint32)
    # Negative numbers count downwards; both zeros are one.
    ordered = np.where(bits & _SIGN, ~bits + np.uint32(1), bits | _SIGN)
    codes: NDArray[np.int64] = (ordered.astype(np.int64) + (1 << 15)) >> 16
    return codes


@dataclass
class NumberTally:
    """Counts of the numbers of a dense input, before its transform.

    Args:
        zeros: rows where it is encoded as 0.0, as a missing number is.
        codes: of the other rows, counts by :func:`codes_of`.
    """

    zeros: int = 0
    codes: Counts = field(default_factory=lambda: np.zeros(_NUM_CODES, np.int64))

    def add(self, encoded: NDArray[np.float32], numbers: NDArray[np.float64]) -> None:
        """Adds numbers, and as what they are encoded."""
        known = encoded != 0
        self.zeros += int((~known).sum())
        self.codes += np.bincount(codes_of(numbers[known]), minlength=_NUM_CODES)


@dataclass(frozen=True)
class Tallies:
    """What was counted in some splits of a data folder.

    Args:
        rows: number of rows.
        clicks: sum of their labels.
        ids: per field, how often each id occurs. Of a multi-valued field every value of a row
            counts. Hashes have ids ``1 + (id - 1) % MAX_HASHES``.
        numbers: per dense input that can be decoded, its numbers.
    """

    rows: int
    clicks: float
    ids: dict[str, Counts]
    numbers: dict[str, NumberTally]


def tally(data: DataFolder, encoder: Encoder, splits: Sequence[str]) -> Tallies:
    """Counts the rows of some splits, a few in memory at a time.

    Raises:
        DataError: a shard cannot be read.
    """
    card, decoder = data.card, Decoder(encoder)
    ids = {name: np.zeros(size, np.int64) for name, size in _sizes(card, encoder).items()}
    numbers = {name: NumberTally() for name in card.dense if name in decoder.ways}
    rows, clicks = 0, 0.0
    for split in splits:
        for shard in shards_of(data, split):
            for piece in pieces_of(shard, ("label", *ids, *numbers)):
                rows += len(piece)
                clicks += float(piece.column("label").to_numpy().sum(dtype=np.float64))
                for name, counts in ids.items():
                    _count(counts, _folded(piece.column(name), card, name))
                for name, one in numbers.items():
                    encoded = piece.column(name).to_numpy()
                    one.add(encoded, decoder.numbers(name, encoded))
    return Tallies(rows, clicks, ids, numbers)


def _sizes(card: DatasetCard, encoder: Encoder) -> dict[str, int]:
    sizes = {}
    for known in card.fields:
        size = encoder.num_embeddings[known.name]
        if known.managed is not None:
            size = MAX_HASHES + 1
        elif not known.has_vocabulary:
            size = min(size, MAX_HASHES + 1)
        sizes[known.name] = size
    return sizes


def _folded(column: Any, card: DatasetCard, name: str) -> NDArray[np.int64]:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = column.flatten()
    ids: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    known = next(known for known in card.fields if known.name == name)
    return ids if known.has_vocabulary else np.where(ids > 0, 1 + (ids - 1) % MAX_HASHES, 0)


def _count(counts: Counts, ids: NDArray[np.int64]) -> None:
    """Adds ids; a table much larger than they are is touched only where they point."""
    if len(counts) <= 4 * len(ids):
        counts += np.bincount(ids, minlength=len(counts))
    else:
        distinct, times = np.unique(ids, return_counts=True)
        counts[distinct] += times
