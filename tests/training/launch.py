"""Starts a program once a rank, as torchrun does, and waits for all of them."""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

# Importing torch and torchrec takes six seconds, which ranks forked from a process that has both
# are spared. It has computed nothing. Importing may ask CUDA for its devices, after which a fork
# cannot use them: ranks on GPUs are processes of their own.
_RANKS = multiprocessing.get_context("forkserver")
_RANKS.set_forkserver_preload(["recsys_had.training.loop"])
_FORKED = str(Path(__file__).with_name("forked_rank.py"))
_PATIENCE_S = 900


def free_port() -> int:
    """A port nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environments(world_size: int, variables: Mapping[str, str]) -> list[dict[str, str]]:
    """What torchrun would tell each rank; one thread each."""
    shared = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        **variables,
    }
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world_size)]


def start(
    script: Path, *arguments: object, world_size: int, **variables: str
) -> list["subprocess.Popen[str]"]:
    """Starts the script once a rank; what each says on standard error can be read."""
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), *map(str, arguments)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments(world_size, variables)
    ]


def launch(script: Path, *arguments: object, world_size: int, **variables: str) -> None:
    """Runs the script once a rank; every rank ends well."""
    ranks = start(script, *arguments, world_size=world_size, **variables)
    told = [rank.communicate(timeout=_PATIENCE_S)[1] for rank in ranks]
    ends = "\n".join(text[-3000:] for text in told)
    assert [rank.returncode for rank in ranks] == [0] * world_size, ends


def launch_forked(script: Path, *arguments: object, world_size: int) -> None:
    """The same on the CPU, forked from a process that has imported what takes long."""
    words = [str(script), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder, f"{rank}.log") for rank in range(world_size)]
        ranks = [
            _RANKS.Process(
                target=runpy.run_path,
                args=(
                    _FORKED,
                    {"WORDS": words, "ENVIRONMENT": environment, "LOG": str(log)},
                    "rank",
                ),
                daemon=True,
            )
            for environment, log in zip(environments(world_size, {}), logs, strict=True)
        ]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(_PATIENCE_S)
        codes = [rank.exitcode for rank in ranks]
        for rank in ranks:
            rank.kill()
        ends = "\n".join(log.read_text()[-3000:] for log in logs if log.exists())
    assert codes == [0] * world_size, ends
