"""Tucker fusion of two inputs (MUTAN)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, add, flatten, lin


@interaction(paper="Ben-younes et al. 2017, arXiv:1705.06676")
def mutan(x: Expr, y: Expr, *, rank: int = 5, out: int = 64) -> Expr:
    """Sums several Hadamard products of maps of two inputs: a core tensor of bounded rank.

    ``z = sum_{r=1}^{rank} (x M_r) * (y N_r)``.

    Shape: ``(B, F, D), (B, F', D') -> (B, out)``.
    Paper: Ben-younes et al. 2017, MUTAN, the rank constraint on the core tensor (arXiv:1705.06676).
    Differs from the paper: its maps of each input to an inner space, with tanh, are nodes of their
    own where they are wanted.

    Args:
        rank: number of products.
        out: width of the output.

    Raises:
        ValueError: an option is below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("mutan", num_fields=3, embedding_dim=4, out=5)
    >>> layer(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)).shape
    torch.Size([2, 5])
    """
    require(rank=rank, out=out)
    first, second = flatten(x), flatten(y)
    return add(*(lin(first, out=out) * lin(second, out=out) for _ in range(rank)))
