"""All columns through one network into one field (the bottom network of DLRM).

Letters: B batch, C columns, D embedding_dim.
"""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from recsys_had.numeric._encoder import Encoder, Tokens


class BottomMlp(Encoder):
    """Turns all its columns together into a single field.

    ``h[l+1] = relu(W[l] h[l] + b[l])`` from the columns' values on; the last layer has width D.

    Shape: ``(B, C) -> (B, 1, D)``.
    Paper: Naumov et al. 2019, DLRM, sec. 2.1.3 and fig. 1 (arXiv:1906.00091).
    Differs from the paper: nothing.

    Args:
        num_columns: C.
        embedding_dim: D.
        hidden_units: width of each layer before the last, which has D; none is a single layer.

    Raises:
        ValueError: a width is below 1.

    >>> layer = BottomMlp(num_columns=13, embedding_dim=4, hidden_units=(8,))
    >>> layer(torch.zeros(2, 13)).shape
    torch.Size([2, 1, 4])
    """

    tokens: ClassVar[Tokens] = "joint"

    def __init__(
        self, *, num_columns: int, embedding_dim: int, hidden_units: tuple[int, ...] = (512, 256)
    ) -> None:
        super().__init__()
        if any(units < 1 for units in hidden_units):
            raise ValueError(f"hidden_units must be positive widths; got {list(hidden_units)}.")
        widths = (num_columns, *hidden_units, embedding_dim)
        self._flops = sum(2 * inputs * out + out for inputs, out in pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(inputs, out) for inputs, out in pairwise(widths))

    @property
    def flops_per_row(self) -> int:
        """Those of the maps and of the activations."""
        return self._flops

    def forward(self, x_BC: Tensor) -> Tensor:
        """Embeds all columns as one."""
        for layer in self.layers:
            x_BC = torch.relu(layer(x_BC))
        return x_BC.unsqueeze(1)
