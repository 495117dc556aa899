"""Effects of the fields and pairs of fields of a row on its logit.

Letters: B rows, M masks, F fields, P pairs = F(F-1)/2.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_had.batch import EncodedRows
from recsys_had.errors import ConfigError
from recsys_had.explanation.baseline import Baseline
from recsys_had.explanation.differences import difference_effects
from recsys_had.explanation.parts import RowParts, Sources
from recsys_had.explanation.quadratic import quadratic_effects
from recsys_had.model.ctr import CTRModel

# Rows explained together. It is fixed, so that what is asked of others changes no number.
_ROWS = 256
# What is less than this share of the logit is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Effects:
    """What moved the logits of some rows away from that of the baseline.

    Args:
        baseline: the baseline's logit.
        single: ``(B, F)`` float64, what each field moves alone.
        pair: ``(B, P)`` float64, what two fields move together beyond that, in the order of the
            upper triangle; 0 where a pair was not looked at.
        logit: ``(B,)`` float64, the rows' logits.
    """

    baseline: float
    single: NDArray[np.float64]
    pair: NDArray[np.float64]
    logit: NDArray[np.float64]

    def rest(self) -> NDArray[np.float64]:
        """What is left of each row's move, ``(B,)``."""
        told: NDArray[np.float64] = self.single.sum(axis=1) + self.pair.sum(axis=1)
        return self.logit - self.baseline - told

    def without_rounding(self) -> "Effects":
        """The same with 0 in place of effects that are none but for rounding."""
        size = _ROUNDING * np.maximum(1.0, np.abs(self.logit))[:, None]
        single, pair = (np.where(np.abs(x) < size, 0.0, x) for x in (self.single, self.pair))
        return Effects(self.baseline, single, pair, self.logit)


class Explainer:
    """Tells what each field and pair of fields adds to a model's logit, compared with a baseline.

    The effect of a field is ``f(x_i; b) - f(b)``: what it moves where all others are the
    baseline's.
    The effect of a pair is the Shapley-Taylor index of order 2: its second difference
    ``f(x_ij; .) - f(x_i; .) - f(x_j; .) + f(.)`` averaged over what else has been put in place
    before the two, so that what takes three fields or more is shared by its pairs and all effects
    sum to ``f(x) - f(b)``.

    Of a polynomial of degree 2 the second difference is the same wherever it is taken, and the
    effects are exact. Elsewhere it is taken at the baseline and at the row, with weights 2/3 and
    1/3, which is exact up to degree 3; what is missing beyond is :meth:`Effects.rest`. Computed in
    float64, a fixed number of rows at a time.

    Paper: Sundararajan, Dhamdhere and Agarwal 2020, The Shapley Taylor Interaction Index, eq. 4
    (arXiv:1902.05622).
    Differs from the paper: two contexts in place of all, exact up to degree 3; a field that is out
    is the baseline's.

    Args:
        model: in evaluation mode.
        baseline: what a row is compared with.
        compared: of a model that is not of degree 2, so many fields of a row form pairs: those
            that move its logit most, put into the baseline or taken out of the row; all if None.

    Raises:
        ConfigError: the model has a single field, so nothing can be told apart.
    """

    def __init__(self, model: CTRModel, baseline: Baseline, *, compared: int | None = None) -> None:
        self.parts = RowParts.of(model)
        if self.parts.num_fields < 2:
            raise ConfigError(
                f"explanations: the model reads one field alone, {self.parts.names[0]}, which "
                "moves every score by itself. There is nothing to tell apart."
            )
        self.is_exact = model.graph.degree is not None and model.graph.degree <= 2
        self.baseline = baseline
        self.compared = compared
        self._model = model
        self._graph = copy.deepcopy(model.graph).double().eval()
        # Differences are small: they are taken of the graph as it stands, however others score.
        self._graph.score_with(compiled_rows=None, half=False)
        self._base = {name: x.double() for name, x in baseline.sources.items()}
        left, right = np.triu_indices(self.parts.num_fields, k=1)
        names = self.parts.names
        self.pair_names = [(names[i], names[j]) for i, j in zip(left, right, strict=True)]

    def of_rows(self, rows: EncodedRows) -> Effects:
        """The effects in encoded rows."""

        def some() -> Iterator[Sources]:
            for first in range(0, len(rows), _ROWS):
                index = np.arange(first, min(first + _ROWS, len(rows)))
                with torch.no_grad():
                    sources = self._model.sources(rows.take(index).to_batch())
                yield sources

        return self._joined(some())

    def of_sources(self, sources: Sources) -> Effects:
        """The effects in rows that have been looked up: what the model's graph reads."""

        def some() -> Iterator[Sources]:
            count = len(next(iter(sources.values())))
            for first in range(0, count, _ROWS):
                yield {name: x[first : first + _ROWS] for name, x in sources.items()}

        return self._joined(some())

    def _joined(self, pieces: Iterator[Sources]) -> Effects:
        found = [self._of_some(piece) for piece in pieces]
        num_fields = self.parts.num_fields
        empty = [np.empty((0, num_fields)), np.empty((0, len(self.pair_names))), np.empty(0)]
        single, pair, logit = (
            np.concatenate([empty[column], *(numbers[column] for numbers in found)])
            for column in range(3)
        )
        with torch.no_grad():
            baseline = float(self._logit(self._base))
        return Effects(baseline, single, pair, logit).without_rounding()

    def _of_some(self, sources: Sources) -> list[NDArray[np.float64]]:
        row = {name: sources[name].double() for name in self.parts.places}
        if self.is_exact:
            found: tuple[Tensor, ...] = quadratic_effects(self._logit, row, self._base, self.parts)
        else:
            found = difference_effects(
                self._logit, row, self._base, self.parts, compared=self.compared
            )
        return [numbers.numpy() for numbers in found]

    def _logit(self, sources: Sources) -> Tensor:
        # What the graph does not read is there all the same, and of no account.
        logit: Tensor = self._graph({**self._base, **sources})
        return logit
