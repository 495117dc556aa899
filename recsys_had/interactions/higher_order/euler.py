"""Products of learned real powers of the fields, as complex numbers (EulerNet)."""

from typing import Literal

import torch

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions._complex import angle_of, log_size, rectangular
from recsys_had.interactions.algebra import (
    Expr,
    act,
    cat,
    chunk,
    constant,
    flatten,
    lin,
    norm,
    reshape,
)
from recsys_had.interactions.algebra import dropout as drop
from recsys_had.interactions.algebra.linear import TokenMap


@interaction(paper="Tian et al. 2023, arXiv:2304.10711")
def euler(
    x: Expr,
    *,
    num_layers: int = 1,
    num_orders: int = 32,
    layer_norm: bool = False,
    explicit_dropout: float = 0.0,
    implicit_dropout: float = 0.0,
    parts: Literal["both", "sum"] = "both",
) -> Expr:
    """Multiplies the fields, each to a learned power, and adds what a plain layer makes of them.

    A field becomes ``z_i = mu_i e^(i e_i)``. Of ``lambda_i = ln|z_i|`` and ``theta_i = arg z_i``,
    order k is ``prod_i z_i^alpha_ki`` turned and stretched: ``lambda'_k = exp(sum_i alpha_ki
    lambda_i + delta_k)``, ``theta'_k = sum_i alpha_ki theta_i + delta'_k``. The next layer reads
    ``z'_k = lambda'_k e^(i theta'_k) + relu(W Re z + b)_k + i relu(W Im z + b)_k``.

    Shape: ``(B, F, D) -> (B, 2*K, D)``, or ``(B, K, D)`` of the sums; K = num_orders.
    Paper: Tian et al. 2023, EulerNet (arXiv:2304.10711).
    Differs from the paper: the real parts stand beside the imaginary ones, so that a head weighs
    them apart; one head that weighs both alike, which the paper has, is that of ``parts='sum'``.
    As in its published code 1e-8 is added to ``|z|^2`` and the powers begin near one field each;
    here, also, the angle of a ``|z|`` below 1e-4 is taken so that its gradient stays finite.

    Args:
        num_layers: number of layers.
        num_orders: K, products of each layer.
        layer_norm: normalise the real and the imaginary part of each product over D.
        explicit_dropout: share of the ``lambda`` and ``theta`` dropped in training.
        implicit_dropout: share of what ``W`` reads dropped in training.
        parts: ``both`` parts beside each other, or their ``sum``.

    Raises:
        ValueError: a number below 1, a dropout outside [0, 1), no such parts.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("euler", num_fields=3, embedding_dim=4, num_orders=5)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 10, 4])
    """
    require(num_layers=num_layers, num_orders=num_orders)
    if parts not in ("both", "sum"):
        raise ValueError(f"parts must be both or sum; got '{parts}'.")
    real, imaginary = rectangular(constant(x.num_tokens, 1, mean=1.0), x)
    for _ in range(num_layers):
        explicit = _explicit(real, imaginary, num_orders, explicit_dropout)
        flat = drop(cat(flatten(real), flatten(imaginary)), implicit_dropout)
        implicit = act(lin(flat, out=num_orders * x.num_channels, bias=True), "relu")
        real = explicit[0] + reshape(implicit[:1], num_orders)
        imaginary = explicit[1] + reshape(implicit[1:], num_orders)
        if layer_norm:
            real, imaginary = norm(real), norm(imaginary)
    return cat(real, imaginary) if parts == "both" else real + imaginary


def _explicit(real: Expr, imaginary: Expr, num_orders: int, dropout: float) -> tuple[Expr, Expr]:
    """Products of learned powers of the tokens, ``exp`` of sums of logarithms."""
    polar = cat(log_size(real, imaginary), angle_of(real, imaginary), on="C")
    log_radius, angle = chunk(_powers(drop(polar, dropout), num_orders), 2)
    return rectangular(act(log_radius, "exp"), angle)


def _powers(polar: Expr, num_orders: int) -> Expr:
    """The same powers for sizes and angles, and a constant for each."""
    mapped = lin(polar, "T", out=num_orders)
    assert isinstance(mapped.op, TokenMap)
    alpha_KT = mapped.op.weight
    with torch.no_grad():
        if num_orders == polar.num_tokens:
            alpha_KT.copy_(torch.eye(num_orders))
        else:
            alpha_KT.copy_(torch.softmax(100 * torch.randn(alpha_KT.shape), dim=1))
    return mapped + constant(num_orders, polar.num_channels, std=0.01)
