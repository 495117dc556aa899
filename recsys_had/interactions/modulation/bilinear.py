"""All pairs of fields, one of the two mapped first (FiBiNET's bilinear interaction).

Letters: B batch, F fields, D embedding_dim, P pairs = F(F-1)/2.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from recsys_had.interactions._pairs import pair_indices, require_pairs

Kind = Literal["field_all", "field_each", "field_interaction"]
_KINDS = ("field_all", "field_each", "field_interaction")


class Bilinear(nn.Module):
    """Multiplies each pair of fields, after a linear map of the left one.

    ``p_ij = (W e_i) * e_j`` for ``i < j`` where ``*`` is the Hadamard product. ``W`` is one matrix
    for all pairs (``field_all``), one for each left field (``field_each``, F - 1 of them) or one
    for each pair (``field_interaction``).

    Shape: ``(B, F, D) -> (B, P, D)``.
    Paper: Huang et al. 2019, FiBiNET, eq. 7-9 (arXiv:1905.09433).
    Differs from the paper: nothing.

    Args:
        num_fields: F, the number of embedded fields.
        embedding_dim: D, the width of each field's embedding.
        kind: which pairs share a matrix.

    Raises:
        ValueError: ``num_fields`` is below 2, or there is no such kind.

    >>> import torch
    >>> Bilinear(num_fields=4, embedding_dim=8)(torch.zeros(2, 4, 8)).shape
    torch.Size([2, 6, 8])
    """

    domain: ClassVar[str] = "modulation"
    paper: ClassVar[str] = "Huang et al. 2019, arXiv:1905.09433"
    cost: ClassVar[str] = "O(F^2 D^2), O(F D^2 + F^2 D) unless field_interaction"

    def __init__(
        self, *, num_fields: int, embedding_dim: int, kind: Kind = "field_interaction"
    ) -> None:
        super().__init__()
        require_pairs("bilinear", num_fields)
        if kind not in _KINDS:
            raise ValueError(f"bilinear: kind must be one of {', '.join(_KINDS)}; got '{kind}'.")
        left, right = pair_indices(num_fields)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        num_pairs = len(left)
        num_maps = {"field_all": 1, "field_each": num_fields - 1, "field_interaction": num_pairs}
        self.kind = kind
        self.weight = nn.Parameter(torch.empty(num_maps[kind], embedding_dim, embedding_dim))
        for matrix in self.weight:
            nn.init.xavier_normal_(matrix)
        self.output_shape = (num_pairs, embedding_dim)
        self.degree: int | None = 2
        maps_a_row = num_pairs if kind == "field_interaction" else num_fields - 1
        self.flops_per_row = 2 * maps_a_row * embedding_dim**2 + num_pairs * embedding_dim

    def forward(self, x_BFD: Tensor) -> Tensor:
        """Maps the left fields and multiplies the pairs."""
        right_BPD = x_BFD.index_select(1, self.get_buffer("right"))
        if self.kind == "field_interaction":
            left_BPD = x_BFD.index_select(1, self.get_buffer("left"))
            mapped_BPD = torch.einsum("bpd,ped->bpe", left_BPD, self.weight)
        else:
            # The last field is never on the left, so each other one is mapped once.
            lefts = x_BFD[:, :-1]
            maps = self.weight.expand(lefts.shape[1], -1, -1)
            mapped = torch.einsum("bfd,fed->bfe", lefts, maps)
            mapped_BPD = mapped.index_select(1, self.get_buffer("left"))
        return mapped_BPD * right_BPD
