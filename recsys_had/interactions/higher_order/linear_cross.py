"""Linear cross layers (FCN, formerly DCNv3)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions._self_mask import self_masked
from recsys_had.interactions.algebra import Expr, flatten
from recsys_had.interactions.algebra import dropout as drop


@interaction(paper="Li et al. 2024, arXiv:2407.13349")
def linear_cross(
    x: Expr, *, num_layers: int = 3, masked: bool = True, dropout: float = 0.0
) -> Expr:
    """Crosses the first row with a masked map of the current one: each layer adds one order.

    ``x[l+1] = x[0] * ([h ; h * relu(LN(h))] + b[l]) + x[l]`` with ``h = W[l] x[l]`` half as wide
    as the row. Without the mask it is ``hadamard_cross``, a polynomial of degree ``L + 1``.

    Shape: ``(B, F, D) -> (B, F*D)``.
    Paper: Li et al. 2024, FCN, first called DCNv3, the linear cross network (arXiv:2407.13349).
    Differs from the paper: half of each field's numbers meet ``h`` and half its masked copy, as
    in the published code, but they take turns along the row instead of standing in two blocks (a
    field of odd width has one more of either); a row of odd width has ``h`` rounded up and the last
    masked copy left out. The bias begins at zero, where
    that code draws it between 0 and 1. Its heads and batch normalisation are left out; no mask by
    option.

    Args:
        num_layers: number of crosses.
        masked: whether half of a layer's map is a masked copy of the other half.
        dropout: share of the numbers dropped after each cross in training.

    Raises:
        ValueError: ``num_layers`` is below 1, or a dropout outside [0, 1).

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> cross = build("linear_cross", num_fields=3, embedding_dim=4, masked=False)
    >>> cross(torch.zeros(2, 3, 4)).shape, cross.degree
    (torch.Size([2, 12]), 4)
    """
    require(num_layers=num_layers)
    first = crossed = flatten(x)
    for _ in range(num_layers):
        crossed = drop(first * self_masked(crossed, masked=masked) + crossed, dropout)
    return crossed
