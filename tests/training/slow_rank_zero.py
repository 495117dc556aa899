"""Rank 0 works for longer than ranks wait for each other; then it fails.

Started as a program of its own, once a rank: ``python slow_rank_zero.py SECONDS TIMEOUT``.
"""

import sys
import time

import pytest

from recsys_had.errors import DataError
from recsys_had.training.distributed import from_rank_zero, process_group


def main(seconds: float, timeout_s: float) -> None:
    """All ranks get what rank 0 came to, a result first, then an error."""

    def work() -> str:
        time.sleep(seconds)
        return "done"

    def fail() -> str:
        time.sleep(seconds / 2)
        raise DataError("there is none.")

    with process_group(timeout_s):
        assert from_rank_zero(work) == "done"
        with pytest.raises(DataError, match=r"there is none\."):
            from_rank_zero(fail)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
