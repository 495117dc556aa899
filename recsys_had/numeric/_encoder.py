"""What every kind of numeric embedding is, and the one map that several of them end in.

Letters: B batch, C columns, K inputs of each, D embedding_dim.
"""

import abc
import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

Tokens = Literal["each", "joint", "none"]


class Encoder(nn.Module, abc.ABC):
    """Columns of one kind and of the same options, embedded together.

    The constructor takes ``num_columns``, ``embedding_dim`` and the kind's options, each with a
    default. Of a kind that makes a field of each column, the first axis of every weight counts
    the columns: that is how each column gets the initial values its own name decides.

    Shape: ``(B, C) -> (B, C, D)``; ``(B, 1, D)`` where ``tokens`` is ``joint``.
    """

    tokens: ClassVar[Tokens] = "each"

    @property
    @abc.abstractmethod
    def flops_per_row(self) -> int:
        """Multiplications and additions of a row's forward pass, any function counted as one."""


class ColumnwiseLinear(nn.Module):
    """A linear map of its own for every column, all of them in one batched product.

    ``y_c = x_c W_c + b_c``.

    Shape: ``(B, C, K) -> (B, C, D)``.
    Paper: none; the last layer of Gorishniy et al. 2022, sec. 3.4 (arXiv:2203.05556).
    Differs from the paper: nothing.

    Args:
        num_columns: C.
        num_inputs: K.
        embedding_dim: D.

    >>> ColumnwiseLinear(num_columns=3, num_inputs=5, embedding_dim=4)(torch.zeros(2, 3, 5)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, *, num_columns: int, num_inputs: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_columns, num_inputs, embedding_dim))
        self.bias = nn.Parameter(torch.empty(num_columns, embedding_dim))
        # As torch starts a linear map of K inputs.
        bound = 1 / math.sqrt(num_inputs)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    @property
    def flops_per_row(self) -> int:
        """Multiplications and additions of a row; the bias rides on the sums."""
        return 2 * self.weight.numel()

    def forward(self, x_BCK: Tensor) -> Tensor:
        """Maps every column."""
        return columnwise(x_BCK, self.weight) + self.bias


def columnwise(x_BCK: Tensor, weight_CKD: Tensor) -> Tensor:
    """Multiplies every column by a matrix of its own, ``(B, C, D)``."""
    return torch.bmm(x_BCK.transpose(0, 1), weight_CKD).transpose(0, 1)


def require(**options: float) -> None:
    """Refuses options that are not above zero.

    Raises:
        ValueError: with the first of them.
    """
    for option, value in options.items():
        if not value > 0:
            asked = "at least 1" if isinstance(value, int) else "above 0"
            raise ValueError(f"{option} must be {asked}; got {value}.")
