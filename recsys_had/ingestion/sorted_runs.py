"""Sorted runs: groups of values too many to be held, on the disk, merged into one order.

The order is that of ids: by falling count, then by the values' UTF-8 bytes.
"""

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

_BATCH_ROWS = 1 << 16
_SAMPLE_EVERY = 1 << 14
# A place in the order.
_Limit = tuple[int, str]


def in_order(groups: pl.DataFrame) -> pl.DataFrame:
    """Groups in the order of ids.

    >>> in_order(pl.DataFrame({"value": ["b", "a", "c"], "count": [1, 1, 5]}))["value"].to_list()
    ['c', 'a', 'b']
    """
    return groups.sort(["count", "value"], descending=[True, False])


class SortedRuns:
    """Groups, added run by run and read in one order.

    Args:
        folder: where they lie meanwhile.
        name: their files' own.
        at_once: about how many groups are held together when they are read.

    >>> import tempfile
    >>> runs = SortedRuns(Path(tempfile.mkdtemp()), "C1", at_once=2)
    >>> for values in (["b", "d"], ["a", "c"]):
    ...     runs.add(pl.DataFrame({"value": values, "count": [1, 1], "group": [0, 1]}))
    >>> [value for piece in runs.merged() for value in piece["value"]]
    ['a', 'b', 'c', 'd']
    """

    def __init__(self, folder: Path, name: str, *, at_once: int) -> None:
        self._folder = folder
        self._name = name
        self._at_once = at_once
        self._every = max(1, min(_SAMPLE_EVERY, at_once // 4))
        self._paths: list[Path] = []
        self._samples: list[pl.DataFrame] = []

    def add(self, groups: pl.DataFrame) -> None:
        """Adds a run: ``value``, ``count`` and ``group``, in any order."""
        ordered = in_order(groups)
        path = self._folder / f"run-{self._name}-{len(self._paths):04d}.arrow"
        self._samples.append(ordered.select("count", "value").gather_every(self._every))
        columns = {
            "group": ordered["group"].to_numpy(),
            "count": ordered["count"].to_numpy(),
            "value": pa.array(ordered["value"].to_arrow(), pa.large_string()),
        }
        with pa.OSFile(str(path), "wb") as sink:
            table = pa.Table.from_pydict(columns)
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=_BATCH_ROWS)
        self._paths.append(path)

    def merged(self) -> Iterator[pl.DataFrame]:
        """All groups in one order, piece by piece; the runs are gone afterwards."""
        runs = [_Run(path) for path in self._paths]
        for limit in [*self._limits(), None]:
            pieces = [piece for run in runs for piece in run.before(limit)]
            if pieces:
                frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(pieces)))
                yield in_order(frame.cast({"value": pl.String}))
        for run, path in zip(runs, self._paths, strict=True):
            run.close()
            path.unlink()

    def _limits(self) -> list[_Limit]:
        """Places that cut the order into pieces of about so many groups."""
        if not self._samples:
            return []
        step = max(1, self._at_once // self._every)
        return in_order(pl.concat(self._samples)).gather_every(step, offset=step).rows()


class _Run:
    """A sorted run, read batch by batch."""

    def __init__(self, path: Path) -> None:
        # Not mapped: what was read once would stay in memory.
        self._file = pa.OSFile(str(path), "rb")
        self._reader = pa.ipc.open_file(self._file)
        self._next = 0
        self._rest: pa.RecordBatch | None = None

    def before(self, limit: _Limit | None) -> Iterator[pa.RecordBatch]:
        """What comes before a place and was not read; before none, all that is left."""
        while True:
            if self._rest is None:
                if self._next == self._reader.num_record_batches:
                    return
                self._rest = self._reader.get_batch(self._next)
                self._next += 1
            batch, self._rest = self._rest, None
            end = batch.num_rows if limit is None else _place(batch, *limit)
            if end:
                yield batch.slice(0, end)
            if end < batch.num_rows:
                self._rest = batch.slice(end)
                return

    def close(self) -> None:
        self._file.close()


def _place(batch: pa.RecordBatch, count: int, value: str) -> int:
    """Where in a sorted batch a group of that count and value would stand."""
    counts = -batch.column("count").to_numpy()
    first, last = (int(np.searchsorted(counts, -count, side)) for side in ("left", "right"))
    values = batch.column("value")
    wanted = value.encode()
    return first + bisect_left(
        range(first, last), wanted, key=lambda row: values[row].as_py().encode()
    )
