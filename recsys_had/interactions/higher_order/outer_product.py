"""The outer product of the summed fields (PNN)."""

from recsys_had.interactions._catalog import interaction
from recsys_had.interactions.algebra import Expr, flatten, outer, pool, reshape


@interaction(paper="Qu et al. 2016, arXiv:1611.00144")
def outer_product(x: Expr) -> Expr:
    """Gives all products of two coordinates of the sum of the fields.

    ``P = s s^T`` with ``s = sum_i e_i``: the outer products of all pairs of fields, each field
    with itself included, summed up.

    Shape: ``(B, F, D) -> (B, D*D)``.
    Paper: Qu et al. 2016, Product-based Neural Networks, sec. III-C (arXiv:1611.00144).
    Differs from the paper: the products themselves instead of a map of them.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("outer_product", num_fields=2, embedding_dim=2)
    >>> layer(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[16., 24., 24., 36.]])
    """
    coordinates = reshape(pool(x, "T"), x.num_channels)
    return flatten(outer(coordinates, coordinates))
