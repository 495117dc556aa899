"""Figures of a categorical field: its values, how many keep an id, and what they tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys_had.columns import Field
from recsys_had.data.folder import DataFolder
from recsys_had.profile.leakage import Auc, Scored, Trial, mean_of_rows, smoothed
from recsys_had.profile.rates import Rate
from recsys_had.profile.reading import BLOCK_ROWS, RowIds, blocks, values_of
from recsys_had.profile.tally import HashTally, IdTally, Tally

MIN_COUNTS = (1, 2, 5, 10, 20, 50, 100)
_TOP = 10
_DATE_PARTS = ("hour", "weekday", "is_weekend")


@dataclass(frozen=True)
class Coverage:
    """What would keep an id of its own at a min_count; None where the folder does not tell.

    Args:
        min_count: training rows that must hold a value.
        values: values that as many rows hold.
        share: of all values in training rows, how many are one of those.
    """

    min_count: int
    values: int | None
    share: float | None


@dataclass(frozen=True)
class ValueFigures:
    """One value in the training rows.

    Args:
        id: its id.
        value: as it stands in the vocabulary; None where ids are hashes.
        share: of the training rows, those that hold it.
        rate: their clicks.
    """

    id: int
    value: str | None
    share: float
    rate: Rate


@dataclass(frozen=True)
class FieldFigures:
    """A categorical field. A value that a row holds twice counts once.

    Args:
        name: the field.
        column: raw column it is made of.
        source: how.
        ids: whether ids are those of a vocabulary, of a hash, or given out by training.
        min_count: the card's.
        num_ids: ids there are, id 0 included.
        num_values: distinct ids in training rows, id 0 left out.
        sampled_share: share of the values that the figures rest on; 1 unless there are too many.
        values_per_row: mean number of values in a training row.
        absent: by split, share of values with id 0, missing or without an id.
        unseen: by split, share of values that are in no training row, where ids are hashes.
        absent_rate: clicks of the training rows with id 0.
        coverage: by min_count.
        top: the values that most training rows hold.
        auc: what the field alone tells of the label.
    """

    name: str
    column: str
    source: str
    ids: Literal["vocabulary", "hash", "managed"]
    min_count: int
    num_ids: int
    num_values: int
    sampled_share: float
    values_per_row: float
    absent: dict[str, float]
    unseen: dict[str, float]
    absent_rate: Rate
    coverage: list[Coverage]
    top: list[ValueFigures]
    auc: Auc | None

    @property
    def is_date_part(self) -> bool:
        """Whether its values are hours or days."""
        return self.source in _DATE_PARTS


def field_figures(
    data: DataFolder, known: Field, *, splits: Sequence[str], trial: Trial, mean: float
) -> FieldFigures:
    """Counts one field of all splits, block by block.

    Args:
        data: the folder.
        known: the field.
        splits: those that have rows.
        trial: which rows its AUC is measured on.
        mean: click rate of the training rows.

    Raises:
        DataError: a part or the vocabulary cannot be read or is not as the manifest says.
    """
    train = _tally(data, known)
    # Rates that are measured on training rows are learned from half of them.
    learned = _tally(data, known) if trial.split == "train" else train
    num_rows = num_values = 0
    for block in blocks(data, "train", known.name):
        ids = RowIds.of(block.values)
        clicked, row = block.clicked, ids.row
        train.add(ids.ids, clicked[row])
        if learned is not train:
            chosen = trial.learns(len(clicked))[row]
            learned.add(ids.ids[chosen], clicked[row][chosen])
        num_rows += len(clicked)
        num_values += len(ids.ids)
    rows, clicks = train.rows, train.clicks
    scored = Scored()
    rates = smoothed(learned.rows, learned.clicks, mean)
    seen = {
        split: _seen(data, split, known, train=train, rates=(learned, rates), to=(trial, scored))
        for split in splits
        if split != "train" or trial.split == "train"
    }
    absent_share = int(rows[0]) / max(num_values, 1)
    absent = {split: found.absent_share for split, found in seen.items()}
    unseen = {split: found.unseen_share for split, found in seen.items() if split != "train"}
    return FieldFigures(
        name=known.name,
        column=known.column,
        source=known.source,
        ids="managed" if known.managed else "hash" if known.hash_buckets else "vocabulary",
        min_count=known.min_count,
        num_ids=data.num_embeddings[known.name],
        num_values=train.num_values,
        sampled_share=train.sampled_share,
        values_per_row=num_values / max(num_rows, 1),
        absent=({"train": absent_share} if num_rows else {}) | absent,
        unseen={} if known.has_vocabulary else unseen,
        absent_rate=Rate.of(int(rows[0]), int(clicks[0])),
        coverage=[_coverage(rows, absent_share, least, known) for least in MIN_COUNTS],
        top=_top(data, known, train, num_rows),
        auc=scored.auc("rate of the value"),
    )


def _tally(data: DataFolder, known: Field) -> Tally:
    if known.managed is not None:
        return HashTally()
    return IdTally(data.num_embeddings[known.name], place=f"{data.path}: column {known.name}")


@dataclass
class _Seen:
    """Values of a split, counted."""

    values: int = 0
    absent: int = 0
    sampled: int = 0
    unseen: int = 0

    @property
    def absent_share(self) -> float:
        return self.absent / max(self.values, 1)

    @property
    def unseen_share(self) -> float:
        return (1 - self.absent_share) * self.unseen / max(self.sampled, 1)


def _seen(
    data: DataFolder,
    split: str,
    known: Field,
    *,
    train: Tally,
    rates: tuple[Tally, NDArray[np.float64]],
    to: tuple[Trial, Scored],
) -> _Seen:
    """Goes through a split once: what is absent, what is unseen, and the trial's scores."""
    found = _Seen()
    (learned, rate_of), (trial, scored) = rates, to
    rows_of = train.rows
    for number, block in enumerate(blocks(data, split, known.name)):
        ids = RowIds.of(block.values)
        present = ids.ids != 0
        found.values += len(ids.ids)
        found.absent += int((~present).sum())
        place = train.places(ids.ids)
        found.sampled += int((present & (place >= 0)).sum())
        found.unseen += int((present & (place >= 0) & (rows_of[place] == 0)).sum())
        measured = trial.measures(split, number, len(block.clicked))
        if measured.any():
            place = learned.places(ids.ids)
            rate = np.where(place >= 0, rate_of[place], np.nan)
            scores = mean_of_rows(rate, ids.lengths)
            scored.add(block.clicked[measured], scores[measured])
    return found


