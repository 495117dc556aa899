"""The terms a logit is the sum of: a model's penultimate features, and what they weigh.

Letters: B batch, T tokens, C channels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_had.interactions.algebra.expression import Add, Expr, Scale, Subtract
from recsys_had.interactions.algebra.linear import ChannelMap, TokenMap
from recsys_had.interactions.algebra.program import definition
from recsys_had.interactions.algebra.shaping import Pool, Reshape

_ONE = (1, 1)
# A sum of more single numbers than that is one term: its parts, added to themselves n times, would
# be 2^n.
_MOST_PATHS = 1000


@dataclass(frozen=True)
class Terms:
    """Numbers whose weighted sum, and a constant, is a single number of a row.

    Args:
        values: the numbers, ``(T, C)``, or a single one that is no sum.
        factor: all weights are multiplied by it.
        weigher: the learned map that holds the weights; None where each weighs 1.
    """

    values: Expr
    factor: float
    weigher: ChannelMap | TokenMap | None = None

    @property
    def is_sum(self) -> bool:
        """Whether they are more than the one number itself."""
        return self.values.shape != _ONE

    def weights(self) -> Tensor:
        """The weight of each, ``(T * C,)``, as the map has learned it by now."""
        if self.weigher is None:
            return torch.full((self.values.num_tokens * self.values.num_channels,), self.factor)
        return self.factor * self.weigher.weight.detach().flatten()

    def offset(self) -> float:
        """The constant."""
        if self.weigher is None or self.weigher.bias is None:
            return 0.0
        return self.factor * float(self.weigher.bias.detach().sum())


def terms_of(numbers: Sequence[Expr], *, factor: float = 1.0) -> list[Terms]:
    """The terms of a sum of single numbers, such as a model's heads.

    A number that is a sum, a difference or a multiple of single numbers is taken apart. One that
    is made of many, by a sum, a mean or a learned map, has those as its terms: the last hidden
    layer under the map of a network's head, the coordinates of what a factorization machine sums
    up, the weights of a row's ids in a linear part. Any other is one term.

    >>> from recsys_had.interactions.algebra import lin, pool, source
    >>> x = source(1, 3)
    >>> found = terms_of([0.5 * pool(x, "C"), lin(x, out=1)])
    >>> [(terms.values.shape, terms.factor) for terms in found]
    [((1, 3), 0.5), ((1, 3), 1.0)]
    """
    return [terms for number in numbers for terms in _terms(number, factor)]


def _terms(number: Expr, factor: float) -> Iterator[Terms]:
    assert number.shape == _ONE, "terms are those of a single number"
    if _num_paths(number) > _MOST_PATHS:
        yield Terms(number, factor)
        return
    waiting = [(number, factor)]
    while waiting:
        number, factor = waiting.pop()
        op, args = number.op, number.args
        if isinstance(op, Add | Subtract):
            second = -factor if isinstance(op, Subtract) else factor
            waiting += [(args[1], second), (args[0], factor)]
        elif isinstance(op, Scale):
            waiting.append((args[0], factor * op.factor))
        elif isinstance(op, Reshape):
            waiting.append((args[0], factor))
        elif isinstance(op, Pool) and op.how in ("sum", "mean"):
            (many,) = args
            count = many.num_tokens * many.num_channels if op.how == "mean" else 1
            if many.shape == _ONE:
                waiting.append((many, factor))
            else:
                yield Terms(_unfolded(many), factor / count)
        elif isinstance(op, ChannelMap | TokenMap):
            yield Terms(_unfolded(args[0]), factor, op)
        else:
            yield Terms(number, factor)


def _num_paths(number: Expr) -> int:
    """Terms a number is a sum of, one that is added twice counted twice."""
    counts: dict[Expr, int] = {}
    for expr in definition(number):
        is_sum = isinstance(expr.op, Add | Subtract | Scale | Reshape | Pool)
        parts = expr.args if is_sum and expr.shape == _ONE else ()
        counts[expr] = sum(counts[part] for part in parts) or 1
    return counts[number]


def _unfolded(many: Expr) -> Expr:
    """The same numbers before they were only looked at in another shape."""
    while isinstance(many.op, Reshape):
        (many,) = many.args
    return many
