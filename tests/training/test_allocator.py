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
from recsys_had.training.allocator import keep_freed_memory

took_effect = keep_freed_memory() if sys.argv[1] == "keep" else None
faults = []
for _ in range(15):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24).sum()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(took_effect, faults[-1])
"""


def run(way: str, **environment: str) -> list[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, way],
        env={**own, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_memory_taken_again_is_not_taken_from_the_kernel() -> None:
    took_effect, faults = run("keep")
    if took_effect == "False":
        pytest.skip("not glibc")
    assert int(faults) < 1_000
    # 64 MiB are 16,384 pages.
    assert int(run("leave")[1]) > 16_000


def test_an_allocator_set_up_by_the_environment_is_left_alone() -> None:
    assert run("keep", MALLOC_TRIM_THRESHOLD_="134217728")[0] == "False"
