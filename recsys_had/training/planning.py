"""TorchRec's planner: where tables lie best, on the ranks at hand or on a cluster that is not.

The planner itself needs no GPU. Its own bandwidths are an old GPU's: those of a
:class:`recsys_had.machines.Machine` take their place. Its times are of lookups and their
communication at full bandwidth, so they compare plans and are not to be taken for measured ones;
the time of the dense part is a count of operations and bytes over the machine's.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import PlannerError, ShardingOption, Stats
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ShardingPlan
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from recsys_had.config import TrainConfig
from recsys_had.errors import ConfigError
from recsys_had.machines import Machine
from recsys_had.model.tables import field_of
from recsys_had.training.optimizers import FUSED
from recsys_had.training.sharder import half_codecs, table_sharder, table_type

COPIED = "data_parallel"
# Of a GPU's memory, kept for activations and what communication needs.
RESERVED = 0.15
# Of its arithmetic, what a network of common widths comes to.
UTILISATION = 0.5
_GB, _PER_MS = 1e9, 1e6  # bytes of a GB; bytes a millisecond of a GB a second


def find_plan(
    model: nn.Module,
    *,
    fixed: Mapping[str, str],
    config: TrainConfig,
    topology: Topology,
    pooling_factors: Mapping[str, float] | None = None,
    reserved: float = RESERVED,
) -> tuple[ShardingPlan, list[ShardingOption]]:
    """The best plan the planner finds, and the pieces of each table with their bytes and times.

    Args:
        model: its tables may have no storage (``meta``).
        fixed: the sharding of tables by name, ``auto`` where the planner may choose.
        config: the training part of an experiment.
        topology: the ranks.
        pooling_factors: mean number of values a row, by field; 1 where absent.
        reserved: share of a rank's memory that no table may take.

    Raises:
        PlannerError: there is no plan that fits.
    """
    free = ["table_wise"] if config.table_precision == "fp16" else ["table_wise", COPIED]
    if topology.compute_device == "cuda":
        free += ["row_wise", "table_row_wise"]
    if config.kernel == "fused" and config.table_optimizer != "rowwise_adagrad":
        # Of a dense table the planner may give a rank two cuts, of one name.
        free += ["column_wise"]
    constraints = {
        name: ParameterConstraints(
            sharding_types=free if kind == "auto" else [kind],
            # Of a table that is not copied the planner knows no dense kernel on a GPU.
            compute_kernels=["fused", "dense"],
            pooling_factors=[(pooling_factors or {}).get(field_of(name), 1.0)],
        )
        for name, kind in fixed.items()
    }
    kept = _Kept()
    planner = EmbeddingShardingPlanner(
        topology=topology,
        batch_size=config.batch_size,
        constraints=constraints,
        storage_reservation=FixedPercentageStorageReservation(percentage=reserved),
        stats=kept,
    )
    sharder = table_sharder(half_codecs(config))
    with _quiet(), _counting_state(model, config):
        try:
            plan = planner.plan(model, [sharder])
        except RuntimeError as cause:
            if "No available sharding type" not in str(cause):
                raise
            raise PlannerError("a table cannot be sharded as the experiment says") from cause
    for tables in plan.plan.values():
        for found in cast(EmbeddingModuleShardingPlan, tables).values():
            found.compute_kernel = config.kernel if found.sharding_type != COPIED else "dense"
    return plan, kept.best


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a warning for every table that is to be copied to all ranks."""

    def keep(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Sharding spec not found")

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


@contextmanager
def _counting_state(model: nn.Module, config: TrainConfig) -> Iterator[None]:
    """Lets the planner count the optimizer state of tables whose optimizer is not attached yet."""
    kind = FUSED.get(config.table_optimizer, torch.optim.Adam)
    if config.table_precision == "fp16" and config.table_optimizer == "adagrad":
        # Counted in numbers of the table's kind, of which one of float32 takes two.
        kind = torch.optim.Adam
    tables = [
        table.weight
        for module in model.modules()
        if isinstance(module, EmbeddingBagCollection)
        for table in module.embedding_bags.values()
        if not hasattr(table.weight, "_optimizer_classes")
    ]
    for weight in tables:
        weight._optimizer_classes = [kind]
    try:
        yield
    finally:
        for weight in tables:
            del weight._optimizer_classes


class _Kept(Stats):  # type: ignore[misc]
    """Takes the place of the planner's printed report and keeps what it would print."""

    def __init__(self) -> None:
        self.best: list[ShardingOption] = []

    def log(self, *arguments: Any, **told: Any) -> None:
        self.best = told["best_plan"]


@dataclass(frozen=True)
class PlannedTable:
    """Where one table would lie.

    Args:
        name: ``SET.FIELD``.
        num_embeddings: rows.
        embedding_dim: width, padding included.
        sharding: the kind.
        ranks: that hold a part.
        size_bytes: weights and optimizer state over all ranks.
    """

    name: str
    num_embeddings: int
    embedding_dim: int
    sharding: str
    ranks: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class ClusterPlan:
    """A model on a cluster.

    Args:
        tables: largest first.
        rank_bytes: of tables with their optimizer state and buffers, by rank.
        hbm_bytes: memory of a GPU.
        reserved_bytes: of it, kept for activations and the dense part.
        step_ms: of the slowest rank, by part of a step.
        slowest_rank: that one.
        why_not: why nothing fits; None where a plan was found.
    """

    tables: tuple[PlannedTable, ...]
    rank_bytes: tuple[int, ...]
    hbm_bytes: int
    reserved_bytes: int
    step_ms: dict[str, float]
    slowest_rank: int
    why_not: str | None

    @property
    def fits(self) -> bool:
        """Whether every rank's share fits into its memory."""
        return self.why_not is None


def plan_cluster(
    model: nn.Module,
    *,
    fixed: Mapping[str, str],
    config: TrainConfig,
    machine: Machine,
    world_size: int,
    ranks_per_host: int,
    hbm_gb: float,
    pooling_factors: Mapping[str, float],
    flops_per_row: int,
    dense_parameters: int,
) -> ClusterPlan:
    """Plans a model on GPUs that need not be there.

    Args:
        model: with tables without storage; their optimizers attached.
        fixed: see :func:`find_plan`.
        config: the training part of an experiment.
        machine: what the hosts are.
        world_size: GPUs in all.
        ranks_per_host: GPUs of a host.
        hbm_gb: memory of a GPU, 1e9 bytes.
        pooling_factors: mean number of values a row, by field.
        flops_per_row: of the dense part's forward pass.
        dense_parameters: learned numbers outside the tables.
    """
    hbm_bytes = int(hbm_gb * _GB)
    topology = Topology(
        world_size=world_size,
        local_world_size=ranks_per_host,
        compute_device="cuda",
        hbm_cap=hbm_bytes,
        ddr_cap=int(machine.ddr_gb * _GB),
        hbm_mem_bw=machine.hbm_gb_per_s * _PER_MS,
        ddr_mem_bw=machine.ddr_gb_per_s * _PER_MS,
        hbm_to_ddr_mem_bw=machine.host_link_gb_per_s * _PER_MS,
        intra_host_bw=machine.intra_host_gb_per_s * _PER_MS,
        inter_host_bw=machine.inter_host_gb_per_s * _PER_MS,
    )
    # The dense part is held with its gradient and Adam's two moments.
    reserved = int(RESERVED * hbm_bytes) + 4 * 4 * dense_parameters
    try:
        _, options = find_plan(
            model,
            fixed=fixed,
            config=config,
            topology=topology,
            pooling_factors=pooling_factors,
            reserved=min(1.0, reserved / hbm_bytes),
        )
    except PlannerError as cause:
        room = max(hbm_bytes - reserved, 0)
        why_not = _why_not(_reason(cause), _table_bytes(model, config), room)
        return ClusterPlan((), (), hbm_bytes, reserved, {}, 0, why_not)
    rank_bytes = [0] * world_size
    parts: list[Counter[str]] = [Counter() for _ in range(world_size)]
    for option in options:
        for shard in option.shards:
            assert shard.rank is not None and shard.storage is not None and shard.perf is not None
            rank_bytes[shard.rank] += shard.storage.hbm
            parts[shard.rank].update(
                {
                    "input distribution": shard.perf.input_dist_comms,
                    "lookup": shard.perf.fwd_compute,
                    "output distribution": shard.perf.fwd_comms,
                    "gradient distribution": shard.perf.bwd_comms,
                    "update": shard.perf.bwd_compute,
                }
            )
    slowest = max(range(world_size), key=lambda rank: sum(parts[rank].values()))
    dense = _dense_ms(
        machine,
        rows=config.batch_size,
        flops_per_row=flops_per_row,
        parameters=dense_parameters,
        world_size=world_size,
        ranks_per_host=ranks_per_host,
    )
    return ClusterPlan(
        tables=tuple(
            sorted(
                (_planned_table(option, config) for option in options),
                key=lambda table: (-table.size_bytes, table.name),
            )
        ),
        rank_bytes=tuple(rank_bytes),
        hbm_bytes=hbm_bytes,
        reserved_bytes=reserved,
        step_ms={**parts[slowest], **dense},
        slowest_rank=slowest,
        why_not=None,
    )


def _table_bytes(model: nn.Module, config: TrainConfig) -> int:
    """Bytes of all tables and their optimizer state, each held once."""
    return sum(
        rows * _row_bytes(config, width)
        for module in model.modules()
        if isinstance(module, EmbeddingBagCollection)
        for rows, width in (
            (table.num_embeddings, table.embedding_dim) for table in module.embedding_bag_configs()
        )
    )


def _why_not(reason: str, table_bytes: int, room_bytes: int) -> str:
    """Why nothing fits, with what would be needed at least."""
    if not room_bytes:
        return f"{reason}; the dense part and its reserve alone fill a GPU"
    return (
        f"{reason}; the tables and their optimizer take {table_bytes / 1e9:,.1f} GB, and a GPU has "
        f"room for {room_bytes / 1e9:,.1f}: {-(-table_bytes // room_bytes):,} GPUs at least"
    )


def _planned_table(option: ShardingOption, config: TrainConfig) -> PlannedTable:
    path, _ = option.module
    rows, width = option.tensor.shape
    copies = len(option.shards) if option.sharding_type == COPIED else 1
    return PlannedTable(
        name=f"{path.rsplit('.', 1)[-1]}.{option.name}",
        num_embeddings=rows,
        embedding_dim=width,
        sharding=option.sharding_type,
        ranks=tuple(sorted({cast(int, shard.rank) for shard in option.shards})),
        size_bytes=copies * rows * _row_bytes(config, width),
    )


def _row_bytes(config: TrainConfig, width: int) -> int:
    """Of a row and what its optimizer keeps, which is float32 always."""
    return width * table_type(config).itemsize + 4 * _state_numbers(config, width)


def _state_numbers(config: TrainConfig, width: int) -> int:
    """Numbers an optimizer keeps for a row of a table."""
    if config.table_optimizer in ("adam", "lazy_adam"):
        return 2 * width
    return {"sgd": 0, "rowwise_adagrad": 1, "adagrad": width}[config.table_optimizer]


def _dense_ms(
    machine: Machine,
    *,
    rows: int,
    flops_per_row: int,
    parameters: int,
    world_size: int,
    ranks_per_host: int,
) -> dict[str, float]:
    """Forward and twice that backward, and a ring's all-reduce over the slowest link."""
    link = machine.intra_host_gb_per_s
    if world_size > ranks_per_host:
        link = machine.inter_host_gb_per_s
    moved = 2 * (world_size - 1) / world_size * parameters * 4
    return {
        "network": 3 * flops_per_row * rows / (UTILISATION * machine.fp32_tflops * 1e9),
        "network's gradients": moved / (link * _PER_MS),
    }


def _reason(cause: PlannerError) -> str:
    """The first line of what the planner says, on one line."""
    return " ".join(str(cause).strip().splitlines()[0].split()).rstrip(".:, ")


def to_config_error(cause: PlannerError, *, world_size: int, device: torch.device) -> ConfigError:
    """What a training says where the planner finds no plan."""
    return ConfigError(
        f"train.sharding: TorchRec's planner finds no plan for {world_size} ranks on "
        f"{device.type}: {_reason(cause)}. Name the sharding of tables, or use more ranks."
    )
