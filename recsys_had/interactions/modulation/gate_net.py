"""Gates on embeddings (GateNet)."""

from typing import Literal

from recsys_had.interactions._catalog import interaction
from recsys_had.interactions.algebra import Expr, act, lin


@interaction(paper="Huang et al. 2020, arXiv:2007.03519")
def gate_net(x: Expr, *, kind: Literal["bit", "vector"] = "bit") -> Expr:
    """Lets every field decide how much of itself passes.

    ``g_i = e_i * sigmoid(W_i e_i)`` with a matrix of each field's own (``bit``: a gate for each
    coordinate) or a vector (``vector``: one for the field).

    Shape: ``(B, F, D) -> (B, F, D)``.
    Paper: Huang et al. 2020, GateNet, the feature embedding gate (arXiv:2007.03519).
    Differs from the paper: nothing.

    Args:
        kind: a gate for each coordinate or for each field.

    Raises:
        ValueError: there is no such kind.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("gate_net", num_fields=6, embedding_dim=4)(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 4])
    """
    if kind not in ("bit", "vector"):
        raise ValueError(f"kind must be bit or vector; got '{kind}'.")
    width = x.num_channels if kind == "bit" else 1
    return x * act(lin(x, out=width, per="T"), "sigmoid")
