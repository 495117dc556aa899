"""Vocabulary: the values of a field and their ids, and how many training rows hold each.

Ids count from 1 by falling count, values of one count in the order of their UTF-8 bytes: the
same rows give the same ids in any order. Id 0 is a missing or an unseen value. A vocabulary that
went on from an earlier one begins with the values of that, under the ids they had.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from recsys_had.errors import CheckpointError
from recsys_had.storage import AnyPath, open_parquet, read_parquet
from recsys_had.whole_files import unfinished

_ROW_GROUP_ROWS = 1 << 20


class SortedTexts:
    """Finds texts among many by bisection: no hash table to build, whatever their number.

    >>> SortedTexts(pl.Series(["b", "a"])).positions(pl.Series(["a", "c"])).tolist()
    [1, -1]
    """

    def __init__(self, texts: pl.Series) -> None:
        ordered = pl.DataFrame({"text": texts}).with_row_index("position").sort("text")
        self._texts = ordered["text"]
        self._positions = ordered["position"].to_numpy().astype(np.int64)

    def positions(self, texts: pl.Series) -> NDArray[np.int64]:
        """Position of each text among those given at first, or -1."""
        if not len(self._texts) or not len(texts):
            return np.full(len(texts), -1, np.int64)
        found = self._texts.search_sorted(texts).clip(0, len(self._texts) - 1)
        hit = (self._texts.gather(found) == texts).fill_null(False).to_numpy()
        return np.where(hit, self._positions[found.to_numpy()], -1)


def digest_of(frame: pl.DataFrame) -> str:
    """SHA-256 of a frame's columns: texts, lists of them and numbers.

    >>> one, other = pl.DataFrame({"a": ["xy", ""]}), pl.DataFrame({"a": ["x", "y"]})
    >>> digest_of(one) == digest_of(other)
    False
    """
    return digest_of_pieces(lambda: [frame])


def digest_of_pieces(pieces: Callable[[], Iterable[pl.DataFrame]]) -> str:
    """The same of a frame too large to be held: of its pieces, gone through column by column.

    >>> frame = pl.DataFrame({"a": ["xy", ""], "b": [1, 2]})
    >>> digest_of_pieces(lambda: frame.iter_slices(1)) == digest_of(frame)
    True
    """
    content = hashlib.sha256()
    for name, dtype in next(iter(pieces())).schema.items():
        content.update(name.encode())
        if isinstance(dtype, pl.List):
            for piece in pieces():
                content.update(_bytes_of(piece[name].list.len()))
        inner = dtype.inner if isinstance(dtype, pl.List) else dtype
        if inner == pl.String:
            for piece in pieces():
                content.update(_bytes_of(_flat(piece[name]).str.len_bytes()))
            for piece in pieces():
                content.update("".join(_flat(piece[name]).str.join().to_list()).encode())
        else:
            for piece in pieces():
                content.update(_bytes_of(_flat(piece[name])))
    return content.hexdigest()


def _flat(column: pl.Series) -> pl.Series:
    return column.explode() if isinstance(column.dtype, pl.List) else column


def _bytes_of(numbers: pl.Series) -> bytes:
    if numbers.dtype.is_float():
        return numbers.cast(pl.Float64).to_numpy().tobytes()
    return numbers.cast(pl.Int64).fill_null(-1).to_numpy().tobytes()


def texts_of(array: pa.Array) -> pl.Series:
    """An Arrow array of text as a series."""
    return pl.Series(pl.from_arrow(array)).cast(pl.String)


class Vocabulary:
    """The values of one field, in the order of their ids.

    Args:
        values: distinct values; the first has id 1.
        counts: training rows that hold each.

    >>> vocabulary = Vocabulary.from_counts(
    ...     pl.DataFrame({"value": ["a", "b", "c"], "count": [2, 5, 2]}), min_count=2)
    >>> vocabulary.ids(pl.Series(["b", "a", "z"])).tolist(), vocabulary.num_embeddings
    ([1, 2, 0], 4)
    """

    def __init__(self, values: pl.Series, counts: pl.Series) -> None:
        self.values = values
        self.counts = counts
        self._sorted = SortedTexts(values)

    @classmethod
    def from_counts(
        cls, counts: pl.DataFrame, *, min_count: int, top_k: int | None = None
    ) -> "Vocabulary":
        """Gives ids to the values that ``min_count`` rows hold at least, to ``top_k`` at most."""
        kept = counts.filter(pl.col("count") >= min_count).sort(
            ["count", "value"], descending=[True, False]
        )
        if top_k is not None:
            kept = kept.head(top_k)
        return cls(kept["value"], kept["count"].cast(pl.Int64))

    @property
    def num_embeddings(self) -> int:
        """Number of ids, id 0 included."""
        return len(self.values) + 1

    def ids(self, values: pl.Series) -> NDArray[np.int32]:
        """Id of each value; 0 where training has not seen it."""
        return (self._sorted.positions(values) + 1).astype(np.int32)

    def value_of(self, ids: pl.Series) -> pl.Series:
        """The value of each id; null for id 0."""
        return self.values.gather(ids.cast(pl.Int64).replace(0, None) - 1)

    @property
    def frame(self) -> pl.DataFrame:
        """``value``, ``count`` and ``id``, in the order of the ids."""
        ids = pl.Series("id", np.arange(1, self.num_embeddings, dtype=np.int32))
        return pl.DataFrame([self.values.alias("value"), self.counts.alias("count"), ids])

    @property
    def digest(self) -> str:
        """SHA-256 of values and counts."""
        return digest_of(self.frame)

    def save(self, path: Path) -> None:
        """Writes a Parquet file of value, count and id."""
        writer = VocabularyWriter(path)
        writer.add(self.frame)
        writer.close()

    @classmethod
    def load(cls, path: AnyPath) -> "Vocabulary":
        """Reads what :meth:`save` wrote.

        Raises:
            CheckpointError: the file is missing or is none of these.
        """
        try:
            frame = pl.DataFrame(pl.from_arrow(read_parquet(path)))
            values, counts = frame["value"].cast(pl.String), frame["count"].cast(pl.Int64)
            ids = frame["id"]
        except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as cause:
            raise CheckpointError(f"{path}: cannot be read: {cause}.") from cause
        if not np.array_equal(ids.to_numpy(), np.arange(1, len(ids) + 1)):
            raise _wrong_ids(path)
        return cls(values, counts)


@dataclass(frozen=True)
class VocabularyFile:
    """A vocabulary that lies in a file and is not read.

    Args:
        path: the file.
        num_embeddings: number of ids, id 0 included.
        digest: SHA-256 of values and counts.
    """

    path: AnyPath
    num_embeddings: int
    digest: str

    @classmethod
    def open(cls, path: AnyPath) -> "VocabularyFile":
        """Goes through a file, of which only a piece is held at once.

        Raises:
            CheckpointError: the file is missing or is none of these.

        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "C1.parquet"
        >>> Vocabulary(pl.Series(["a", "b"]), pl.Series([5, 2])).save(path)
        >>> VocabularyFile.open(path).digest == Vocabulary.load(path).digest
        True
        """
        try:
            num_embeddings = 1
            for piece in _pieces_of(path):
                ids = np.arange(num_embeddings, num_embeddings + len(piece))
                if not np.array_equal(piece["id"].to_numpy(), ids):
                    raise _wrong_ids(path)
                num_embeddings += len(piece)
            return cls(path, num_embeddings, digest_of_pieces(lambda: _pieces_of(path)))
        except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as cause:
            raise CheckpointError(f"{path}: cannot be read: {cause}.") from cause

    def pieces(self) -> Iterator[pl.DataFrame]:
        """``value``, ``count`` and ``id``, in the order of the ids, a piece after another."""
        return _pieces_of(self.path)


class VocabularyWriter:
    """Writes the file of a vocabulary piece by piece; however it is cut, the bytes are the same.

    Args:
        path: the file; it is there when the writer was closed.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "C1.parquet"
    >>> writer = VocabularyWriter(path)
    >>> pieces = pl.DataFrame({"value": ["a", "b"], "count": [5, 2]}).iter_slices(1)
    >>> [writer.add(piece).tolist() for piece in pieces], writer.close().num_embeddings
    ([[1], [2]], 3)
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = unfinished(path)
        self.num_values = 0
        self._pending: list[pl.DataFrame] = []
        self._file: pq.ParquetWriter | None = None

    def add(self, values: pl.DataFrame) -> NDArray[np.int32]:
        """Adds ``value`` and ``count`` of the next values; their ids."""
        first = self.num_values + 1
        self.num_values += len(values)
        ids = np.arange(first, first + len(values), dtype=np.int32)
        frame = pl.DataFrame(
            [values["value"], values["count"].cast(pl.Int64), pl.Series("id", ids)]
        )
        self._pending.append(frame)
        if sum(map(len, self._pending)) >= _ROW_GROUP_ROWS:
            held = pl.concat(self._pending)
            whole = len(held) // _ROW_GROUP_ROWS * _ROW_GROUP_ROWS
            self._write(held[:whole])
            self._pending = [held[whole:]]
        return ids

    def close(self) -> VocabularyFile:
        """Writes what is left; the finished file."""
        rest = pl.concat(self._pending) if self._pending else _empty_vocabulary()
        if len(rest) or self._file is None:
            self._write(rest)
        assert self._file is not None, "something was written"
        self._file.close()
        digest = digest_of_pieces(lambda: _pieces_of(self._unfinished))
        self._unfinished.rename(self._path)
        return VocabularyFile(self._path, self.num_values + 1, digest)

    def _write(self, frame: pl.DataFrame) -> None:
        table = frame.to_arrow()
        if self._file is None:
            self._file = pq.ParquetWriter(self._unfinished, table.schema, compression="zstd")
        self._file.write_table(table, row_group_size=_ROW_GROUP_ROWS)


