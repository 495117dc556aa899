"""All pairs of fields, one of the two mapped first (FiBiNET's bilinear interaction)."""

from typing import Literal

from recsys_had.interactions._catalog import interaction, require_pairs
from recsys_had.interactions.algebra import Expr, Pairs, lin, outer, pairs


@interaction(paper="Huang et al. 2019, arXiv:1905.09433")
def bilinear(
    x: Expr,
    *,
    kind: Literal["field_all", "field_each", "field_interaction"] = "field_interaction",
    keep: Pairs | None = None,
) -> Expr:
    """Multiplies each pair of fields, after a linear map of the left one.

    ``p_ij = (W e_i) * e_j`` for ``i < j`` where ``*`` is the Hadamard product. ``W`` is one matrix
    for all pairs (``field_all``), one for each left field (``field_each``, F - 1 of them) or one
    for each pair (``field_interaction``).

    Shape: ``(B, F, D) -> (B, P, D)``, P = F(F-1)/2.
    Paper: Huang et al. 2019, FiBiNET, eq. 7-9 (arXiv:1905.09433).
    Differs from the paper: nothing.

    Args:
        kind: which pairs share a matrix.
        keep: the pairs (i, j) that are left, i < j, fields counted from 0; all of them if None.

    Raises:
        ValueError: there is one field, no such kind, or ``keep`` is empty or names what is no pair,
            or one twice.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("bilinear", num_fields=4, embedding_dim=8)(torch.zeros(2, 4, 8)).shape
    torch.Size([2, 6, 8])
    """
    require_pairs(x)
    if kind == "field_interaction":
        left, right = pairs(x, keep)
        return lin(left, per="T") * right
    # The last field is never on the left.
    if kind == "field_each":
        return outer(lin(x[:-1], per="T"), x, "upper" if keep is None else keep)
    if kind == "field_all":
        return outer(lin(x[:-1]), x, "upper" if keep is None else keep)
    raise ValueError(f"kind must be one of field_all, field_each, field_interaction; got '{kind}'.")
