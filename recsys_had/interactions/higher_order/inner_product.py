"""The inner products of all pairs of fields (PNN)."""

from recsys_had.interactions._catalog import interaction, require_pairs
from recsys_had.interactions.algebra import Expr, Pairs, flatten, outer, pool


@interaction(paper="Qu et al. 2016, arXiv:1611.00144")
def inner_product(x: Expr, *, keep: Pairs | None = None) -> Expr:
    """Gives the inner product of every pair of fields, for a network to read beside the fields.

    ``p_ij = <e_i, e_j>`` for ``i < j``. The pairs' vectors are never made.

    Shape: ``(B, F, D) -> (B, P)``, P = F(F-1)/2.
    Paper: Qu et al. 2016, Product-based Neural Networks, sec. III-B (arXiv:1611.00144).
    Differs from the paper: the products themselves instead of a low-rank map of them, as its
    later implementations have it.

    Args:
        keep: the pairs (i, j) that are left, i < j, fields counted from 0; all of them if None.

    Raises:
        ValueError: there is one field, or ``keep`` is empty or names what is no pair, or one twice.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("inner_product", num_fields=4, embedding_dim=8)(torch.zeros(2, 4, 8)).shape
    torch.Size([2, 6])
    """
    require_pairs(x)
    return flatten(pool(outer(x, x, "upper" if keep is None else keep), "C"))
