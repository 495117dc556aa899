"""Where the rows and columns of each table lie: TorchRec's plan, and the model spread out by it.

Where an experiment says ``auto`` TorchRec's planner chooses. Every other plan is made by hand: on a
CPU the planner refuses row-wise tables, and it does so on rank 0 alone, while the others wait.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import Topology
from torchrec.distributed.planner.types import PlannerError
from torchrec.distributed.sharding_plan import (
    ParameterShardingGenerator,
    column_wise,
    construct_module_sharding_plan,
    data_parallel,
    row_wise,
    table_row_wise,
    table_wise,
)
from torchrec.distributed.types import (
    EmbeddingModuleShardingPlan,
    ModuleSharder,
    ShardingEnv,
    ShardingPlan,
)
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from recsys_had.config import ShardingConfig, ShardingKind, TrainConfig
from recsys_had.errors import ConfigError
from recsys_had.model.ctr import CTRModel
from recsys_had.model.tables import field_of
from recsys_had.suggest import nearest
from recsys_had.training.distributed import from_rank_zero
from recsys_had.training.optimizers import attach_fused
from recsys_had.training.pieces import fill
from recsys_had.training.planning import COPIED, find_plan, to_config_error
from recsys_had.training.sharder import HalfCodecs, table_sharder

# FBGEMM's kernels take rows of whole 16-byte groups.
_COLUMNS = 4


@dataclass(frozen=True)
class Table:
    """One table of the model.

    Args:
        path: of its collection's module.
        name: its own.
        num_embeddings: rows.
        width: columns, padding included.
    """

    path: str
    name: str
    num_embeddings: int
    width: int

    @property
    def field(self) -> str:
        """The field it is of."""
        return field_of(self.name)

    @property
    def set_name(self) -> str:
        """The set of tables it is one of."""
        return self.path.rsplit(".", 1)[-1]


def shard(
    model: CTRModel,
    config: TrainConfig,
    *,
    device: torch.device,
    codecs: HalfCodecs | None = None,
) -> DistributedModelParallel:
    """Spreads the tables over the ranks and copies the dense part to each.

    TorchRec re-initialises every table it shards, differently per rank, so the model's own initial
    rows are written into the shards afterwards. A fused optimizer of the tables
    is attached first, but to data-parallel tables, which TorchRec would leave as they are for ever:
    they are trained as the dense part is (:class:`recsys_had.training.optimizers.Optimizers`).

    Args:
        model: the whole model; its tables need not be filled.
        config: the training part of an experiment.
        device: this rank's device.
        codecs: of what ranks send one another, where that is not float32.

    Raises:
        ConfigError: ``train.sharding`` names a table that is not there, or there is no such plan.
    """
    group = dist.group.WORLD
    assert group is not None, "process_group() was entered"
    sharder = table_sharder(codecs)
    kinds = chosen_kinds(tables_of(model), config.sharding)
    if config.sharding.default == "auto":
        plan = from_rank_zero(lambda: _planned(model, kinds, config, device))
        for path, tables in plan.plan.items():
            for name, found in cast(EmbeddingModuleShardingPlan, tables).items():
                kinds[path, name] = cast(ShardingKind, found.sharding_type)
    if config.kernel == "fused":
        attach_fused(model, config, leave_out={at for at, kind in kinds.items() if kind == COPIED})
    if config.sharding.default != "auto":
        plan = _by_hand(model, kinds, sharder, config.kernel, device)
    sharded = DistributedModelParallel(
        model,
        env=ShardingEnv.from_process_group(group),
        device=device,
        plan=plan,
        sharders=[sharder],
    )
    fill(sharded, model)
    return sharded


def chosen_kinds(
    tables: list[Table], config: ShardingConfig
) -> dict[tuple[str, str], ShardingKind]:
    """How each table, by its collection's path and its name, is sharded.

    Raises:
        ConfigError: a table is named that is not there.

    >>> tables = [Table("tables.fields", "user", 9, 8), Table("tables.linear", "user", 9, 4)]
    >>> config = ShardingConfig(tables={"user": "row_wise", "linear.user": "data_parallel"})
    >>> list(chosen_kinds(tables, config).values())
    ['row_wise', 'data_parallel']
    """
    known = {table.field for table in tables}
    known |= {f"{table.set_name}.{table.field}" for table in tables}
    problems = [
        f"train.sharding.tables: the model has no table '{name}'.{nearest(name, known)}"
        for name in config.tables
        if name not in known
    ]
    if problems:
        raise ConfigError(problems)
    return {
        (table.path, table.name): config.tables.get(
            f"{table.set_name}.{table.field}", config.tables.get(table.field, config.default)
        )
        for table in tables
    }


def tables_of(model: CTRModel) -> list[Table]:
    """Every table of a model."""
    return [
        Table(path, table.name, table.num_embeddings, table.embedding_dim)
        for path, module in _collections(model)
        for table in module.embedding_bag_configs()
    ]


def _collections(model: CTRModel) -> Iterator[tuple[str, EmbeddingBagCollection]]:
    for path, module in model.named_modules():
        if isinstance(module, EmbeddingBagCollection):
            yield path, module


def local_world_size() -> int:
    """Ranks of this host."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size()))


