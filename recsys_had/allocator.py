"""Keeps the memory a step has freed for the step after it.

A training step, or the work on a block of rows, allocates and frees the same large arrays over and
over. By default glibc takes each one above 32 MiB from the kernel and gives it back, and gives
back the top of its heap, so that every step has its pages mapped and zeroed anew.
"""

import ctypes
import os
import sys
from collections.abc import Mapping

import pyarrow as pa

# Of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = -1
_VARIABLES = {
    "MALLOC_MMAP_MAX_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_ARENA_MAX",
    "GLIBC_TUNABLES",
}


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to give nothing back to the kernel; for the whole process.

    Nothing is done where there is no glibc, or where the environment sets the allocator up
    (``MALLOC_MMAP_MAX_``, ``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_ARENA_MAX``, ``GLIBC_TUNABLES``).

    Returns:
        Whether it took effect.
    """
    return _set_up({_TRIM_THRESHOLD: _NEVER, _MMAP_MAX: 0})


def share_freed_memory() -> bool:
    """The same, and one heap for all: what one thread has freed, another takes, Arrow too.

    By default each thread has a heap of its own, and Arrow another allocator, so that each keeps
    what the others could use. To be called before there are threads.

    Returns:
        Whether it took effect.
    """
    took_effect = _set_up({_TRIM_THRESHOLD: _NEVER, _MMAP_MAX: 0, _ARENA_MAX: 1})
    if took_effect:
        pa.set_memory_pool(pa.system_memory_pool())
    return took_effect


def _set_up(options: Mapping[int, int]) -> bool:
    if _VARIABLES & os.environ.keys() or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False  # another libc
    return all(bool(mallopt(option, value)) for option, value in options.items())
