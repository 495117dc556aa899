"""Fields missing at random."""

import math

import torch
from torch import Tensor

from recsys_had.interactions._catalog import interaction
from recsys_had.interactions.algebra import Expr, Flops
from recsys_had.interactions.algebra.expression import Op


@interaction(paper="Liu et al. 2018, arXiv:1804.07723")
def field_dropout(x: Expr, *, dropout: float = 0.0) -> Expr:
    """Leaves out whole fields in training and scales up those that are left.

    ``y = M * x * sum(1) / sum(M)``: the mask ``M`` of a row is 0 for a dropped field and 1 for a
    kept one, so that a sum over the fields keeps its size, however many are missing; its mean over
    all masks is ``x``. Each field is dropped by itself, but a row never loses all: of the last ones
    one stays. In evaluation nothing changes.

    Shape: ``(B, F, D) -> (B, F, D)``.
    Paper: Liu et al. 2018, Image Inpainting for Irregular Holes Using Partial Convolutions, whose
    masked input is scaled so (arXiv:1804.07723).
    Differs from the paper: the mask is drawn, not given, and the linear map is the next node's.

    Args:
        dropout: share of fields dropped.

    Raises:
        ValueError: there is one field, or a dropout outside [0, 1).

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> _ = torch.manual_seed(0)
    >>> layer = build("field_dropout", num_fields=4, embedding_dim=1, dropout=0.5)
    >>> x = torch.ones(1, 4, 1)
    >>> layer(x).sum().item(), layer.eval()(x).flatten().tolist()
    (4.0, [1.0, 1.0, 1.0, 1.0])
    """
    if x.num_tokens < 2:
        raise ValueError(
            f"needs two fields or more, one of which stays; got {x.num_tokens}. "
            "Let it read a node of shape (B, F, D)."
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1; got {dropout}.")
    # The mask's sum, a division, the scaled mask; a product a number.
    flops = Flops(other=2 * x.num_tokens + math.prod(x.shape))
    return Expr(_FieldDropout(dropout), (x,), x.shape, x.degree, flops)


class _FieldDropout(Op):
    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.share:
            return x
        luck = torch.rand(x.shape[0], x.shape[1], 1, device=x.device)
        # The luckiest field stays, whatever its luck.
        kept = (luck >= luck.amax(dim=1, keepdim=True).clamp(max=self.share)).to(x.dtype)
        return x * (kept * (x.shape[1] / kept.sum(dim=1, keepdim=True)))
