"""The compressed interaction network of xDeepFM."""

from recsys_had.interactions._catalog import interaction, require_widths
from recsys_had.interactions.algebra import Expr, cat, flatten, lin, outer, pool


@interaction(paper="Lian et al. 2018, arXiv:1803.05170")
def cin(x: Expr, *, hidden_units: tuple[int, ...] = (64, 64), bias: bool = False) -> Expr:
    """Multiplies learned maps of fields with all fields, order by order.

    ``X[k]_h = sum_{ij} W[k]_hij (X[k-1]_i * X[0]_j)`` with ``X[0]`` the fields; the output is the
    sum over D of every map of every order. Order k reaches degree ``k + 1``.

    Shape: ``(B, F, D) -> (B, sum(hidden_units))``.
    Paper: Lian et al. 2018, xDeepFM, eq. 6 (arXiv:1803.05170), with the identity as
    activation, which its section 4.4 finds best.
    Differs from the paper: every order is kept whole, as its equations have it and its published
    code does only by option; a bias by option. Weights and bias begin as those of a convolution
    in torch do, as in the public boards' runs: a bias that is not 0 lets the later orders learn
    from the first step.

    Args:
        hidden_units: number of maps of each order.
        bias: whether a learned number is added to each map.

    Raises:
        ValueError: no order, or a width below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("cin", num_fields=3, embedding_dim=4, hidden_units=(5, 2))
    >>> layer(torch.zeros(2, 3, 4)).shape, layer.degree
    (torch.Size([2, 7]), 3)
    """
    require_widths(hidden_units)
    maps, pooled = x, []
    for units in hidden_units:
        maps = lin(outer(maps, x), "T", out=units, bias=bias, uniform=True)
        pooled.append(pool(maps, "C"))
    return flatten(cat(*pooled))
