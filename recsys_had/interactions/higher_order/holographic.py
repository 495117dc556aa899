"""Circular correlations of pairs (holographic factorization machines).

Letters: B batch, T tokens, C channels.
"""

from typing import Literal

from torch import Tensor

from recsys_had.interactions._catalog import interaction, require_pairs
from recsys_had.interactions.algebra import Expr, cat, outer, pool
from recsys_had.interactions.algebra.expression import Op

Kind = Literal["correlation", "convolution"]


@interaction(paper="Tay et al. 2019, doi:10.1609/aaai.v33i01.33015143")
def holographic(x: Expr, *, kind: Kind = "correlation") -> Expr:
    """Folds the outer product of each pair of fields into a vector, diagonal by diagonal.

    ``c_k = sum_m e_i[m] e_j[(m + k) mod D]`` for each pair i < j, which is
    ``ifft(conj(fft(e_i)) * fft(e_j))``; the convolution takes ``e_j[(k - m) mod D]``, which is
    ``ifft(fft(e_i) * fft(e_j))``. Both are real, and ``c_0`` of a correlation is ``<e_i, e_j>``.

    Shape: ``(B, F, D) -> (B, P, D)`` with P = F(F-1)/2.
    Paper: Tay et al. 2019, Holographic Factorization Machines
    (doi:10.1609/aaai.v33i01.33015143).
    Differs from the paper: the sums are made as they stand, 2 D^2 operations a pair instead of
    the O(D log D) of Fourier transforms, which torch has not in bfloat16; for every k they run as
    one product of all fields with all, so that no pair's products are held. What the model makes
    of the pairs' vectors is the next node's.

    Args:
        kind: circular correlation, or circular convolution, which ignores the order of a pair.

    Raises:
        ValueError: there is one field, or no such kind.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("holographic", num_fields=2, embedding_dim=3)
    >>> layer(torch.tensor([[[1.0, 10.0, 100.0], [1.0, 2.0, 3.0]]]))
    tensor([[321., 132., 213.]])
    """
    require_pairs(x)
    if kind not in ("correlation", "convolution"):
        raise ValueError(f"kind must be correlation or convolution; got '{kind}'.")
    rotated = [_rotate(x, k, kind) for k in range(x.num_channels)]
    return cat(*(pool(outer(x, right, "upper"), "C") for right in rotated), on="C")


def _rotate(x: Expr, k: int, kind: Kind) -> Expr:
    """Puts channel ``m + k`` at place m, or channel ``k - m``, both modulo their number."""
    return Expr(_Rotate(k, reverse=kind == "convolution"), (x,), x.shape, x.degree)


class _Rotate(Op):
    tokenwise = True

    def __init__(self, k: int, *, reverse: bool) -> None:
        super().__init__()
        self.k, self.reverse = k, reverse

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(2).roll(self.k + 1, 2) if self.reverse else x.roll(-self.k, 2)
