"""Freed memory is kept for the next step: after some steps alike, another takes no new page."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only glibc's allocator is set up"
)

# Faults of pages (4 KiB each) while 64 MiB are taken, when that was done a dozen times before: a
# hole is found only when the heap has one that is large enough to be aligned.
PROGRAM = """
import resource
import sys
import torch
from recsys_had.allocator import keep_freed_memory, share_freed_memory

way = {"keep": keep_freed_memory, "share": share_freed_memory, "leave": lambda: None}
took_effect = way[sys.argv[1]]()
faults = []
for _ in range(15):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24).sum()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(took_effect, faults[-1])
"""


# The same of 32 MiB, which threads take in turns, for torch and for Arrow.
THREADS = """
import resource
import sys
import threading
from recsys_had.allocator import share_freed_memory

took_effect = share_freed_memory() if sys.argv[1] == "share" else None

import numpy as np
import pyarrow as pa
import torch


def faults_in_a_thread(take):
    thread = threading.Thread(target=take)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


few = pa.array([1.0])
many = np.zeros(1 << 22, np.int32)
found = [
    (
        faults_in_a_thread(lambda: torch.ones(1 << 23)),
        faults_in_a_thread(lambda: few.take(pa.array(many))),
    )
    for _ in range(12)
]
# The fewest: a hole is not always aligned as the next taker wants it.
print(took_effect, *map(min, zip(*found[-6:])))
"""


def run(way: str, *, program: str = PROGRAM, **environment: str) -> list[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", program, way],
        env={**own, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("way", ["keep", "share"])
def test_memory_taken_again_is_not_taken_from_the_kernel(way: str) -> None:
    took_effect, faults = run(way)
    if took_effect == "False":
        pytest.skip("not glibc")
    assert int(faults) < 1_000
    # 64 MiB are 16,384 pages.
    assert int(run("leave")[1]) > 16_000


@pytest.mark.parametrize("way", ["keep", "share"])
def test_an_allocator_set_up_by_the_environment_is_left_alone(way: str) -> None:
    assert run(way, MALLOC_TRIM_THRESHOLD_="134217728")[0] == "False"


def test_what_one_thread_has_freed_another_and_arrow_take() -> None:
    took_effect, of_torch, of_arrow = run("share", program=THREADS)
    if took_effect == "False":
        pytest.skip("not glibc")
    assert int(of_torch) < 1_000
    assert int(of_arrow) < 1_000
    assert int(run("leave", program=THREADS)[1]) > 8_000
