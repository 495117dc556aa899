"""Weighted pairs of a field-weighted factorization machine."""

from recsys_had.interactions._catalog import interaction, require_pairs
from recsys_had.interactions.algebra import Expr, Pairs, lin, outer, pool


@interaction(paper="Pan et al. 2018, arXiv:1806.03514")
def fwfm(x: Expr, *, keep: Pairs | None = None) -> Expr:
    """Sums the inner products of all pairs of fields, each times a learned weight of the pair.

    ``y = sum_{i<j} r_ij <e_i, e_j>``. The pairs' vectors are never made.

    Shape: ``(B, F, D) -> (B, 1)``.
    Paper: Pan et al. 2018, Field-weighted Factorization Machines (arXiv:1806.03514).
    Differs from the paper: the bias and the linear part are nodes of their own.

    Args:
        keep: the pairs (i, j) that are left, i < j, fields counted from 0; all of them if None.

    Raises:
        ValueError: there is one field, or ``keep`` is empty or names what is no pair, or one twice.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("fwfm", num_fields=4, embedding_dim=8)(torch.zeros(2, 4, 8)).shape
    torch.Size([2, 1])
    """
    require_pairs(x)
    return lin(pool(outer(x, x, "upper" if keep is None else keep), "C"), "T", out=1)
