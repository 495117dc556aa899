"""The polynomial interaction network of xDeepInt."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, lin


@interaction(paper="Yan and Li 2020, arXiv:2301.01089")
def polynomial_interaction(x: Expr, *, num_layers: int = 3) -> Expr:
    """Multiplies fields with learned mixes of all fields, coordinate by coordinate.

    ``X[l+1] = X[l] * (W[l] X[0]) + X[l]`` with ``W[l]`` an F x F matrix over the fields, so
    ``num_layers`` layers reach degree ``num_layers + 1`` while coordinates stay apart.

    Shape: ``(B, F, D) -> (B, F, D)``.
    Paper: Yan and Li 2020, xDeepInt, the polynomial interaction layer (arXiv:2301.01089).
    Differs from the paper: its crossing of subspaces is left out.

    Args:
        num_layers: number of layers; the polynomial degree is one more.

    Raises:
        ValueError: ``num_layers`` is below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("polynomial_interaction", num_fields=4, embedding_dim=8)
    >>> layer(torch.zeros(2, 4, 8)).shape, layer.degree
    (torch.Size([2, 4, 8]), 4)
    """
    require(num_layers=num_layers)
    first = crossed = x
    for _ in range(num_layers):
        crossed = crossed * lin(first, "T") + crossed
    return crossed
