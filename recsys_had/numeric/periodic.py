"""Sines and cosines of learned frequencies.

Letters: B batch, C columns, K frequencies, D embedding_dim.
"""

import math

import torch
from torch import Tensor, nn

from recsys_had.numeric._encoder import ColumnwiseLinear, Encoder, require


class Periodic(Encoder):
    """Reads a value as waves of learned frequencies, so that near values can differ widely.

    ``e = W [sin(2 pi c_1 x), .., sin(2 pi c_K x), cos(2 pi c_1 x), .., cos(2 pi c_K x)] + b``,
    with relu around it by option.

    Shape: ``(B, C) -> (B, C, D)``.
    Paper: Gorishniy et al. 2022, On Embeddings for Numerical Features, sec. 3.3
    (arXiv:2203.05556); the relu makes its PLR of its PL.
    Differs from the paper: nothing.

    Args:
        num_columns: C.
        embedding_dim: D.
        num_frequencies: K, of each column.
        sigma: standard deviation of the initial frequencies; the larger, the more a small
            difference of values tells. It depends on the columns' scale.
        relu: end in relu.

    Raises:
        ValueError: ``num_frequencies`` is below 1, or ``sigma`` not above 0.

    >>> Periodic(num_columns=3, embedding_dim=4)(torch.zeros(2, 3)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(
        self,
        *,
        num_columns: int,
        embedding_dim: int,
        num_frequencies: int = 16,
        sigma: float = 0.1,
        relu: bool = False,
    ) -> None:
        super().__init__()
        require(num_frequencies=num_frequencies, sigma=sigma)
        self._relu = relu
        self.frequencies = nn.Parameter(torch.randn(num_columns, num_frequencies) * sigma)
        self.linear = ColumnwiseLinear(
            num_columns=num_columns, num_inputs=2 * num_frequencies, embedding_dim=embedding_dim
        )

    @property
    def flops_per_row(self) -> int:
        """A product, a sine and a cosine a frequency; the map; the relu."""
        waves = 3 * self.frequencies.numel()
        return waves + self.linear.flops_per_row + self._relu * self.linear.bias.numel()

    def forward(self, x_BC: Tensor) -> Tensor:
        """Embeds the columns."""
        phase_BCK = x_BC.unsqueeze(-1) * (2 * math.pi * self.frequencies)
        e_BCD: Tensor = self.linear(torch.cat([phase_BCK.sin(), phase_BCK.cos()], dim=-1))
        return torch.relu(e_BCD) if self._relu else e_BCD
