"""AnyPath: a place on a disk or in an object store, and what reads either in the same way.

Most of what reads and writes takes one and does not ask which; what does not hold of both, it asks
for here.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_had.filesystems import filesystem_of, store_errors
from recsys_had.store_path import StorePath, at_once

Item = TypeVar("Item")
Found = TypeVar("Found")

AnyPath = Path | StorePath


def is_url(text: str) -> bool:
    """Whether a text names a place in a store.

    >>> is_url("s3://bucket/rows.tsv"), is_url("rows.tsv"), is_url("/data/a:/b")
    (True, False, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def any_path(text: str | AnyPath) -> AnyPath:
    """A URL as a StorePath, anything else as a Path, which would lose a slash of a URL.

    >>> any_path("s3://bucket/data/"), any_path("data/")
    (StorePath(scheme='s3', key='bucket/data'), PosixPath('data'))
    """
    if not isinstance(text, str):
        return text
    if not is_url(text):
        return Path(text)
    scheme, _, key = text.partition("://")
    return StorePath(scheme.lower(), key.rstrip("/"))


def sorted_glob(folder: AnyPath, pattern: str) -> list[AnyPath]:
    """The files below a folder that match, in the order of their names."""
    return sorted(folder.glob(pattern), key=str)


def open_parquet(path: AnyPath, *, ahead: bool = False) -> pq.ParquetFile:
    """Opens a Parquet file; a store is asked for nothing but what is read of it.

    Where its pages have checksums they are looked at.

    Args:
        path: the file.
        ahead: ask a store for all of a reading at once, in few large requests, and hold it.
    """
    if isinstance(path, Path):
        return pq.ParquetFile(path, page_checksum_verification=True)
    filesystem = filesystem_of(path.scheme, path.key)
    with store_errors(str(path)):
        return pq.ParquetFile(
            path.key, filesystem=filesystem, pre_buffer=ahead, page_checksum_verification=True
        )


def read_parquet(path: AnyPath, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a whole Parquet file, or some columns of it.

    What stands in the names of the folders it is in, as ``day=1``, is no column.
    """
    wanted = None if columns is None else list(columns)
    if isinstance(path, Path):
        return pq.read_table(path, columns=wanted, partitioning=None)
    filesystem = filesystem_of(path.scheme, path.key)
    with store_errors(str(path)):
        return pq.read_table(path.key, columns=wanted, filesystem=filesystem, partitioning=None)


@contextmanager
def reading(path: AnyPath) -> Iterator[None]:
    """Has what reading on raises told as the store's error, where the file is a store's."""
    if isinstance(path, Path):
        yield
    else:
        with store_errors(str(path)):
            yield


@contextmanager
def local_copy(path: AnyPath) -> Iterator[Path]:
    """The file as one on disk, for readers that know no other."""
    if isinstance(path, Path):
        yield path
    else:
        with TemporaryDirectory(prefix="recsys_had-") as folder:
            copy = Path(folder) / path.name
            path.download(copy)
            yield copy


def for_each(folder: AnyPath, work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """Does the same with each of a folder's items.

    Of a store's several at once.
    """
    if isinstance(folder, Path):
        return [work(item) for item in items]
    return at_once(work, items)
