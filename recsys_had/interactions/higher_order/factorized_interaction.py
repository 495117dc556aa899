"""Factorized interaction layers (FinalNet)."""

from typing import Literal

from recsys_had.interactions._catalog import interaction, require_widths
from recsys_had.interactions.algebra import Activation, Expr, act, cat, chunk, flatten, lin, norm
from recsys_had.interactions.algebra import dropout as drop


@interaction(paper="Zhu et al. 2023, doi:10.1145/3539618.3591988")
def factorized_interaction(
    x: Expr,
    *,
    hidden_units: tuple[int, ...] = (400, 400),
    gate: Activation = "identity",
    activation: Activation = "identity",
    batch_norm: bool = False,
    dropout: float = 0.0,
    residual: Literal["sum", "concat"] = "sum",
) -> Expr:
    """Doubles the degree with every layer: a linear map times another one.

    ``h[l+1] = a + a * gate(W2 h[l] + b2)`` with ``a = W1 h[l] + b1``, so L layers reach degree
    2^L as long as gate and activation are the identity and nothing is normalised. With ``concat``,
    ``h[l+1] = [a ; a * gate(b)]`` of the halves ``a`` and ``b`` of one map, as wide as the layer:
    as many weights as a dense layer has, half as many as without.

    Shape: ``(B, F, D) -> (B, hidden_units[-1])``.
    Paper: Zhu et al. 2023, FINAL, the factorized interaction layer (doi:10.1145/3539618.3591988).
    Differs from the paper: gate, activation and batch normalisation are options, off by default.

    Args:
        hidden_units: width of each layer.
        gate: function of the second map.
        activation: function of each layer's output.
        batch_norm: normalise each layer's output over the batch of all ranks.
        dropout: share of units dropped in training.
        residual: whether a map and its products are added or stand beside each other.

    Raises:
        ValueError: no layer, a width below 1 or, with ``concat``, an odd one, a dropout outside
            [0, 1), no such activation or residual.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("factorized_interaction", num_fields=3, embedding_dim=4)
    >>> layer(torch.zeros(2, 3, 4)).shape, layer.degree
    (torch.Size([2, 400]), 4)
    """
    require_widths(hidden_units)
    if residual not in ("sum", "concat"):
        raise ValueError(f"residual must be sum or concat; got '{residual}'.")
    if residual == "concat" and any(units % 2 for units in hidden_units):
        raise ValueError(
            f"hidden_units must be even, to be cut into halves; got {list(hidden_units)}."
        )
    hidden = flatten(x)
    for units in hidden_units:
        mapped = lin(hidden, out=units, bias=True)
        whole = residual == "sum"
        first, second = (mapped, lin(hidden, out=units, bias=True)) if whole else chunk(mapped, 2)
        product = first * act(second, gate)
        hidden = first + product if whole else cat(first, product, on="C")
        hidden = norm(hidden, "batch") if batch_norm else hidden
        hidden = drop(act(hidden, activation), dropout)
    return hidden
