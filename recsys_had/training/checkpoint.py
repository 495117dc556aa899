"""Checkpoints of a running training: everything needed to go on bit for bit.

Each rank writes its own shards, optimizer state and random state to a safetensors file; a JSON
file holds the counters. A checkpoint is written beside its place and renamed, so it is whole or
absent.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torchrec.distributed.model_parallel import DistributedModelParallel

from recsys_had.errors import CheckpointError
from recsys_had.training.optimizers import Optimizers

CHECKPOINT = "checkpoint"
_RANDOM = "random_state"


def save_checkpoint(
    folder: Path,
    *,
    model: DistributedModelParallel,
    optimizers: Optimizers,
    counters: dict[str, Any],
) -> None:
    """Replaces the checkpoint in ``folder`` by the present state; all ranks call it together."""
    fresh = folder.with_name(folder.name + ".tmp")
    try:
        if dist.get_rank() == 0:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
        dist.barrier()
        tensors = {name: tensor.contiguous() for name, tensor in _state(model, optimizers).items()}
        tensors[_RANDOM] = torch.get_rng_state()
        # Slices of one FBGEMM buffer share memory, which safetensors refuses: each is copied.
        save_file(
            {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()},
            fresh / f"rank-{dist.get_rank()}.safetensors",
        )
        dist.barrier()
        if dist.get_rank() == 0:
            whole = {**counters, "world_size": dist.get_world_size()}
            (fresh / "counters.json").write_text(json.dumps(whole))
            _swap(fresh, folder)
        dist.barrier()
    except Exception:
        # Half a checkpoint is of no use, and fills a disk that may be full already.
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _swap(fresh: Path, folder: Path) -> None:
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(
    folder: Path, *, model: DistributedModelParallel, optimizers: Optimizers
) -> dict[str, Any] | None:
    """Restores the state in place and returns the counters; None where there is nothing.

    Raises:
        CheckpointError: it was written by another number of processes, or does not fit.
    """
    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and not old.exists():
        return None
    # A kill between two renames leaves the previous checkpoint under its other name.
    folder = folder if folder.exists() else old
    counters: dict[str, Any] = json.loads((folder / "counters.json").read_text())
    if counters["world_size"] != dist.get_world_size():
        raise CheckpointError(
            f"{folder}: was written by {counters['world_size']} processes; got "
            f"{dist.get_world_size()}. Resume with {counters['world_size']}."
        )
    saved = load_file(folder / f"rank-{dist.get_rank()}.safetensors")
    torch.set_rng_state(saved.pop(_RANDOM))
    _create_adam_state(optimizers)
    own = _state(model, optimizers)
    if set(own) != set(saved):
        differing = sorted(set(own) ^ set(saved))
        raise CheckpointError(f"{folder}: does not fit this model; differs in {differing[0]}.")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])
    return counters


def _state(model: DistributedModelParallel, optimizers: Optimizers) -> dict[str, Tensor]:
    """This rank's tensors by name, as references that can be written into."""
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        _add(state, f"model/{name}", value)
    if optimizers.fused is not None:
        for name, entry in optimizers.fused.state_dict()["state"].items():
            for key, value in entry.items():
                _add(state, f"fused/{name}/{key}", value)
    for name, weight in optimizers.named.items():
        for key, value in optimizers.adam.state.get(weight, {}).items():
            _add(state, f"adam/{name}/{key}", value)
    return state


def _add(state: dict[str, Tensor], name: str, value: Any) -> None:
    if isinstance(value, ShardedTensor):
        for piece in value.local_shards():
            place = "-".join(str(offset) for offset in piece.metadata.shard_offsets)
            state[f"{name}@{place}"] = piece.tensor
    elif isinstance(value, Tensor):
        state[name] = value


def _create_adam_state(optimizers: Optimizers) -> None:
    """Adam makes its state at its first step; a resumed run needs the places before it."""
    for weight in optimizers.named.values():
        optimizers.adam.state[weight] = {
            "step": torch.zeros((), dtype=torch.float32),
            "exp_avg": torch.zeros_like(weight),
            "exp_avg_sq": torch.zeros_like(weight),
        }
