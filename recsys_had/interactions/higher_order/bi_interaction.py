"""All pairs of fields at linear cost, one number per embedding coordinate.

Letters: B batch, F fields, D embedding_dim.
"""

from typing import ClassVar

from torch import Tensor, nn

from recsys_had.interactions._pairs import require_pairs


def sum_of_pairs(x_BFD: Tensor) -> Tensor:
    """``sum_{i<j} e_i * e_j`` as ``((sum_i e_i)^2 - sum_i e_i^2) / 2``, ``(B, D)``."""
    total_BD = x_BFD.sum(dim=1)
    squares_BD = x_BFD.square().sum(dim=1)
    return 0.5 * (total_BD.square() - squares_BD)


class BiInteraction(nn.Module):
    """Sums the Hadamard products of all pairs of fields.

    ``f = sum_{i<j} e_i * e_j = ((sum_i e_i)^2 - sum_i e_i^2) / 2``, coordinate by coordinate.

    Shape: ``(B, F, D) -> (B, D)``.
    Paper: He and Chua 2017, Neural Factorization Machines, eq. 3-4 (arXiv:1708.05027).
    Differs from the paper: nothing.

    Args:
        num_fields: F, the number of embedded fields.
        embedding_dim: D, the width of each field's embedding.

    Raises:
        ValueError: ``num_fields`` is below 2.

    >>> import torch
    >>> BiInteraction(num_fields=2, embedding_dim=2)(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[3., 8.]])
    """

    domain: ClassVar[str] = "higher-order"
    paper: ClassVar[str] = "He and Chua 2017, arXiv:1708.05027"
    cost: ClassVar[str] = "O(F D)"

    def __init__(self, *, num_fields: int, embedding_dim: int) -> None:
        super().__init__()
        require_pairs("bi_interaction", num_fields)
        self.output_shape = (embedding_dim,)
        self.degree: int | None = 2
        # Per coordinate: F squares, two sums of F numbers, one square, a difference, a halving.
        self.flops_per_row = embedding_dim * (3 * num_fields + 1)

    def forward(self, x_BFD: Tensor) -> Tensor:
        """Sums the pairs."""
        return sum_of_pairs(x_BFD)
