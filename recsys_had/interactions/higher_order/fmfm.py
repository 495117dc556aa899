"""Mapped pairs of a field-matrixed factorization machine."""

from typing import Literal

from recsys_had.interactions._catalog import interaction, require_pairs
from recsys_had.interactions.algebra import Expr, Pairs, flatten, lin, outer, pairs, pool


@interaction(paper="Sun et al. 2021, arXiv:2102.12994")
def fmfm(
    x: Expr, *, kind: Literal["matrix", "vector"] = "matrix", keep: Pairs | None = None
) -> Expr:
    """Sums the inner products of all pairs of fields, the left one mapped by a matrix of the pair.

    ``y = sum_{i<j} <W_ij e_i, e_j>``; with ``kind: vector`` each ``W_ij`` is diagonal, and all
    of them together begin as one Xavier matrix of pairs and width, as in the public boards' runs.

    Shape: ``(B, F, D) -> (B, 1)``.
    Paper: Sun et al. 2021, FM^2: Field-matrixed Factorization Machines (arXiv:2102.12994), with
    its section on FvFM for the vectors.
    Differs from the paper: the bias and the linear part are nodes of their own.

    Args:
        kind: a full matrix for each pair, or a vector.
        keep: the pairs (i, j) that are left, i < j, fields counted from 0; all of them if None.

    Raises:
        ValueError: there is one field, no such kind, or ``keep`` is empty or names what is no pair,
            or one twice.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("fmfm", num_fields=4, embedding_dim=8)(torch.zeros(2, 4, 8)).shape
    torch.Size([2, 1])
    """
    require_pairs(x)
    if kind == "vector":
        products = outer(x, x, "upper" if keep is None else keep)
        std = (2 / (products.num_tokens + products.num_channels)) ** 0.5
        return lin(flatten(products), out=1, std=std)
    if kind == "matrix":
        left, right = pairs(x, keep)
        return pool(flatten(lin(left, per="T") * right), "C")
    raise ValueError(f"kind must be matrix or vector; got '{kind}'.")
