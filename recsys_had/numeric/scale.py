"""A learned vector times the column's value.

Letters: B batch, C columns, D embedding_dim.
"""

import torch
from torch import Tensor, nn

from recsys_had.numeric._encoder import Encoder


class Scale(Encoder):
    """Stretches a learned vector by the column's value.

    ``e = x * w``, or with a bias ``e = x * w + b``. The vectors ``w`` are rows of the model's
    tables, one a column, and are trained as such; the module is given them and holds ``b`` alone.

    Shape: ``(B, C), (C, D) -> (B, C, D)``.
    Paper: Rendle 2010, Factorization Machines, eq. 1 (real-valued features); with a bias the
    linear embedding of Gorishniy et al. 2022, sec. 3.4 (arXiv:2203.05556).
    Differs from the paper: nothing.

    Args:
        num_columns: C.
        embedding_dim: D.
        bias: add a learned vector, zero at first.

    >>> layer = Scale(num_columns=2, embedding_dim=3)
    >>> layer(torch.tensor([[2.0, -1.0]]), torch.ones(2, 3)).tolist()
    [[[2.0, 2.0, 2.0], [-1.0, -1.0, -1.0]]]
    """

    def __init__(self, *, num_columns: int, embedding_dim: int, bias: bool = False) -> None:
        super().__init__()
        self._size = num_columns * embedding_dim
        self.bias = nn.Parameter(torch.zeros(num_columns, embedding_dim)) if bias else None

    @property
    def flops_per_row(self) -> int:
        """One product a number, and one sum with a bias."""
        return self._size * (1 if self.bias is None else 2)

    def forward(self, x_BC: Tensor, vectors_CD: Tensor) -> Tensor:
        """Embeds the columns by the vectors given."""
        e_BCD = x_BC.unsqueeze(-1) * vectors_CD
        return e_BCD if self.bias is None else e_BCD + self.bias
