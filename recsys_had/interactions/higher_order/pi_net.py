"""Polynomial networks (Pi-Net), coupled and nested."""

from typing import Literal

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, constant, flatten, lin


@interaction(paper="Chrysos et al. 2020, arXiv:2006.13026")
def pi_net(x: Expr, *, kind: Literal["ccp", "ncp"] = "ccp", order: int = 3, rank: int = 64) -> Expr:
    """Builds a polynomial of all inputs order by order, in a low-rank decomposition.

    ``ccp``: ``x[n] = (U[n]^T z) * x[n-1] + x[n-1]`` from ``x[1] = U[1]^T z``. ``ncp``:
    ``x[n] = (A[n]^T z) * (S[n]^T x[n-1] + b[n])`` from ``x[1] = (A[1]^T z) * b[1]``. ``z`` is the
    flattened input. A node that reads another one multiplies the degrees: products of polynomials.

    Shape: ``(B, F, D) -> (B, rank)``.
    Paper: Chrysos et al. 2020, Pi-nets, the CCP and NCP decompositions (arXiv:2006.13026).
    Differs from the paper: the last map, to the output, is the head's or the next node's, and the
    output's constant is the logit's, left out between polynomials of polynomials; ``b[n]`` stands
    for ``B[n]^T b[n]``, which is the same set of functions.

    Args:
        kind: coupled (ccp) or nested (ncp) decomposition.
        order: the polynomial degree.
        rank: width of the decomposition.

    Raises:
        ValueError: an option is below 1, or there is no such kind.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("pi_net", num_fields=4, embedding_dim=8, order=4)
    >>> layer(torch.zeros(2, 4, 8)).shape, layer.degree
    (torch.Size([2, 64]), 4)
    """
    require(order=order, rank=rank)
    if kind not in ("ccp", "ncp"):
        raise ValueError(f"kind must be ccp or ncp; got '{kind}'.")
    z = flatten(x)
    hidden = lin(z, out=rank)
    if kind == "ncp":
        hidden = hidden * constant(1, rank, mean=1.0)
    for _ in range(order - 1):
        mapped = lin(z, out=rank)
        hidden = mapped * hidden + hidden if kind == "ccp" else mapped * lin(hidden, bias=1.0)
    return hidden
