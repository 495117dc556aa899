"""Gated linear units."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Activation, Expr, act, flatten, lin


@interaction(paper="Shazeer 2020, arXiv:2002.05202")
def glu(x: Expr, *, hidden_units: int = 400, activation: Activation = "silu") -> Expr:
    """Multiplies a linear map of the row by another one, activated.

    ``y = (W1 x + b1) * act(W2 x + b2)``: ``silu`` is SwiGLU, ``sigmoid`` GLU, ``gelu`` GEGLU,
    ``relu`` ReGLU, ``identity`` the bilinear unit, of degree 2.

    Shape: ``(B, F, D) -> (B, hidden_units)``.
    Paper: Shazeer 2020, GLU Variants Improve Transformer (arXiv:2002.05202).
    Differs from the paper: nothing; its map back to the input's width is the next node's.

    Args:
        hidden_units: width of the output.
        activation: of the second map.

    Raises:
        ValueError: a width below 1, or no such activation.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("glu", num_fields=3, embedding_dim=4, hidden_units=8)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 8])
    """
    require(hidden_units=hidden_units)
    flat = flatten(x)
    gate = act(lin(flat, out=hidden_units, bias=True), activation)
    return lin(flat, out=hidden_units, bias=True) * gate
