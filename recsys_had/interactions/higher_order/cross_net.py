"""Cross layers with a weight vector (DCN)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, constant, flatten, lin


@interaction(paper="Wang et al. 2017, arXiv:1708.05123")
def cross_net(x: Expr, *, num_layers: int = 3) -> Expr:
    """Crosses the input with one learned number of each layer.

    ``x[l+1] = x[0] (w[l]^T x[l]) + b[l] + x[l]``: every layer multiplies the whole input by a
    scalar, so ``num_layers`` layers reach degree ``num_layers + 1`` at a cost linear in the input.

    Shape: ``(B, F, D) -> (B, F*D)``.
    Paper: Wang et al. 2017, Deep & Cross Network, eq. 3 (arXiv:1708.05123).
    Differs from the paper: nothing.

    Args:
        num_layers: number of crosses; the polynomial degree is one more.

    Raises:
        ValueError: ``num_layers`` is below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("cross_net", num_fields=3, embedding_dim=4)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 12])
    """
    require(num_layers=num_layers)
    first = crossed = flatten(x)
    for _ in range(num_layers):
        crossed = first * lin(crossed, out=1) + constant(*first.shape) + crossed
    return crossed
