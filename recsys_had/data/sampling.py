"""Negative down-sampling: of the training rows of label 0 a stated share is kept.

Whether one is kept depends on its content and its number, never on who reads it when; a row kept
at one rate is kept at every higher one. Rows that validate or test are never left out.
"""

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from recsys_had.data.split import Splits, hash_fractions, row_texts
from recsys_had.schema import DatasetCard, NegativeSampling

# In place of a split: the row is left out if it would train.
LEFT_OUT = -2


def is_kept(
    texts: list[bytes], row_ids: NDArray[np.int64], rule: NegativeSampling
) -> NDArray[np.bool_]:
    """Which rows of label 0 are kept.

    What is hashed is the row's own bytes (:func:`recsys_had.data.split.row_texts`), 0x1E and its
    row id in decimal digits: the same row may stand in the input more than once, and each time it
    is drawn for itself. The hash is XXH64 with the seed XXH64("negatives", ``rule.seed``), so a
    split by content tells nothing of it, whatever its seed. A row is kept where the upper 53 bits
    are below ``rule.negatives`` of 2^53.

    Args:
        texts: bytes of each row.
        row_ids: number of each row over all inputs.
        rule: share and seed.
    """
    numbered = [
        b"%b\x1e%d" % (text, row_id) for text, row_id in zip(texts, row_ids.tolist(), strict=True)
    ]
    seed = xxhash.xxh64_intdigest(b"negatives", rule.seed)
    kept: NDArray[np.bool_] = hash_fractions(numbered, seed=seed) < rule.negatives
    return kept


def leave_out_negatives(
    splits: Splits,
    frame: pl.DataFrame,
    card: DatasetCard,
    *,
    labels: NDArray[np.float32],
    row_ids: NDArray[np.int64],
) -> Splits:
    """Splits in which the rows that the card's sampling leaves out are ``LEFT_OUT``.

    Args:
        splits: of each row; -1 where it is not known yet, see :func:`join_splits`.
        frame: the rows as text, all of the card's columns.
        card: says whether and how rows are left out.
        labels: 0 or 1.
        row_ids: number of each row over all inputs.
    """
    if card.sampling is None:
        return splits
    asked = np.flatnonzero((splits <= 0) & (labels == 0))
    kept = is_kept(row_texts(frame[asked], card), row_ids[asked], card.sampling)
    found = splits.copy()
    found[asked[~kept]] = LEFT_OUT
    return found


def join_splits(early: Splits, late: Splits) -> Splits:
    """Splits that are known at last, of rows that may have been left out before.

    >>> join_splits(np.array([-1, -2, -2], np.int8), np.array([0, 0, 1], np.int8)).tolist()
    [0, -2, 1]
    """
    return np.where((early == LEFT_OUT) & (late == 0), early, late)
