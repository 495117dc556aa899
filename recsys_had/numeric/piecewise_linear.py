"""How far a value has come through each of the bins of its training rows.

Letters: B batch, C columns, T bins, D embedding_dim.
"""

import math

import torch
from torch import Tensor

from recsys_had.numeric._encoder import ColumnwiseLinear, Encoder, require


class PiecewiseLinear(Encoder):
    """Reads a value as the share of each bin that lies below it.

    ``v_t = (x - b[t-1]) / (b[t] - b[t-1])``, not below 0 but in the first bin, not above 1 but in
    the last; then ``e = W v + b``, with relu around it by option. The edges ``b[0..T]`` are
    quantiles of the training rows, given once by :meth:`set_edges`: until then every output is
    not a number.

    Edges that coincide are one, so a column of few values has fewer bins. The buffer ``edges``
    has room for all of them in any case and repeats the last one: a bin without width gives 0.
    A column of a single value has no bin and gives its bias.

    Shape: ``(B, C) -> (B, C, D)``.
    Paper: Gorishniy et al. 2022, On Embeddings for Numerical Features, sec. 3.2, eq. 1
    (arXiv:2203.05556), bins by quantiles (sec. 3.2.1).
    Differs from the paper: nothing.

    Args:
        num_columns: C.
        embedding_dim: D.
        num_bins: T, of each column at most.
        relu: end in relu.

    Raises:
        ValueError: ``num_bins`` is below 1.

    >>> layer = PiecewiseLinear(num_columns=1, embedding_dim=4, num_bins=2)
    >>> layer.set_edges(0, torch.tensor([0.0, 1.0, 3.0]))
    >>> layer.encode(torch.tensor([[0.5], [2.0], [5.0]]))[:, 0].tolist()
    [[0.5, 0.0], [1.0, 0.5], [1.0, 2.0]]
    """

    edges: Tensor

    def __init__(
        self, *, num_columns: int, embedding_dim: int, num_bins: int = 16, relu: bool = False
    ) -> None:
        super().__init__()
        require(num_bins=num_bins)
        self.num_bins = num_bins
        self._relu = relu
        self.register_buffer("edges", torch.full((num_columns, num_bins + 1), math.nan))
        self.linear = ColumnwiseLinear(
            num_columns=num_columns, num_inputs=num_bins, embedding_dim=embedding_dim
        )

    @property
    def flops_per_row(self) -> int:
        """A difference, a quotient and two comparisons a bin; the map; the relu."""
        bins = 4 * self.num_bins * len(self.edges)
        return bins + self.linear.flops_per_row + self._relu * self.linear.bias.numel()

    def set_edges(self, column: int, edges: Tensor) -> None:
        """Gives a column its bins.

        Args:
            column: the column's place.
            edges: one to T + 1 rising numbers.

        Raises:
            ValueError: there are none or too many, or they do not rise.
        """
        if not 1 <= len(edges) <= self.num_bins + 1 or not bool((edges.diff() > 0).all()):
            raise ValueError(
                f"edges must be 1 to {self.num_bins + 1} rising numbers; got {edges.tolist()}."
            )
        self.edges[column] = edges[-1]
        self.edges[column, : len(edges)] = edges

    def encode(self, x_BC: Tensor) -> Tensor:
        """The shares ``v``, ``(B, C, T)``."""
        left_CT = self.edges[:, :-1]
        width_CT = self.edges.diff()
        is_bin_CT = width_CT > 0
        is_last_CT = is_bin_CT & ~torch.cat(
            [is_bin_CT[:, 1:], is_bin_CT.new_zeros(len(left_CT), 1)], 1
        )
        least_CT = torch.zeros_like(left_CT)
        least_CT[:, 0] = torch.where(is_bin_CT[:, 0], -math.inf, 0.0)
        most_CT = is_bin_CT.to(left_CT.dtype).masked_fill(is_last_CT, math.inf)
        share_BCT = (x_BC.unsqueeze(-1) - left_CT) / torch.where(is_bin_CT, width_CT, 1.0)
        return share_BCT.clamp(least_CT, most_CT)

    def forward(self, x_BC: Tensor) -> Tensor:
        """Embeds the columns."""
        e_BCD: Tensor = self.linear(self.encode(x_BC))
        return torch.relu(e_BCD) if self._relu else e_BCD
