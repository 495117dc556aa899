"""Numeric columns of one kind and the same options, embedded together.

Letters: B batch, N numeric columns, C columns of the group, S scaled columns, D embedding_dim.
"""

import torch
from torch import Tensor, nn

from recsys_had import numeric
from recsys_had.errors import ConfigError
from recsys_had.interactions._batch_norm import DistributedBatchNorm
from recsys_had.numeric._encoder import Encoder
from recsys_had.numeric.scale import Scale
from recsys_had.numeric_config import ColumnConfig
from recsys_had.seeds import derived_seed

# As many as a batch normalisation in the graph is told to cost.
_NORM_FLOPS = 2


class NumericGroup(nn.Module):
    """Picks its columns, normalises them by option and embeds them.

    Shape: ``(B, N), (S, D) -> (B, C, D)``, or ``(B, 1, D)`` of a kind that joins its columns.
    Paper: none; see the kind's own.
    Differs from the paper: nothing.

    Args:
        column: kind and options of all its columns.
        names: the columns.
        places: where they stand among the N.
        num_dense: N.
        vectors: where the vectors of the scaled ones stand among the S.
        num_vectors: S.
        embedding_dim: D.
        seed: of every initial weight.
        is_described: whether a column has an entry of its own in the experiment, for errors.

    Raises:
        ConfigError: the kind refuses its options.
    """

    places: Tensor
    vectors: Tensor

    def __init__(
        self,
        *,
        column: ColumnConfig,
        names: list[str],
        places: list[int],
        num_dense: int,
        vectors: list[int],
        num_vectors: int,
        embedding_dim: int,
        seed: int,
        is_described: bool,
    ) -> None:
        super().__init__()
        self.kind = column.kind
        self.names = names
        is_joint = numeric.tokens(self.kind) == "joint"
        self.field_names = ["+".join(names)] if is_joint else names
        self._reads_all = places == list(range(num_dense))
        self._takes_all = vectors == list(range(num_vectors))
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.register_buffer("vectors", torch.tensor(vectors), persistent=False)
        self.norm = DistributedBatchNorm(len(names)) if column.normalise == "batch" else None
        try:
            self.encoder = _started(column, names, embedding_dim, seed)
        except ValueError as cause:
            at = f"model.numeric.columns.{names[0]}" if is_described else "model.numeric"
            raise ConfigError(f"{at}: {cause}") from cause

    @property
    def flops_per_row(self) -> int:
        """The encoder's, and the normalisation's."""
        norm = 0 if self.norm is None else _NORM_FLOPS * len(self.names)
        return self.encoder.flops_per_row + norm

    def forward(self, dense_BN: Tensor, vectors_SD: Tensor | None) -> Tensor:
        """Embeds the group's columns."""
        x_BC = dense_BN if self._reads_all else dense_BN.index_select(1, self.places)
        if self.norm is not None:
            x_BC = self.norm(x_BC)
        if not isinstance(self.encoder, Scale):
            e_BCD: Tensor = self.encoder(x_BC)
            return e_BCD
        assert vectors_SD is not None, "scaled columns have vectors"
        own_CD = vectors_SD if self._takes_all else vectors_SD.index_select(0, self.vectors)
        scaled_BCD: Tensor = self.encoder(x_BC, own_CD)
        return scaled_BCD


def _started(column: ColumnConfig, names: list[str], embedding_dim: int, seed: int) -> Encoder:
    """The group's encoder, with the initial weights that each column's name decides."""

    def build(num_columns: int, drawn_for: str) -> Encoder:
        with torch.random.fork_rng(devices=[]):
            of_column = derived_seed(seed, "numeric", column.kind, drawn_for)
            torch.default_generator.manual_seed(of_column >> 1)
            return numeric.build(
                column.kind,
                num_columns=num_columns,
                embedding_dim=embedding_dim,
                **column.options,
            )

    whole = build(len(names), "+".join(names))
    if numeric.tokens(column.kind) == "each":
        with torch.no_grad():
            for place, name in enumerate(names):
                alone = build(1, name)
                for weight, drawn in zip(whole.parameters(), alone.parameters(), strict=True):
                    weight[place] = drawn[0]
    return whole
