"""One process or many: the process group, the sharding plan, whole tables from shards."""

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import (
    construct_module_sharding_plan,
    row_wise,
    table_wise,
)
from torchrec.distributed.types import ModuleSharder, ShardingEnv, ShardingPlan
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import is_table

T = TypeVar("T")

_TIMEOUT = timedelta(minutes=10)


@contextmanager
def process_group() -> Iterator[torch.device]:
    """Joins the ranks torchrun started, or stands alone; yields this rank's device.

    Alone, the group lives in this process's memory: no port is opened.
    """
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    use_cuda = torch.cuda.is_available()
    backend = "nccl" if use_cuda else "gloo"
    device = torch.device("cpu")
    if use_cuda:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if launched:
        dist.init_process_group(backend, timeout=_TIMEOUT)
    else:
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield device
        # No rank leaves while another still talks to it.
        dist.barrier()
    finally:
        # Sharded modules hold the group: they go before it does, not at the interpreter's end.
        gc.collect()
        dist.destroy_process_group()


def shard(
    model: CTRModel, *, sharding: str, fused: bool, device: torch.device
) -> DistributedModelParallel:
    """Spreads the tables over the ranks and copies the dense part to each.

    The plan is made by hand: on a CPU TorchRec's planner refuses row-wise tables. TorchRec also
    re-initialises every table it shards, differently per rank, so the model's own initial rows
    are written into the shards afterwards.

    Args:
        model: the whole model; its tables need not be filled.
        sharding: ``table_wise`` or ``row_wise``.
        fused: whether the tables' optimizer runs inside the backward pass.
        device: this rank's device.
    """
    group = dist.group.WORLD
    assert group is not None, "process_group() was entered"
    world_size = dist.get_world_size()
    sharder: ModuleSharder[Any] = EmbeddingBagCollectionSharder()
    kernel = "fused" if fused else "dense"
    load = [0] * world_size
    plan = {}
    for path, module in model.named_modules():
        if not isinstance(module, EmbeddingBagCollection):
            continue
        tables = {}
        for table in sorted(
            module.embedding_bag_configs(), key=lambda table: (-table.num_embeddings, table.name)
        ):
            if sharding == "row_wise":
                tables[table.name] = row_wise(compute_kernel=kernel)
            else:
                rank = load.index(min(load))
                load[rank] += table.num_embeddings * table.embedding_dim
                tables[table.name] = table_wise(rank=rank, compute_kernel=kernel)
        plan[path] = construct_module_sharding_plan(
            module,
            tables,
            sharder=sharder,
            local_size=int(os.environ.get("LOCAL_WORLD_SIZE", world_size)),
            world_size=world_size,
            device_type=device.type,
        )
    sharded = DistributedModelParallel(
        model,
        env=ShardingEnv.from_process_group(group),
        device=device,
        plan=ShardingPlan(plan),
        sharders=[sharder],
    )
    _fill_shards(sharded, model)
    return sharded


def local_shards(sharded: nn.Module) -> Iterator[tuple[str, int, Tensor]]:
    """Name, first row and rows of every piece of a table this rank holds."""
    for name, value in sharded.state_dict().items():
        if isinstance(value, ShardedTensor):
            for piece in value.local_shards():
                yield name, piece.metadata.shard_offsets[0], piece.tensor


def _fill_shards(sharded: nn.Module, model: CTRModel) -> None:
    with torch.no_grad():
        for name, first, rows in local_shards(sharded):
            width = model.table_width(name)
            rows.zero_()
            rows[:, :width] = model.initial.rows(name, first, len(rows), width)


def gather_state(sharded: nn.Module, model: CTRModel) -> dict[str, Tensor] | None:
    """All weights and buffers as :meth:`CTRModel.export_state` gives them; None off rank 0."""
    pieces: list[tuple[str, int, Tensor]] = []
    whole: dict[str, Tensor] = {}
    for name, value in sharded.state_dict().items():
        if not isinstance(value, ShardedTensor):
            whole[name] = model.without_padding(name, value).cpu().clone()
    for name, first, rows in local_shards(sharded):
        pieces.append((name, first, model.without_padding(name, rows).cpu().clone()))
    found: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(pieces, found, dst=0)
    if found is None:
        return None
    parts: dict[str, list[tuple[int, Tensor]]] = {}
    for name, first, rows in (piece for pieces in found for piece in pieces):
        parts.setdefault(name, []).append((first, rows))
    for name, shards in parts.items():
        whole[name] = torch.cat([rows for _, rows in sorted(shards, key=lambda part: part[0])])
    return whole


def scatter_state(sharded: nn.Module, model: CTRModel, state: Mapping[str, Tensor] | None) -> None:
    """Writes whole weights, held by rank 0, into every rank's shards and dense part."""
    pieces: dict[str, list[tuple[int, Tensor]]] = {}
    for name, first, rows in local_shards(sharded):
        pieces.setdefault(name, []).append((first, rows))
    with torch.no_grad():
        for name, value in sorted(sharded.state_dict().items()):
            shape = list(value.size())
            if is_table(name):
                shape[1] = model.table_width(name)
            whole = torch.empty(shape, dtype=value.dtype)
            if state is not None:
                whole.copy_(state[name])
            dist.broadcast(whole, src=0)
            if not isinstance(value, ShardedTensor):
                target = value[:, : shape[1]] if is_table(name) else value
                target.copy_(whole)
            for first, rows in pieces.get(name, ()):
                rows[:, : shape[1]] = whole[first : first + len(rows)]


def from_rank_zero(work: Callable[[], T]) -> T:
    """Runs ``work`` on rank 0 alone and gives every rank its result, or its error."""
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = work()
        except Exception as error:
            outcome[1] = error
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]  # type: ignore[no-any-return]
