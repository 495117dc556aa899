"""Figures of a numeric column as the model reads it: after its transform, 0.0 where missing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from recsys_had.columns import FloatColumn, IntegerColumn
from recsys_had.data.folder import DataFolder
from recsys_had.profile.leakage import Auc, Scored, Trial, smoothed
from recsys_had.profile.quantiles import Quantiles
from recsys_had.profile.rates import Rate
from recsys_had.profile.reading import blocks, numbers_of
from recsys_had.profile.summary import Summary, Summing, finite
from recsys_had.profile.tally import IdTally

LEVELS = (1, 5, 25, 50, 75, 95, 99)  # per cent
_NUM_BINS = 32  # of equally many training rows, for their click rates
_NUM_BARS = 24

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Bar:
    """Training rows of a histogram's bar; the outer two hold what lies beyond, too."""

    low: float
    high: float
    rate: Rate


@dataclass(frozen=True)
class NumberFigures:
    """A numeric column.

    Args:
        name: the column.
        transform: what the encoder did to it.
        splits: a summary by split.
        quantiles: exact ones of the training rows, by per cent.
        histogram: of the training rows, from their first to their last percentile.
        auc: what the column alone tells of the label, by its value or by bins of it.
    """

    name: str
    transform: str
    splits: dict[str, Summary]
    quantiles: dict[str, float | None]
    histogram: list[Bar]
    auc: Auc | None


def number_figures(
    data: DataFolder, name: str, *, splits: Sequence[str], trial: Trial, mean: float
) -> NumberFigures:
    """Reads one numeric column of all splits, the training rows three times.

    Args:
        data: the folder.
        name: the column.
        splits: those that have rows.
        trial: which rows its AUC is measured on.
        mean: click rate of the training rows.

    Raises:
        DataError: a part cannot be read or holds what is no number.
    """
    tiles = [Fraction(tile, _NUM_BINS) for tile in range(1, _NUM_BINS)]
    quantiles = Quantiles([*(Fraction(level, 100) for level in LEVELS), *tiles])
    summaries = {
        split: _summary(data, split, name, quantiles if split == "train" else None)
        for split in splits
    }
    if "train" in splits:
        for _, values in _numbers(data, "train", name):
            quantiles.refine(values)
    found = quantiles.values()
    tile_edges = np.unique(found[len(LEVELS) :])
    summary = summaries.get("train")
    bar_edges = _bar_edges(found[: len(LEVELS)], summary)
    bars = IdTally(max(len(bar_edges) - 1, 1), place=name)
    tally = IdTally(len(tile_edges) + 1, place=name)
    for clicked, values in _numbers(data, "train", name):
        bars.add(_bar_of(values, bar_edges), clicked)
        learned = trial.learns(len(values))
        tally.add(np.searchsorted(tile_edges, values[learned]), clicked[learned])
    rates = smoothed(tally.rows, tally.clicks, mean)
    column = data.card.all_columns[name]
    assert isinstance(column, IntegerColumn | FloatColumn)
    return NumberFigures(
        name=name,
        transform=column.transform,
        splits=summaries,
        quantiles={
            str(level): finite(float(value))
            for level, value in zip(LEVELS, found[: len(LEVELS)].tolist(), strict=False)
        },
        histogram=[
            Bar(float(low), float(high), Rate.of(int(rows), int(clicks)))
            for low, high, rows, clicks in zip(
                bar_edges[:-1], bar_edges[1:], bars.rows, bars.clicks, strict=False
            )
        ],
        auc=_auc(data, name, trial, tile_edges, rates),
    )


def _numbers(data: DataFolder, split: str, name: str) -> Iterator[tuple[NDArray[np.bool_], Floats]]:
    for block in blocks(data, split, name):
        yield block.clicked, numbers_of(block.values, f"{data.path / split}: column {name}")


def _summary(data: DataFolder, split: str, name: str, quantiles: Quantiles | None) -> Summary:
    summing = Summing()
    for _, values in _numbers(data, split, name):
        summing.add(values)
        if quantiles is not None:
            quantiles.count(values)
    return summing.summary


def _bar_edges(quantiles: Floats, summary: Summary | None) -> NDArray[np.float64]:
    """From the first percentile to the last, or all there is where those are one number."""
    if summary is None:
        return np.empty(0)
    ends = [finite(float(end)) for end in (quantiles[0], quantiles[-1])]
    if ends[0] == ends[1]:
        ends = [summary.least, summary.greatest]
    if ends[0] is None or ends[1] is None:
        return np.empty(0)
    if ends[0] == ends[1]:
        return np.array([ends[0], ends[1]])
    return np.linspace(ends[0], ends[1], _NUM_BARS + 1)


def _bar_of(values: Floats, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    bar = np.searchsorted(edges[1:-1], values.astype(np.float64), side="right")
    return bar.astype(np.int64)


def _auc(
    data: DataFolder, name: str, trial: Trial, edges: Floats, rates: NDArray[np.float64]
) -> Auc | None:
    """The better of the value itself, rising or falling, and the click rate of its bin."""
    if trial.split is None:
        return None
    by_value, by_bin = Scored(), Scored()
    for number, (clicked, values) in enumerate(_numbers(data, trial.split, name)):
        measured = trial.measures(trial.split, number, len(values))
        if not measured.any():
            continue
        clicked, values = clicked[measured], values[measured]
        by_value.add(clicked, values)
        by_bin.add(clicked, rates[np.searchsorted(edges, values)])
    found = [
        by_value.auc("the value", falling="the value, falling"),
        by_bin.auc("rate of the bin"),
    ]
    return max((one for one in found if one is not None), key=lambda one: one.auc, default=None)
