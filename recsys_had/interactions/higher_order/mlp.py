"""The deep part: a multi-layer perceptron.

Letters: B batch, F fields, D embedding_dim.
"""

from typing import ClassVar, Literal

from torch import Tensor, nn

from recsys_had.interactions._batch_norm import DistributedBatchNorm

Activation = Literal["relu", "gelu", "sigmoid", "tanh"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


class Mlp(nn.Module):
    """Learns interactions implicitly, through layers of linear maps and activations.

    ``h[l+1] = dropout(act(norm(W[l] h[l] + b[l])))`` from the flattened input on.

    Shape: ``(B, F, D) -> (B, hidden_units[-1])``.
    Paper: Guo et al. 2017, DeepFM, sec. 2.1 (arXiv:1703.04247), the deep component.
    Differs from the paper: batch normalisation, between map and activation, by option.

    Args:
        num_fields: F, the number of embedded fields.
        embedding_dim: D, the width of each field's embedding.
        hidden_units: width of each layer.
        activation: relu, gelu, sigmoid or tanh.
        dropout: share of units dropped in training.
        batch_norm: normalise over the batch of all ranks.

    Raises:
        ValueError: no layer, a width below 1, a dropout outside [0, 1), no such activation.

    >>> import torch
    >>> Mlp(num_fields=3, embedding_dim=4, hidden_units=(8, 5))(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 5])
    """

    domain: ClassVar[str] = "higher-order"
    paper: ClassVar[str] = "Guo et al. 2017, arXiv:1703.04247"
    cost: ClassVar[str] = "O(F D H + H^2)"

    def __init__(
        self,
        *,
        num_fields: int,
        embedding_dim: int,
        hidden_units: tuple[int, ...] = (400, 400, 400),
        activation: Activation = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if not hidden_units or min(hidden_units) < 1:
            raise ValueError(
                f"mlp: hidden_units must be one positive width or more; got {list(hidden_units)}."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"mlp: dropout must be at least 0 and below 1; got {dropout}.")
        if activation not in _ACTIVATIONS:
            known = ", ".join(_ACTIVATIONS)
            raise ValueError(f"mlp: activation must be one of {known}; got '{activation}'.")
        layers: list[nn.Module] = []
        width = num_fields * embedding_dim
        self.flops_per_row = 0
        for units in hidden_units:
            linear = nn.Linear(width, units)
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers.append(linear)
            if batch_norm:
                layers.append(DistributedBatchNorm(units))
            layers.append(_ACTIVATIONS[activation]())
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            self.flops_per_row += 2 * width * units + (3 if batch_norm else 1) * units
            width = units
        self.layers = nn.Sequential(*layers)
        self.output_shape = (hidden_units[-1],)
        self.degree: int | None = None

    def forward(self, x_BFD: Tensor) -> Tensor:
        """Applies the layers."""
        out: Tensor = self.layers(x_BFD.flatten(1))
        return out
