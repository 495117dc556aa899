"""Figures of what stands beside fields and numbers: content vectors and weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recsys_had.data.folder import DataFolder
from recsys_had.data.vectors import vectors_from_column
from recsys_had.profile.reading import BLOCK_ROWS, blocks, numbers_of, read
from recsys_had.profile.summary import Summary, Summing

_BLOCK_NUMBERS = 1 << 22


@dataclass(frozen=True)
class VectorFigures:
    """A content vector.

    Args:
        name: the column.
        size: numbers in it.
        lengths: by split, its Euclidean length; that of a missing one is 0.
    """

    name: str
    size: int
    lengths: dict[str, Summary]


def vector_figures(data: DataFolder, name: str, *, splits: Sequence[str]) -> VectorFigures:
    """Reads one content vector of all splits.

    Raises:
        DataError: a part cannot be read.
    """
    size = data.card.vectors[name]
    block_rows = max(1, min(BLOCK_ROWS, _BLOCK_NUMBERS // size))
    lengths = {}
    for split in splits:
        summing = Summing()
        for batch in read(data, split, [name], block_rows=block_rows):
            vectors = vectors_from_column(pa.chunked_array([batch.column(name)]), size)
            summing.add(np.sqrt(np.square(vectors.astype(np.float64)).sum(axis=1)))
        lengths[split] = summing.summary
    return VectorFigures(name, size, lengths)


@dataclass(frozen=True)
class WeightFigures:
    """The weights of a split's rows.

    Args:
        weights: what they are.
        click_rate: share of the weight that lies on clicked rows; None where all weigh 0.
    """

    weights: Summary
    click_rate: float | None


def weight_figures(data: DataFolder, split: str) -> WeightFigures:
    """Reads the weights of a split.

    Raises:
        DataError: a part cannot be read.
    """
    summing, clicked_weight = Summing(), 0.0
    for block in blocks(data, split, "weight"):
        weights = numbers_of(block.values, f"{data.path / split}: column weight")
        summing.add(weights)
        clicked_weight += float(weights[block.clicked].sum(dtype=np.float64))
    return WeightFigures(
        summing.summary, clicked_weight / summing.total if summing.total > 0 else None
    )
