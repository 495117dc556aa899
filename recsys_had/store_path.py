"""StorePath: a file or folder of an object store, under the names pathlib has for local ones.

Stores know no rename, and no folders but the prefixes of keys.
"""

import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

import pyarrow.fs as pafs

from recsys_had.errors import StoreError
from recsys_had.filesystems import filesystem_of, no_bucket, store_errors

# A request costs as much as some megabytes.
_REQUEST_BYTES = 1 << 23
_REQUESTS_AT_ONCE = 8

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class StoreStat:
    """What a store tells of an object or a prefix, named as in ``os.stat_result``."""

    is_dir: bool
    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True, order=True)
class StorePath:
    """A URL, ``scheme://bucket/key``.

    What its methods raise is ``FileNotFoundError``, or ``StoreError`` for all that a network, a
    bucket's name or credentials can do. A path that a listing found remembers what it told.

    >>> folder = StorePath("memory", "bucket/doc")
    >>> (folder / "a.txt").write_text("hello")
    >>> [(str(path), path.suffix, path.stat().st_size) for path in folder.glob("*.txt")]
    [('memory://bucket/doc/a.txt', '.txt', 5)]
    >>> (folder / "a.txt").read_text(), (folder / "b.txt").exists(), folder.is_dir()
    ('hello', False, True)
    """

    scheme: str
    key: str
    _known: StoreStat | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.key}"

    def __truediv__(self, name: str) -> "StorePath":
        return StorePath(self.scheme, f"{self.key}/{name}")

    @property
    def name(self) -> str:
        """What stands after the last slash."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The name's last ending, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "StorePath":
        """The folder it is in."""
        return StorePath(self.scheme, self.key.rpartition("/")[0])

    def resolve(self) -> "StorePath":
        """Itself: a URL is absolute."""
        return self

    def stat(self) -> StoreStat:
        """Size and time of the last change."""
        if self._known is not None:
            return self._known
        info = self._ask(lambda filesystem: filesystem.get_file_info(self.key))
        if info.type == pafs.FileType.NotFound:
            self._require_bucket()
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return _stat_of(info)

    def exists(self) -> bool:
        """Whether it is an object, or the prefix of one."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether it is the prefix of an object."""
        return self.exists() and self.stat().is_dir

    def is_file(self) -> bool:
        """Whether it is an object."""
        return self.exists() and not self.stat().is_dir

    def etag(self) -> str | None:
        """What a store changes with an object's bytes, where it tells such a thing."""
        stream = self._ask(lambda filesystem: filesystem.open_input_stream(self.key, None))
        with stream:
            tag = (stream.metadata() or {}).get("ETag")
        return None if tag is None else tag.decode()

    def iterdir(self) -> Iterator["StorePath"]:
        """What is in the folder, in no certain order."""
        return iter(self._list(recursive=False))

    def glob(self, pattern: str) -> Iterator["StorePath"]:
        """Objects below that match; ``*`` stays within a name, ``**`` is any number of folders."""
        patterns = pattern.split("/")
        try:
            below = self._list(recursive=len(patterns) > 1 or patterns == ["**"])
        except FileNotFoundError:
            return
        for path in below:
            names = path.key[len(self.key) + 1 :].split("/")
            if not path.stat().is_dir and _matches(names, patterns):
                yield path

    def open(self, mode: str = "rb") -> BinaryIO:
        """Opens an object for reading its bytes from the first to the last."""
        assert mode == "rb", "a store's objects are read as bytes"
        # Left to itself, Arrow decompresses what is called .gz.
        stream = self._ask(lambda filesystem: filesystem.open_input_stream(self.key, None))
        return io.BufferedReader(_Stream(stream, str(self)), _REQUEST_BYTES)

    def read_text(self) -> str:
        """A small object's text."""
        with self.open() as stream:
            return stream.read().decode()

    def write_text(self, text: str) -> None:
        """Writes a small object; it is there at once or not at all."""
        with store_errors(str(self)), self._create(self.key) as stream:
            stream.write(text.encode())

    def upload(self, source: Path) -> None:
        """Writes a local file, or each file of a local folder."""
        files = [source] if source.is_file() else sorted(source.rglob("*"))
        files = [file for file in files if file.is_file()]
        at_once(lambda file: self._upload_file(file, source), files)

    def download(self, target: Path) -> None:
        """Reads an object into a local file, or each object below into a local folder."""
        files = [self] if self.is_file() else self._list(recursive=True)

        def fetch(file: StorePath) -> None:
            # Of an object itself nothing is left of the key, and the target is a file.
            local = target / file.key[len(self.key) + 1 :]
            local.parent.mkdir(parents=True, exist_ok=True)
            with file.open() as stream, local.open("wb") as sink:
                shutil.copyfileobj(stream, sink, _REQUEST_BYTES)

        at_once(fetch, [file for file in files if not file.stat().is_dir])

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Removes an object."""
        try:
            self._ask(lambda filesystem: filesystem.delete_file(self.key))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Removes a folder, if it is there, and all that is in it."""
        if self.is_dir():
            self._ask(lambda filesystem: filesystem.delete_dir(self.key))

    @property
    def _filesystem(self) -> Any:
        return filesystem_of(self.scheme, self.key)

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        filesystem = self._filesystem
        with store_errors(str(self)):
            return question(filesystem)

    def _require_bucket(self) -> None:
        bucket = self.key.partition("/")[0]
        if self.scheme in {"s3", "gs"} and bucket != self.key:
            info = self._ask(lambda filesystem: filesystem.get_file_info(bucket))
            if info.type == pafs.FileType.NotFound:
                raise StoreError(f"{self}: {no_bucket(bucket)}")

    def _list(self, *, recursive: bool) -> list["StorePath"]:
        selector = pafs.FileSelector(self.key, recursive=recursive)
        infos = self._ask(lambda filesystem: filesystem.get_file_info(selector))
        return [StorePath(self.scheme, info.path.strip("/"), _stat_of(info)) for info in infos]

    def _create(self, key: str) -> Any:
        # Left to itself, Arrow compresses what is called .gz.
        return self._filesystem.open_output_stream(key, None)

    def _upload_file(self, file: Path, top: Path) -> None:
        inside = file.relative_to(top).as_posix()
        key = self.key if file == top else f"{self.key}/{inside}"
        with store_errors(f"{self.scheme}://{key}"):
            with file.open("rb") as source, self._create(key) as sink:
                shutil.copyfileobj(source, sink, _REQUEST_BYTES)


