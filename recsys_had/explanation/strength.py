"""How strong the fields and pairs of a model are over many rows.

Letters: B rows, F fields, P pairs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_had.explanation.effects import Effects, Explainer


@dataclass(frozen=True)
class Strength:
    """The mean of the absolute effect over rows, with its standard error.

    Args:
        fields: one field, or two.
        mean: mean absolute effect on the logit.
        standard_error: of the mean, by the deviation over the rows; None of one row.
    """

    fields: tuple[str, ...]
    mean: float
    standard_error: float | None


def strength_of(explainer: Explainer, effects: Effects) -> tuple[list[Strength], list[Strength]]:
    """Strengths of the fields, and of the pairs, the strongest first.

    Args:
        explainer: what found the effects.
        effects: those of one row or more.
    """
    singles = [(name,) for name in explainer.parts.names]
    return _sorted(singles, effects.single), _sorted(explainer.pair_names, effects.pair)


def _sorted(
    names: list[tuple[str, ...]] | list[tuple[str]] | list[tuple[str, str]],
    effects: NDArray[np.float64],
) -> list[Strength]:
    size = np.abs(effects)
    means = size.mean(axis=0)
    errors = size.std(axis=0, ddof=1) / np.sqrt(len(size)) if len(size) > 1 else None
    return [
        Strength(names[n], float(means[n]), None if errors is None else float(errors[n]))
        for n in np.argsort(-means, kind="stable").tolist()
    ]