def _coverage(
    rows: NDArray[np.int64], absent_share: float, min_count: int, known: Field
) -> Coverage:
    if known.has_vocabulary and min_count < known.min_count:
        return Coverage(min_count, None, None)
    counts = rows[1:]
    kept = counts >= min_count
    # Of a sample's values; what is absent is known of all.
    share = float(counts[kept].sum() / max(int(counts.sum()), 1))
    return Coverage(min_count, int(kept.sum()), (1 - absent_share) * share)


def _top(data: DataFolder, known: Field, train: Tally, num_rows: int) -> list[ValueFigures]:
    """The most frequent values; all hours of a day, so that none is missing in a picture."""
    rows, clicks = train.rows, train.clicks
    limit = 24 if known.source in _DATE_PARTS else _TOP
    order = 1 + _largest(rows[1:], limit)
    order = order[rows[order] > 0]
    ids = train.ids[order].tolist()
    texts = values_of(data, known.name, ids) if known.has_vocabulary else {}
    return [
        ValueFigures(
            number,
            texts.get(number),
            int(rows[place]) / num_rows,
            Rate.of(int(rows[place]), int(clicks[place])),
        )
        for number, place in zip(ids, order.tolist(), strict=True)
    ]


def _largest(counts: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Places of the largest counts, the first of equal ones first, without sorting them all.

    >>> _largest(np.array([1, 5, 0, 5, 7]), 3).tolist()
    [4, 1, 3]
    """
    found = np.empty(0, np.int64)
    for start in range(0, len(counts), BLOCK_ROWS):
        found = np.append(found, np.arange(start, min(start + BLOCK_ROWS, len(counts))))
        found = found[np.argsort(-counts[found], kind="stable")[:limit]]
    return found
