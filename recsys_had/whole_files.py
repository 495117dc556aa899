"""Files that are whole or not there: written under another name, renamed when they are finished."""

import hashlib
import os
from pathlib import Path

# How the names of files end that nobody has finished.
UNFINISHED = ".tmp"


def unfinished(path: Path) -> Path:
    """What a file is called until it is whole; another name for every process of every machine."""
    return path.with_name(f"{path.name}.{os.uname().nodename[:32]}.{os.getpid()}{UNFINISHED}")


def write_whole(path: Path, text: str) -> None:
    """Writes a text that is never seen in part.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_whole(folder / "note.json", "{}")
    >>> [path.name for path in folder.iterdir()]
    ['note.json']
    """
    fresh = unfinished(path)
    fresh.write_text(text)
    fresh.rename(path)


def drop_unfinished(folder: Path) -> None:
    """Removes what was being written below a folder by somebody who was killed."""
    for path in folder.rglob(f"*{UNFINISHED}"):
        path.unlink()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
