"""The pairwise part of a factorization machine.

Letters: B batch, F fields, D embedding_dim.
"""

from typing import ClassVar

from torch import Tensor, nn

from recsys_had.interactions._pairs import require_pairs
from recsys_had.interactions.bi_interaction import sum_of_pairs


class Fm(nn.Module):
    """Sums the inner products of all pairs of fields.

    ``y = sum_{i<j} <e_i, e_j> = sum_d ((sum_i e_id)^2 - sum_i e_id^2) / 2``.

    Shape: ``(B, F, D) -> (B, 1)``.
    Paper: Rendle 2010, Factorization Machines, eq. 1 and lemma 3.1.
    Differs from the paper: the bias and the linear part are nodes of their own.

    Args:
        num_fields: F, the number of embedded fields.
        embedding_dim: D, the width of each field's embedding.

    Raises:
        ValueError: ``num_fields`` is below 2.

    >>> import torch
    >>> Fm(num_fields=2, embedding_dim=2)(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[11.]])
    """

    domain: ClassVar[str] = "higher-order"
    paper: ClassVar[str] = "Rendle 2010"
    cost: ClassVar[str] = "O(F D)"

    def __init__(self, *, num_fields: int, embedding_dim: int) -> None:
        super().__init__()
        require_pairs("fm", num_fields)
        self.output_shape = (1,)
        self.degree: int | None = 2
        self.flops_per_row = embedding_dim * (3 * num_fields + 1) + embedding_dim - 1

    def forward(self, x_BFD: Tensor) -> Tensor:
        """Sums the pairs over all coordinates."""
        return sum_of_pairs(x_BFD).sum(dim=1, keepdim=True)
