"""Bit-wise weights from the row itself (FiBiNet++'s SENET+)."""

import math

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, act, cat, chunk, flatten, lin, norm, pool, reshape


@interaction(paper="Zhang et al. 2022, arXiv:2209.05016")
def senet_plus(x: Expr, *, reduction_ratio: int = 3, num_groups: int = 2) -> Expr:
    """Multiplies every number of every field by a weight computed from all fields.

    Squeeze: each field is cut into groups, and of each the maximum and the mean are taken, ``Z``.
    Excite: ``A = W2 relu(W1 Z)``, a number for each of the F*D. Output:
    ``LN(E * A + E)``, each field normalised by itself.

    Shape: ``(B, F, D) -> (B, F, D)``.
    Paper: Zhang et al. 2022, FiBiNet++, the SENET+ module (arXiv:2209.05016).
    Differs from the paper: nothing; the hidden width is rounded down, to 1 at least.

    Args:
        reduction_ratio: how many times narrower than the squeezed row the hidden layer is.
        num_groups: equal parts each field is cut into; the greatest common divisor with D is taken.

    Raises:
        ValueError: an option is below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("senet_plus", num_fields=6, embedding_dim=4)(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 4])
    """
    require(reduction_ratio=reduction_ratio, num_groups=num_groups)
    groups = chunk(x, math.gcd(num_groups, x.num_channels), "C")
    squeezed = flatten(cat(*(pool(g, "C", how) for how in ("max", "mean") for g in groups)))
    hidden = max(1, squeezed.num_channels // reduction_ratio)
    excited = lin(act(lin(squeezed, out=hidden), "relu"), out=x.num_tokens * x.num_channels)
    return norm(x * reshape(excited, x.num_tokens) + x)
