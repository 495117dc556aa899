"""Factorised bilinear pooling of two inputs (MFB)."""

import torch
from torch import Tensor

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, Flops, flatten, lin, pool, reshape
from recsys_had.interactions.algebra import dropout as drop
from recsys_had.interactions.algebra.expression import Op

# Under both roots, so that their gradients are finite at 0.
_EPSILON = 1e-6


@interaction(paper="Yu et al. 2017, arXiv:1708.01471")
def mfb(
    x: Expr,
    y: Expr,
    *,
    out: int = 64,
    factor: int = 5,
    dropout: float = 0.0,
    normalise: bool = True,
) -> Expr:
    """Multiplies two inputs in a wide common space and sums runs of k products.

    ``z = pool_k(U^T x * V^T y)``, where ``pool_k`` sums each run of k numbers: an output is a
    bilinear form of rank k. Then each number becomes its signed root, ``sign(z) sqrt(|z|)``, and
    each row is brought to length 1.

    Shape: ``(B, F, D), (B, F', D') -> (B, out)``.
    Paper: Yu et al. 2017, Multi-modal Factorized Bilinear Pooling with Co-Attention Learning
    (arXiv:1708.01471).
    Differs from the paper: the root is ``z / sqrt(|z| + e)`` and the length ``sqrt(|z|^2 + e)``
    with e = 1e-6, whose slopes at 0 are 1/sqrt(e) instead of infinite; the two by option, and
    without them it is of degree 2; the co-attention is left to other nodes.

    Args:
        out: width of the output.
        factor: k, products summed for each output.
        dropout: share of the products dropped in training.
        normalise: take signed roots and bring each row to length 1.

    Raises:
        ValueError: a width below 1, or a dropout outside [0, 1).

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("mfb", num_fields=3, embedding_dim=4, out=5)
    >>> layer(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)).shape
    torch.Size([2, 5])
    """
    require(out=out, factor=factor)
    product = lin(flatten(x), out=out * factor) * lin(flatten(y), out=out * factor)
    pooled = flatten(pool(reshape(drop(product, dropout), out), "C"))
    return _normalised(pooled) if normalise else pooled


def _normalised(z: Expr) -> Expr:
    """Signed roots brought to length 1: four operations a number, and three."""
    return Expr(_PowerNorm(), (z,), z.shape, None, Flops(other=7 * z.num_channels))


class _PowerNorm(Op):
    def forward(self, z: Tensor) -> Tensor:
        root = z * torch.rsqrt(z.abs() + _EPSILON)
        return root * torch.rsqrt(root.square().sum(dim=2, keepdim=True) + _EPSILON)
