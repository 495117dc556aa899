"""One process or many: the process group, and work that one rank does for all."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

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
