"""Pairs of tokens.

Letters: B batch, T tokens, C channels, P pairs.
"""

import math
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from recsys_had.interactions.algebra.choice import take
from recsys_had.interactions.algebra.expression import Expr, Flops, Op, sum_of_degrees

# Pairs (i, j) of one list of tokens, i < j, counted from 0.
Pairs = tuple[tuple[int, int], ...]


def outer(first: Expr, second: Expr, keep: Literal["all", "upper"] | Pairs = "all") -> Expr:
    """Hadamard products of pairs of tokens: ``(I, C), (J, C) -> (P, C)``; degrees add.

    Args:
        first: gives the left tokens.
        second: gives the right tokens.
        keep: ``all`` I*J pairs, or ``upper``: those whose left token stands before the right one
            in the same list, row by row; or some of those, by their places. ``first`` may lack
            the last token, never a left one.

    Raises:
        ValueError: the widths differ, ``upper`` pairs of lists that are not one list, or places
            that are no pair's.

    >>> from recsys_had.interactions.algebra import source
    >>> outer(source(4, 2), source(4, 2), "upper").shape
    (6, 2)
    """
    rows, columns = first.num_tokens, second.num_tokens
    if first.num_channels != second.num_channels:
        raise ValueError(
            f"outer: must be of the same width; got {first.num_channels} and "
            f"{second.num_channels} channels."
        )
    if not isinstance(keep, tuple) and keep not in ("all", "upper"):
        raise ValueError(f"outer: keep must be 'all', 'upper' or places of pairs; got {keep!r}.")
    if keep != "all" and rows not in (columns, columns - 1):
        raise ValueError(
            f"outer: the upper pairs are of one list of tokens; got {rows} and {columns} tokens."
        )
    left, right = _indices(rows, columns, keep)
    shape = (len(left), first.num_channels)
    flops = Flops(other=math.prod(shape))
    degree = sum_of_degrees(first, second)
    return Expr(Outer(left, right), (first, second), shape, degree, flops)


def pairs(x: Expr, keep: Pairs | None = None) -> tuple[Expr, Expr]:
    """Left and right tokens of the P = T(T-1)/2 pairs, row by row of the upper triangle.

    Args:
        x: the tokens.
        keep: some of the pairs, by their places; all if None.

    >>> from recsys_had.interactions.algebra import source
    >>> left, right = pairs(source(4, 2))
    >>> left.shape
    (6, 2)
    """
    if x.num_tokens < 2:
        raise ValueError(f"pairs: must be of two tokens or more; got {x.num_tokens}.")
    every = combinations(range(x.num_tokens), 2) if keep is None else keep
    require_kept(keep, x.num_tokens)
    left, right = zip(*every, strict=True)
    return take(x, *left), take(x, *right)


def require_kept(keep: Pairs | None, num_tokens: int) -> None:
    """Refuses places that are no pair's; None, all pairs, is let pass.

    Raises:
        ValueError: there is none, one that is not there, or one twice.
    """
    if keep is None:
        return
    for pair in keep:
        left, right = pair
        if not 0 <= left < right < num_tokens or keep.count(pair) > 1:
            raise ValueError(
                f"keep must name pairs (i, j), 0 <= i < j < {num_tokens}, each once; got {pair}."
            )
    if not keep:
        raise ValueError("keep must name a pair or more; got none. Leave it out to keep all.")


def inner(products: Expr) -> Expr:
    """Sums of the pairs' channels without the pairs: one matrix product a row.

    Args:
        products: an :func:`outer`, of which the sums over the channels are wanted.
    """
    assert isinstance(products.op, Outer)
    first, second = products.args
    flops = Flops(matmul=2 * first.num_tokens * second.num_tokens * first.num_channels)
    shape = (products.num_tokens, 1)
    return Expr(_Inner(products.op), (first, second), shape, products.degree, flops)


def matmul(first: Expr, second: Expr) -> Expr:
    """Matrix products, row by row: ``(S, T), (T, C) -> (S, C)``; degrees add.

    With weights ``s`` that depend on the row, ``y_i = sum_j s_ij * x_j``: a token for each list of
    weights. What is multiplied is held whole, pairs too.

    Args:
        first: S tokens of T channels each.
        second: T tokens.

    Raises:
        ValueError: the channels of the first are not as many as the tokens of the second.

    >>> from recsys_had.interactions.algebra import source
    >>> matmul(source(3, 4), source(4, 2)).shape
    (3, 2)
    """
    if first.num_channels != second.num_tokens:
        raise ValueError(
            f"matmul: the second must have as many tokens as the first has channels; got "
            f"{first.shape} and {second.shape} (tokens, channels)."
        )
    shape = (first.num_tokens, second.num_channels)
    flops = Flops(matmul=2 * math.prod(shape) * first.num_channels)
    return Expr(_MatMul(), (first, second), shape, sum_of_degrees(first, second), flops)


def _indices(
    rows: int, columns: int, keep: Literal["all", "upper"] | Pairs
) -> tuple[Tensor, Tensor]:
    if not isinstance(keep, str):
        require_kept(keep, columns)
        left, right = torch.tensor(keep).unbind(dim=1)
    elif keep == "upper":
        left, right = torch.triu_indices(rows, columns, offset=1)
    else:
        left = torch.arange(rows).repeat_interleave(columns)
        right = torch.arange(columns).repeat(rows)
    return left, right


class Outer(Op):
    """Multiplies pairs of tokens, given by their places."""

    tokenwise = True
    reads_whole = True
    makes_tokens = True
    left: Tensor
    right: Tensor

    def __init__(self, left: Tensor, right: Tensor) -> None:
        super().__init__()
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """All pairs."""
        return first.index_select(1, self.left) * second.index_select(1, self.right)

    def part(self, tokens: slice, *read: Tensor) -> Tensor:
        """Some pairs."""
        first, second = read
        return first.index_select(1, self.left[tokens]) * second.index_select(1, self.right[tokens])


class _Inner(Op):
    def __init__(self, outer: Outer) -> None:
        super().__init__()
        self.outer = outer

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        products = torch.matmul(first, second.transpose(1, 2))
        place = self.outer.left * second.shape[1] + self.outer.right
        return products.flatten(1).index_select(1, place).unsqueeze(2)


class _MatMul(Op):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.matmul(first, second)
