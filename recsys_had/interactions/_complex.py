"""Complex numbers as pairs of real ones.

Letters: B batch, T tokens, C channels.
"""

import math

import torch
from torch import Tensor

from recsys_had.interactions.algebra import Expr, Flops
from recsys_had.interactions.algebra.expression import Op

# Below this squared size a number counts as zero, so that no gradient exceeds its inverse root.
_FLOOR = 1e-8


def rectangular(radius: Expr, angle: Expr) -> tuple[Expr, Expr]:
    """Real and imaginary part of ``radius * e^(i angle)``."""
    return radius * _of_each(_Cosine(), angle), radius * _of_each(_Sine(), angle)


def log_size(real: Expr, imaginary: Expr) -> Expr:
    """``ln sqrt(real^2 + imaginary^2 + 1e-8)``."""
    # Two squares, two sums, a logarithm, a halving.
    return _of_both(_LogSize(), real, imaginary, 6)


def angle_of(real: Expr, imaginary: Expr) -> Expr:
    """The angle, from -pi to pi; of next to nothing, what leaves a finite gradient."""
    return _of_both(_Angle(), real, imaginary, 1)


def _of_each(op: Op, x: Expr) -> Expr:
    return Expr(op, (x,), x.shape, None, Flops(other=math.prod(x.shape)))


def _of_both(op: Op, real: Expr, imaginary: Expr, operations: int) -> Expr:
    assert real.shape == imaginary.shape
    flops = Flops(other=operations * math.prod(real.shape))
    return Expr(op, (real, imaginary), real.shape, None, flops)


class _Cosine(Op):
    tokenwise = True

    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(x)


class _Sine(Op):
    tokenwise = True

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


class _LogSize(Op):
    tokenwise = True

    def forward(self, real: Tensor, imaginary: Tensor) -> Tensor:
        return 0.5 * torch.log(real.square() + imaginary.square() + _FLOOR)


class _Angle(Op):
    tokenwise = True

    def forward(self, real: Tensor, imaginary: Tensor) -> Tensor:
        # The gradient of atan2 is one over the size of the number.
        tiny = real.square() + imaginary.square() < _FLOOR
        return torch.atan2(imaginary, torch.where(tiny, math.sqrt(_FLOOR), real))
