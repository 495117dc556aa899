"""Softmax attention of fields to fields.

Letters: B batch, T tokens that ask, S tokens that are asked, C channels, H heads.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from recsys_had.interactions.algebra import Expr, Flops
from recsys_had.interactions.algebra.expression import Op


def attend(
    query: Expr,
    key: Expr,
    value: Expr,
    *,
    num_heads: int = 1,
    scaled: bool,
    dropout: float = 0.0,
) -> Expr:
    """``softmax(Q K^T) V`` head by head, the heads' channels beside each other.

    Args:
        query: (T, H*K).
        key: (S, H*K).
        value: (S, H*C).
        num_heads: H, parts the channels are cut into.
        scaled: whether the products are divided by the root of K first.
        dropout: share of the attention's weights dropped in training, after the softmax.

    Raises:
        ValueError: shapes that do not go together, or heads that do not divide a width.
    """
    asked, width = key.shape
    if query.num_channels != width or value.num_tokens != asked:
        raise ValueError(
            f"attention: keys of shape {key.shape} do not go with queries {query.shape} and "
            f"values {value.shape}."
        )
    if num_heads < 1 or width % num_heads or value.num_channels % num_heads:
        raise ValueError(
            f"num_heads must divide {width} and {value.num_channels}; got {num_heads}."
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1; got {dropout}.")
    scale = 1 / math.sqrt(width // num_heads) if scaled else 1.0
    tokens, channels = query.num_tokens, value.num_channels
    weights = num_heads * tokens * asked
    flops = Flops(
        matmul=2 * tokens * asked * (width + channels), other=weights * (6 if scaled else 5)
    )
    op = _Attend(num_heads, scale, dropout)
    return Expr(op, (query, key, value), (tokens, channels), None, flops)


class _Attend(Op):
    def __init__(self, num_heads: int, scale: float, share: float) -> None:
        super().__init__()
        self.num_heads, self.scale, self.share = num_heads, scale, share

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (self._by_head(x) for x in (query, key, value))
        weights = torch.softmax(torch.matmul(q, k.transpose(2, 3)) * self.scale, dim=3)
        weights = functional.dropout(weights, self.share, self.training)
        return torch.matmul(weights, v).transpose(1, 2).flatten(2)

    def _by_head(self, x: Tensor) -> Tensor:
        """``(B, T, H*C) -> (B, H, T, C)``."""
        return x.view(*x.shape[:2], self.num_heads, x.shape[2] // self.num_heads).transpose(1, 2)
