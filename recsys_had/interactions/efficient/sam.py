"""Products weighed by inner products, without a softmax (SAM)."""

from typing import Literal

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, constant, lin, matmul, outer, pool, reshape
from recsys_had.interactions.algebra import dropout as drop


@interaction(paper="Cheng & Xue 2021, arXiv:2105.05563")
def sam(
    x: Expr,
    *,
    kind: Literal["2a", "2e", "3a", "3e"] = "3a",
    num_layers: int = 2,
    residual: bool = True,
    dropout: float = 0.0,
) -> Expr:
    """Weighs pairs of fields by their plain inner products: an attention that is a polynomial.

    ``2a``: ``y_ij = <x_i, x_j> w_ij``; ``2e``: ``y_ij = <x_i, x_j> (x_i * x_j)``, for all pairs.
    ``3a``: ``y_i = sum_j <x_i, K x_j> w_ij + Q x_i``; ``3e``:
    ``y_i = sum_j <x_i, K x_j> (x_i * x_j) + Q x_i``, in layers. ``w_ij`` are learned vectors, which
    begin at ones.

    Shape: ``(B, F, D) -> (B, F*F, D)`` of kinds 2a and 2e, ``(B, F, D)`` of 3a and 3e.
    Paper: Cheng & Xue 2021, Looking at CTR Prediction Again: Is Attention All You Need?
    (arXiv:2105.05563).
    Differs from the paper: SAM1, a linear map of the fields, is a node ``{formula: x}``, and what
    weighs and joins the outputs is the head's or the next node's.

    Args:
        kind: weights of each pair (a) or the pair's product (e); all pairs (2) or layers (3). All
            pairs of a row are held at once.
        num_layers: layers of kinds 3a and 3e; each multiplies the degree by 2, or by 4.
        residual: whether a layer of these adds its mapped input.
        dropout: share of the output dropped in training, in each layer.

    Raises:
        ValueError: no such kind, no layer, or a dropout outside [0, 1).

    >>> from recsys_had.interactions import build
    >>> layer = build("sam", num_fields=5, embedding_dim=8)
    >>> layer.output_shape, layer.degree
    ((5, 8), 4)
    """
    require(num_layers=num_layers)
    if kind not in ("2a", "2e", "3a", "3e"):
        raise ValueError(f"kind must be 2a, 2e, 3a or 3e; got '{kind}'.")
    fields, width = x.shape
    if kind in ("2a", "2e"):
        products = outer(x, x) if kind == "2e" else constant(fields * fields, width, mean=1.0)
        return drop(pool(outer(x, x), "C") * products, dropout)
    for _ in range(num_layers):
        weights = reshape(pool(outer(x, lin(x)), "C"), fields)
        if kind == "3e":
            mixed = x * matmul(weights, x)
        else:
            mixed = lin(weights, out=width, per="T", std=0.0, mean=1.0)
        x = drop(mixed + lin(x) if residual else mixed, dropout)
    return x