def _by_hand(
    model: CTRModel,
    kinds: Mapping[tuple[str, str], ShardingKind],
    sharder: ModuleSharder[Any],
    kernel: str,
    device: torch.device,
) -> ShardingPlan:
    """The plan with tables placed, largest first, where there is least so far."""
    places = _Places(dist.get_world_size(), local_world_size(), kernel)
    chosen: dict[str, dict[str, ParameterShardingGenerator]] = {}
    tables = sorted(
        tables_of(model), key=lambda table: (-table.num_embeddings * table.width, table.path)
    )
    for table in tables:
        place = places.of(table, kinds[table.path, table.name])
        chosen.setdefault(table.path, {})[table.name] = place
    return ShardingPlan(
        {
            path: construct_module_sharding_plan(
                module,
                chosen[path],
                sharder=sharder,
                local_size=local_world_size(),
                world_size=dist.get_world_size(),
                device_type=device.type,
            )
            for path, module in _collections(model)
        }
    )


class _Places:
    """Deals tables to ranks by what each holds already.

    Args:
        world_size: ranks in all.
        local_size: ranks of a host.
        kernel: ``fused`` or ``dense``.
    """

    def __init__(self, world_size: int, local_size: int, kernel: str) -> None:
        self._local_size = local_size
        self._kernel = kernel
        self._load = [0.0] * world_size

    def of(self, table: Table, kind: ShardingKind) -> ParameterShardingGenerator:
        """Where a table lies; its share is added to what those ranks hold."""
        size = table.num_embeddings * table.width
        if kind == "table_wise":
            return table_wise(rank=self._least(size, 1)[0], compute_kernel=self._kernel)
        if kind == "column_wise":
            ranks = self._least(size, _num_cuts(table.width, len(self._load)))
            return column_wise(ranks=ranks, compute_kernel=self._kernel)
        if kind == "table_row_wise":
            return table_row_wise(host_index=self._least_host(size))
        share = size if kind == "data_parallel" else size / len(self._load)
        self._load = [load + share for load in self._load]
        return data_parallel() if kind == "data_parallel" else row_wise(compute_kernel=self._kernel)

    def _least(self, size: float, count: int) -> list[int]:
        """The ranks with least, each given its share."""
        ranks = sorted(range(len(self._load)), key=lambda rank: (self._load[rank], rank))[:count]
        for rank in ranks:
            self._load[rank] += size / count
        return sorted(ranks)

    def _least_host(self, size: float) -> int:
        """The host whose ranks hold least together, each given its share."""
        span = self._local_size
        load = [sum(self._load[at : at + span]) for at in range(0, len(self._load), span)]
        host = load.index(min(load))
        for rank in range(host * span, (host + 1) * span):
            self._load[rank] += size / span
        return host


def _num_cuts(width: int, most: int) -> int:
    """Into how many equal parts of whole 16-byte groups a row can be cut, ``most`` at most.

    >>> _num_cuts(16, 8), _num_cuts(12, 2), _num_cuts(4, 8)
    (4, 1, 1)
    """
    groups = width // _COLUMNS
    return max(count for count in range(1, min(groups, most) + 1) if groups % count == 0)


def _planned(
    model: CTRModel,
    kinds: Mapping[tuple[str, str], ShardingKind],
    config: TrainConfig,
    device: torch.device,
) -> ShardingPlan:
    """What TorchRec's planner finds, given the tables whose kind is fixed.

    Raises:
        ConfigError: it finds no plan, or would have to follow two for tables of one name.
    """
    fixed = kinds_by_name(kinds)
    memory = None
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    topology = Topology(
        world_size=dist.get_world_size(),
        local_world_size=local_world_size(),
        compute_device=device.type,
        hbm_cap=memory,
    )
    try:
        plan, _ = find_plan(model, fixed=fixed, config=config, topology=topology)
    except PlannerError as cause:
        raise to_config_error(cause, world_size=dist.get_world_size(), device=device) from cause
    return plan


def kinds_by_name(kinds: Mapping[tuple[str, str], ShardingKind]) -> dict[str, str]:
    """The kind of each table by its name alone, as the planner knows them.

    Raises:
        ConfigError: tables of one name, in several sets, are to be sharded differently.
    """
    fixed: dict[str, str] = {}
    for (path, name), kind in kinds.items():
        if fixed.setdefault(name, kind) != kind:
            raise ConfigError(
                f"train.sharding.tables: TorchRec's planner shards the tables '{name}' of all sets "
                f"alike; got another kind for {path.rsplit('.', 1)[-1]}. Name the field alone."
            )
    return fixed
