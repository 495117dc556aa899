"""A column that is no field.

Letters: B batch, C columns, D embedding_dim.
"""

from typing import ClassVar

from torch import Tensor

from recsys_had.numeric._encoder import Encoder, Tokens


class Nothing(Encoder):
    """Makes no field: the column is read from the ``dense`` source alone.

    Shape: ``(B, C) -> (B, 0, D)``.
    Paper: none.
    Differs from the paper: nothing.

    Args:
        num_columns: C.
        embedding_dim: D.

    >>> import torch
    >>> Nothing(num_columns=2, embedding_dim=3)(torch.zeros(4, 2)).shape
    torch.Size([4, 0, 3])
    """

    tokens: ClassVar[Tokens] = "none"

    def __init__(self, *, num_columns: int, embedding_dim: int) -> None:
        super().__init__()
        self._width = embedding_dim

    @property
    def flops_per_row(self) -> int:
        """None at all."""
        return 0

    def forward(self, x_BC: Tensor) -> Tensor:
        """Gives no token."""
        return x_BC.new_empty(x_BC.shape[0], 0, self._width)
