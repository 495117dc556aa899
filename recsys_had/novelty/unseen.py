"""Novelty by the number of values training never saw."""

import numpy as np

from recsys_had.novelty.method import Novelty, Seen, WithoutState


class Unseen(WithoutState):
    """Counts a row's values that are there and have no id, over all fields.

    Where nobody looked at the raw values, as in encoded data folders, a missing value is taken for
    an unseen one: both have id 0.
    """

    def __call__(self, seen: Seen) -> Novelty:
        """A whole number, 0 for most rows."""
        rows = seen.rows
        if rows.unseen is not None:
            return np.asarray(rows.unseen.sum(axis=1), np.float32)
        found = (rows.ids == 0).sum(axis=1)
        for ragged in rows.lists.values():
            zeros = np.concatenate([[0], np.cumsum(ragged.values == 0)])
            found = found + np.diff(zeros[ragged.offsets])
        return np.asarray(found, np.float32)
