"""Hadamard cross layers (DCN-V2).

Letters: B batch, F fields, D embedding_dim, N = F*D, R rank.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn


class HadamardCross(nn.Module):
    """Crosses every input coordinate with a learned mix of all the others.

    ``x[l+1] = x[0] * (W[l] x[l] + b[l]) + x[l]`` where ``*`` is the Hadamard product, so
    ``num_layers`` layers reach polynomials of degree ``num_layers + 1``. With a rank,
    ``W[l] = U[l] V[l]^T``.

    Shape: ``(B, F, D) -> (B, F*D)``.
    Paper: Wang et al. 2021, DCN V2, eq. 1 and, with a rank, eq. 2 (arXiv:2008.13535).
    Differs from the paper: nothing.

    Args:
        num_fields: F, the number of embedded fields.
        embedding_dim: D, the width of each field's embedding.
        num_layers: number of crosses; the polynomial degree is one more.
        rank: R, width of the low-rank map; None for a full matrix.

    Raises:
        ValueError: ``num_layers`` or ``rank`` is below 1.

    >>> import torch
    >>> cross = HadamardCross(num_fields=3, embedding_dim=4, num_layers=2)
    >>> cross(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 12])
    """

    domain: ClassVar[str] = "higher-order"
    paper: ClassVar[str] = "Wang et al. 2021, arXiv:2008.13535"
    cost: ClassVar[str] = "O(L F^2 D^2), low-rank O(L F D R)"

    def __init__(
        self,
        *,
        num_fields: int,
        embedding_dim: int,
        num_layers: int = 3,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"hadamard_cross: num_layers must be at least 1; got {num_layers}.")
        if rank is not None and rank < 1:
            raise ValueError(
                f"hadamard_cross: rank must be at least 1; got {rank}. "
                "Leave it out for a full matrix."
            )
        width = num_fields * embedding_dim
        self.maps = nn.ModuleList(_map(width, rank) for _ in range(num_layers))
        self.output_shape = (width,)
        self.degree: int | None = num_layers + 1
        multiplications = width * width if rank is None else 2 * width * rank
        self.flops_per_row = num_layers * (2 * multiplications + 2 * width)

    def forward(self, x_BFD: Tensor) -> Tensor:
        """Applies the crosses."""
        first_BN = x_BFD.flatten(1)
        x_BN = first_BN
        for linear in self.maps:
            x_BN = torch.addcmul(x_BN, first_BN, linear(x_BN))
        return x_BN


def _map(width: int, rank: int | None) -> nn.Module:
    last = nn.Linear(width if rank is None else rank, width)
    nn.init.xavier_normal_(last.weight)
    nn.init.zeros_(last.bias)
    if rank is None:
        return last
    first = nn.Linear(width, rank, bias=False)
    nn.init.xavier_normal_(first.weight)
    return nn.Sequential(first, last)
