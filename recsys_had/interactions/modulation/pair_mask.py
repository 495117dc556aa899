"""Pairs of fields with a weight each, to be kept or left out (AutoFIS)."""

import torch
from torch import Tensor

from recsys_had.interactions._batch_norm import DistributedBatchNorm
from recsys_had.interactions._catalog import interaction, require_pairs
from recsys_had.interactions.algebra import Expr, Flops, Pairs, constant, had, outer, pairs, pool
from recsys_had.interactions.algebra.expression import Op

_START = 0.6


@interaction(paper="Liu et al. 2020, arXiv:2003.11235")
def pair_mask(x: Expr, *, keep: Pairs | None = None, batch_norm: bool = False) -> Expr:
    """Sums the inner products of pairs of fields, each times a weight that tells its importance.

    ``y = sum_{i<j} t_ij norm(<e_i, e_j>)``: first over all pairs, with batch normalisation, so that
    a weight speaks for the pair and not for the length of its embeddings; then, trained anew
    without it, over the pairs whose weights stayed away from 0, which ``keep`` names.

    Shape: ``(B, F, D) -> (B, 1)``.
    Paper: Liu et al. 2020, AutoFIS, the search stage and the re-train stage (arXiv:2003.11235).
    Differs from the paper: the weights begin at 0.6, not in a narrow band around it, and are
    learned like all other parameters, not by an optimizer that makes them exactly 0; which pairs
    to keep is the user's decision.

    Args:
        keep: the pairs (i, j) that are left, i < j, fields counted from 0; all of them if None.
        batch_norm: normalise the inner products over the batch of all ranks, without scale and
            shift.

    Raises:
        ValueError: there is one field, or ``keep`` is empty or names what is no pair, or one twice.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("pair_mask", num_fields=4, embedding_dim=8, keep=((0, 1), (1, 3)))
    >>> layer(torch.zeros(2, 4, 8)).shape
    torch.Size([2, 1])
    """
    require_pairs(x)
    products = outer(x, x, "upper") if keep is None else had(*pairs(x, keep))
    inner = pool(products, "C")
    inner = _standardised(inner) if batch_norm else inner
    return pool(constant(*inner.shape, mean=_START) * inner, "T")


def _standardised(x: Expr) -> Expr:
    """Each number over the rows, two operations."""
    op = _Standardise(x.num_tokens)
    return Expr(op, (x,), x.shape, None, Flops(other=2 * x.num_tokens))


class _Standardise(Op):
    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.norm = DistributedBatchNorm(num_features)
        # Scale and shift stay what they are: a scale would take the weights' part.
        del self.norm.weight, self.norm.bias
        self.norm.register_buffer("weight", torch.ones(num_features), persistent=False)
        self.norm.register_buffer("bias", torch.zeros(num_features), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.flatten(1))
        return out.view(x.shape)
