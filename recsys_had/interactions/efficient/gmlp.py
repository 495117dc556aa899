"""Spatial gating of fields (gMLP)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, act, chunk, lin, norm

_NEAR_ZERO = 1e-3


@interaction(paper="Liu et al. 2021, arXiv:2105.08050")
def gmlp(x: Expr, *, num_layers: int = 1, expansion: int = 2, rank: int | None = None) -> Expr:
    """Gates half of the channels by the other half, mixed over the fields.

    ``u, v = halves of gelu(W1 LN(x) + b1)``; ``x[l+1] = x[l] + W2 (u * (M LN(v) + b)) + b2`` with
    ``M`` an F x F matrix over fields, or with a rank the product of two. As in the paper ``M``
    begins near zero and ``b`` at one, so that a layer begins as a plain feed-forward one.

    Shape: ``(B, F, D) -> (B, F, D)``.
    Paper: Liu et al. 2021, Pay Attention to MLPs, sec. 2 (arXiv:2105.08050).
    Differs from the paper: the low-rank ``M``.

    Args:
        num_layers: number of blocks.
        expansion: how many times wider than the input each half is.
        rank: of ``M``; None for a full matrix, quadratic in F with a small constant.

    Raises:
        ValueError: an option is below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("gmlp", num_fields=6, embedding_dim=4)(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 4])
    """
    require(num_layers=num_layers, expansion=expansion, rank=rank)
    half = expansion * x.num_channels
    for _ in range(num_layers):
        u, v = chunk(act(lin(norm(x), out=2 * half, bias=True), "gelu"), 2)
        mixed = norm(v) if rank is None else lin(norm(v), "T", out=rank)
        gate = lin(mixed, "T", out=x.num_tokens, bias=1.0, std=_NEAR_ZERO)
        x = x + lin(u * gate, out=x.num_channels, bias=True)
    return x
