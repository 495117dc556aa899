"""A pipeline: reading, scoring and writing of different blocks at the same time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

# Blocks that are under way behind the one that is waited for.
_AHEAD = 2


def pipelined(tasks: Iterable[Any], *stages: Callable[[Any], Any]) -> Iterator[Any]:
    """Takes each task through all stages, in order.

    While the second stage works on one task, the first is at the next. Tasks are taken up by the
    caller's thread, and only a few ahead, so that they may be large.

    Args:
        tasks: what the first stage takes.
        stages: each takes what the one before it gives. The first may be called for two tasks at
            once, each of the others works on one at a time.

    >>> list(pipelined([1, 2, 3], lambda each: each * 10, str))
    ['10', '20', '30']
    """
    pools = [
        ThreadPoolExecutor(_AHEAD if place == 0 else 1, thread_name_prefix="recsys_had-stage")
        for place in range(len(stages))
    ]
    waiting: deque[Future[Any]] = deque()
    try:
        for task in tasks:
            waiting.append(_through(pools, stages, task))
            del task
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)


def _through(
    pools: list[ThreadPoolExecutor], stages: tuple[Callable[[Any], Any], ...], task: Any
) -> Future[Any]:
    """The future result of the last stage."""
    future = pools[0].submit(stages[0], task)
    for pool, stage in zip(pools[1:], stages[1:], strict=True):
        future = pool.submit(_after, stage, future)
    return future


def _after(stage: Callable[[Any], Any], before: Future[Any]) -> Any:
    return stage(before.result())
