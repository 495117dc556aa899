"""Explanations: which fields and pairs of fields moved a score, of a row and over many rows."""

from recsys_had.explanation.baseline import Baseline, mean_of_rows, mean_of_vocabularies, unseen
from recsys_had.explanation.effects import Effects, Explainer
from recsys_had.explanation.of_run import MakeExplanation, explainer_of_run, look_at_split
from recsys_had.explanation.row_columns import ExplanationColumn
from recsys_had.explanation.strength import Strength, strength_of

__all__ = [
    "Baseline",
    "Effects",
    "Explainer",
    "ExplanationColumn",
    "MakeExplanation",
    "Strength",
    "explainer_of_run",
    "look_at_split",
    "mean_of_rows",
    "mean_of_vocabularies",
    "strength_of",
    "unseen",
]
