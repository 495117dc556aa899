"""Highway layers."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Activation, Expr, act, flatten, lin


@interaction(paper="Srivastava et al. 2015, arXiv:1505.00387")
def highway(
    x: Expr, *, num_layers: int = 2, activation: Activation = "relu", gate_bias: float = -1.0
) -> Expr:
    """Lets a gate decide, number by number, whether the row is transformed or carried on.

    ``x[l+1] = T * H + (1 - T) * x[l]`` with ``H = relu(W x[l] + b)`` and the gate
    ``T = sigmoid(W_T x[l] + b_T)``; run as ``x[l] + T * (H - x[l])``. ``b_T`` begins below zero,
    so that a layer begins by carrying most of the row.

    Shape: ``(B, F, D) -> (B, F*D)``.
    Paper: Srivastava et al. 2015, Highway Networks (arXiv:1505.00387).
    Differs from the paper: nothing.

    Args:
        num_layers: number of layers.
        activation: of ``H``.
        gate_bias: what the gate's bias begins at.

    Raises:
        ValueError: ``num_layers`` is below 1, or no such activation.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("highway", num_fields=3, embedding_dim=4)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 12])
    """
    require(num_layers=num_layers)
    row = flatten(x)
    for _ in range(num_layers):
        gate = act(lin(row, bias=float(gate_bias)), "sigmoid")
        row = row + gate * (act(lin(row, bias=True), activation) - row)
    return row
