"""The first-order part: one weight per id (logistic regression).

Letters: B batch, F fields, D embedding_dim.
"""

from typing import ClassVar

from torch import Tensor, nn


class Linear(nn.Module):
    """Sums the weights of a row's ids.

    ``y = sum_i w_i``, where ``w_i`` is row ``id_i`` of field i's own table of width 1; of a dense
    input, its value times a learned weight. The model's bias is the graph's.

    Shape: ``(B, F, D) -> (B, 1)``; D is 1 on the layer's own tables.
    Paper: Richardson et al. 2007, Predicting Clicks, eq. 1 (logistic regression).
    Differs from the paper: the bias is counted once in the graph, not here.

    Args:
        num_fields: F, the number of fields.
        embedding_dim: D, the width of each field's weights.

    >>> import torch
    >>> Linear(num_fields=2, embedding_dim=1)(torch.tensor([[[3.0], [4.0]]]))
    tensor([[7.]])
    """

    domain: ClassVar[str] = "higher-order"
    paper: ClassVar[str] = "Richardson et al. 2007"
    cost: ClassVar[str] = "O(F)"
    own_tables: ClassVar[int | None] = 1

    def __init__(self, *, num_fields: int, embedding_dim: int) -> None:
        super().__init__()
        self.output_shape = (1,)
        self.degree: int | None = 1
        self.flops_per_row = num_fields * embedding_dim - 1

    def forward(self, x_BFD: Tensor) -> Tensor:
        """Sums over fields and width."""
        return x_BFD.sum(dim=(1, 2)).unsqueeze(1)