def _empty_vocabulary() -> pl.DataFrame:
    return pl.DataFrame(schema={"value": pl.String, "count": pl.Int64, "id": pl.Int32})


def _pieces_of(path: AnyPath) -> Iterator[pl.DataFrame]:
    schema = _empty_vocabulary().schema
    with open_parquet(path) as parquet:
        if not parquet.num_row_groups:
            yield _empty_vocabulary()
        for group in range(parquet.num_row_groups):
            frame = pl.DataFrame(pl.from_arrow(parquet.read_row_group(group)))
            yield frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items())


def _wrong_ids(path: AnyPath) -> CheckpointError:
    return CheckpointError(f"{path}: its ids must count from 1. It was changed; restore it.")


class ManagedHashes:
    """The upper 63 bits of XXH64 of a value's UTF-8 bytes: training gives such numbers rows.

    A number is never 0, which stands for a missing value.

    Args:
        num_rows: of the table.

    >>> ManagedHashes(10).ids(pl.Series(["", "a"])).tolist()  # 0xef46db3751d8e999 >> 1
    [8620854627038688460, 7577133169179506477]
    """

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    @property
    def num_embeddings(self) -> int:
        """Number of rows, row 0 included."""
        return self.num_rows + 1

    def ids(self, values: pl.Series) -> NDArray[np.int64]:
        """Number of each value."""
        return np.array([max(1, number >> 1) for number in _hashes(values)], np.int64)


class HashedIds:
    """Ids 1 to ``num_buckets`` by XXH64 of a value's UTF-8 bytes; nothing to learn.

    >>> HashedIds(10).ids(pl.Series(["", "a"])).tolist()  # XXH64 of "" is 0xef46db3751d8e999
    [2, 6]
    """

    def __init__(self, num_buckets: int) -> None:
        self.num_buckets = num_buckets

    @property
    def num_embeddings(self) -> int:
        """Number of ids, id 0 included."""
        return self.num_buckets + 1

    def ids(self, values: pl.Series) -> NDArray[np.int32]:
        """Id of each value."""
        return np.array([1 + number % self.num_buckets for number in _hashes(values)], np.int32)


def _hashes(values: pl.Series) -> list[int]:
    """XXH64 of each value's UTF-8 bytes."""
    return [xxhash.xxh64_intdigest(value) for value in values.cast(pl.Binary).to_list()]
