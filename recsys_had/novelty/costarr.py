"""Novelty by attenuated and unattenuated features: COSTARR, carried over to click models.

Letters: B rows, Z terms of the logit, K prototypes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_had.errors import DataError
from recsys_had.novelty.method import Fitting, Novelty, Seen, State

_PARTS = 10


class Costarr:
    """Similarity to what rows of this class and score were in training, times the confidence.

    ``novelty = 1 - norm(confidence) * (1 + cos(u, mu)) / 2`` with ``u = [z ; z * w]``: the terms z
    of the logit, its penultimate features, beside what their weights w leave of them. ``mu`` is
    the mean of u over the training rows of the row's class and tenth of the scores that the model
    was right about. A row's class is the side of the training's click rate it is scored on.
    ``confidence`` is the logit's distance from that of the click rate, and ``norm`` maps the
    smallest and the largest of the training rows to 0 and 1.

    The mean of ``z * w`` is that of z times w, so a prototype is a mean m of z alone, and
    ``cos(u, mu)`` is the cosine of z and m under the metric ``1 + w^2``. The cosine with a vector
    of zeros is taken for 0. A tenth without right rows of a class takes the nearest one that has
    them, the lower of two; a class without any takes all its rows for right.

    Paper: Rabinowitz et al. 2025, COSTARR (arXiv:2508.01087), for many classes.
    Differs from the paper: the logit of one class against the other; classes parted at the click
    rate, since few clicks are likelier than not; a prototype for each tenth of the scores.

    Args:
        edges: the nine logits that part the training rows in tenths.
        base: the logit of the click rate.
        low: the smallest confidence of a training row.
        high: the largest.
        means: ``(2, 10, Z)``, the mean z of each class and tenth.
        weights: ``(Z,)``, w.
    """

    needs_terms = True

    def __init__(
        self,
        *,
        edges: NDArray[np.float64],
        base: float,
        low: float,
        high: float,
        means: NDArray[np.float32],
        weights: Tensor,
    ) -> None:
        if means.shape != (2, _PARTS, len(weights)) or edges.shape != (_PARTS - 1,):
            raise ValueError(f"{means.shape} means and {edges.shape} edges of {len(weights)} terms")
        self._edges, self._base, self._low, self._high = edges, base, low, high
        self._means = means
        metric = 1 + weights.double() ** 2
        m = torch.from_numpy(means.astype(np.float64)).flatten(0, 1)
        norm = (m**2 @ metric).sqrt().unsqueeze(1)
        unit = torch.where(norm > 0, m * metric / norm, 0.0)
        self._metric = metric.float()
        self._units_ZK = unit.float().T.contiguous()

    @classmethod
    def fit(cls, fitting: Fitting) -> "Costarr":
        """Finds the prototypes, in two passes over the rows.

        Raises:
            DataError: there is no row, or none of one class.
        """
        label = fitting.label
        if label.all() or not label.any():
            raise DataError(
                f"{fitting.place}: costarr needs rows of both labels; got {len(label)} rows, "
                f"{int(label.sum())} of them clicks. Choose likelihood or unseen."
            )
        logit = np.concatenate([seen.logit for seen in fitting.passes(False)]).astype(np.float64)
        rate = label.mean()
        base = float(np.log(rate) - np.log1p(-rate))
        edges = np.quantile(logit, np.linspace(0, 1, _PARTS + 1)[1:-1])
        part = np.searchsorted(edges, logit, side="right")
        right = (logit >= base) == label
        for side in (False, True):
            if not (right & (label == side)).any():
                right |= label == side
        cell = np.where(right, label * _PARTS + part, 2 * _PARTS)
        weights = fitting.weights()
        sums, first = torch.zeros(2 * _PARTS + 1, len(weights), dtype=torch.float64), 0
        for seen in fitting.passes(True):
            z = torch.cat(list(seen.terms), dim=1).double()
            sums.index_add_(0, torch.from_numpy(cell[first : first + len(z)]), z)
            first += len(z)
        counts = np.bincount(cell, minlength=2 * _PARTS + 1)
        means = (sums / torch.from_numpy(np.maximum(counts, 1)).unsqueeze(1))[:-1].numpy()
        means = means.reshape(2, _PARTS, -1)[np.arange(2)[:, None], _nearest(counts)]
        confidence = np.abs(logit - base)
        return cls(
            edges=edges,
            base=base,
            low=float(confidence.min()),
            high=float(confidence.max()),
            means=means.astype(np.float32),
            weights=weights,
        )

    @classmethod
    def load(cls, state: Mapping[str, Any], weights: Callable[[], Tensor]) -> "Costarr":
        """The prototypes as they were found."""
        numbers = {name: float(state[name]) for name in ("base", "low", "high")}
        return cls(edges=state["edges"], means=state["means"], weights=weights(), **numbers)

    def state(self) -> State:
        """Prototypes, edges and the ends of the confidence; the weights are the model's."""
        numbers = {"base": self._base, "low": self._low, "high": self._high}
        return {"edges": self._edges, "means": self._means, **numbers}

    def __call__(self, seen: Seen) -> Novelty:
        """From 0, a row like others that the model is as sure of as it gets, to 1."""
        logit = seen.logit.astype(np.float64)
        part = np.searchsorted(self._edges, logit, side="right")
        cell = (logit >= self._base) * _PARTS + part
        cosine = self._cosine(seen.terms, torch.from_numpy(cell))
        confidence = np.abs(logit - self._base)
        if self._high > self._low:
            sure = np.clip((confidence - self._low) / (self._high - self._low), 0.0, 1.0)
        else:
            sure = np.ones_like(confidence)
        return np.asarray(1 - sure * (1 + cosine) / 2, np.float32)

    def _cosine(self, terms: Sequence[Tensor], cell: Tensor) -> NDArray[np.float64]:
        """Of each row with its prototype, ``(B,)``."""
        products: Tensor | float = 0.0
        squares: Tensor | float = 0.0
        first = 0
        for z in terms:
            last = first + z.shape[1]
            products = products + z @ self._units_ZK[first:last]
            squares = squares + (z * z) @ self._metric[first:last]
            first = last
        assert isinstance(products, Tensor) and isinstance(squares, Tensor)
        norm = squares.double().sqrt()
        along = products.gather(1, cell.unsqueeze(1)).squeeze(1).double()
        found = torch.where(norm > 0, along / norm, 0.0)
        return found.clamp(-1, 1).numpy()


def _nearest(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each class and tenth, the nearest tenth of the class that has rows."""
    parts = np.arange(_PARTS)
    found = []
    for own in counts[: 2 * _PARTS].reshape(2, _PARTS):
        there = parts[own > 0]
        found.append(there[np.abs(parts[:, None] - there).argmin(axis=1)])
    return np.stack(found)
