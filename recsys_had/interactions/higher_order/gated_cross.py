"""Gated cross layers (GDCN)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, act, flatten, lin


@interaction(paper="Wang et al. 2023, arXiv:2311.04635")
def gated_cross(x: Expr, *, num_layers: int = 3) -> Expr:
    """Crosses every coordinate with a mix of all, and lets a gate decide how much of it passes.

    ``x[l+1] = x[0] * (W[l] x[l] + b[l]) * sigmoid(G[l] x[l]) + x[l]``.

    Shape: ``(B, F, D) -> (B, F*D)``.
    Paper: Wang et al. 2023, GDCN, the gated cross layer (arXiv:2311.04635).
    Differs from the paper: nothing.

    Args:
        num_layers: number of crosses.

    Raises:
        ValueError: ``num_layers`` is below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("gated_cross", num_fields=3, embedding_dim=4)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 12])
    """
    require(num_layers=num_layers)
    first = crossed = flatten(x)
    for _ in range(num_layers):
        gate = act(lin(crossed), "sigmoid")
        crossed = first * lin(crossed, bias=True) * gate + crossed
    return crossed
