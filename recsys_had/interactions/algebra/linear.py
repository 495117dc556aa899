"""Linear maps over channels, tokens or both.

Letters: B batch, T tokens, C channels, O outputs.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys_had.interactions.algebra.expression import Expr, Flops, Op
from recsys_had.interactions.algebra.shaping import Reshape, flatten, reshape
from recsys_had.interactions.algebra.streaming import Streamed, streams


def lin(
    x: Expr,
    on: Literal["C", "T", "TC"] = "C",
    *,
    out: int | None = None,
    rank: int | None = None,
    per: Literal["T", "C"] | None = None,
    bias: bool | float = False,
    std: float | None = None,
    mean: float = 0.0,
    uniform: bool = False,
) -> Expr:
    """A learned linear map; the degree stays.

    Where the map consumes pairs of tokens, the pairs are made, used and forgotten a few at a time
    (:mod:`streaming`).

    Args:
        x: what is mapped.
        on: over the channels of each token, the tokens of each channel, or all numbers together.
        out: O, width of the result over that axis; the same as before if None. Over both, a
            width gives one token of it.
        rank: the map is a product of two, this wide between them.
        per: a matrix of its own for each token (over channels) or channel (over tokens).
        bias: whether something is added; a number is what it begins at, 0 otherwise.
        std: standard deviation of the initial weights; Xavier normal, matrix by matrix, if None.
        mean: their mean; 0 with a rank.
        uniform: weights and bias begin uniform within ``1 / sqrt(inputs)`` instead, as torch's
            own layers do.

    Raises:
        ValueError: a width below 1, or axes or initial values that do not go together.

    >>> from recsys_had.interactions.algebra import source
    >>> x = source(3, 4)
    >>> lin(x).shape, lin(x, "T", out=2).shape, lin(x, "TC", out=5).shape
    ((3, 4), (2, 4), (1, 5))
    """
    if uniform and (std is not None or mean or not isinstance(bias, bool)):
        raise ValueError(
            "lin: what begins uniform has no std, no mean and no number its bias begins at."
        )
    if mean and rank is not None:
        raise ValueError(f"lin: a map with a rank is two matrices and takes no mean; got {mean}.")
    if std is not None and std < 0:
        raise ValueError(f"lin: std must be at least 0; got {std}.")
    if out is not None and out < 1:
        raise ValueError(f"out must be at least 1; got {out}.")
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be at least 1; got {rank}. Leave it out for a full matrix.")
    if on == "TC":
        if per is not None:
            raise ValueError("lin: a map over both axes is one matrix; per must be left out.")
        width = out or x.num_tokens * x.num_channels
        begin: Any = {"bias": bias, "std": std, "mean": mean, "uniform": uniform}
        mapped = lin(flatten(x), out=width, rank=rank, **begin)
        return mapped if out is not None or x.num_tokens == 1 else reshape(mapped, x.num_tokens)
    if on not in ("C", "T") or per not in (None, "C", "T") or per == on:
        raise ValueError(f"lin: a map over {on!r} cannot have one matrix per {per!r}.")
    if rank is not None:
        length = x.num_channels if on == "C" else x.num_tokens
        narrow = lin(x, on, out=rank, per=per, std=std, uniform=uniform)
        width = out or length
        return lin(narrow, on, out=width, per=per, bias=bias, std=std, uniform=uniform)
    width = out or (x.num_channels if on == "C" else x.num_tokens)
    mapped = _over_channels(x, width, per) if on == "C" else _over_tokens(x, width, per)
    assert isinstance(mapped.op, ChannelMap | TokenMap)
    mapped.op.start(std=std, mean=mean, bias=bias, uniform=uniform)
    return mapped


def _over_channels(x: Expr, out: int, per: str | None) -> Expr:
    tokens, channels = x.shape
    op = ChannelMap(channels, out, tokens if per else None)
    flops = Flops(matmul=2 * tokens * channels * out)
    shortcut = None
    if isinstance(x.op, Reshape) and tokens == 1 and per is None and streams(x.args[0]):
        shortcut = _streamed(op, x.args[0], (1, out), flops)
    return Expr(op, (x,), (tokens, out), x.degree, flops, shortcut=shortcut)


def _over_tokens(x: Expr, out: int, per: str | None) -> Expr:
    tokens, channels = x.shape
    op = TokenMap(tokens, out, channels if per else None)
    flops = Flops(matmul=2 * tokens * channels * out)
    shortcut = _streamed(op, x, (out, channels), flops) if streams(x) else None
    return Expr(op, (x,), (out, channels), x.degree, flops, shortcut=shortcut)


def _streamed(op: "ChannelMap | TokenMap", x: Expr, shape: tuple[int, int], flops: Flops) -> Expr:
    streamed = Streamed(x, op)
    return Expr(streamed, streamed.leaves, shape, x.degree, flops)


class _LinearMap(Op):
    """Weights and bias, and what they begin at."""

    kind = "lin"

    def __init__(self, num_inputs: int, out: int, num_maps: int | None) -> None:
        super().__init__()
        lead = () if num_maps is None else (num_maps,)
        self.weight = nn.Parameter(torch.empty(*lead, out, num_inputs))
        self.bias: nn.Parameter | None = None

    def start(self, *, std: float | None, mean: float, bias: bool | float, uniform: bool) -> None:
        """Draws the weights; adds a bias unless it is False."""
        out, num_inputs = self.weight.shape[-2:]
        std = math.sqrt(2 / (out + num_inputs)) if std is None else std
        nn.init.normal_(self.weight, mean, std)
        if bias is not False:
            start = 0.0 if bias is True else float(bias)
            self.bias = nn.Parameter(torch.full(self.weight.shape[:-1], start))
        if uniform:
            for drawn in self.parameters():
                nn.init.uniform_(drawn, -(num_inputs**-0.5), num_inputs**-0.5)


class ChannelMap(_LinearMap):
    """Maps the channels of each token: ``(B, T, C) -> (B, T, O)``; a matrix each, or one."""

    tokenwise = True

    def forward(self, x: Tensor) -> Tensor:
        """Maps all tokens."""
        return self.part(slice(None), x)

    def part(self, tokens: slice, *read: Tensor) -> Tensor:
        """Maps some tokens."""
        (x,) = read
        if self.weight.dim() == 2:
            return functional.linear(x, self.weight, self.bias)
        mapped = torch.einsum("btc,toc->bto", x, self.weight[tokens])
        return mapped if self.bias is None else mapped + self.bias[tokens]

    def pieces(self, sizes: list[int]) -> tuple[Tensor, ...]:
        """The map of all numbers together, cut into runs of so many tokens."""
        width = self.weight.shape[1] // sum(sizes)
        return torch.split(self.weight, [size * width for size in sizes], dim=1)

    def consume(self, piece: Tensor, x: Tensor) -> Tensor:
        """What a run of tokens adds to the map of all numbers together."""
        return functional.linear(x.flatten(1), piece).unsqueeze(1)

    def finish(self, total: Tensor) -> Tensor:
        """Adds the bias."""
        return total if self.bias is None else total + self.bias


class TokenMap(_LinearMap):
    """Maps the tokens of each channel: ``(B, T, C) -> (B, O, C)``; a matrix each, or one."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps."""
        return self.finish(self.consume(self.weight, x))

    def pieces(self, sizes: list[int]) -> tuple[Tensor, ...]:
        """The map, cut into runs of so many tokens."""
        return torch.split(self.weight, sizes, dim=-1)

    def consume(self, piece: Tensor, x: Tensor) -> Tensor:
        """What a run of tokens adds to the result."""
        if piece.dim() == 3:
            return torch.einsum("btc,cot->boc", x, piece)
        if x.shape[2] == 1:
            return functional.linear(x.squeeze(2), piece).unsqueeze(2)
        return torch.matmul(piece, x)

    def finish(self, total: Tensor) -> Tensor:
        """Adds the bias."""
        if self.bias is None:
            return total
        return total + (self.bias.T if self.bias.dim() == 2 else self.bias.unsqueeze(1))
