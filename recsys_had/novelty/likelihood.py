"""Novelty by how unlikely a row's values are together, under a tree of pairs of fields.

Letters: B rows, F single-valued fields.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys_had.batch import EncodedRows
from recsys_had.errors import DataError
from recsys_had.novelty.count_table import CountTable, Keys
from recsys_had.novelty.field_tree import PRIOR_ROWS, field_tree, value_share
from recsys_had.novelty.method import Fitting, Novelty, Seen, State

# Rows the tree is looked for in; F(F-1)/2 pairs of fields are counted in them.
_TREE_ROWS = 1 << 16
# What an unseen value, which has no id of its own, is counted under: never.
_UNSEEN = -1
_ID = np.uint64(0x9E3779B97F4A7C15)
_PARENT_ID = np.uint64(0xC2B2AE3D27D4EB4F)
_FIELD = np.uint64(0xD6E8FEB86659FD93)


class Likelihood:
    """Minus the log-likelihood of a row's ids, a value at a time given one other field's.

    ``novelty = -sum_f log p(x_f | x_parent(f))`` over a tree of the fields (:func:`field_tree`),
    with ``p(x | y) = (n(x, y) + p(x)) / (n(y) + 1)`` and
    ``p(x) = (n(x) + 1/2) / (n + (V + 1) / 2)``, where n are the counts of training rows and V the
    number of the field's values. A field without a parent has p(x) alone. Unseen values, rare ones
    and values that do not go together with those beside them all make a row unlikely.

    A field of several values a row stands alone and adds the mean over a row's values. Numeric
    columns and content vectors take no part. A missing value is a value like any other; an unseen
    one is told from it where somebody looked at the raw rows (:attr:`EncodedRows.unseen`). The
    model takes no part either. Sums are taken field by field in float64, so a row's novelty has
    the same bits in any batch.

    Paper: Chow & Liu 1968, Approximating Discrete Probability Distributions with Dependence Trees.
    Differs from the paper: the tree (:func:`field_tree`), smoothed probabilities, and counts that
    are rounded and may be another pair's (:class:`CountTable`).

    Args:
        parents: of each single-valued field, the place of its parent, -1 where it has none.
        num_values: of each field, the single-valued ones first, the number of its values.
        totals: of each field, the number of counted values.
        table: counts of values and of pairs.
    """

    needs_terms = False

    def __init__(
        self,
        *,
        parents: list[int],
        num_values: NDArray[np.int64],
        totals: NDArray[np.int64],
        table: CountTable,
    ) -> None:
        if len(num_values) != len(totals) or len(parents) > len(num_values):
            raise ValueError(f"{len(parents)} parents of {len(num_values)} fields")
        if any(not -1 <= parent < len(parents) for parent in parents):
            raise ValueError(f"parents {parents}")
        self._parents, self._num_values, self._totals = parents, num_values, totals
        self._table = table
        self._children = np.array([f for f, parent in enumerate(parents) if parent >= 0], np.int64)
        self._given = np.array([parent for parent in parents if parent >= 0], np.int64)

    @classmethod
    def fit(cls, fitting: Fitting) -> "Likelihood":
        """Finds the tree and counts values and pairs.

        Raises:
            DataError: there is no row, or no field.
        """
        rows = fitting.rows
        if not len(rows) or not rows.layout.fields:
            raise DataError(
                f"{fitting.place}: likelihood counts the values of categorical fields; got "
                f"{len(rows)} rows of {len(rows.layout.fields)} fields. Choose another method, or "
                "none."
            )
        ids = rows.ids.astype(np.int64)
        parents = field_tree(ids[:: -(-len(ids) // _TREE_ROWS)])
        keys, counts, num_values, totals = [], [], [], []
        lists = [ragged.values.astype(np.int64) for ragged in rows.lists.values()]
        for place, values in enumerate([*ids.T, *lists]):
            own, count = np.unique(values, return_counts=True)
            keys.append(_value_keys(own, place))
            counts.append(count)
            num_values.append(len(own))
            totals.append(len(values))
        for place, parent in enumerate(parents):
            if parent >= 0:
                own, count = np.unique(
                    _pair_keys(ids[:, place], ids[:, parent], place), return_counts=True
                )
                keys.append(own)
                counts.append(count)
        return cls(
            parents=parents,
            num_values=np.array(num_values, np.int64),
            totals=np.array(totals, np.int64),
            table=CountTable.of(np.concatenate(keys), np.concatenate(counts)),
        )

    @classmethod
    def load(cls, state: Mapping[str, Any], weights: Callable[[], Tensor]) -> "Likelihood":
        """The tree and the counts as they were found."""
        return cls(
            parents=[int(parent) for parent in state["parents"]],
            num_values=state["num_values"],
            totals=state["totals"],
            table=CountTable(state["counts"]),
        )

    def state(self) -> State:
        """The tree and the counts."""
        return {
            "parents": self._parents,
            "num_values": self._num_values,
            "totals": self._totals,
            "counts": self._table.levels,
        }

    def __call__(self, seen: Seen) -> Novelty:
        """Nats; above 0."""
        rows = seen.rows
        single = len(self._parents)
        ids = _with_unseen(rows)
        places = np.arange(single)[:, None]
        counts = self._counted(_value_keys(ids, places), ids)
        totals, num_values = self._totals[:single, None], self._num_values[:single, None]
        share = value_share(counts, totals, num_values)
        own, given = self._children, self._given
        keys = _pair_keys(ids[own], ids[given], own[:, None])
        pairs = self._counted(keys, np.minimum(ids[own], ids[given]))
        # A pair is no more frequent than its values, whatever pairs stand in its buckets.
        pairs = np.minimum(pairs, np.minimum(counts[own], counts[given]))
        share[own] = (pairs + PRIOR_ROWS * share[own]) / (counts[given] + PRIOR_ROWS)
        # Field by field: how numpy sums up depends on how many rows there are.
        found = np.zeros(len(rows))
        for of_field in np.log(share):
            found -= of_field
        for place, (name, ragged) in enumerate(rows.lists.items(), single):
            found -= self._mean_log_share(rows, name, ragged.offsets, ragged.values, place)
        return found.astype(np.float32)

    def _mean_log_share(
        self,
        rows: EncodedRows,
        name: str,
        offsets: NDArray[np.int64],
        values: NDArray[Any],
        place: int,
    ) -> NDArray[np.float64]:
        """Of the values of a row's list."""
        lengths = np.diff(offsets)
        values = values.astype(np.int64)
        row = np.repeat(np.arange(len(rows)), lengths)
        if rows.unseen is not None:
            has_unseen = rows.unseen[:, rows.layout.fields.index(name)] > 0
            values = np.where((values == 0) & has_unseen[row], _UNSEEN, values)
        counts = self._counted(_value_keys(values, place), values)
        share = value_share(counts, self._totals[place], self._num_values[place])
        sums = np.bincount(row, weights=np.log(share), minlength=len(rows))
        found: NDArray[np.float64] = sums / np.maximum(lengths, 1)
        return found

    def _counted(self, keys: Keys, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        counts = self._table.counts(keys)
        counts[ids == _UNSEEN] = 0.0
        return counts


def _with_unseen(rows: EncodedRows) -> NDArray[np.int64]:
    """The single-valued ids, ``(F, B)``, those of unseen values apart from missing ones'."""
    ids = np.ascontiguousarray(rows.ids.T).astype(np.int64)
    if rows.unseen is not None:
        single = [rows.layout.fields.index(name) for name in rows.layout.single]
        ids[rows.unseen[:, single].T > 0] = _UNSEEN
    return ids


def _value_keys(ids: NDArray[np.int64], place: Any) -> Keys:
    """A key of each value of a field; places count the fields."""
    # An array even of one place: numpy warns where a single number overflows, as it shall here.
    field = np.atleast_1d(np.asarray(place, np.uint64)) + np.uint64(1)
    return ids.astype(np.uint64) * _ID + field * _FIELD


def _pair_keys(ids: NDArray[np.int64], given: NDArray[np.int64], place: Any) -> Keys:
    """A key of each pair of a field's value and its parent's."""
    return _value_keys(ids, place) + given.astype(np.uint64) * _PARENT_ID + _PARENT_ID
