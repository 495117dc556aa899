"""The attention free transformer's gathering (AFT), over fields."""

import torch
from torch import Tensor, nn

from recsys_had.interactions._catalog import interaction
from recsys_had.interactions.algebra import Expr, Flops, act, lin
from recsys_had.interactions.algebra.expression import Op


@interaction(paper="Zhai et al. 2021, arXiv:2105.14103")
def aft(x: Expr) -> Expr:
    """Lets every field gather a mean of all, weighted by key and place and channel by channel.

    ``y_i = sigmoid(Q_i) * sum_j exp(K_j + w_ij) V_j / sum_j exp(K_j + w_ij)`` with ``Q``, ``K`` and
    ``V`` linear maps of each field and ``w`` a learned F x F matrix: quadratic in F, but with two
    small matrix products and no heads.

    Shape: ``(B, F, D) -> (B, F, D)``.
    Paper: Zhai et al. 2021, An Attention Free Transformer, eq. 2 (arXiv:2105.14103).
    Differs from the paper: nothing; ``w`` begins at zero. ``exp(K)`` and ``exp(w)`` are taken
    apart, so that they cost no F x F numbers a channel: where both spread over more than 80 or so,
    a sum of their products can be 0 in float32, and its quotient no number.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("aft", num_fields=6, embedding_dim=4)(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 4])
    """
    tokens, channels = x.shape
    # exp(K), its product with V, two sums over j, the quotient; exp(w) is not a row's work.
    flops = Flops(matmul=4 * tokens * tokens * channels, other=4 * tokens * channels)
    gathered = Expr(_Gather(tokens), (lin(x), lin(x)), x.shape, None, flops)
    return act(lin(x), "sigmoid") * gathered


class _Gather(Op):
    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(num_tokens, num_tokens))

    def forward(self, key: Tensor, value: Tensor) -> Tensor:
        # A constant taken from all exponents of a channel, or of a field, cancels.
        keys = torch.exp(key - key.amax(dim=1, keepdim=True))
        place = torch.exp(self.place - self.place.amax(dim=1, keepdim=True))
        return torch.matmul(place, keys * value) / torch.matmul(place, keys)
