"""Tasks on a Ray cluster: that of ``RAY_ADDRESS``, or one of this machine, begun and ended here.

They are plain Ray tasks and not Ray Data's. A Dataset takes up all its items before it works on the
first, and the rows of a compressed file travel in the items; and the error of a task comes back as
one of Ray Data's own, which no longer tells a user's mistake from a bug. A plain task has neither
fault, and results are files, so that there is no data for Ray to carry.

Ray tries a task again whose process or machine is gone. That is safe: what a task leaves appears
under its name when it is whole, and a second try finds it, or writes the same bytes.
"""

import functools
import logging
import os
import pickle
import signal
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from recsys_had.engines.local import (
    ONE_THREAD,
    Found,
    Measured,
    Meter,
    Task,
    available_cores,
    environment,
    measured,
)
from recsys_had.errors import EngineError, WorkerLostError
from recsys_had.versions import library_versions

# What the bytes of results depend on.
_LIBRARIES = ("recsys_had", "polars", "pyarrow", "numpy")
# Read when Ray is imported.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A warning about GPUs, which no task has.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A task that memory does not suffice for would otherwise be tried for ever.
    "RAY_task_oom_retries": "3",
}
# Longer than a shard takes.
_PATIENCE_S = 120
# Of a cluster begun here: how long what is left of one that was killed waits for the rest of it.
_LOCAL_SETTINGS = {
    "RAY_gcs_server_request_timeout_seconds": "10",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}


class RayTasks:
    """Runs tasks on a Ray cluster.

    Args:
        ray: the module, connected.
        num_workers: tasks that run at once.
        here: what workers have to have in common with this process; None where they are its own.
    """

    def __init__(self, ray: Any, *, num_workers: int, here: "Here | None") -> None:
        self._ray = ray
        self._num_workers = num_workers
        self._meter = Meter()
        self._running: list[Any] = []
        self._here = here
        self._work = ray.remote(_work)
        if here is not None:
            self._work = self._work.options(runtime_env={"env_vars": dict(ONE_THREAD)})

    @classmethod
    @contextmanager
    def open(cls, num_workers: int | None, *, folder: Path | None) -> Iterator["RayTasks"]:
        """Connects to a cluster, or begins one, and ends what was begun.

        Args:
            num_workers: tasks that run at once; None: as many as the cluster has cores.
            folder: a folder that every machine must see.

        Raises:
            EngineError: the cluster cannot be reached.
        """
        ray = _import_ray()
        is_given = ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS"))
        with _given_cluster(ray) if is_given else local_cluster(ray, num_workers):
            cores = int(ray.cluster_resources().get("CPU", 1))
            here = Here.of_this_process(folder) if is_given else None
            tasks = cls(ray, num_workers=num_workers or max(1, cores), here=here)
            try:
                yield tasks
            finally:
                # One that was begun here ends with all its tasks.
                if is_given:
                    tasks.close()

    def map(self, function: Callable[[Task], Found], tasks: Iterable[Task]) -> Iterator[Found]:
        """See :class:`recsys_had.engines.local.Engine`.

        Raises:
            WorkerLostError: a task's process was killed at every try, or the cluster is gone.
            EngineError: a machine does not see the files.
            EngineError: a machine has other versions of the libraries.
        """
        waiting: deque[Any] = deque()
        sent = self._ray.put(pickle.dumps(function))
        for task in tasks:
            while len(self._running) >= self._num_workers:
                self._wait()
            waiting.append(self._work.remote(sent, pickle.dumps(task), self._here))
            self._running.append(waiting[-1])
            del task
            # Where the first takes long, others go on, but not without end.
            while waiting and (
                waiting[0] not in self._running or len(waiting) > 2 * self._num_workers
            ):
                yield self._take(waiting.popleft())
        while waiting:
            yield self._take(waiting.popleft())

    @property
    def peak_rss_bytes(self) -> int:
        """Most memory each process has held, added up; what they share is counted for each."""
        return self._meter.peak_rss_bytes

    def close(self) -> None:
        """Waits for what still runs, so that nobody writes any more.

        Cancelling a task that is just ending by itself makes Ray 2.60 end this process.
        """
        if self._running:
            self._ray.wait(self._running, num_returns=len(self._running), timeout=_PATIENCE_S)
        self._running = []

    def _wait(self) -> None:
        _, self._running = self._ray.wait(self._running)

    def _take(self, task: Any) -> Any:
        exceptions = self._ray.exceptions
        try:
            found = self._ray.get(task)
        except exceptions.RayTaskError as error:
            raise error.cause from error
        except exceptions.RayError as error:
            raise WorkerLostError(
                f"--engine ray: a task was lost at every try ({_in_short(error)}), as where memory "
                "ran out. Give fewer --workers, and run the same command again: it goes on where "
                "it was."
            ) from error
        if task in self._running:
            self._running.remove(task)
        return self._meter.take(found)


