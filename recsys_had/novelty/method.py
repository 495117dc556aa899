"""What a method of novelty is, and what it sees of rows.

Letters: B rows, Z terms of the logit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys_had.batch import EncodedRows

Novelty = NDArray[np.float32]
# What a method knows, by name: arrays, or what JSON holds.
State = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """What methods see of some rows.

    Args:
        rows: the encoded rows.
        logit: ``(B,)`` float32, the model's own, before any calibration.
        terms: tensors of B rows whose columns, beside each other, are the Z terms of the logit;
            none where nobody asked for them.
    """

    rows: EncodedRows
    logit: NDArray[np.float32]
    terms: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Fitting:
    """Training rows to fit a method on.

    Args:
        rows: the encoded rows, with labels.
        passes: goes through the rows in order with the model, as often as it is called; the
            argument tells whether terms are wanted.
        weights: of the terms, ``(Z,)``.
        place: the data's name in an error.
    """

    rows: EncodedRows
    passes: Callable[[bool], Iterator[Seen]]
    weights: Callable[[], Tensor]
    place: str = "training rows"

    @property
    def label(self) -> NDArray[np.bool_]:
        """Whether each row is a click, ``(B,)``."""
        assert self.rows.label is not None, "training rows have labels"
        return self.rows.label > 0.5


class Method(Protocol):
    """Gives rows their novelty."""

    needs_terms: bool

    @classmethod
    def fit(cls, fitting: Fitting) -> "Method":
        """Learns from training rows."""

    @classmethod
    def load(cls, state: Mapping[str, Any], weights: Callable[[], Tensor]) -> "Method":
        """What :meth:`state` told, back; raises ValueError where it cannot be that."""

    def state(self) -> State:
        """What it knows, as arrays and plain numbers."""

    def __call__(self, seen: Seen) -> Novelty:
        """The novelty of each row, ``(B,)`` float32; higher is more novel."""


class WithoutState:
    """What methods share that learn nothing."""

    needs_terms = False

    @classmethod
    def fit(cls, fitting: Fitting) -> Self:
        """Learns nothing."""
        return cls()

    @classmethod
    def load(cls, state: Mapping[str, Any], weights: Callable[[], Tensor]) -> Self:
        """There is nothing to load."""
        return cls()

    def state(self) -> State:
        """Nothing."""
        return {}
