"""Expressions: what an interaction computes, together with its shape, degree and cost.

An expression is a node of a graph without cycles: an operation, what it reads, and what follows
from the two. Nothing is computed here; :mod:`program` runs an expression.

Letters: B batch, T tokens (fields), C channels.
"""

import math
from dataclasses import dataclass, field

from torch import Tensor, nn

Shape = tuple[int, int]
Degree = int | None


@dataclass(frozen=True)
class Flops:
    """Multiplications and additions of a row.

    Args:
        matmul: those of matrix products; ``2 * in * out`` each, a bias included.
        other: all the rest.

    >>> (Flops(matmul=8) + Flops(other=3)).total
    11
    """

    matmul: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.matmul + self.other

    def __add__(self, more: "Flops") -> "Flops":
        return Flops(self.matmul + more.matmul, self.other + more.other)


class Op(nn.Module):
    """What an expression does with tensors; holds its parameters, if it has any."""

    # Name its parameters go by; the class's name unless it says so.
    kind = ""
    # Whether each token of the result depends on the same token of what is read, or on what is
    # read as a whole (see :meth:`part`).
    tokenwise = False
    # Whether `part` is given what is read cut to the same tokens, or whole.
    reads_whole = False
    # Whether it makes tokens out of others, more of them than it reads.
    makes_tokens = False

    def part(self, tokens: slice, *read: Tensor) -> Tensor:
        """Those tokens of the result alone."""
        out: Tensor = self(*read)
        return out


@dataclass(frozen=True, eq=False, repr=False)
class Expr:
    """A value of shape ``(B, T, C)``, not computed yet.

    Args:
        op: what makes it; None for a source, whose tensor is given.
        args: what the operation reads.
        shape: (T, C).
        degree: polynomial degree in the sources, or None where it is no polynomial.
        flops: of a row, for this operation alone.
        view: whether it is a different look at the same memory, which costs nothing.
        shortcut: an expression of the same value that is cheaper to run.
    """

    op: Op | None
    args: "tuple[Expr, ...]"
    shape: Shape
    degree: Degree
    flops: Flops = Flops()
    view: bool = False
    shortcut: "Expr | None" = None
    # Whether it holds such pairs as can be made a part at a time (see :mod:`streaming`).
    holds_pairs: bool = field(init=False)

    def __post_init__(self) -> None:
        # Told once, of what is read: to walk down a deep expression for it takes for ever.
        op = None if self.shortcut else self.op
        of_pairs = any(arg.holds_pairs for arg in self.args)
        found = op is not None and (op.makes_tokens or (op.tokenwise and of_pairs))
        object.__setattr__(self, "holds_pairs", found)

    def __repr__(self) -> str:
        op = "source" if self.op is None else type(self.op).__name__.strip("_")
        return f"Expr({op}, shape={self.shape}, degree={self.degree})"

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.shape[0]

    @property
    def num_channels(self) -> int:
        """C."""
        return self.shape[1]

    @property
    def bytes_moved(self) -> int:
        """Bytes of a row this operation reads and writes in float32, parameters not counted."""
        if self.view or not self.args:
            return 0
        return 4 * (math.prod(self.shape) + sum(math.prod(arg.shape) for arg in self.args))

    def __mul__(self, other: "Expr | float") -> "Expr":
        if isinstance(other, int | float):
            return _scaled(self, float(other))
        return had(self, other) if isinstance(other, Expr) else NotImplemented

    __rmul__ = __mul__

    def __add__(self, other: "Expr | float") -> "Expr":
        if isinstance(other, int | float):
            return _shifted(self, float(other))
        return add(self, other) if isinstance(other, Expr) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: "Expr | float") -> "Expr":
        if isinstance(other, int | float):
            return _shifted(self, -float(other))
        is_expr = isinstance(other, Expr)
        return _combined(Subtract(), self, other) if is_expr else NotImplemented

    def __rsub__(self, other: float) -> "Expr":
        return _shifted(-self, float(other)) if isinstance(other, int | float) else NotImplemented

    def __neg__(self) -> "Expr":
        return _scaled(self, -1.0)

    def __getitem__(self, tokens: slice) -> "Expr":
        first, last, step = tokens.indices(self.num_tokens)
        if step != 1 or last <= first:
            raise ValueError(f"tokens {tokens} of {self.num_tokens}: must be one run of tokens.")
        shape = (last - first, self.num_channels)
        return Expr(_Slice(first, last), (self,), shape, self.degree, view=True)


def source(num_tokens: int, num_channels: int) -> Expr:
    """What an interaction reads: field embeddings, dense inputs or another node's output.

    >>> source(3, 4).degree
    1
    """
    return Expr(None, (), (num_tokens, num_channels), 1)


def had(first: Expr, second: Expr) -> Expr:
    """Hadamard product, a single token or channel standing for all; degrees add.

    >>> had(source(3, 4), source(3, 1)).shape
    (3, 4)
    """
    shape = _broadcast("had", first, second)
    degree = sum_of_degrees(first, second)
    return Expr(_Multiply(), (first, second), shape, degree, Flops(other=math.prod(shape)))


def add(*terms: Expr) -> Expr:
    """Sum, a single token or channel standing for all; the highest degree stays.

    >>> add(source(3, 4), source(3, 4) * source(3, 4)).degree
    2
    """
    if not terms:
        raise ValueError("add: there must be a term; got none.")
    total = terms[0]
    for term in terms[1:]:
        total = _combined(Add(), total, term)
    return total


def sum_of_degrees(*args: Expr) -> Degree:
    """Degree of a product; None when one has none."""
    degrees = [arg.degree for arg in args if arg.degree is not None]
    return sum(degrees) if len(degrees) == len(args) else None


def highest_degree(*args: Expr) -> Degree:
    """Degree of a sum, or of things put together; None when one has none."""
    degrees = [arg.degree for arg in args if arg.degree is not None]
    return max(degrees, default=0) if len(degrees) == len(args) else None


def _combined(op: Op, first: Expr, second: Expr) -> Expr:
    shape = _broadcast(op.kind, first, second)
    degree = highest_degree(first, second)
    return Expr(op, (first, second), shape, degree, Flops(other=math.prod(shape)))


def _scaled(x: Expr, factor: float) -> Expr:
    return Expr(Scale(factor), (x,), x.shape, x.degree, Flops(other=math.prod(x.shape)))


def _shifted(x: Expr, constant: float) -> Expr:
    return Expr(Shift(constant), (x,), x.shape, x.degree, Flops(other=math.prod(x.shape)))


def _broadcast(name: str, first: Expr, second: Expr) -> Shape:
    pairs = list(zip(first.shape, second.shape, strict=True))
    if any(a != b and 1 not in (a, b) for a, b in pairs):
        raise ValueError(
            f"{name}: shapes must be equal, or 1 where they differ; got {first.shape} and "
            f"{second.shape} (tokens, channels)."
        )
    return max(pairs[0]), max(pairs[1])


class _Multiply(Op):
    tokenwise = True

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first * second


class Add(Op):
    """Adds two values."""

    kind = "add"
    tokenwise = True

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Adds."""
        return first + second


class Subtract(Op):
    """Takes the second value from the first."""

    kind = "subtract"
    tokenwise = True

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Subtracts."""
        return first - second


class Scale(Op):
    """Multiplies by a number that is not learned."""

    tokenwise = True

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies."""
        return x * self.factor


class Shift(Op):
    """Adds a number that is not learned."""

    tokenwise = True

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        """Adds."""
        return x + self.constant


class _Slice(Op):
    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.first, self.last = first, last

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.first : self.last]
