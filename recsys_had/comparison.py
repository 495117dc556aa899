"""Comparing models: several seeds each, means with their spread, never the best of many runs.

Letters: S seeds.
"""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recsys_had.errors import DataError

_BLUE = "#1f5fa8"


@dataclass(frozen=True)
class Measured:
    """One finished training.

    Args:
        experiment: its name.
        seed: its seed.
        settings_digest: of the resolved experiment and the data, so that a result is not taken
            for another's.
        parameters: learned numbers, tables included.
        auc: of the best epoch on the validation split.
        logloss: of the same epoch.
        best_epoch: 1-based.
        epochs: trained in all.
        epoch_s: seconds of training steps an epoch.
    """

    experiment: str
    seed: int
    settings_digest: str
    parameters: int
    auc: float
    logloss: float
    best_epoch: int
    epochs: int
    epoch_s: float

    def save(self, path: Path) -> None:
        """Writes a JSON file that is whole or absent."""
        fresh = path.with_suffix(".tmp")
        fresh.write_text(json.dumps(asdict(self), indent=2) + "\n")
        fresh.rename(path)

    @classmethod
    def load(cls, path: Path) -> "Measured":
        """Reads what :meth:`save` wrote.

        Raises:
            DataError: the file is something else.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as cause:
            raise DataError(
                f"{path}: is no result of a benchmark: {cause}. Remove it, or choose another "
                "folder."
            ) from cause


@dataclass(frozen=True)
class Row:
    """One model over its seeds.

    Args:
        experiment: its name.
        seeds: how many.
        parameters: learned numbers.
        aucs: of each seed, in their order.
        auc_mean: mean over the seeds.
        auc_std: sample standard deviation; None for one seed.
        auc_interval: half the width of the 95 % confidence interval of the mean (Student's t);
            None for one seed.
        logloss_mean: mean over the seeds.
        logloss_std: as for auc.
        epochs_mean: epochs trained.
        epoch_s: median seconds an epoch.
    """

    experiment: str
    seeds: int
    parameters: int
    aucs: tuple[float, ...]
    auc_mean: float
    auc_std: float | None
    auc_interval: float | None
    logloss_mean: float
    logloss_std: float | None
    epochs_mean: float
    epoch_s: float


def summarise(results: Iterable[Measured]) -> list[Row]:
    """One row a model, the best mean AUC first.

    >>> one = Measured("fm", 1, "", 10, 0.75, 0.5, 3, 5, 1.0)
    >>> two = Measured("fm", 2, "", 10, 0.77, 0.4, 3, 7, 3.0)
    >>> row = summarise([one, two])[0]
    >>> row.seeds, round(row.auc_mean, 6), round(row.auc_std, 6), row.epochs_mean
    (2, 0.76, 0.014142, 6)
    """
    by_name: dict[str, list[Measured]] = {}
    for result in results:
        by_name.setdefault(result.experiment, []).append(result)
    rows = [
        Row(
            experiment=name,
            seeds=len(found),
            parameters=found[0].parameters,
            aucs=tuple(one.auc for one in found),
            auc_mean=statistics.mean(one.auc for one in found),
            auc_std=_std([one.auc for one in found]),
            auc_interval=_interval([one.auc for one in found]),
            logloss_mean=statistics.mean(one.logloss for one in found),
            logloss_std=_std([one.logloss for one in found]),
            epochs_mean=statistics.mean(one.epochs for one in found),
            epoch_s=statistics.median(one.epoch_s for one in found),
        )
        for name, found in by_name.items()
    ]
    return sorted(rows, key=lambda row: -row.auc_mean)


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table.

    >>> print(markdown_table(summarise([Measured("fm", 1, "", 1234, 0.75, 0.5, 3, 5, 1.0)])))
    | model | parameters | seeds | valid AUC | valid logloss | epochs | s an epoch |
    | --- | --- | --- | --- | --- | --- | --- |
    | fm | 1,234 | 1 | .75000 | .50000 | 5.0 | 1.0 |
    """
    lines = [
        "| model | parameters | seeds | valid AUC | valid logloss | epochs | s an epoch |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row.experiment} | {row.parameters:,} | {row.seeds} "
            f"| {_spread(row.auc_mean, row.auc_std)} "
            f"| {_spread(row.logloss_mean, row.logloss_std)} "
            f"| {row.epochs_mean:.1f} | {row.epoch_s:.1f} |"
        )
    return "\n".join(lines)


def draw_comparison(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Draws every seed's AUC, and each model's mean with its 95 % interval, as PNG.

    What lies between an AUC and 1 stands on a log scale, so that models near the top are told
    apart and one that failed is still in sight. Intervals end at the picture's edge.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    # An AUC of 1 has no logarithm: it is drawn half as far from 1 as the next best.
    missed = [1 - auc for row in rows for auc in row.aucs]
    least = min((one for one in missed if one > 0), default=1e-3) / 2
    low, high = max(min(missed), least) / 1.15, max(*missed, least) * 1.15

    def place(auc: float) -> float:
        return min(max(1 - auc, low), high)

    figure = Figure(figsize=(7.5, 1.4 + 0.24 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    for height, row in enumerate(rows):
        seeds = [place(auc) for auc in row.aucs]
        axes.plot(seeds, [height] * len(seeds), "o", color=_BLUE, alpha=0.35, markersize=5)
        axes.plot(place(row.auc_mean), height, "|", color=_BLUE, markersize=11, markeredgewidth=2)
        if row.auc_interval is not None:
            ends = (row.auc_mean - row.auc_interval, row.auc_mean + row.auc_interval)
            axes.plot([place(end) for end in ends], [height] * 2, color=_BLUE, linewidth=1.2)
    marks = [mark for mark in _marks() if low <= mark <= high]
    axes.xaxis.set_major_locator(FixedLocator(marks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(marks, [f"{1 - mark:.6f}".rstrip("0").lstrip("0") for mark in marks])
    axes.set_yticks(range(len(rows)), [row.experiment for row in rows])
    axes.set_xlim(high, low)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#e3e6ea")
    axes.set(title=title)
    axes.set_xlabel("validation AUC: seeds (dots), mean (tick) and its 95 % interval (line)")
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _marks() -> list[float]:
    """What 1 - AUC may be marked at, in each decade the same."""
    steps = (1, 1.2, 1.4, 1.6, 2, 2.5, 3, 4, 5, 7)
    return [step * 10.0**decade for decade in range(-6, 1) for step in steps]


def to_dict(row: Row) -> dict[str, Any]:
    """A row as JSON takes it."""
    return asdict(row)


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _interval(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(values) - 1, 0.975))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def _spread(mean: float, std: float | None) -> str:
    text = f"{mean:.5f}".lstrip("0")
    return text if std is None else f"{text} +- {std:.5f}".replace("+- 0", "+- ")
