"""Raw files: names to paths, and paths to plain bytes."""

import glob
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from recsys_had.data.problems import Problems
from recsys_had.errors import DataError
from recsys_had.storage import AnyPath, any_path
from recsys_had.store_path import StorePath

# More than any record of clicks; a file that goes on longer has an open quote or is no text.
MAX_RECORD_BYTES = 1 << 26
_PIECE_BYTES = 1 << 26


def expand(inputs: Sequence[str | AnyPath]) -> list[tuple[int, AnyPath]]:
    r"""Turns files, URLs and globs into files, each with the number of the input it came from.

    The order of the inputs is kept; what a glob matches is sorted.

    Raises:
        DataError: an input matches nothing, is a folder, or is an empty file, or a store does
            not answer.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.tsv", "a.tsv"):
    ...     _ = (folder / name).write_text("1\n")
    >>> [(number, path.name) for number, path in expand([f"{folder}/*.tsv", folder / "b.tsv"])]
    [(0, 'a.tsv'), (0, 'b.tsv'), (1, 'b.tsv')]
    """
    problems = Problems()
    found: list[tuple[int, AnyPath]] = []
    for number, name in enumerate(inputs):
        try:
            matches = _files_of(name)
            if not matches:
                problems.add(f"{name}: no file matches the pattern.")
            for path in matches:
                problem = _problem(path)
                if problem is None:
                    found.append((number, path))
                else:
                    problems.add(f"{path}: {problem}")
        except DataError as error:
            problems.add_error(error)
    problems.raise_any()
    if not found:
        raise DataError("no raw file was given. Name at least one.")
    return found


def _files_of(name: str | AnyPath) -> Sequence[AnyPath]:
    path = any_path(name)
    # A file whose name holds a bracket is meant as it stands.
    if not glob.has_magic(str(path)) or path.exists():
        return [path]
    return _matches(str(path)) if isinstance(path, Path) else _matches_in_store(path)


def _matches(pattern: str) -> list[Path]:
    paths = map(Path, sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207 - also absolute
    return [path for path in paths if not path.is_dir()]


def _matches_in_store(pattern: StorePath) -> list[StorePath]:
    names = pattern.key.split("/")
    first = next(place for place, name in enumerate(names) if glob.has_magic(name))
    if first == 0:
        raise DataError(f"{pattern}: the bucket must be named. Patterns stand after its name.")
    folder = StorePath(pattern.scheme, "/".join(names[:first]))
    return sorted(folder.glob("/".join(names[first:])))


def _problem(path: AnyPath) -> str | None:
    try:
        if path.is_dir():
            return f"is a folder. Name its files, for example '{path}/*'."
        if path.stat().st_size == 0:
            return "is empty. Remove it, or give the file that holds the rows."
        with path.open("rb"):
            return None
    except FileNotFoundError:
        return "there is no such file."
    except OSError as cause:
        return f"cannot be read: {cause.strerror}."


class ByteStream:
    """Reads a file's bytes in full pieces, decompressed where its name ends in .gz or .zst."""

    def __init__(self, path: AnyPath, stream: IO[bytes] | Any) -> None:
        self._path = path
        self._stream = stream

    def read(self, size_bytes: int) -> bytes:
        """Reads ``size_bytes``, or fewer at the end of the file.

        Raises:
            DataError: the file cannot be read, or is cut off.
        """
        pieces = []
        while size_bytes > 0:
            try:
                piece = self._stream.read(min(size_bytes, _PIECE_BYTES))
            except (OSError, EOFError, zlib.error) as cause:
                raise DataError(
                    f"{self._path}: cannot be decompressed to its end; the file is cut off or "
                    f"damaged ({cause}). Fetch it again."
                    if not is_plain(self._path)
                    else f"{self._path}: cannot be read: {cause}."
                ) from cause
            if not piece:
                break
            pieces.append(piece)
            size_bytes -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def seek(self, offset: int) -> None:
        """Goes to a byte of a plain file."""
        self._stream.seek(offset)


@contextmanager
def open_bytes(path: AnyPath) -> Iterator[ByteStream]:
    """Opens a plain, .gz or .zst file."""
    with ExitStack() as stack:
        try:
            stream: Any = stack.enter_context(path.open("rb"))
            if path.suffix == ".gz":
                stream = stack.enter_context(gzip.open(stream, "rb"))
            elif path.suffix == ".zst":
                stream = stack.enter_context(pa.CompressedInputStream(stream, "zstd"))
        except OSError as cause:
            raise DataError(f"{path}: cannot be read: {cause}.") from cause
        yield ByteStream(path, stream)


def is_plain(path: AnyPath) -> bool:
    """Whether a file's bytes stand in it as they are."""
    return path.suffix not in {".gz", ".zst"}


@dataclass(frozen=True)
class FileRange:
    """Consecutive bytes of a plain file, not read.

    Args:
        path: the file.
        offset: where they begin.
        size_bytes: how many they are.
    """

    path: Path
    offset: int
    size_bytes: int

    def read(self) -> bytes:
        """Reads them.

        Raises:
            DataError: the file cannot be read, or has become shorter.
        """
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                found = stream.read(self.size_bytes)
        except OSError as cause:
            raise DataError(f"{self.path}: cannot be read: {cause.strerror}.") from cause
        if len(found) < self.size_bytes:
            raise DataError(
                f"{self.path}: became shorter while it was read. Run the command again."
            )
        return found
