"""Field weights from the row itself (FiBiNET's SENET layer).

Letters: B batch, F fields, D embedding_dim.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn


class Senet(nn.Module):
    """Multiplies every field by a weight computed from all fields' means.

    ``z_f = mean_d e_fd``, ``a = relu(W2 relu(W1 z))``, output ``a_f e_f``; ``W1`` is
    ``(F/r, F)`` and ``W2`` is ``(F, F/r)``, both without bias.

    Shape: ``(B, F, D) -> (B, F, D)``.
    Paper: Huang et al. 2019, FiBiNET, eq. 4-6 (arXiv:1905.09433).
    Differs from the paper: nothing; F/r is rounded down, to 1 at least.

    Args:
        num_fields: F, the number of embedded fields.
        embedding_dim: D, the width of each field's embedding.
        reduction_ratio: r, how many times narrower the hidden layer is.

    Raises:
        ValueError: ``reduction_ratio`` is below 1.

    >>> import torch
    >>> Senet(num_fields=6, embedding_dim=4)(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 4])
    """

    domain: ClassVar[str] = "modulation"
    paper: ClassVar[str] = "Huang et al. 2019, arXiv:1905.09433"
    cost: ClassVar[str] = "O(F D + F^2 / r)"

    def __init__(self, *, num_fields: int, embedding_dim: int, reduction_ratio: int = 3) -> None:
        super().__init__()
        if reduction_ratio < 1:
            raise ValueError(
                f"senet: reduction_ratio must be at least 1; got {reduction_ratio}. "
                "The paper uses 3."
            )
        hidden = max(1, num_fields // reduction_ratio)
        self.squeeze = nn.Parameter(nn.init.xavier_normal_(torch.empty(hidden, num_fields)))
        self.excite = nn.Parameter(nn.init.xavier_normal_(torch.empty(num_fields, hidden)))
        self.output_shape = (num_fields, embedding_dim)
        self.degree: int | None = None
        self.flops_per_row = (
            2 * num_fields * embedding_dim + 4 * num_fields * hidden + hidden + num_fields
        )

    def forward(self, x_BFD: Tensor) -> Tensor:
        """Weights the fields."""
        means_BF = x_BFD.mean(dim=2)
        hidden = torch.relu(means_BF @ self.squeeze.T)
        weights_BF = torch.relu(hidden @ self.excite.T)
        return x_BFD * weights_BF.unsqueeze(2)
