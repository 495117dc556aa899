"""Duplicate row ids: counted exactly, in memory that does not grow with the rows.

Each block leaves a file of its ids' hashes in their order: of one id its first rows, and the number
of the others. The files are then gone through together, one range of hashes at a time, so that
every pass holds a bounded number of them, were all rows of the same id.

Two ids are the same where their 128 bits of XXH3 are. Among n rows of different ids, the chance
that any two are taken for the same is below n^2 / 2^129: for ten billion rows 2e-19.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

# What a block's file holds, in the order of the hashes; ``more`` rows of the id follow there.
_ENTRY = np.dtype(
    [("upper", "<u8"), ("lower", "<u8"), ("row", "<i8"), ("line", "<i8"), ("more", "<i8")]
)
# Rows of one id that a block names; the others it counts.
_NAMED = 8
# An entry, its place in the order of a range, and what sorting takes.
_BYTES_PER_ENTRY = 3 * _ENTRY.itemsize
MEMORY_BYTES = 256 << 20


@dataclass(frozen=True)
class IdFile:
    """The hashes of one block's ids.

    Args:
        path: where they lie.
        file: the raw file the block is of.
        num_entries: rows that are named there.
    """

    path: Path
    file: str
    num_entries: int


@dataclass(frozen=True)
class Repeated:
    """A row whose id an earlier row has.

    Args:
        row_id: of the row.
        file: it stands in.
        line: of the file, as the block counts them.
        first_row_id: the first row that has this id.
    """

    row_id: int
    file: str
    line: int
    first_row_id: int


@dataclass(frozen=True)
class Duplicates:
    """What is known of repeated ids.

    Args:
        num_rows: rows whose id an earlier row has.
        first: the first of them, by row id.
    """

    num_rows: int
    first: tuple[Repeated, ...]


def write_ids(
    ids: pl.Series, row_ids: NDArray[np.int64], lines: NDArray[np.int64], path: Path, *, file: str
) -> IdFile:
    """Writes the hashes of a block's ids; a missing id is no id.

    Args:
        ids: text of each row's id.
        row_ids: of these rows, counted over all inputs.
        lines: of these rows in their file.
        path: where to write, ending in .npy.
        file: the raw file.
    """
    there = ids.is_not_null().to_numpy()
    texts = ids.drop_nulls().cast(pl.Binary).to_list()
    hashes = np.frombuffer(b"".join(map(xxhash.xxh3_128_digest, texts)), ">u8").reshape(-1, 2)
    entries = np.empty(len(texts), _ENTRY)
    entries["upper"], entries["lower"] = hashes[:, 0], hashes[:, 1]
    entries["row"], entries["line"], entries["more"] = row_ids[there], lines[there], 0
    entries = _named(entries[np.lexsort((entries["row"], entries["lower"], entries["upper"]))])
    np.save(path, entries)
    return IdFile(path, file, len(entries))


def _named(entries: NDArray[np.void]) -> NDArray[np.void]:
    """The first entries of each id, the last of which tells how many more there are."""
    starts = np.flatnonzero(~_same_as_before(entries))
    sizes = np.diff(np.append(starts, len(entries)))
    place = np.arange(len(entries)) - np.repeat(starts, sizes)
    many = sizes > _NAMED
    entries["more"][starts[many] + _NAMED - 1] = sizes[many] - _NAMED
    return entries[place < _NAMED]


def read_ids(path: Path, *, file: str) -> IdFile:
    """What :func:`write_ids` has told of a file it wrote."""
    return IdFile(path, file, len(np.load(path, mmap_mode="r")))


def find_duplicates(
    files: Sequence[IdFile], *, memory_bytes: int = MEMORY_BYTES, num_told: int = 5
) -> Duplicates:
    """Counts the rows whose id an earlier row has.

    Args:
        files: of all blocks, in any order.
        memory_bytes: about what a pass may hold.
        num_told: rows that are told one by one, at most 7.

    Raises:
        ValueError: more are to be told.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "block-0.npy"
    >>> ids = pl.Series(["a", "b", "a", None, "b", None, "a"])
    >>> block = write_ids(ids, np.arange(7), np.arange(1, 8), path, file="rows.tsv")
    >>> found = find_duplicates([block])
    >>> found.num_rows, found.first[0]
    (3, Repeated(row_id=2, file='rows.tsv', line=3, first_row_id=0))
    """
    if num_told >= _NAMED:
        raise ValueError(f"num_told: must be below {_NAMED}; got {num_told}.")
    num_rows = 0
    first: list[Repeated] = []
    for entries, owner in _ranges(files, memory_bytes):
        repeated, begin = _repeated(entries)
        num_rows += len(repeated) + int(entries["more"].sum())
        # Of a whole pass only its first rows can be among the first of all.
        best = np.argsort(entries["row"][repeated])[:num_told]
        for at, start in zip(repeated[best].tolist(), begin[best].tolist(), strict=True):
            entry = entries[at]
            told = Repeated(
                int(entry["row"]),
                files[owner[at]].file,
                int(entry["line"]),
                int(entries[start]["row"]),
            )
            first.append(told)
        first = sorted(first, key=lambda told: told.row_id)[:num_told]
    return Duplicates(num_rows, tuple(first))


def _ranges(
    files: Sequence[IdFile], memory_bytes: int
) -> Iterator[tuple[NDArray[np.void], NDArray[np.int32]]]:
    """All entries whose hashes are in one range, and the file each is of; range by range."""
    total = sum(file.num_entries for file in files)
    wanted = -(-total * _BYTES_PER_ENTRY // memory_bytes)
    # Hashes are spread evenly, and so many bits of them are the number of their range.
    bits = max(0, int(wanted) - 1).bit_length()
    for number in range(1 << bits):
        parts, owners = [np.empty(0, _ENTRY)], [np.empty(0, np.int32)]
        for owner, file in enumerate(files):
            part = _part(file.path, number, bits)
            parts.append(part)
            owners.append(np.full(len(part), owner, np.int32))
        yield np.concatenate(parts), np.concatenate(owners)


def _part(path: Path, number: int, bits: int) -> NDArray[np.void]:
    """Those entries of a file whose upper bits are a number; only they are read."""
    entries: NDArray[np.void] = np.load(path, mmap_mode="r")
    # numpy's own search would copy the column, and so read the whole file.
    start, end = (
        bisect_left(entries, side << (64 - bits), key=lambda entry: int(entry["upper"]))
        for side in (number, number + 1)
    )
    return np.array(entries[start:end])


def _repeated(entries: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Entries that are not the first of their id, and for each the one that is."""
    order = np.lexsort((entries["row"], entries["lower"], entries["upper"]))
    same = _same_as_before(entries[order])
    starts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    return order[same], order[starts[same]]


def _same_as_before(entries: NDArray[np.void]) -> NDArray[np.bool_]:
    """Whether the entry before has the same id, of entries in the order of the hashes."""
    upper, lower = entries["upper"], entries["lower"]
    same = np.zeros(len(entries), np.bool_)
    same[1:] = (upper[1:] == upper[:-1]) & (lower[1:] == lower[:-1])
    return same
