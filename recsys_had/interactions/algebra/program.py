"""Runs expressions: the order of operations, and an interaction as a module.

Letters: B batch, T tokens, C channels.
"""

from collections.abc import Collection, Iterable, Sequence

from torch import Tensor, nn

from recsys_had.interactions.algebra.expression import Expr, Flops, Op


class Program:
    """The operations of an expression in an order that can be run.

    Args:
        root: what is wanted.
        sources: what tensors will be given for, in that order.
        beside: further values that :meth:`with_beside` gives; the root is made as without them.

    >>> import torch
    >>> from recsys_had.interactions.algebra import source
    >>> x = source(2, 2)
    >>> Program(x * x, [x])(torch.full((1, 2, 2), 3.0))
    tensor([[[9., 9.],
             [9., 9.]]])
    """

    def __init__(self, root: Expr, sources: Sequence[Expr], beside: Sequence[Expr] = ()) -> None:
        order = list(
            dict.fromkeys(
                expr
                for wanted in (root, *beside)
                for expr in _in_order(wanted, through_shortcuts=True, until=sources)
            )
        )
        place = {expr: number for number, expr in enumerate([*sources, *order])}
        last_use: dict[int, int] = {}
        steps: list[tuple[Op, tuple[int, ...], int]] = []
        for expr in order:
            op = expr.op
            if op is None:
                raise ValueError("program: the expression reads a source that is not given.")
            reads = tuple(place[_run(arg, sources)] for arg in expr.args)
            last_use.update(dict.fromkeys(reads, len(steps)))
            steps.append((op, reads, place[expr]))
        self._root = place[_run(root, sources)]
        self._beside = [place[_run(expr, sources)] for expr in beside]
        kept = {self._root, *self._beside}
        self._num_slots = len(sources) + len(order)
        # Each value is dropped after its last use.
        self._steps = [
            (
                op,
                reads,
                slot,
                tuple({r for r in reads if last_use[r] == number and r not in kept}),
            )
            for number, (op, reads, slot) in enumerate(steps)
        ]

    def __call__(self, *sources: Tensor) -> Tensor:
        """Runs; the sources are ``(B, T, C)``."""
        return self.with_beside(*sources)[0]

    def with_beside(self, *sources: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Runs, and gives the further values too."""
        slots: list[Tensor | None] = [None] * self._num_slots
        slots[: len(sources)] = sources
        for op, reads, slot, dropped in self._steps:
            slots[slot] = op(*[slots[number] for number in reads])
            for number in dropped:
                slots[number] = None
        root, *beside = (slots[number] for number in (self._root, *self._beside))
        assert root is not None
        return root, [found for found in beside if found is not None]


class Interaction(nn.Module):
    """An expression as a module.

    Shape: each source ``(B, T, C)`` -> ``(B, C)`` where the expression has one token, else
    ``(B, T, C)``.

    Args:
        root: what it computes.
        sources: what it reads.

    >>> import torch
    >>> from recsys_had.interactions.algebra import lin, pool, source
    >>> x = source(3, 4)
    >>> layer = Interaction(lin(pool(x * x, "T"), out=2), [x])
    >>> layer.output_shape, layer.degree, layer.flops_per_row
    ((2,), 2, 36)
    >>> layer(torch.zeros(5, 3, 4)).shape
    torch.Size([5, 2])
    """

    def __init__(self, root: Expr, sources: Sequence[Expr]) -> None:
        super().__init__()
        own = definition(root, until=sources)
        self.ops = named_ops(own)
        self.input_shapes = tuple(expr.shape for expr in sources)
        self.output_shape = output_shape(root)
        self.degree = root.degree
        self.flops = sum((expr.flops for expr in own), Flops())
        self.bytes_per_row = sum(expr.bytes_moved for expr in own)
        self._program = Program(root, sources)

    @property
    def flops_per_row(self) -> int:
        """Multiplications and additions of a row's forward pass."""
        return self.flops.total

    def forward(self, *sources: Tensor) -> Tensor:
        """Computes the expression.

        Raises:
            ValueError: a source has another shape.
        """
        for x, shape in zip(sources, self.input_shapes, strict=True):
            if tuple(x.shape[1:]) != shape:
                raise ValueError(f"input must be (B, {shape[0]}, {shape[1]}); got {(*x.shape,)}.")
        out = self._program(*sources)
        return out.flatten(1) if len(self.output_shape) == 1 else out


def output_shape(root: Expr) -> tuple[int, ...]:
    """Shape of a module's output without the batch: a single token is flat."""
    return (root.num_channels,) if root.num_tokens == 1 else root.shape


def definition(root: Expr, *, until: Iterable[Expr] = ()) -> list[Expr]:
    """The expressions ``root`` is defined by, each once, what is read before what reads it.

    Args:
        root: the last of them.
        until: expressions that are somebody else's, like all that they are defined by.
    """
    return _in_order(root, through_shortcuts=False, until=until)


def named_ops(exprs: Iterable[Expr]) -> nn.ModuleDict:
    """The operations, under names that number those of a kind."""
    counts: dict[str, int] = {}
    named: dict[str, nn.Module] = {}
    for expr in exprs:
        if expr.op is None:
            continue
        kind = expr.op.kind or type(expr.op).__name__.strip("_").lower()
        named[f"{kind}_{counts.get(kind, 0)}"] = expr.op
        counts[kind] = counts.get(kind, 0) + 1
    return nn.ModuleDict(named)


def _run(expr: Expr, given: Collection[Expr] = ()) -> Expr:
    return expr if expr.shortcut is None or expr in given else expr.shortcut


def _in_order(root: Expr, *, through_shortcuts: bool, until: Iterable[Expr] = ()) -> list[Expr]:
    found: dict[Expr, None] = {}
    skipped = set(until)
    waiting: list[tuple[Expr, bool]] = [(root, False)]
    while waiting:
        expr, ready = waiting.pop()
        expr = _run(expr, skipped) if through_shortcuts else expr
        if expr in found or expr in skipped:
            continue
        if ready:
            found[expr] = None
            continue
        waiting.append((expr, True))
        waiting += [(arg, False) for arg in reversed(expr.args)]
    return list(found)
