"""One command at a time writes to a folder: a lock of the system, gone with its process."""

import fcntl
import os
import weakref
from pathlib import Path

from recsys_had.errors import DataError


class FolderLock:
    """A folder that no other command may write to meanwhile.

    However a process ends, its lock ends with it: there is nothing to clean up. A disk that knows
    no locks, such as some network disks, refuses nobody.

    Args:
        folder: the folder to lock; it is made.
        told: its name in an error.

    Raises:
        DataError: another command holds it.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> lock = FolderLock(folder, told="out")
    >>> FolderLock(folder, told="out")
    Traceback (most recent call last):
        ...
    recsys_had.errors.DataError: out: another command is writing there. Wait for it, or choose \
another folder.
    >>> lock.release()
    >>> FolderLock(folder, told="out").release()
    """

    def __init__(self, folder: Path, *, told: str) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
        except OSError:
            # Whoever may not read it learns so, in better words, as soon as he writes.
            return
        # Released with the last reference to it, too: whoever forgot the folder is not writing.
        self._release = weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            self._release()
            raise DataError(
                f"{told}: another command is writing there. Wait for it, or choose another folder."
            ) from cause
        except OSError:
            self._release()

    def release(self) -> None:
        """Lets others write; without effect where it was done before."""
        release = getattr(self, "_release", None)
        if release is not None:
            release()
