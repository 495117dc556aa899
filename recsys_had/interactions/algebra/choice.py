"""Tokens chosen by their places.

Letters: B batch, T tokens, C channels.
"""

import torch
from torch import Tensor

from recsys_had.interactions.algebra.expression import Expr, Op


def take(x: Expr, *places: int) -> Expr:
    """Some tokens, in the order they are named; one may be named twice.

    Args:
        x: the tokens.
        places: of the wanted ones, counted from 0.

    Raises:
        ValueError: none is named, or one that is not there.

    >>> from recsys_had.interactions.algebra import source
    >>> take(source(5, 2), 3, 0).shape
    (2, 2)
    """
    if not places or min(places) < 0 or max(places) >= x.num_tokens:
        raise ValueError(f"take: must name tokens 0 to {x.num_tokens - 1}; got {list(places)}.")
    shape = (len(places), x.num_channels)
    return Expr(Take(torch.tensor(places, dtype=torch.int64)), (x,), shape, x.degree)


class Take(Op):
    """Takes tokens by their places."""

    tokenwise = True
    reads_whole = True
    makes_tokens = True
    places: Tensor

    def __init__(self, places: Tensor) -> None:
        super().__init__()
        self.register_buffer("places", places, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """All of them."""
        return x.index_select(1, self.places)

    def part(self, tokens: slice, *read: Tensor) -> Tensor:
        """Some of them."""
        return read[0].index_select(1, self.places[tokens])
