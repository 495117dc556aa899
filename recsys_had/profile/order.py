"""Rows and clicks of each split, and how they change along the row order."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_had.data.folder import DataFolder
from recsys_had.errors import DataError
from recsys_had.profile.rates import Rate
from recsys_had.profile.reading import clicked_of, read
from recsys_had.schema import SPLITS

_NUM_STRETCHES = 48


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of the raw files.

    Args:
        first: the first row's id: its number in the raw files.
        last: the last row's.
        rate: clicks of all splits together.
        rows: by split.
    """

    first: int
    last: int
    rate: Rate
    rows: dict[str, int]


def split_rates(data: DataFolder) -> dict[str, Rate]:
    """Rows and clicks of each split that has a row.

    Raises:
        DataError: a split has other rows than the manifest says, or none has a row.
    """
    found = {}
    for split in SPLITS:
        rows = clicks = 0
        for batch in read(data, split, ["label"]):
            rows += batch.num_rows
            clicks += int(clicked_of(batch.column("label"), data, split).sum())
        if rows != data.rows(split):
            raise DataError(
                f"{data.path / split}: must hold {data.rows(split):,} rows, says the manifest; got "
                f"{rows:,}. Restore its parts, or re-run `recsys-had ingest`."
            )
        if rows:
            found[split] = Rate.of(rows, clicks)
    if not found:
        raise DataError(f"{data.path}: holds no row. Re-run `recsys-had ingest`.")
    return found


def row_order(data: DataFolder) -> list[Stretch]:
    """Cuts the row ids into stretches of equal length, and counts their rows and clicks.

    Raises:
        DataError: a part cannot be read.
    """
    splits = [split for split in SPLITS if data.rows(split)]
    end = 1 + max(
        int(batch.column("row_id").to_numpy().max())
        for split in splits
        for batch in read(data, split, ["row_id"])
    )
    size = min(_NUM_STRETCHES, end)
    starts = -(-np.arange(size + 1) * end // size)
    rows = {split: np.zeros(size, np.int64) for split in splits}
    clicks: NDArray[np.int64] = np.zeros(size, np.int64)
    for split in splits:
        for batch in read(data, split, ["row_id", "label"]):
            stretch = batch.column("row_id").to_numpy() * size // end
            clicked = clicked_of(batch.column("label"), data, split)
            rows[split] += np.bincount(stretch, minlength=size)
            clicks += np.bincount(stretch[clicked], minlength=size)
    return [
        Stretch(
            int(starts[number]),
            int(starts[number + 1]) - 1,
            Rate.of(sum(int(rows[split][number]) for split in splits), int(clicks[number])),
            {split: int(rows[split][number]) for split in splits},
        )
        for number in range(size)
    ]
