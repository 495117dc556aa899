"""The numeric columns' fields: each column's kind, and all columns of a kind computed together.

Letters: B batch, N numeric columns, C columns of a group, S scaled columns, T fields made,
D embedding_dim.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys_had import numeric
from recsys_had.config import ModelConfig
from recsys_had.errors import ConfigError
from recsys_had.model.numeric_group import NumericGroup
from recsys_had.numeric.piecewise_linear import PiecewiseLinear
from recsys_had.numeric_config import ColumnConfig, NumericConfig
from recsys_had.suggest import nearest


@dataclass(frozen=True)
class NumericSummary:
    """What ``describe`` tells of the columns of one kind and the same options.

    Args:
        kind: see :mod:`recsys_had.numeric`.
        columns: their names.
        num_fields: fields they make.
        parameters: learned numbers, the vectors of ``scale`` not counted: they are rows of tables.
        flops_per_row: multiplications and additions a row.
    """

    kind: str
    columns: tuple[str, ...]
    num_fields: int
    parameters: int
    flops_per_row: int


class NumericFields(nn.Module):
    """Makes fields of the numeric columns, each as its own kind asks.

    Columns of the same kind and options are embedded together, in one batched operation. The
    fields stand in the order of the columns; that of columns joined into one stands where the
    first of them would.

    Initial weights depend on the seed, the kind and the column's name alone, so that what another
    column chooses changes nothing. Two kinds are not of this module: the vectors of ``scale`` are
    handed in, and ``none`` makes no field.

    Shape: ``(B, N), (S, D) -> (B, T, D)``.
    Paper: none; see each kind's own.
    Differs from the paper: nothing.

    Args:
        dense: names of the numeric columns.
        config: how each becomes a field; None scales all.
        embedding_dim: D.
        seed: of every initial weight.

    Raises:
        ConfigError: a column is described that there is not, or a kind refuses its options.

    >>> fields = NumericFields(dense=["age", "price"], config=None, embedding_dim=4)
    >>> fields(torch.ones(3, 2), torch.ones(2, 4)).shape
    torch.Size([3, 2, 4])
    """

    order: Tensor

    def __init__(
        self,
        *,
        dense: Sequence[str],
        config: NumericConfig | None,
        embedding_dim: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        config = config or NumericConfig()
        _require_columns(config, dense)
        self.scaled = tuple(n for n, name in enumerate(dense) if config.of(name).kind == "scale")
        self._width = embedding_dim
        self.groups = nn.ModuleDict()
        places: list[int] = []
        for columns, column in _grouped(dense, config):
            kind = column.kind
            if numeric.tokens(kind) == "none":
                continue
            number = sum(group.kind == kind for group in self._groups())
            self.groups[kind if number == 0 else f"{kind}_{number + 1}"] = NumericGroup(
                column=column,
                names=[dense[place] for place in columns],
                places=columns,
                num_dense=len(dense),
                vectors=[self.scaled.index(place) for place in columns if place in self.scaled],
                num_vectors=len(self.scaled),
                embedding_dim=embedding_dim,
                seed=seed,
                is_described=any(dense[place] in config.columns for place in columns),
            )
            places += columns if numeric.tokens(kind) == "each" else columns[:1]
        self._is_ordered = places == sorted(places)
        self.field_names = tuple(
            name
            for _, name in sorted(
                zip(places, (n for group in self._groups() for n in group.field_names), strict=True)
            )
        )
        order = torch.tensor(places, dtype=torch.int64).argsort()
        self.register_buffer("order", order, persistent=False)

    def forward(self, dense_BN: Tensor, vectors_SD: Tensor | None) -> Tensor:
        """Embeds the columns; ``vectors_SD`` are those of the scaled ones, None without one."""
        parts = [group(dense_BN, vectors_SD) for group in self._groups()]
        if not parts:
            return dense_BN.new_empty(dense_BN.shape[0], 0, self._width)
        e_BTD = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return e_BTD if self._is_ordered else e_BTD.index_select(1, self.order)

    @property
    def num_fields(self) -> int:
        """T."""
        return len(self.field_names)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The fields that several columns make together."""
        return tuple(
            name
            for group in self._groups()
            if numeric.tokens(group.kind) == "joint"
            for name in group.field_names
        )

    @property
    def bins(self) -> dict[str, int]:
        """The columns whose bins are to be fitted, and how many each has at most."""
        return {
            name: group.encoder.num_bins
            for group in self._groups()
            if isinstance(group.encoder, PiecewiseLinear)
            for name in group.names
        }

    def set_edges(self, column: str, edges: Tensor) -> None:
        """Gives a column of :attr:`bins` the edges of its bins, one to ``num_bins + 1``."""
        for group in self._groups():
            if isinstance(group.encoder, PiecewiseLinear) and column in group.names:
                group.encoder.set_edges(group.names.index(column), edges)

    def summaries(self) -> list[NumericSummary]:
        """Kinds, fields, parameters and cost, group by group."""
        return [
            NumericSummary(
                kind=group.kind,
                columns=tuple(group.names),
                num_fields=len(group.field_names),
                parameters=sum(weight.numel() for weight in group.parameters()),
                flops_per_row=group.flops_per_row,
            )
            for group in self._groups()
        ]

    def _groups(self) -> list[NumericGroup]:
        return [group for group in self.groups.values() if isinstance(group, NumericGroup)]


def numeric_fields(
    dense: Sequence[str], config: ModelConfig, *, is_read: bool, seed: int
) -> NumericFields | None:
    """What makes a model's numeric columns fields of its shared set.

    Args:
        dense: names of the numeric columns.
        config: the model.
        is_read: whether a node reads the shared set; without one there is nothing to make.
        seed: of every initial weight.

    Raises:
        ConfigError: the section ``numeric`` does not fit the card or the nodes.
    """
    if is_read:
        return NumericFields(
            dense=dense, config=config.numeric, embedding_dim=config.embedding_dim, seed=seed
        )
    if config.numeric is not None and config.numeric != NumericConfig():
        raise ConfigError(
            "model.numeric: no node reads 'fields', so no numeric column is embedded by it: "
            "tables of a node's own scale each column. Leave it out."
        )
    return None


def _grouped(dense: Sequence[str], config: NumericConfig) -> list[tuple[list[int], ColumnConfig]]:
    """Places of the columns that share a kind and all options."""
    groups: dict[str, tuple[list[int], ColumnConfig]] = {}
    for place, name in enumerate(dense):
        column = config.of(name)
        key = json.dumps(column.to_mapping(), sort_keys=True)
        groups.setdefault(key, ([], column))[0].append(place)
    return list(groups.values())


def _require_columns(config: NumericConfig, dense: Sequence[str]) -> None:
    problems: list[str] = []
    for name in config.columns:
        if name not in dense:
            told = nearest(name, dense) or " The dataset card has none."
            problems.append(f"model.numeric.columns.{name}: is no numeric column.{told}")
    if not dense and numeric.tokens(config.every.kind) == "joint":
        problems.append(
            f"model.numeric: kind '{config.every.kind}' makes a field of the numeric columns, and "
            "the dataset card has none. Choose another model, or another dataset."
        )
    if problems:
        raise ConfigError(problems)
