"""Linear maps of pairs that never hold all pairs.

A linear map of the P = T(T-1)/2 pairs of T tokens is a sum over the pairs:
``lin(outer(a, b)) = sum_i lin_i(had(a_i, b))``. So a few pairs are made, mapped, added up and
forgotten at a time; in the backward pass they are made again. With F 39, D 16 and a batch of 8192
one tensor of all pairs is 388 MB, and a plain graph holds several.

Letters: B batch, T tokens, C channels, P pairs.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from recsys_had.interactions.algebra.expression import Expr, Op
from recsys_had.interactions.algebra.shaping import Cat

# Bytes of pairs at a time. On a CPU the allocator keeps blocks of less than 32 MiB for the next
# part; larger ones go back to the system, and come again page by page.
_PART_BYTES = {"cpu": 16 << 20, "cuda": 256 << 20}
_FEWEST_TOKENS = 8
_EXPORTED_ROWS = 4096


class Map(Protocol):
    """A linear map that can be applied to some tokens at a time."""

    def pieces(self, sizes: list[int]) -> tuple[Tensor, ...]:
        """Its weights, cut into runs of so many tokens."""

    def consume(self, piece: Tensor, x: Tensor) -> Tensor:
        """What a run of tokens adds to the result."""

    def finish(self, total: Tensor) -> Tensor:
        """What is done to the sum."""


def streams(x: Expr) -> bool:
    """Whether ``x`` holds pairs, which a linear map can take a part at a time."""
    return any(segment.holds_pairs for segment in _segments(x))


class Streamed(Op):
    """Maps an expression a part of its tokens at a time.

    Args:
        x: the expression.
        op: the linear map.
    """

    def __init__(self, x: Expr, op: Map) -> None:
        super().__init__()
        self.op = op
        self.segments = [_Segment(segment) for segment in _segments(x)]
        self.leaves = tuple(dict.fromkeys(leaf for s in self.segments for leaf in s.leaves))

    def forward(self, *leaves: Tensor) -> Tensor:
        """Maps and adds up."""
        values = dict(zip(self.leaves, leaves, strict=True))
        # A learned constant is a batch of one that stands for all rows.
        like = leaves[0]
        for leaf in leaves[1:]:
            like = leaf if leaf.shape[0] > like.shape[0] else like
        parts = [(segment, tokens) for segment in self.segments for tokens in segment.parts(like)]
        pieces = self.op.pieces([tokens.stop - tokens.start for _, tokens in parts])
        total: Tensor | None = None
        for (segment, tokens), piece in zip(parts, pieces, strict=True):
            read = tuple(values[leaf] for leaf in segment.leaves)
            mapped = self._map(segment, tokens, piece, read)
            total = mapped if total is None else total + mapped
        assert total is not None
        return self.op.finish(total)

    def _map(
        self, segment: "_Segment", tokens: slice, piece: Tensor, leaves: tuple[Tensor, ...]
    ) -> Tensor:
        whole = tokens.stop - tokens.start == segment.num_tokens
        if whole or not torch.is_grad_enabled():
            return self.op.consume(piece, segment(tokens, *leaves))
        # What is made again must be made from the weights of this forward pass, which need not
        # be the module's own by then (torch.func.functional_call).
        weights = dict(segment.named_parameters())

        def work(piece: Tensor, *read: Tensor) -> Tensor:
            named = dict(zip(weights, read[len(leaves) :], strict=True))
            made: Tensor = functional_call(segment, named, (tokens, *read[: len(leaves)]))
            return self.op.consume(piece, made)

        mapped: Tensor = checkpoint(
            work,
            piece,
            *leaves,
            *weights.values(),
            use_reentrant=False,
            preserve_rng_state=False,
            determinism_check="none",
        )
        return mapped


class _Segment(nn.Module):
    """Makes some tokens of an expression, from what must be whole before."""

    def __init__(self, x: Expr) -> None:
        super().__init__()
        self.x = x
        self.num_tokens = x.num_tokens
        region, leaves = _cut(x)
        self.leaves = tuple(leaves)
        self.width = max((expr.num_channels for expr in region), default=1)
        self.ops = nn.ModuleList(expr.op for expr in region if expr.op is not None)
        # Each value is dropped after its last use.
        last_use = {arg: expr for expr in region for arg in expr.args}
        self.steps = [
            (expr, tuple({arg for arg in expr.args if last_use[arg] is expr})) for expr in region
        ]

    def parts(self, like: Tensor) -> Iterator[slice]:
        """Runs of tokens that stay within the budget of bytes."""
        step = self.num_tokens
        if self.x.holds_pairs:
            # An exported program runs for any number of rows, and is cut once for all.
            rows = _EXPORTED_ROWS if torch.compiler.is_exporting() else max(1, len(like))
            token_bytes = rows * self.width * like.element_size()
            budget = _PART_BYTES["cuda" if like.is_cuda else "cpu"]
            step = min(step, max(_FEWEST_TOKENS, budget // token_bytes))
        for first in range(0, self.num_tokens, step):
            yield slice(first, min(first + step, self.num_tokens))

    def forward(self, tokens: slice, *leaves: Tensor) -> Tensor:
        """Makes them; a single token stands for all."""
        whole = dict(zip(self.leaves, leaves, strict=True))
        made: dict[Expr, Tensor] = {}

        def some(expr: Expr) -> Tensor:
            return made[expr] if expr.holds_pairs else whole[expr][:, _of(expr, tokens)]

        for expr, dropped in self.steps:
            assert expr.op is not None
            read = (whole[arg] if expr.op.reads_whole else some(arg) for arg in expr.args)
            made[expr] = expr.op.part(_of(expr, tokens), *read)
            for arg in dropped:
                made.pop(arg, None)
        return some(self.x)


def _segments(x: Expr) -> Iterator[Expr]:
    """What was put together over the tokens, one by one."""
    if isinstance(x.op, Cat) and x.op.on == "T":
        for arg in x.args:
            yield from _segments(arg)
    else:
        yield x


def _of(expr: Expr, tokens: slice) -> slice:
    return tokens if expr.num_tokens > 1 else slice(0, 1)


def _cut(x: Expr) -> tuple[list[Expr], list[Expr]]:
    """What is made a part at a time, in order, and what must be whole before."""
    region: dict[Expr, None] = {}
    leaves: dict[Expr, None] = {}
    waiting: list[tuple[Expr, bool]] = [(x, False)]
    while waiting:
        expr, is_ready = waiting.pop()
        if not expr.holds_pairs:
            leaves[expr] = None
        elif is_ready:
            region[expr] = None
        elif expr not in region:
            assert expr.op is not None
            waiting.append((expr, True))
            if expr.op.reads_whole:
                leaves.update(dict.fromkeys(expr.args))
            else:
                waiting += [(arg, False) for arg in reversed(expr.args)]
    return list(region), list(leaves)
