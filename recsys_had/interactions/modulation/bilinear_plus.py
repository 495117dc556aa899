"""One number for each pair of fields, one of the two mapped first (FiBiNet++'s bi-linear+)."""

from typing import Literal

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, Pairs, flatten, lin, pool
from recsys_had.interactions.modulation.bilinear import bilinear


@interaction(paper="Zhang et al. 2022, arXiv:2209.05016")
def bilinear_plus(
    x: Expr,
    *,
    kind: Literal["field_all", "field_each", "field_interaction"] = "field_all",
    compressed_dim: int | None = 50,
    keep: Pairs | None = None,
) -> Expr:
    """Takes the inner product of each pair after a linear map of the left field, and compresses.

    ``p_ij = <W e_i, e_j>`` for ``i < j``, then ``y = C p``. ``W`` is one matrix for all pairs,
    one for each left field or one for each pair. The pairs' vectors are never made.

    Shape: ``(B, F, D) -> (B, compressed_dim)``.
    Paper: Zhang et al. 2022, FiBiNet++, the bi-linear+ module (arXiv:2209.05016).
    Differs from the paper: nothing; the compression can be left out.

    Args:
        kind: which pairs share a matrix.
        compressed_dim: width of the output; None for the pairs' numbers themselves.
        keep: the pairs (i, j) that are left, i < j, fields counted from 0; all of them if None.

    Raises:
        ValueError: there is one field, no such kind, a width below 1, or ``keep`` is empty or names
            what is no pair, or one twice.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("bilinear_plus", num_fields=4, embedding_dim=8)(torch.zeros(2, 4, 8)).shape
    torch.Size([2, 50])
    """
    require(compressed_dim=compressed_dim)
    products = flatten(pool(bilinear(x, kind=kind, keep=keep), "C"))
    return products if compressed_dim is None else lin(products, out=compressed_dim)
