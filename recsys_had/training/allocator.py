"""Keeps the memory a step has freed for the step after it.

A training step allocates and frees the same large tensors over and over. By default glibc takes
each one above 32 MiB from the kernel and gives it back, and gives back the top of its heap, so
that every step has its pages mapped and zeroed anew.
"""

import ctypes
import os
import sys

# Of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = -1


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to give nothing back to the kernel; for the whole process.

    Nothing is done where there is no glibc, or where the environment sets the allocator up
    (``MALLOC_MMAP_MAX_``, ``MALLOC_TRIM_THRESHOLD_``, ``GLIBC_TUNABLES``).

    Returns:
        Whether it took effect.
    """
    own = {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys()
    if own or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False  # another libc
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER)) and bool(mallopt(_MMAP_MAX, 0))
