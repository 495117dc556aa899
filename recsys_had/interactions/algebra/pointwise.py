"""Activations, normalisations, dropout, learned constants: what keeps a shape.

Letters: B batch, T tokens, C channels.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys_had.interactions._batch_norm import DistributedBatchNorm
from recsys_had.interactions.algebra.expression import Degree, Expr, Flops, Op

Activation = Literal["relu", "relu6", "sigmoid", "tanh", "gelu", "silu", "exp", "identity"]
Norm = Literal["layer", "batch", "token_batch", "l2"]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu6": functional.relu6,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "exp": torch.exp,
}
# Operations a number: mean, centring, square, mean, scaling and the affine map of a layer norm;
# the affine map of a batch norm; square, sum and scaling of an l2 norm.
_NORM_FLOPS = {"layer": 7, "batch": 2, "token_batch": 2, "l2": 3}


def act(x: Expr, function: Activation) -> Expr:
    """A function of each number; no polynomial, but for ``identity``.

    >>> from recsys_had.interactions.algebra import source
    >>> print(act(source(3, 4), "relu").degree)
    None
    """
    if function == "identity":
        return x
    if function not in _ACTIVATIONS:
        known = ", ".join([*_ACTIVATIONS, "identity"])
        raise ValueError(f"activation must be one of {known}; got '{function}'.")
    return Expr(Act(function), (x,), x.shape, _not_polynomial(x), Flops(other=math.prod(x.shape)))


def log_abs(x: Expr, *, floor: float = 1e-5) -> Expr:
    """Natural logarithm of each number's size, ``ln max(|x|, floor)``; no polynomial.

    Below the floor nothing is learned; no gradient exceeds ``1 / floor``.

    Args:
        x: the numbers, of either sign.
        floor: the smallest size a logarithm is taken of.

    Raises:
        ValueError: ``floor`` is not positive.

    >>> from recsys_had.interactions.algebra import source
    >>> log_abs(source(3, 4)).shape
    (3, 4)
    """
    if floor <= 0:
        raise ValueError(f"log_abs: floor must be positive; got {floor}.")
    flops = Flops(other=3 * math.prod(x.shape))
    return Expr(_LogAbs(floor), (x,), x.shape, _not_polynomial(x), flops)


def softmax(x: Expr, on: Literal["T", "C"]) -> Expr:
    """Positive weights that sum to 1 over tokens or channels; no polynomial.

    >>> from recsys_had.interactions.algebra import source
    >>> softmax(source(3, 1), "T").shape
    (3, 1)
    """
    if on not in ("T", "C"):
        raise ValueError(f"softmax: must be over T or C; got {on}.")
    flops = Flops(other=5 * math.prod(x.shape))
    return Expr(_Softmax(1 if on == "T" else 2), (x,), x.shape, _not_polynomial(x), flops)


def norm(x: Expr, kind: Norm = "layer") -> Expr:
    """Normalises; no polynomial.

    ``layer``: each token over its channels, then a learned affine map of the channels; of a
    single channel nothing but that map's bias is left.
    ``batch``: each number over the rows of all ranks, then an affine map of its own.
    ``token_batch``: each token over the rows of all ranks and its channels, which share moments
    and affine map. ``l2``: each token to length 1.

    >>> from recsys_had.interactions.algebra import source
    >>> norm(source(3, 4)).shape
    (3, 4)
    """
    ops: dict[str, Callable[[], Op]] = {
        "layer": lambda: LayerNorm(x.num_channels),
        "batch": lambda: BatchNorm(math.prod(x.shape)),
        "token_batch": lambda: TokenBatchNorm(x.num_tokens),
        "l2": _L2Norm,
    }
    if kind not in ops:
        raise ValueError(f"norm must be one of {', '.join(ops)}; got '{kind}'.")
    flops = Flops(other=_NORM_FLOPS[kind] * math.prod(x.shape))
    return Expr(ops[kind](), (x,), x.shape, _not_polynomial(x), flops)


def dropout(x: Expr, share: float) -> Expr:
    """Zeroes a share of the numbers in training and scales up the others.

    >>> from recsys_had.interactions.algebra import source
    >>> x = source(3, 4)
    >>> dropout(x, 0.0) is x
    True
    """
    if not 0 <= share < 1:
        raise ValueError(f"dropout must be at least 0 and below 1; got {share}.")
    return Expr(_Dropout(share), (x,), x.shape, x.degree, view=True) if share else x


def constant(num_tokens: int, num_channels: int, *, std: float = 0.0, mean: float = 0.0) -> Expr:
    """Learned numbers that are the same for every row; degree 0.

    Args:
        num_tokens: T.
        num_channels: C.
        std: standard deviation of the initial values.
        mean: their mean.

    Raises:
        ValueError: a size below 1, or a deviation below 0.

    >>> constant(3, 4).degree
    0
    """
    if min(num_tokens, num_channels) < 1 or std < 0:
        raise ValueError(
            "constant: must be of one token and channel or more, and of no negative deviation; got "
            f"({num_tokens}, {num_channels}), std {std}."
        )
    op = Constant(torch.randn(num_tokens, num_channels) * std + mean)
    return Expr(op, (), (num_tokens, num_channels), 0)


def stop_gradient(x: Expr) -> Expr:
    """The same values, through which nothing is learned.

    >>> from recsys_had.interactions.algebra import source
    >>> stop_gradient(source(3, 4)).degree
    1
    """
    return Expr(_StopGradient(), (x,), x.shape, x.degree, view=True)


def _not_polynomial(x: Expr) -> Degree:
    return 0 if x.degree == 0 else None


class Act(Op):
    """A function of each number."""

    tokenwise = True

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Applies it."""
        return _ACTIVATIONS[self.function](x)


class _LogAbs(Op):
    tokenwise = True

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, x: Tensor) -> Tensor:
        return x.abs().clamp(min=self.floor).log()


class _Softmax(Op):
    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x, self.axis)


class LayerNorm(Op):
    """Normalises each token over its channels."""

    tokenwise = True

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises."""
        return functional.layer_norm(x, x.shape[2:], self.weight, self.bias)


class BatchNorm(Op):
    """Normalises each number over the rows."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.norm = DistributedBatchNorm(num_features)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises."""
        out: Tensor = self.norm(x.flatten(1))
        return out.view(x.shape)


class TokenBatchNorm(Op):
    """Normalises each token over the rows and its channels."""

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.norm = DistributedBatchNorm(num_tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises."""
        out: Tensor = self.norm(x)
        return out


class _L2Norm(Op):
    tokenwise = True

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=2)


class _Dropout(Op):
    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.share, self.training)


class Constant(Op):
    """Learned numbers."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(value)

    def forward(self) -> Tensor:
        """Gives them, for a batch of one that stands for all."""
        return self.weight.unsqueeze(0)


class _StopGradient(Op):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()
