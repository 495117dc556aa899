"""Stacked factorization machine blocks (Wukong).

Letters: B batch, T tokens, S other tokens, C channels.
"""

import torch
from torch import Tensor

from recsys_had.interactions._catalog import interaction, require, require_widths
from recsys_had.interactions.algebra import Expr, Flops, act, cat, flatten, lin, norm, reshape
from recsys_had.interactions.algebra.expression import Op, sum_of_degrees


@interaction(paper="Zhang et al. 2024, arXiv:2403.02545")
def wukong(
    x: Expr,
    *,
    num_layers: int = 3,
    fm_tokens: int = 16,
    linear_tokens: int = 16,
    rank: int = 8,
    hidden_units: tuple[int, ...] = (32, 32),
) -> Expr:
    """Makes tokens of the fields' inner products and of the fields, and makes tokens of these.

    ``X[l+1] = LN([MLP(LN(flat(X X^T Y))) ; W X] + X)`` with ``X = X[l]`` the tokens, ``Y`` and
    ``W`` matrices over tokens, ``rank`` and ``linear_tokens`` wide. Orders double with every
    layer. Where a layer changes the number of tokens the last ``X`` is ``R X``, a map over tokens.

    Shape: ``(B, F, D) -> (B, fm_tokens + linear_tokens, D)``.
    Paper: Zhang et al. 2024, Wukong, the interaction stack (arXiv:2403.02545).
    Differs from the paper: nothing; where it leaves the choice, ``Y`` is the same for every row,
    and the MLP ends in a linear map after layers of relu.

    Args:
        num_layers: number of layers.
        fm_tokens: tokens a layer makes of inner products.
        linear_tokens: tokens a layer makes by a linear map.
        rank: combinations of tokens that every token is multiplied with.
        hidden_units: widths of the MLP's hidden layers.

    Raises:
        ValueError: no hidden layer, or an option or a width below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("wukong", num_fields=6, embedding_dim=4)(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 32, 4])
    """
    require(num_layers=num_layers, fm_tokens=fm_tokens, linear_tokens=linear_tokens, rank=rank)
    require_widths(hidden_units)
    for _ in range(num_layers):
        hidden = norm(flatten(_inner_products(x, lin(x, "T", out=rank))))
        for units in hidden_units:
            hidden = act(lin(hidden, out=units, bias=True), "relu")
        made = lin(hidden, out=fm_tokens * x.num_channels, bias=True)
        joined = cat(reshape(made, fm_tokens), lin(x, "T", out=linear_tokens))
        same = x.num_tokens == joined.num_tokens
        x = norm(joined + (x if same else lin(x, "T", out=joined.num_tokens)))
    return x


def _inner_products(first: Expr, second: Expr) -> Expr:
    """Of every token with every one of others: ``(T, C), (S, C) -> (T, S)``."""
    shape = (first.num_tokens, second.num_tokens)
    flops = Flops(matmul=2 * shape[0] * shape[1] * first.num_channels)
    degree = sum_of_degrees(first, second)
    return Expr(_InnerProducts(), (first, second), shape, degree, flops)


class _InnerProducts(Op):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.matmul(first, second.transpose(1, 2))
