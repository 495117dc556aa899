"""Lanes: batches scored side by side, each on one core, so that a row's score is always the same.

Two things make float32 results depend on the other rows of a batch: matrix products of fewer rows
than a kernel takes at once, and element-wise functions, whose last few elements are worked out by
another implementation, wherever a batch ends or is divided among threads. So each batch is filled
up to a multiple of 32 rows, and one thread works on all of it; cores have batches of their own.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_had.batch import Batch, EncodedRows

# At least as many as any kernel works on at once.
_ROWS_OF_A_KERNEL = 32

Forward = Callable[[Batch], list[Tensor]]


class Lanes:
    """Scores batches in several threads, each of which uses one core.

    Args:
        num_lanes: threads.
    """

    def __init__(self, num_lanes: int) -> None:
        self.num_lanes = num_lanes
        self._pool = ThreadPoolExecutor(
            num_lanes,
            thread_name_prefix="recsys_had-lane",
            initializer=torch.set_num_threads,
            initargs=(1,),
        )

    def run(
        self, forward: Forward, rows: EncodedRows, *, batch_size: int, share: bool = True
    ) -> Iterator[tuple[NDArray[np.int64], list[Tensor]]]:
        """What a model says of each row, in order, whatever the size of a batch.

        Args:
            forward: gives tensors whose first dimension is the rows of a batch.
            rows: all rows.
            batch_size: rows of a batch.
            share: whether rows that do not make a whole batch for each thread are shared out all
                the same. Without it a row's batch does not depend on the number of threads.

        Yields:
            Batch by batch, which rows it holds, and the tensors, of those rows alone.
        """
        # Few rows are shared out, too, but not for less than is worth a thread.
        each = max(-(-len(rows) // self.num_lanes), _ROWS_OF_A_KERNEL)
        size = filled(min(batch_size, each) if share else batch_size)
        # No model reads it.
        rows = replace(rows, unseen=None)
        waiting: deque[tuple[NDArray[np.int64], Future[list[Tensor]]]] = deque()
        with _OneCore():
            for first in range(0, len(rows), size):
                last = min(first + size, len(rows))
                batch = self._pool.submit(_run, forward, rows.span(first, last))
                waiting.append((np.arange(first, last), batch))
                if len(waiting) > self.num_lanes:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()


def _run(forward: Forward, rows: EncodedRows) -> list[Tensor]:
    """Some rows, with as many of the last one again as are missing."""
    missing = filled(len(rows)) - len(rows)
    places = np.minimum(np.arange(len(rows) + missing), len(rows) - 1)
    whole = rows.take(places) if missing else rows
    with torch.inference_mode():
        return [found[: len(rows)] for found in forward(whole.to_batch())]


def filled(num_rows: int) -> int:
    """The next multiple of the rows of a kernel, to which batches are filled up.

    >>> filled(1), filled(32), filled(4097)
    (32, 32, 4128)
    """
    return max(1, -(-num_rows // _ROWS_OF_A_KERNEL)) * _ROWS_OF_A_KERNEL


class _OneCore:
    """Has torch use one core for a batch, and as many as before when nobody scores any more.

    The number is a thread's own to OpenMP, but the process's to MKL.
    """

    _lock = threading.Lock()
    _users = 0
    _before = 1

    def __enter__(self) -> None:
        with _OneCore._lock:
            if _OneCore._users == 0:
                _OneCore._before = torch.get_num_threads()
                torch.set_num_threads(1)
            _OneCore._users += 1

    def __exit__(self, *error: object) -> None:
        with _OneCore._lock:
            _OneCore._users -= 1
            if _OneCore._users == 0:
                torch.set_num_threads(_OneCore._before)