@dataclass(frozen=True)
class Here:
    """What this process knows, to be compared with a worker's of another machine.

    Args:
        machine: its name.
        folders: every machine must see them; relative paths begin in the first.
        versions: of the libraries that results depend on.
    """

    machine: str
    folders: tuple[Path, ...]
    versions: tuple[tuple[str, str | None], ...]

    @classmethod
    def of_this_process(cls, folder: Path | None) -> "Here":
        """What holds here, and a further folder."""
        folders = (Path.cwd(), *([] if folder is None else [folder.absolute()]))
        installed = library_versions()
        versions = tuple((name, installed.get(name)) for name in _LIBRARIES)
        return cls(os.uname().nodename, folders, versions)


def _work(function: bytes, task: bytes, here: Here | None) -> Measured:
    """What runs on the cluster.

    Function and task arrive as bytes of this module's own making, because a task reads its rows
    when it is taken out of them: in the right folder, and with errors that are not yet Ray's.
    """
    pa.set_cpu_count(1)
    if here is not None:
        join(here)
    return measured(pickle.loads(function), pickle.loads(task))  # noqa: S301


@functools.lru_cache(maxsize=1)
def join(here: Here) -> None:
    """Makes this process, of any machine, work as the one that sent the task would.

    Raises:
        EngineError: it does not see the files.
        EngineError: it has other versions of the libraries.
    """
    own = Here.of_this_process(None)
    for folder in here.folders:
        if not folder.is_dir():
            raise EngineError(
                f"{folder}: every machine of a Ray cluster must see it. There is no such folder on "
                f"{own.machine}. Put the raw files and OUT on a file system that all machines "
                "share, and run the command from there."
            )
    for (name, installed), (_, wanted) in zip(own.versions, here.versions, strict=True):
        if installed != wanted:
            raise EngineError(
                f"--engine ray: all machines must have the same libraries. {own.machine} has "
                f"{name} {installed}, {here.machine} has {wanted}. Install the same on all."
            )
    os.chdir(here.folders[0])


def _import_ray() -> Any:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    return ray


@contextmanager
def _given_cluster(ray: Any) -> Iterator[None]:
    """The cluster this process is connected to already, or that of ``RAY_ADDRESS``."""
    if ray.is_initialized():
        yield
        return
    address = os.environ["RAY_ADDRESS"]
    try:
        _knock(address)
        with _own_signals():
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as cause:
        raise EngineError(
            f"RAY_ADDRESS={address}: no Ray cluster can be used there "
            f"({_in_short(cause)}). Correct it, or unset it to have one begun on this machine."
        ) from cause
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Finds out at once that nobody is there, for whom Ray waits minutes.

    Raises:
        OSError: nobody is.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def local_cluster(ray: Any, num_workers: int | None = None) -> Iterator[None]:
    """A cluster of this machine, of which nothing is left afterwards.

    Args:
        ray: the package, imported under ``SETTINGS``.
        num_workers: cores it says it has; by default those of the machine.
    """
    # Names of sockets lie in the folder, and must be short.
    parent = os.environ.get("RAY_TMPDIR", "/tmp")
    with tempfile.TemporaryDirectory(
        prefix="recsys_had-ray-", dir=parent, ignore_cleanup_errors=True
    ) as folder:
        try:
            with _own_signals(), environment({**ONE_THREAD, **_LOCAL_SETTINGS}):
                ray.init(
                    address="local",
                    num_cpus=num_workers or available_cores(),
                    num_gpus=0,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=folder,
                )
            yield
        finally:
            ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps what SIGTERM does as it was, which Ray changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_short(error: BaseException) -> str:
    r"""An error's name and the first line of what it says.

    >>> _in_short(OSError("the node is gone\nits log: ..."))
    'OSError: the node is gone'
    """
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
