"""Which field's value tells most of which other's: a tree of the fields, by Chow and Liu.

Letters: B rows, F fields.
"""

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.signedinteger[Any]]

# Beside the counted rows of a field's value, so many count as if they had it in proportion.
PRIOR_ROWS = 1.0
# Beside its counted rows, each value of a field counts half a row, and an unseen one does.
HALF = 0.5


def field_tree(ids: Ids) -> list[int]:
    """The parent of each field, -1 for one that stands alone; no field is its own ancestor.

    It is the tree, or the forest, under which the rows are likeliest. What a field tells of
    another is the mean gain of the log probability of a row's value over its share in all rows,
    where the row itself is left out of the counts: so a pair of fields of which every row has
    another, such as user and item, gains nothing by having been seen. The smaller gain of a pair's
    two directions counts, and pairs without any join nothing.

    Paper: Chow & Liu 1968, Approximating Discrete Probability Distributions with Dependence Trees.
    Differs from the paper: gains of left-out rows take the place of the mutual information, which
    is too large where values are many.

    Args:
        ids: ``(B, F)``, of training rows.

    >>> pairs = np.array([[1, 1, 5], [2, 2, 5], [1, 1, 6], [2, 2, 6]] * 5)
    >>> field_tree(pairs)
    [-1, 0, -1]
    """
    num_fields = ids.shape[1]
    codes = [np.unique(ids[:, field], return_inverse=True)[1] for field in range(num_fields)]
    gains = np.full((num_fields, num_fields), -np.inf)
    for one, other in combinations(range(num_fields), 2):
        gains[one, other] = gains[other, one] = _gain(codes[one], codes[other])
    parents, reached = [-1] * num_fields, np.zeros(num_fields, np.bool_)
    # Prim's: the best pair of a field that is reached and one that is not, again and again.
    for _ in range(num_fields):
        best = np.where(reached[:, None] & ~reached[None, :], gains, -np.inf)
        if best.size and best.max() > 0:
            parent, field = divmod(int(best.argmax()), num_fields)
            parents[field] = parent
        else:
            field = int((~reached).argmax())
        reached[field] = True
    return parents


def _gain(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """The smaller of what each tells of the other."""
    rows = len(one)
    pair, counts = np.unique(one * (int(other.max()) + 1) + other, return_counts=True)
    width = int(other.max()) + 1
    sides = [(codes, np.bincount(codes)) for codes in (one, other)]
    found = []
    for (_, own), (_, given), at in zip(
        sides,
        sides[::-1],
        [(pair // width, pair % width), (pair % width, pair // width)],
        strict=True,
    ):
        share = value_share(own[at[0]], rows, len(own))
        without = (counts - 1 + PRIOR_ROWS * share) / (given[at[1]] - 1 + PRIOR_ROWS)
        found.append(float((counts * np.log(without / share)).sum()) / rows)
    return min(found)


def value_share(counts: Any, rows: Any, num_values: Any) -> NDArray[np.float64]:
    """The share of rows with a value of which so many had it; of an unseen value where none had.

    >>> value_share(np.array([0.0, 3.0, 1.0]), 4, 2).round(3).tolist()
    [0.091, 0.636, 0.273]
    """
    found: NDArray[np.float64] = (counts + HALF) / (rows + HALF * (num_values + 1))
    return found
