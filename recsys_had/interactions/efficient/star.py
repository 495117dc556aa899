"""The star operation: two linear maps of the same, multiplied (Rewrite the Stars)."""

from typing import Literal

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Activation, Expr, act, flatten, lin, reshape


@interaction(paper="Ma et al. 2024, arXiv:2403.19967")
def star(
    x: Expr,
    *,
    num_layers: int = 2,
    expansion: int = 2,
    mix: Literal["channels", "fields"] = "channels",
    activation: Activation = "relu6",
) -> Expr:
    """Multiplies two wide linear maps of the same input and maps the product back.

    ``x[l+1] = x[l] + W3 ((W1 x[l] + b1) * act(W2 x[l] + b2)) + b3``. Over the channels of each
    field the cost is linear in F; over all fields together pairs of fields interact in each layer.
    Without the activation L layers reach degree 2^L.

    Shape: ``(B, F, D) -> (B, F, D)``.
    Paper: Ma et al. 2024, Rewrite the Stars, the star operation (arXiv:2403.19967), residual.
    Differs from the paper: its depth-wise convolutions, which mix neighbours in an image, are left
    out, because fields have none; ``mix: fields`` stands in for them.

    Args:
        num_layers: number of star operations.
        expansion: how many times wider than the input the maps are.
        mix: whether the maps see the channels of one field or all fields.
        activation: of the second map.

    Raises:
        ValueError: an option below 1, or no such mix or activation.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("star", num_fields=6, embedding_dim=4)(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 4])
    """
    require(num_layers=num_layers, expansion=expansion)
    if mix not in ("channels", "fields"):
        raise ValueError(f"mix must be channels or fields; got '{mix}'.")
    hidden = x if mix == "channels" else flatten(x)
    width = hidden.num_channels
    for _ in range(num_layers):
        wide = lin(hidden, out=expansion * width, bias=True)
        gate = act(lin(hidden, out=expansion * width, bias=True), activation)
        hidden = hidden + lin(wide * gate, out=width, bias=True)
    return hidden if mix == "channels" else reshape(hidden, x.num_tokens)
