"""What a command costs: wall time, and CPU time and memory of all the processes it begins.

    python -P tests/benchmarks/ingestion_cost.py COST.json EVERY_S -- COMMAND ...

Processes whose parent has gone come to this one (it is their subreaper), so none is missed. Memory
is the proportional set size (PSS): a page that several processes share is counted once. It is read
every EVERY_S seconds from /proc (0: never), so a peak that is shorter may be missed. Linux only.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
# How long processes may go on when the command has ended.
_PATIENCE_S = 30.0


@dataclass
class Cost:
    """What a command took; memory is 0 where it was not asked for.

    Args:
        wall_s: until the command itself had ended, not what it has left running.
        cpu_s: user and system time of all its processes.
        peak_pss_bytes: most that all held together at a time.
        peak_anonymous_bytes: the same without mapped files and shared memory (Pss_Anon).
        samples: how often memory was read.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_pss_bytes: int = 0
    peak_anonymous_bytes: int = 0
    samples: int = 0


def cost_of(
    command: Sequence[str | Path],
    *,
    every_s: float = 0.2,
    environment: Mapping[str, str] | None = None,
) -> tuple[str, Cost]:
    """Runs a command; what it prints, and what it took. Ends the benchmark where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "cost.json"
        meter = [sys.executable, "-P", __file__, str(told), str(every_s), "--"]
        words = [*meter, *map(str, command)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(words[6:])} ended with {done.returncode}:\n{done.stderr[-4000:]}")
        return done.stdout, Cost(**json.loads(told.read_text()))


def measure(command: Sequence[str], *, every_s: float) -> tuple[int, Cost]:
    """Runs a command under this process, which must have no other children."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the parent of orphans")
    cost = Cost()
    ended = threading.Event()
    sampler = threading.Thread(target=_sample, args=(cost, every_s, ended))
    begin = time.perf_counter()
    process = subprocess.Popen(command)
    if every_s:
        sampler.start()
    status = _reap(process.pid, cost)
    cost.wall_s = round(time.perf_counter() - begin, 3)
    process.returncode = os.waitstatus_to_exitcode(status)
    _reap_orphans(cost)
    ended.set()
    if every_s:
        sampler.join()
    cost.cpu_s = round(cost.cpu_s, 3)
    return process.returncode, cost


def _reap(wanted: int, cost: Cost) -> int:
    """Adds up the CPU time of what ends, until the wanted process does; its status."""
    while True:
        pid, status, usage = os.wait4(-1, 0)
        cost.cpu_s += usage.ru_utime + usage.ru_stime
        if pid == wanted:
            return status


def _reap_orphans(cost: Cost) -> None:
    """Waits for what the command has left running, and ends it when that takes too long."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            cost.cpu_s += usage.ru_utime + usage.ru_stime
            continue
        if time.monotonic() > deadline:
            for left in descendants(os.getpid()):
                _end(left)
        time.sleep(0.01)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _sample(cost: Cost, every_s: float, ended: threading.Event) -> None:
    while not ended.wait(every_s):
        pss, anonymous = memory_of(descendants(os.getpid()))
        cost.peak_pss_bytes = max(cost.peak_pss_bytes, pss)
        cost.peak_anonymous_bytes = max(cost.peak_anonymous_bytes, anonymous)
        cost.samples += 1


def descendants(root: int) -> list[int]:
    """All processes that one has begun, and those that they have."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            # The name before the last bracket may hold anything.
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(path.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        more = children.get(waiting.pop(), [])
        found += more
        waiting += more
    return found


def memory_of(processes: Sequence[int]) -> tuple[int, int]:
    """PSS of some processes together, and what of it no file is behind, in bytes."""
    pss = anonymous = 0
    for pid in processes:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError):
            continue
        kib = {name: int(rest.split()[0]) for name, _, rest in (ln.partition(":") for ln in lines)}
        pss += 1024 * kib["Pss"]
        anonymous += 1024 * kib["Pss_Anon"]
    return pss, anonymous


def main() -> None:
    """Runs the command; ends as it does."""
    told, every_s, separator, *command = sys.argv[1:]
    assert separator == "--"
    code, cost = measure(command, every_s=float(every_s))
    Path(told).write_text(json.dumps(asdict(cost)))
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
