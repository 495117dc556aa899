"""The most memory a process says it has held is its own."""

import subprocess
import sys

CHILD = "from recsys_had.engines.local import own_peak_rss_bytes as peak; print(peak())"
PARENT = """
import subprocess, sys
held = bytearray(400_000_000)
held[::4096] = b"x" * len(held[::4096])
sys.exit(subprocess.run([sys.executable, "-c", sys.argv[1]]).returncode)
"""


def test_what_the_starting_process_holds_is_not_counted() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARENT, CHILD], capture_output=True, text=True, check=True
    )
    assert 10_000_000 < int(done.stdout) < 400_000_000


def test_what_was_held_and_given_back_is_counted() -> None:
    grown = "held = bytearray(400_000_000); held[::4096] = b'x' * len(held[::4096]); del held; "
    done = subprocess.run(
        [sys.executable, "-c", grown + CHILD], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 400_000_000
