"""The jobs that ingestion's benchmark compares, each a command in a process of its own."""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ingestion_cost import Cost, cost_of

HERE = Path(__file__).resolve().parent
FUXICTR = HERE / "fuxictr.txt"
# What a job prints, and what it took.
Found = tuple[dict[str, Any], Cost]
Job = Callable[[], Found]


def ours(raw: list[str], out: Path, *, card: str, workers: int, every_s: float = 0) -> Job:
    """``recsys-had ingest`` into a folder that is emptied before."""
    program = Path(sys.executable).with_name("recsys-had")
    words = [card, "--raw", *raw, "--out", str(out), "--workers", str(workers), "--json"]
    return job([program, "ingest", *words], out, every_s=every_s)


def floor(rows: Path, data: Path) -> Job:
    """What cannot be avoided."""
    return job([sys.executable, "-P", HERE / "ingestion_floor.py", rows, data], None)


def pandas(rows: Path, out: Path, *, texts: str) -> Job:
    """The same in chunked pandas, into a folder that is emptied before."""
    return job([sys.executable, "-P", HERE / "ingestion_pandas.py", rows, out, texts], out)


def fuxictr(rows: Path, out: Path, *, venv: Path, every_s: float) -> Job:
    """FuxiCTR's preprocessing into a folder that is emptied before."""
    python, environment = fuxictr_python(venv)
    words: list[str | Path] = [python, "-P", HERE / "ingestion_fuxictr.py", rows, out]
    return job(words, out, every_s=every_s, environment=environment)


def fuxictr_python(venv: Path, *beside: str) -> tuple[Path, dict[str, str]]:
    """A Python that has FuxiCTR, installed now if need be, and the environment it needs.

    Args:
        venv: where it is.
        beside: what pip is to install with it.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    python, whole = venv / "bin" / "python", venv / "installed"
    wanted = FUXICTR.read_text() + " ".join(beside)
    if not whole.exists() or whole.read_text() != wanted:
        make = [sys.executable, "-m", "venv", "--clear", str(venv)]
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(FUXICTR), *beside]
        for command in (make, install):
            subprocess.run(command, check=True, stdout=sys.stderr, env=environment)
        whole.write_text(wanted)
    return python, {**environment, "RAY_USAGE_STATS_ENABLED": "0"}


def job(
    command: Sequence[str | Path],
    out: Path | None,
    *,
    every_s: float = 0,
    environment: dict[str, str] | None = None,
) -> Job:
    """A command that begins with an empty folder and prints JSON last."""

    def run() -> Found:
        if out is not None:
            shutil.rmtree(out, ignore_errors=True)
        printed, cost = cost_of(command, every_s=every_s, environment=environment)
        return json.loads(printed.splitlines()[-1]), cost

    return run


def in_turns(jobs: dict[str, Job], rounds: int) -> dict[str, list[Found]]:
    """Every job once a round."""
    found: dict[str, list[Found]] = {name: [] for name in jobs}
    for number in range(rounds):
        for name, job in jobs.items():
            found[name].append(job())
            print(f"round {number + 1}, {name}: {found[name][-1][1]}", file=sys.stderr, flush=True)
    return found


def medians(rounds: dict[str, list[Found]]) -> dict[str, dict[str, float]]:
    """Of each job, each of its costs."""
    return {
        name: {
            what: statistics.median(asdict(cost)[what] for _, cost in found)
            for what in asdict(found[0][1])
        }
        for name, found in rounds.items()
    }


def wall_ratios(above: list[Found], below: list[Found]) -> list[float]:
    """Of two jobs' wall times, round by round."""
    pairs = zip(above, below, strict=True)
    return [round(one.wall_s / other.wall_s, 3) for (_, one), (_, other) in pairs]
