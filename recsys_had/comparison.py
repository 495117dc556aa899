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

# 97.5 % points of Student's t for 1, 2, ... degrees of freedom; the normal's beyond.
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


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
    """Draws each model's mean AUC with its 95 % interval, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 1.2 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        axes.errorbar(
            row.auc_mean, place, xerr=row.auc_interval, fmt="o", color="#1f5fa8", capsize=3
        )
    axes.set_yticks(range(len(rows)), [row.experiment for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="x", color="#e3e6ea")
    axes.set(title=title, xlabel="validation AUC: mean over seeds, 95 % interval of the mean")
    figure.savefig(path, dpi=150, metadata={"Software": None})


def to_dict(row: Row) -> dict[str, Any]:
    """A row as JSON takes it."""
    return asdict(row)


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _interval(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    freedom = len(values) - 1
    quantile = _T_975[freedom - 1] if freedom <= len(_T_975) else 1.96
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def _spread(mean: float, std: float | None) -> str:
    text = f"{mean:.5f}".lstrip("0")
    return text if std is None else f"{text} +- {std:.5f}".replace("+- 0", "+- ")
