"""Pooling, joining and cutting: what changes a shape.

Letters: B batch, T tokens, C channels.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from recsys_had.interactions.algebra.expression import Expr, Flops, Op, highest_degree
from recsys_had.interactions.algebra.pairs import Outer, inner

Axis = Literal["T", "C"]
_AXES = {"T": 1, "C": 2}
_POOLS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "sum": lambda x, axis: x.sum(axis, keepdim=True),
    "mean": lambda x, axis: x.mean(axis, keepdim=True),
    "max": lambda x, axis: x.amax(axis, keepdim=True),
}


def pool(x: Expr, on: Axis, how: Literal["sum", "mean", "max"] = "sum") -> Expr:
    """Sum, mean or maximum over tokens or channels; a maximum is no polynomial.

    >>> from recsys_had.interactions.algebra import source
    >>> pool(source(3, 4), "T").shape, pool(source(3, 4), "C").shape
    ((1, 4), (3, 1))
    """
    if how not in _POOLS or on not in _AXES:
        raise ValueError(f"pool: must be sum, mean or max over T or C; got {how} over {on}.")
    tokens, channels = x.shape
    shape = (1, channels) if on == "T" else (tokens, 1)
    adds = math.prod(x.shape) - math.prod(shape)
    flops = Flops(other=adds + (math.prod(shape) if how == "mean" else 0))
    degree = None if how == "max" and x.degree != 0 else x.degree
    shortcut = inner(x) if isinstance(x.op, Outer) and on == "C" and how == "sum" else None
    return Expr(Pool(on, how), (x,), shape, degree, flops, shortcut=shortcut)


def cat(*parts: Expr, on: Axis = "T") -> Expr:
    """Puts expressions beside each other, over tokens or channels.

    >>> from recsys_had.interactions.algebra import source
    >>> cat(source(3, 4), source(2, 4)).shape
    (5, 4)
    """
    if not parts or on not in _AXES:
        raise ValueError(f"cat: there must be a part, over T or C; got {len(parts)} over {on}.")
    if len(parts) == 1:
        return parts[0]
    other = 1 if on == "T" else 0
    if len({part.shape[other] for part in parts}) != 1:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise ValueError(f"cat: the shapes may differ over {on} alone; got {shapes}.")
    length = sum(part.shape[1 - other] for part in parts)
    shape = (length, parts[0].num_channels) if on == "T" else (parts[0].num_tokens, length)
    return Expr(Cat(on), parts, shape, highest_degree(*parts))


def chunk(x: Expr, parts: int, on: Axis = "C") -> tuple[Expr, ...]:
    """Cuts into equal parts, over tokens or channels.

    >>> from recsys_had.interactions.algebra import source
    >>> [part.shape for part in chunk(source(3, 4), 2)]
    [(3, 2), (3, 2)]
    """
    if on not in _AXES:
        raise ValueError(f"chunk: must be over T or C; got {on}.")
    length = x.shape[_AXES[on] - 1]
    if parts < 1 or length % parts:
        raise ValueError(f"chunk: {length} over {on} cannot be cut into {parts} equal parts.")
    width = length // parts
    shape = (width, x.num_channels) if on == "T" else (x.num_tokens, width)
    return tuple(
        Expr(_Narrow(on, number * width, width), (x,), shape, x.degree, view=True)
        for number in range(parts)
    )


def flatten(x: Expr) -> Expr:
    """All channels of all tokens as one wide token: ``(T, C) -> (1, T*C)``.

    >>> from recsys_had.interactions.algebra import source
    >>> flatten(source(3, 4)).shape
    (1, 12)
    """
    return x if x.num_tokens == 1 else reshape(x, 1)


def reshape(x: Expr, num_tokens: int) -> Expr:
    """The same numbers, in order, as another number of tokens.

    >>> from recsys_had.interactions.algebra import source
    >>> reshape(source(1, 12), 3).shape
    (3, 4)
    """
    size = math.prod(x.shape)
    if num_tokens < 1 or size % num_tokens:
        raise ValueError(f"reshape: {x.shape} cannot be cut into {num_tokens} equal tokens.")
    shape = (num_tokens, size // num_tokens)
    return Expr(Reshape(shape), (x,), shape, x.degree, view=True)


class Pool(Op):
    """Reduces one axis to length 1."""

    def __init__(self, on: Axis, how: str) -> None:
        super().__init__()
        self.on, self.how = on, how
        self.tokenwise = on == "C"

    def forward(self, x: Tensor) -> Tensor:
        """Reduces."""
        return _POOLS[self.how](x, _AXES[self.on])


class Cat(Op):
    """Puts tensors beside each other."""

    def __init__(self, on: Axis) -> None:
        super().__init__()
        self.on = on

    def forward(self, *parts: Tensor) -> Tensor:
        """Joins."""
        # A learned constant is a batch of one that stands for all rows.
        rows = next((part.shape[0] for part in parts if part.shape[0] != 1), 1)
        return torch.cat([part.expand(rows, -1, -1) for part in parts], dim=_AXES[self.on])


class Reshape(Op):
    """Cuts the same numbers into other tokens."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Reshapes."""
        return x.reshape(-1, *self.shape)


class _Narrow(Op):
    def __init__(self, on: Axis, first: int, length: int) -> None:
        super().__init__()
        self.on, self.first, self.length = on, first, length

    def forward(self, x: Tensor) -> Tensor:
        return x.narrow(_AXES[self.on], self.first, self.length)
