"""The algebra interactions are written in.

A handful of operations on values of shape ``(B, T, C)``: T tokens (fields) of C channels each.
An expression knows its shape, its polynomial degree and its cost from the operations it is made
of, and becomes an ``nn.Module``::

    x = source(num_fields, embedding_dim)
    total = pool(x, "T")
    fm = 0.5 * pool(total * total - pool(x * x, "T"), "C")      # Rendle 2010
    layer = Interaction(fm, [x])                                # degree 2
"""

from recsys_had.interactions.algebra.attribution import FieldEffects, field_effects
from recsys_had.interactions.algebra.choice import take
from recsys_had.interactions.algebra.expression import Expr, Flops, add, had, source
from recsys_had.interactions.algebra.linear import lin
from recsys_had.interactions.algebra.pairs import Pairs, matmul, outer, pairs
from recsys_had.interactions.algebra.pointwise import (
    Activation,
    act,
    constant,
    dropout,
    log_abs,
    norm,
    softmax,
    stop_gradient,
)
from recsys_had.interactions.algebra.program import Interaction
from recsys_had.interactions.algebra.shaping import cat, chunk, flatten, pool, reshape

__all__ = [
    "Activation",
    "Expr",
    "FieldEffects",
    "Flops",
    "Interaction",
    "Pairs",
    "act",
    "add",
    "cat",
    "chunk",
    "constant",
    "dropout",
    "field_effects",
    "flatten",
    "had",
    "lin",
    "log_abs",
    "matmul",
    "norm",
    "outer",
    "pairs",
    "pool",
    "reshape",
    "softmax",
    "source",
    "stop_gradient",
    "take",
]
