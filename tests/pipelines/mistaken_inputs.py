"""Kinds of input of what scores rows, and mistakes in them."""

import gzip
import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.every_kind import Row, right_rows, text_of

ROWS = right_rows(30)

# A column, what stands in it, and what is told. Each in a row of its own, in this order.
VALUES = [
    ("age", "x", "must be a whole number; got 'x'."),
    ("age", "1.5", "must be a whole number; got '1.5'."),
    ("age", "5\0", "must be a whole number; got '5\\x00'."),
    ("age", str(2**63), f"must be a whole number; got '{2**63}'."),
    ("age", str(-(2**63) - 1), f"must be a whole number; got '{-(2**63) - 1}'."),
    ("price", "1e39", "must be a finite number; got '1e39'."),
    ("price", "-inf", "must be a finite number; got '-inf'."),
    ("price", "0x1F", "must be a finite number; got '0x1F'."),
    ("time", "2024-02-30 00:00:00", "2024-02-30 00:00:00"),
    ("time", "2024-03-01 24:00:00", "2024-03-01 24:00:00"),
    ("time", "10000-01-01 00:00:00", "10000-01-01 00:00:00"),
    ("time", "0000-01-01 00:00:00", "0000-01-01 00:00:00"),
    ("time", "yesterday", "yesterday"),
    ("image", "1;2;3", "must hold 2 numbers; got 3."),
    ("image", "1;x", "must hold finite numbers; got 'x' as number 2."),
    ("image", "1e39;1", "must hold finite numbers; got '1e39' as number 1."),
]


def wrong_rows() -> list[Row]:
    return [
        {**row, VALUES[number][0]: VALUES[number][1]} if number < len(VALUES) else row
        for number, row in enumerate(ROWS)
    ]


def told_of(number: int) -> str:
    column, _, told = VALUES[number]
    if column == "time":
        told = f"must be a time written as %Y-%m-%d %H:%M:%S; got '{told}'."
    return f"column {column}: {told}"


def stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return sink.getvalue()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def table(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in rows[0]]))


def coded(rows: Sequence[Row]) -> pa.Table:
    plain = table(rows)
    return pa.table({name: plain[name].dictionary_encode() for name in plain.column_names})


@dataclass(frozen=True)
class Kind:
    """A kind of input of ``recsys-had predict``.

    Args:
        run: whose card it fits.
        name: of the file; - is standard input.
        write: rows to bytes.
        place: of a row, after the file.
    """

    run: str
    name: str
    write: Callable[[Sequence[Row]], bytes]
    place: Callable[[int], str]


def csv(rows: Sequence[Row]) -> bytes:
    return text_of(list(rows), ",", header=True).encode()


def bare(rows: Sequence[Row]) -> bytes:
    return text_of(list(rows), ",", header=False).encode()


def tsv(rows: Sequence[Row]) -> bytes:
    return text_of(list(rows), "\t", header=False).encode()


def zst(data: bytes) -> bytes:
    return pa.compress(data, "zstd", asbytes=True)


def after_header(row: int) -> str:
    return f":{row + 2}"


def line(row: int) -> str:
    return f":{row + 1}"


def counted(row: int) -> str:
    return f": row {row}"


KINDS = {
    "csv": Kind("csv", "rows.csv", csv, after_header),
    "csv without a header": Kind("bare", "rows.csv", bare, line),
    "csv.zst": Kind("csv", "rows.csv.zst", lambda rows: zst(csv(rows)), after_header),
    "tsv": Kind("tsv", "rows.tsv", tsv, line),
    "tsv.gz": Kind("tsv", "rows.tsv.gz", lambda rows: gzip.compress(tsv(rows)), line),
    "parquet": Kind("csv", "rows.parquet", lambda rows: parquet(table(rows)), counted),
    "parquet of dictionaries": Kind(
        "tsv", "rows.parquet", lambda rows: parquet(coded(rows)), counted
    ),
    "stream": Kind("csv", "-", lambda rows: stream(table(rows)), counted),
    "stream of dictionaries": Kind("csv", "-", lambda rows: stream(coded(rows)), counted),
}
TEXT_KINDS = [name for name, kind in KINDS.items() if kind.place is not counted]
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


class Predict:
    """Scores bytes of a kind by the command, and looks at what it leaves."""

    def __init__(self, cli: Any, runs: dict[str, Path], folder: Path) -> None:
        self._cli, self._runs, self.folder = cli, runs, folder
        self.out = folder / "scores"

    def place(self, kind: Kind) -> str:
        """How errors name the input."""
        return "standard input" if kind.name == "-" else str(self.folder / kind.name)

    def __call__(
        self, kind: Kind, content: bytes | None, *words: object, given: bytes | None = None
    ) -> Any:
        """One run of the command.

        Args:
            kind: what is scored.
            content: its bytes; None: those of the run before.
            words: further options.
            given: the bytes of standard input; None: those of the content.
        """
        source: object = "-"
        if kind.name != "-":
            source = self.folder / kind.name
            if content is not None:
                (self.folder / kind.name).write_bytes(content)
        words = ("predict", self._runs[kind.run], "--input", source, "--out", self.out, *words)
        return self._cli(*words, "--json", given=content if given is None else given)

    def scores(self) -> pl.DataFrame:
        """What was written, which is removed."""
        found = pl.read_parquet(sorted(self.out.glob("part-*.parquet")))
        shutil.rmtree(self.out)
        return found

    def refused(self, done: Any, *told: str) -> None:
        """Asks that nothing but these lines came of it."""
        assert done.err.splitlines() == list(told)
        assert (done.code, done.out) == (2, "")
        assert not self.out.exists()


def table_of(rows: Sequence[Row]) -> pa.Table:
    return table(rows) if rows else table(ROWS).slice(0, 0)


def without(name: str, rows: Sequence[Row] = ROWS) -> list[Row]:
    return [{key: text for key, text in row.items() if key != name} for row in rows]
