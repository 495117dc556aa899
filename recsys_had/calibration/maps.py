"""The maps a calibrator is made of: logits in, probabilities out, both float64.

Each row is mapped for itself, by the same operations wherever it stands, so a row's score has
nothing to do with the rows around it. They are plain numbers, and saved as such.
"""

from typing import Annotated, Literal, Self

import numpy as np
import pydantic
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Positive = Annotated[float, pydantic.Field(gt=0)]
NotNegative = Annotated[float, pydantic.Field(ge=0)]
Probability = Annotated[float, pydantic.Field(ge=0, le=1)]


def sigmoid(logits: Floats) -> Floats:
    """``1 / (1 + exp(-logit))``, without overflow.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def log_sigmoid(logits: Floats) -> Floats:
    """The logarithm of :func:`sigmoid`, without underflow.

    >>> log_sigmoid(np.array([-1000.0, 1000.0])).tolist()
    [-1000.0, 0.0]
    """
    return np.minimum(logits, 0.0) - np.log1p(np.exp(-np.abs(logits)))


class Part(pydantic.BaseModel):
    """A part of a calibrator: unknown keys and numbers that are none are refused."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False
    )


class PlattMap(Part):
    """``p = sigmoid(slope * logit + intercept)``; strictly rising.

    Shape: ``(B,) -> (B,)``.
    Paper: Platt 1999, Probabilistic outputs for support vector machines, eq. 2.
    Differs from the paper: the slope's sign.

    >>> PlattMap(slope=2.0, intercept=-1.0)(np.array([0.5])).tolist()
    [0.5]
    """

    method: Literal["platt"] = "platt"
    slope: Positive
    intercept: float

    def __call__(self, logits: Floats) -> Floats:
        """Probabilities of logits."""
        return sigmoid(self.slope * logits + self.intercept)


class TemperatureMap(Part):
    """``p = sigmoid(logit / temperature)``; strictly rising, and 0.5 stays 0.5.

    Shape: ``(B,) -> (B,)``.
    Paper: Guo et al. 2017, On calibration of modern neural networks, eq. 9 (arXiv:1706.04599).
    Differs from the paper: two classes.

    >>> TemperatureMap(temperature=2.0)(np.array([0.0, 1e9])).tolist()
    [0.5, 1.0]
    """

    method: Literal["temperature"] = "temperature"
    temperature: Positive

    def __call__(self, logits: Floats) -> Floats:
        """Probabilities of logits."""
        return sigmoid(logits / self.temperature)


class BetaMap(Part):
    """``p = sigmoid(a * log(q) - b * log(1 - q) + c)`` with ``q = sigmoid(logit)``.

    Strictly rising where one of ``a`` and ``b``, neither of which is negative, is not 0.

    Shape: ``(B,) -> (B,)``.
    Paper: Kull et al. 2017, Beta calibration, eq. 4.
    Differs from the paper: nothing.

    >>> BetaMap(a=1.0, b=1.0, c=0.0)(np.array([0.0])).tolist()
    [0.5]
    """

    method: Literal["beta"] = "beta"
    a: NotNegative
    b: NotNegative
    c: float

    @pydantic.model_validator(mode="after")
    def _rises(self) -> Self:
        if self.a == 0 and self.b == 0:
            raise ValueError("a and b must not both be 0.")
        return self

    def __call__(self, logits: Floats) -> Floats:
        """Probabilities of logits."""
        return sigmoid(self.a * log_sigmoid(logits) - self.b * log_sigmoid(-logits) + self.c)


class IsotonicMap(Part):
    """Straight lines between knots; before the first and after the last, those' probabilities.

    Never falling, but level between knots of one probability: rows there become ties, so the AUC
    may change.

    Shape: ``(B,) -> (B,)``.
    Paper: Zadrozny and Elkan 2002, Transforming classifier scores into accurate multiclass
    probability estimates, sec. 4.
    Differs from the paper: lines in place of steps.

    >>> IsotonicMap(knots=(0.0, 2.0), probabilities=(0.25, 0.75))(np.array([-9.0, 1, 9])).tolist()
    [0.25, 0.5, 0.75]
    """

    method: Literal["isotonic"] = "isotonic"
    knots: Annotated[tuple[float, ...], pydantic.Field(min_length=1, strict=False)]
    probabilities: Annotated[tuple[Probability, ...], pydantic.Field(strict=False)]

    @pydantic.model_validator(mode="after")
    def _rises(self) -> Self:
        if len(self.knots) != len(self.probabilities):
            raise ValueError(
                f"there must be a probability a knot; got {len(self.probabilities)} for "
                f"{len(self.knots)}."
            )
        if not (np.diff(self.knots) > 0).all():
            raise ValueError("knots must rise.")
        if not (np.diff(self.probabilities) >= 0).all():
            raise ValueError("probabilities must not fall.")
        return self

    def __call__(self, logits: Floats) -> Floats:
        """Probabilities of logits."""
        return np.interp(logits, self.knots, self.probabilities)


class CenteredIsotonicMap(Part):
    """``p = sigmoid(f(logit))``, ``f`` of straight lines between knots, and of slope 1 outside.

    Strictly rising: what isotonic regression makes level is one knot, in the middle of its rows,
    so it bends where isotonic regression does and keeps the order of all rows.

    Shape: ``(B,) -> (B,)``.
    Paper: Oron and Flournoy 2017, Centered isotonic regression, sec. 3 (arXiv:1701.05964).
    Differs from the paper: lines between logits in place of probabilities, and outside the knots
    no level but slope 1, so that nothing becomes a tie.

    >>> centered = CenteredIsotonicMap(knots=(0.0, 2.0), logits=(-1.0, 1.0))
    >>> centered(np.array([1.0, 3.0])).tolist() == sigmoid(np.array([0.0, 2.0])).tolist()
    True
    """

    method: Literal["centered_isotonic"] = "centered_isotonic"
    knots: Annotated[tuple[float, ...], pydantic.Field(min_length=1, strict=False)]
    logits: Annotated[tuple[float, ...], pydantic.Field(strict=False)]

    @pydantic.model_validator(mode="after")
    def _rises(self) -> Self:
        if len(self.knots) != len(self.logits):
            raise ValueError(
                f"there must be a logit a knot; got {len(self.logits)} for {len(self.knots)}."
            )
        if not ((np.diff(self.knots) > 0).all() and (np.diff(self.logits) > 0).all()):
            raise ValueError("knots and logits must rise.")
        return self

    def __call__(self, logits: Floats) -> Floats:
        """Probabilities of logits."""
        within = np.clip(logits, self.knots[0], self.knots[-1])
        return sigmoid(np.interp(within, self.knots, self.logits) + (logits - within))


Map = Annotated[
    PlattMap | TemperatureMap | BetaMap | IsotonicMap | CenteredIsotonicMap,
    pydantic.Field(discriminator="method"),
]
