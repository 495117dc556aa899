"""The column ``explanation``: of each row the fields and pairs that moved its score most."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from torch import Tensor

from recsys_had.batch import EncodedRows
from recsys_had.errors import ConfigError
from recsys_had.explanation.effects import Explainer
from recsys_had.scoring.predictor import Logits

_TYPE = pa.list_(pa.struct([("fields", pa.list_(pa.string())), ("effect", pa.float32())]))


class ExplanationColumn:
    """Lists, for each row, the fields and pairs of the largest effects, the largest first.

    ``explanation: list<struct<fields: list<string>, effect: float>>``; one field or two, and by
    how much they move the logit, up or down. What moves nothing is not listed, so a list may be
    shorter.

    Args:
        explainer: what finds the effects.
        top: how many a row.

    Raises:
        ConfigError: ``top`` is below 1.
    """

    names = ("explanation",)

    def __init__(self, explainer: Explainer, *, top: int) -> None:
        if top < 1:
            raise ConfigError(f"--explain: must be 1 or more; got {top}.")
        self._explainer = explainer
        self._top = top
        singles = [[name] for name in explainer.parts.names]
        self._fields = [*singles, *map(list, explainer.pair_names)]

    @property
    def made_with(self) -> list[object]:
        """What else decides the column: a scoring is not resumed with another."""
        kind, compared = self._explainer.baseline.kind, self._explainer.compared
        return ["explanation", self._top, kind, compared]

    def watch(self, rows: EncodedRows) -> "ExplanationOfRows":
        """Begins with some rows."""
        return ExplanationOfRows(self, rows)

    def of(self, rows: EncodedRows) -> pa.Array:
        """The column of some rows."""
        effects = self._explainer.of_rows(rows)
        every = np.concatenate([effects.single, effects.pair], axis=1).astype(np.float32)
        order = np.argsort(-np.abs(every), axis=1, kind="stable")[:, : self._top]
        chosen = np.take_along_axis(every, order, axis=1)
        lists = [
            [
                {"fields": self._fields[place], "effect": effect}
                for place, effect in zip(places, found, strict=True)
                if effect != 0
            ]
            for places, found in zip(order.tolist(), chosen.tolist(), strict=True)
        ]
        return pa.array(lists, type=_TYPE)


class ExplanationOfRows:
    """The explanation of rows, which needs nothing of how they are scored.

    Args:
        column: what explains them.
        rows: the rows.
    """

    needs_terms = False

    def __init__(self, column: ExplanationColumn, rows: EncodedRows) -> None:
        self._column = column
        self._rows = rows

    def __call__(self, rows: EncodedRows, logit: Logits, terms: Sequence[Tensor]) -> None:
        """Looks away: a batch's effects are found with all of the rows."""

    def columns(self) -> dict[str, pa.Array]:
        """The column."""
        return {"explanation": self._column.of(self._rows)}
