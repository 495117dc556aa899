"""Embeddings refined by the row they stand in (FRNet)."""

from typing import Literal

from recsys_had.interactions._attention import attend
from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, act, flatten, lin, pool


@interaction(paper="Wang et al. 2022, arXiv:2204.08758")
def frnet(
    x: Expr,
    *,
    kind: Literal["bit", "vector"] = "bit",
    attention_dim: int = 10,
    hidden_units: int = 256,
) -> Expr:
    """Blends every embedding with a second one made of the whole row, as a gate of the row says.

    ``y = g * E + (1 - g) * E'`` with ``E' = unit(E)`` and ``g = sigmoid(unit'(E))``, of two units
    with weights of their own: ``unit(E)_i = relu(M2 relu(M1 E + b1) + b2) * (W_o sum_j a_ij W_v
    e_j)``, a vector of the whole row times what field i gathers from all fields by the attention
    ``a_ij = softmax_j <W_q e_i, W_k e_j>``. ``bit`` gates each coordinate; ``vector`` each field,
    by the sum over its coordinates in ``unit'``.

    Shape: ``(B, F, D) -> (B, F, D)``.
    Paper: Wang et al. 2022, FRNet, information extraction units and the complementary selection
    gate (arXiv:2204.08758).
    Differs from the paper: a reconstruction, which follows the authors' code where the text was
    not at hand: the attention is not scaled and has one head. Its maps have no bias here, the
    row's network is one hidden layer with relu in place of a learned slope, and batch
    normalisation and dropout are left out.

    Args:
        kind: a gate for each coordinate or for each field.
        attention_dim: width of queries, keys and values.
        hidden_units: width of the hidden layer that reads the row.

    Raises:
        ValueError: a width below 1, or no such kind.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("frnet", num_fields=6, embedding_dim=4)(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 4])
    """
    require(attention_dim=attention_dim, hidden_units=hidden_units)
    if kind not in ("bit", "vector"):
        raise ValueError(f"kind must be bit or vector; got '{kind}'.")

    def unit() -> Expr:
        query, key, value = (lin(x, out=attention_dim) for _ in range(3))
        gathered = lin(attend(query, key, value, scaled=False), out=x.num_channels)
        hidden = act(lin(flatten(x), out=hidden_units, bias=True), "relu")
        return act(lin(hidden, out=x.num_channels, bias=True), "relu") * gathered

    second, said = unit(), unit()
    gate = act(said if kind == "bit" else pool(said, "C"), "sigmoid")
    return second + gate * (x - second)
