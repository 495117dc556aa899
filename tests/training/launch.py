"""Starts a program once a rank, as torchrun does, and waits for all of them."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def free_port() -> int:
    """A port nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(
    script: Path, *arguments: object, world_size: int, **variables: str
) -> list["subprocess.Popen[str]"]:
    """Starts the script once a rank; what each says on standard error can be read."""
    shared = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        **variables,
    }
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), *map(str, arguments)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]


def launch(script: Path, *arguments: object, world_size: int, **variables: str) -> None:
    """Runs the script once a rank; every rank ends well."""
    ranks = start(script, *arguments, world_size=world_size, **variables)
    told = [rank.communicate(timeout=900)[1] for rank in ranks]
    ends = "\n".join(text[-3000:] for text in told)
    assert [rank.returncode for rank in ranks] == [0] * world_size, ends
