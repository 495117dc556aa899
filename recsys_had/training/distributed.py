"""One process or many: the process group, work that one rank does for all, ranks that fail.

When a rank fails the others lose their connection to it, or wait in vain. Whoever fails first
leaves a note in the group's store and tells why; the others, who only know that somebody is gone,
end without a word. Where nobody left a note, a rank was killed: the first to miss it tells that.
"""

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d
from torch.distributed.rendezvous import rendezvous

from recsys_had.errors import ConfigError, RankError, RecsysHadError

T = TypeVar("T")

# Far below any timeout one would set.
_SIGN_OF_LIFE_S = 2.0

_NOTE = "recsys_had/failed"
_OF_RANK_ZERO = "recsys_had_of_rank_zero"
# What gloo and NCCL say of a lost connection.
_SIGNS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "imed out waiting",
    "imed out after",
    "NCCL",
)


@contextmanager
def process_group(timeout_s: float = 600.0) -> Iterator[torch.device]:
    """Joins the ranks torchrun started, or stands alone; yields this rank's device.

    Alone, the group lives in this process's memory: no port is opened.

    Args:
        timeout_s: seconds after which a rank no longer waits for another.

    Raises:
        ConfigError: this host has fewer GPUs than ranks.
        RankError: another rank ended without a word, or did not answer in time.
        SystemExit: another rank failed, and has told why.
    """
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    backend, device = "gloo", torch.device("cpu")
    if torch.cuda.is_available():
        _require_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        # Counters, states and messages lie on the CPU.
        backend = "cpu:gloo,cuda:nccl"
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if launched:
        store, rank, world_size = next(rendezvous("env://"))
        # torchrun keeps one store for all its restarts: each attempt has its own names in it.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = distributed_c10d.PrefixStore(f"attempt_{attempt}", store)
    else:
        store, rank, world_size = dist.HashStore(), 0, 1  # type: ignore[attr-defined]
    dist.init_process_group(
        backend,
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout_s),
    )
    try:
        yield device
        # No rank leaves while another still talks to it.
        dist.barrier()
    except Exception as error:
        if dist.get_world_size() == 1:
            raise
        told_by_rank_zero = getattr(error, _OF_RANK_ZERO, False)
        if told_by_rank_zero and dist.get_rank() == 0:
            raise
        if told_by_rank_zero or not _is_first_to_fail():
            raise SystemExit(1) from error
        if _is_of_the_connection(error):
            raise _missed(error, timeout_s) from error
        if isinstance(error, RecsysHadError):
            error.speaks = True
        raise
    finally:
        # Sharded modules hold the group: they go before it does, not at the interpreter's end.
        gc.collect()
        dist.destroy_process_group()


@contextmanager
def _signs_of_life() -> Iterator[None]:
    """Tells the others, from a thread, that rank 0 works still, and then that it is done."""
    over = threading.Event()

    def tell() -> None:
        # Of a rank that is gone this rank learns when it asks for it itself.
        with suppress(RuntimeError):
            while not over.wait(_SIGN_OF_LIFE_S):
                dist.broadcast(torch.tensor(0), src=0)

    teller = threading.Thread(target=tell, name="recsys_had-signs-of-life", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
    dist.broadcast(torch.tensor(1), src=0)


def _is_over() -> bool:
    """Waits for a sign of rank 0's: whether its work is done."""
    sign = torch.tensor(0)
    dist.broadcast(sign, src=0)
    return bool(sign)


def _require_gpus(num_ranks: int) -> None:
    """Refuses more ranks than this host has GPUs; all of its ranks find the same."""
    num_gpus = torch.cuda.device_count()
    if num_ranks > num_gpus:
        raise ConfigError(
            f"torchrun: each rank takes a GPU of its own; got {num_ranks} ranks and {num_gpus} "
            f"GPUs on a host. Start {num_gpus} there, or train on CPUs with "
            "CUDA_VISIBLE_DEVICES set to nothing."
        )


def _is_first_to_fail() -> bool:
    """Whether no rank failed before this one; leaves the note that this one has."""
    rank = str(dist.get_rank())
    try:
        store = distributed_c10d._get_default_store()
        return bool(store.compare_set(_NOTE, "", rank) == rank.encode())
    except RuntimeError:
        # Rank 0 held the store and is gone; it would have told.
        return dist.get_rank() == 1


def _is_of_the_connection(error: Exception) -> bool:
    """Whether it says no more than that another rank is gone."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def _missed(error: Exception, timeout_s: float) -> RankError:
    waited = "imed out" in str(error)
    what = (
        f"another rank has not answered for {timeout_s:g} s"
        if waited
        else "another rank ended without a word; it was killed, perhaps for want of memory"
    )
    problem = RankError(
        f"rank {dist.get_rank()}: {what}. Add --resume to go on from the last checkpoint."
    )
    problem.speaks = True
    return problem


def from_rank_zero(work: Callable[[], T]) -> T:
    """Runs ``work`` on rank 0 alone and gives every rank its result, or its error.

    However long it takes: the others wait for a sign of life, not for the result.
    """
    if dist.get_world_size() == 1:
        return work()
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        with _signs_of_life():
            try:
                outcome[0] = work()
            except Exception as error:
                outcome[1] = error
    else:
        while not _is_over():
            pass
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        # All know of it, and rank 0 tells.
        setattr(outcome[1], _OF_RANK_ZERO, True)
        raise outcome[1]
    return outcome[0]  # type: ignore[no-any-return]
