"""The engine of this machine: whose fault it is when no process is there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_had.engines.local import open_engine
from recsys_had.errors import WorkerLostError

WORK = """
from recsys_had.engines.local import open_engine

def work():
    with open_engine("local", num_workers=2) as engine:
        print(list(engine.map(abs, [-1, 2, -3])))

"""


def test_a_script_that_cannot_be_imported_again_is_told_what_it_lacks(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"{WORK}work()\n")
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(
        "recsys_had.errors.EngineError: no worker process could begin; each imports the program"
    )
    assert "`if __name__ == '__main__':`" in ended.stderr
    script.write_text(f"{WORK}if __name__ == '__main__':\n    work()\n")
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "[1, 2, 3]\n")


def kill_me(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_process_is_told_as_such() -> None:
    with (
        open_engine("local", num_workers=2) as engine,
        pytest.raises(WorkerLostError, match="a worker process was killed"),
    ):
        list(engine.map(kill_me, range(6)))
