"""Hadamard cross layers (DCN-V2)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, flatten, lin


@interaction(paper="Wang et al. 2021, arXiv:2008.13535")
def hadamard_cross(x: Expr, *, num_layers: int = 3, rank: int | None = None) -> Expr:
    """Crosses every input coordinate with a learned mix of all the others.

    ``x[l+1] = x[0] * (W[l] x[l] + b[l]) + x[l]`` where ``*`` is the Hadamard product, so
    ``num_layers`` layers reach polynomials of degree ``num_layers + 1``. With a rank,
    ``W[l] = U[l] V[l]^T``.

    Shape: ``(B, F, D) -> (B, F*D)``.
    Paper: Wang et al. 2021, DCN V2, eq. 1 and, with a rank, eq. 2 (arXiv:2008.13535).
    Differs from the paper: nothing.

    Args:
        num_layers: number of crosses; the polynomial degree is one more.
        rank: width of the low-rank map; None for a full matrix.

    Raises:
        ValueError: ``num_layers`` or ``rank`` is below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> cross = build("hadamard_cross", num_fields=3, embedding_dim=4, num_layers=2)
    >>> cross(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 12])
    """
    require(num_layers=num_layers)
    first = crossed = flatten(x)
    for _ in range(num_layers):
        crossed = first * lin(crossed, rank=rank, bias=True) + crossed
    return crossed
