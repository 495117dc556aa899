"""Soft bins with an embedding each (AutoDis).

Letters: B batch, C columns, H meta-embeddings, D embedding_dim.
"""

import math

import torch
from torch import Tensor, nn

from recsys_had.numeric._encoder import Encoder, columnwise, require

# The meta-embeddings start as small as rows of a table do.
_INITIAL_STD = 0.01


class AutoDis(Encoder):
    """Discretises a value softly: learns which of a column's meta-embeddings it belongs to.

    ``h = leaky_relu(w x)``, ``z = W h + alpha h``, ``e = sum_j softmax(z / tau)_j M_j`` with the
    meta-embeddings ``M``, all of a column's own.

    Shape: ``(B, C) -> (B, C, D)``.
    Paper: Guo et al. 2021, An Embedding Learning Framework for Numerical Features in CTR
    Prediction, sec. 3.2 (arXiv:2012.08986), aggregation by the weighted average.
    Differs from the paper: a temperature that is learned is one number a column.

    Args:
        num_columns: C.
        embedding_dim: D.
        num_meta_embeddings: H, of each column.
        alpha: weight of the skip connection.
        temperature: tau; the smaller, the harder the bins.
        learn_temperature: learn one a column, from this value on.

    Raises:
        ValueError: ``num_meta_embeddings`` is below 1, or ``temperature`` not above 0.

    >>> AutoDis(num_columns=3, embedding_dim=4)(torch.zeros(2, 3)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(
        self,
        *,
        num_columns: int,
        embedding_dim: int,
        num_meta_embeddings: int = 20,
        alpha: float = 0.1,
        temperature: float = 1.0,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        require(num_meta_embeddings=num_meta_embeddings, temperature=temperature)
        self._alpha, self._temperature = alpha, temperature
        size = num_meta_embeddings
        bound = 1 / math.sqrt(size)
        self.first = nn.Parameter(torch.empty(num_columns, size).uniform_(-1, 1))
        self.second = nn.Parameter(torch.empty(num_columns, size, size).uniform_(-bound, bound))
        self.meta_embeddings = nn.Parameter(
            torch.randn(num_columns, size, embedding_dim) * _INITIAL_STD
        )
        self.log_temperature = (
            nn.Parameter(torch.full((num_columns, 1), math.log(temperature)))
            if learn_temperature
            else None
        )

    @property
    def flops_per_row(self) -> int:
        """Two maps, the activation, the skip connection, the softmax (5 a number), the average."""
        numbers = self.first.numel()
        maps = 2 * (self.second.numel() + self.meta_embeddings.numel())
        # w x, leaky relu, alpha h and its sum, the quotient by tau, the softmax.
        return maps + (1 + 1 + 2 + 1 + 5) * numbers

    def forward(self, x_BC: Tensor) -> Tensor:
        """Embeds the columns."""
        h_BCH = nn.functional.leaky_relu(x_BC.unsqueeze(-1) * self.first)
        z_BCH = columnwise(h_BCH, self.second) + self._alpha * h_BCH
        tau = self._temperature if self.log_temperature is None else self.log_temperature.exp()
        return columnwise(torch.softmax(z_BCH / tau, dim=-1), self.meta_embeddings)