def at_once(work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """Does the same with each item, several at once: a store answers late, and many at a time."""
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        return list(pool.map(work, items))


class _Stream(io.RawIOBase):
    """An Arrow stream as Python's readers want one, its errors in words."""

    def __init__(self, stream: Any, url: str) -> None:
        self._stream = stream
        self._url = url

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with store_errors(self._url):
            return cast(int, self._stream.readinto(buffer))

    def close(self) -> None:
        self._stream.close()
        super().close()


def _stat_of(info: Any) -> StoreStat:
    is_dir = info.type == pafs.FileType.Directory
    return StoreStat(is_dir, int(info.size or 0), int(info.mtime_ns or 0))


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path's names match a glob's, by the rules of ``glob.glob``.

    >>> _matches(["x", "y", "b2"], ["**", "[ab]?"]), _matches(["x", "day-1"], ["day-*"])
    (True, False)
    >>> _matches([".hidden"], ["*"]), _matches([".hidden"], [".*"])
    (False, True)
    """
    if not patterns:
        return not names
    if patterns[0] == "**" and _matches(names, patterns[1:]):
        return True
    if not names or (names[0].startswith(".") and not patterns[0].startswith(".")):
        return False
    if patterns[0] == "**":
        return _matches(names[1:], patterns)
    return fnmatchcase(names[0], patterns[0]) and _matches(names[1:], patterns[1:])
