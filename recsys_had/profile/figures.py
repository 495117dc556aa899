"""Profile: everything that the page of a data folder shows."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from recsys_had.data.folder import DataFolder
from recsys_had.profile.fields import FieldFigures, field_figures
from recsys_had.profile.findings import findings
from recsys_had.profile.leakage import Auc, Suspect, Trial, suspects
from recsys_had.profile.numbers import NumberFigures, number_figures
from recsys_had.profile.order import Stretch, row_order, split_rates
from recsys_had.profile.rates import Rate
from recsys_had.profile.vectors import (
    VectorFigures,
    WeightFigures,
    vector_figures,
    weight_figures,
)


@dataclass(frozen=True)
class Profile:
    """Figures of a data folder.

    Args:
        dataset: the card's name.
        description: the card's.
        splits: rows and clicks of each split that has rows.
        order: the same along the row order.
        fields: the categorical fields, in the card's order.
        numbers: the numeric columns.
        vectors: the content vectors.
        weights: by split; empty where rows have none.
        trial: which rows AUCs were measured on.
        suspects: columns that tell the label too well.
        findings: what to look at first, in sentences.
    """

    dataset: str
    description: str
    splits: dict[str, Rate]
    order: list[Stretch]
    fields: list[FieldFigures]
    numbers: list[NumberFigures]
    vectors: list[VectorFigures]
    weights: dict[str, WeightFigures]
    trial: Trial
    suspects: list[Suspect]
    findings: list[str]

    @property
    def ranking(self) -> list[tuple[str, Auc]]:
        """Columns and what each tells of the label, the best first."""
        return _ranking(self.fields, self.numbers)

    def as_json(self) -> dict[str, Any]:
        """What JSON holds of it."""
        return asdict(self)


def profile(data: DataFolder, *, on_column: Callable[[str], None] = lambda name: None) -> Profile:
    """Reads an encoded data folder column by column.

    Memory does not grow with the rows: it is that of one field's counts, 24 bytes an id, and of
    the scores of 4.2 million rows at most.

    Args:
        data: the folder.
        on_column: told each column's name when it is done.

    Raises:
        DataError: the folder cannot be read, or does not hold what its manifest says.
    """
    splits = split_rates(data)
    names = list(splits)
    train = splits.get("train")
    mean = train.click_rate if train is not None and train.click_rate is not None else 0.0
    trial = Trial.choose(splits)
    fields, numbers, vectors = [], [], []
    for known in data.card.fields:
        fields.append(field_figures(data, known, splits=names, trial=trial, mean=mean))
        on_column(known.name)
    for name in data.card.dense:
        numbers.append(number_figures(data, name, splits=names, trial=trial, mean=mean))
        on_column(name)
    for name in data.card.vectors:
        vectors.append(vector_figures(data, name, splits=names))
        on_column(name)
    found = suspects(_ranking(fields, numbers))
    return Profile(
        dataset=data.card.name,
        description=data.card.description,
        splits=splits,
        order=row_order(data),
        fields=fields,
        numbers=numbers,
        vectors=vectors,
        weights=(
            {split: weight_figures(data, split) for split in names} if data.card.weight else {}
        ),
        trial=trial,
        suspects=found,
        findings=findings(splits, fields, numbers, found),
    )


def _ranking(fields: list[FieldFigures], numbers: list[NumberFigures]) -> list[tuple[str, Auc]]:
    known = [(field.name, field.auc) for field in fields]
    known += [(column.name, column.auc) for column in numbers]
    measured = [(name, auc) for name, auc in known if auc is not None]
    return sorted(measured, key=lambda pair: -pair[1].auc)
