"""Where the work on shards runs: in this process, in several, or on a Ray cluster.

A shard's work is a plain function of picklable arguments that leaves its result in files, so what
comes out does not depend on who ran it, nor on how many there were.
"""

import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import wait
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from recsys_had.allocator import share_freed_memory
from recsys_had.errors import EngineError, WorkerLostError

Task = TypeVar("Task")
Found = TypeVar("Found")

# Threads of a worker's libraries: the workers themselves are as many as the cores.
ONE_THREAD = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Engine(Protocol):
    """Runs a function on many tasks."""

    def map(self, function: Callable[[Task], Found], tasks: Iterable[Task]) -> Iterator[Found]:
        """The results in the order of the tasks, which are taken up as there is room for them."""
        ...

    @property
    def peak_rss_bytes(self) -> int:
        """Most memory its processes have held, added up."""
        ...


@contextmanager
def open_engine(
    name: str, *, num_workers: int | None = None, folder: Path | None = None
) -> Iterator[Engine]:
    """Opens an engine and ends its processes afterwards.

    Args:
        name: ``local`` or ``ray``.
        num_workers: processes; None: one a core of this machine, or of the Ray cluster.
        folder: one that all machines of a Ray cluster must see.

    Raises:
        EngineError: Ray is not installed, or its cluster cannot be used.
    """
    if name == "ray":
        with _open_ray(num_workers, folder) as cluster:
            yield cluster
        return
    num_workers = num_workers or available_cores()
    if num_workers == 1:
        yield InProcess()
        return
    with environment(ONE_THREAD):
        pool = ProcessPool(num_workers)
        try:
            yield pool
        finally:
            pool.close()


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class InProcess:
    """Runs everything here, one after another.

    >>> list(InProcess().map(abs, [-1, 2]))
    [1, 2]
    """

    def map(self, function: Callable[[Task], Found], tasks: Iterable[Task]) -> Iterator[Found]:
        """See :class:`Engine`."""
        return map(function, tasks)

    @property
    def peak_rss_bytes(self) -> int:
        """Most memory this process has held."""
        return own_peak_rss_bytes()


@dataclass(frozen=True)
class Measured:
    """A result, and how much memory the process that found it has held."""

    found: Any
    process: str
    peak_rss_bytes: int


def measured(function: Callable[[Task], Found], task: Task) -> Measured:
    """Runs a task in this process."""
    found = function(task)
    return Measured(found, f"{os.uname().nodename}:{os.getpid()}", own_peak_rss_bytes())


class Meter:
    """Adds up the memory of several processes."""

    def __init__(self) -> None:
        self._peaks: dict[str, int] = {}

    def take(self, measured: Measured) -> Any:
        """Notes the memory; what was found."""
        self._peaks[measured.process] = measured.peak_rss_bytes
        return measured.found

    @property
    def peak_rss_bytes(self) -> int:
        """That of this process and of all others."""
        return own_peak_rss_bytes() + sum(self._peaks.values())


class ProcessPool:
    """Runs tasks in processes of this machine, which end with this one, however it ends.

    Args:
        num_workers: processes.
    """

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self._meter = Meter()
        # A forked copy of a process with threads may wait for a lock that nobody will open.
        context = multiprocessing.get_context("spawn")
        self._one_has_begun = context.Event()
        self._pool = ProcessPoolExecutor(
            num_workers,
            mp_context=context,
            initializer=_begin_worker,
            initargs=(self._one_has_begun,),
        )

    def map(self, function: Callable[[Task], Found], tasks: Iterable[Task]) -> Iterator[Found]:
        """See :class:`Engine`.

        Raises:
            EngineError: no process came to begin.
            WorkerLostError: a process was killed.
        """
        waiting: deque[Future[Measured]] = deque()
        rest = iter(tasks)
        try:
            for task in rest:
                waiting.append(self._pool.submit(measured, function, task))
                del task
                if len(waiting) > self._num_workers:
                    yield self._meter.take(waiting.popleft().result())
            while waiting:
                yield self._meter.take(waiting.popleft().result())
        except BrokenProcessPool as cause:
            if not self._one_has_begun.is_set():
                raise EngineError(
                    "no worker process could begin; each imports the program that starts it. In a "
                    "script, put the call under `if __name__ == '__main__':`, or take one worker."
                ) from cause
            raise WorkerLostError(
                "a worker process was killed, by the system where memory ran out. Lower --workers, "
                "and run the same command again: it goes on where it was."
            ) from cause

    @property
    def peak_rss_bytes(self) -> int:
        """Most memory each process has held, added up; what they share is counted for each."""
        return self._meter.peak_rss_bytes

    def close(self) -> None:
        """Ends the processes; what they have not begun is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(one_has_begun: Event) -> None:
    """Leaves Ctrl-C to the parent, keeps freed memory, and ends as soon as the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    share_freed_memory()
    pa.set_cpu_count(1)
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, name="recsys_had-follow", daemon=True).start()
    one_has_begun.set()


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Processes begun meanwhile find these variables."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _open_ray(num_workers: int | None, folder: Path | None) -> Iterator[Engine]:
    if find_spec("ray") is None:
        raise EngineError(
            "--engine ray: Ray is not installed. Run `pip install 'recsys_had[ray]'`, or leave the "
            "option out."
        )
    from recsys_had.engines.ray_tasks import RayTasks

    with RayTasks.open(num_workers, folder=folder) as tasks:
        yield tasks


def own_peak_rss_bytes() -> int:
    """Most memory this process has held since it began to run its program.

    Not what getrusage tells where Linux does: that begins with what the process held that started
    this one.

    >>> own_peak_rss_bytes() > 1_000_000
    True
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
