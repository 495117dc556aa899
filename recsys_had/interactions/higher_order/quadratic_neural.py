"""Quadratic neural layers (QNN-alpha)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import (
    Expr,
    act,
    cat,
    chunk,
    flatten,
    lin,
    norm,
    pool,
    reshape,
)
from recsys_had.interactions.algebra import dropout as drop


@interaction(paper="Li et al. 2025, arXiv:2505.17999")
def quadratic_neural(
    x: Expr,
    *,
    num_layers: int = 3,
    num_row: int = 2,
    num_heads: int = 1,
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> Expr:
    """Multiplies the row by a sum of several activated maps of itself.

    ``x[l+1] = by_head(x[l]) * sum_r relu(W[l,r] x[l] + b[l,r]) + x[l]``. ``by_head`` puts the first
    H-th of every field's channels before the second, and so on, while ``x`` stands field by field:
    with one head it changes nothing, with more a number is multiplied into another one's place.

    Shape: ``(B, F, D) -> (B, F*D)``.
    Paper: Li et al. 2025, QNN-alpha, the multi-head Khatri-Rao product (arXiv:2505.17999).
    Differs from the paper: nothing; as in its published code the product stands head by head
    and the residual field by field, and every map reads the whole row. Its loss, which compares
    two dropout passes, is no part of a layer.

    Args:
        num_layers: number of layers.
        num_row: R, maps of each layer.
        num_heads: H, parts a field's channels are cut into; it must divide the width.
        batch_norm: normalise each map over the batch of all ranks; it then has no bias.
        dropout: share of the activated maps, and of each layer's output, dropped in training.

    Raises:
        ValueError: a number below 1, heads that do not divide the width, a dropout outside
            [0, 1).

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("quadratic_neural", num_fields=3, embedding_dim=4, num_heads=2)
    >>> layer(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 12])
    """
    require(num_layers=num_layers, num_row=num_row, num_heads=num_heads)
    if x.num_channels % num_heads:
        raise ValueError(f"num_heads must divide {x.num_channels}; got {num_heads}.")
    row = flatten(x)
    for _ in range(num_layers):
        by_head = flatten(cat(*chunk(reshape(row, x.num_tokens), num_heads)))
        maps = lin(row, out=num_row * row.num_channels, bias=not batch_norm)
        maps = act(norm(maps, "batch") if batch_norm else maps, "relu")
        factor = pool(reshape(drop(maps, dropout), num_row), "T")
        row = drop(by_head * factor + row, dropout)
    return row
