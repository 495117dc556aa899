"""Damaged files read as ingestion reads them, and what must become of them.

A failure names what befell the file, lines and columns, and quotes no row: the owners' terms do
not allow it.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from recsys_had.data.problems import Problems
from recsys_had.data.raw import RawSource
from recsys_had.data.read_block import SPLIT, ReadBlock, read_block
from recsys_had.errors import DataError
from recsys_had.schema import SPLITS, load_card
from tests.data.plain_reader import AVAZU, CRITEO, Judged

NUM_ROWS = 40
BLOCK_BYTES = 4096
Rows = dict[int, Mapping[str, object]]
FILES = {
    "criteo": ("criteo/train_head_8000.tsv", CRITEO),
    "avazu": ("avazu/train_first_hour.csv", AVAZU),
}
CARDS = functools.cache(load_card)


@dataclass(frozen=True)
class Read:
    """What was read of a file: values by row id, and the line of each rejected row."""

    rows: Rows = field(repr=False)
    rejected: dict[int, int]
    num_rows: int


def read_file(path: Path, kind: str, *, reject: bool) -> Read:
    """Reads a file as ingestion does, block by block, the problems of all blocks together."""
    card = CARDS(kind)
    rows: Rows = {}
    rejected: dict[int, int] = {}
    problems = Problems()
    num_rows = 0
    for block in RawSource([path], card).blocks(BLOCK_BYTES):
        try:
            got = read_block(block, card, {}, None, reject=reject)
        except DataError as error:
            problems.add_error(error)
            continue
        num_rows += block.num_rows
        kept = range(block.num_rows) if got.kept is None else got.kept.tolist()
        rows |= dict(zip((block.first_row_id + row for row in kept), _values(got), strict=True))
        assert set(got.rejects["file"].to_pylist()) <= {str(path)}
        assert all(got.rejects["reason"].to_pylist())
        for row, line in zip(
            *(got.rejects[name].to_pylist() for name in ("row", "line")), strict=True
        ):
            rejected[block.first_row_id + row] = line
    problems.raise_any()
    return Read(rows, rejected, num_rows)


def _values(got: ReadBlock) -> Iterator[dict[str, object]]:
    columns = {name: got.values.column(name).to_pylist() for name in got.values.schema.names}
    columns["split"] = [SPLITS[code] for code in columns.pop(SPLIT)]
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))


class WrongError(Exception):
    """What became of a mutation is not what must become of it."""


def told(name: str, message: str) -> NoReturn:
    raise WrongError(f"{name}: {message}")


def attempt(name: str, read: Callable[[], Read]) -> Read | DataError:
    """What was read, or the error a user may see; any other is a failure."""
    try:
        return read()
    except DataError as error:
        return error
    except BaseException as error:  # a panic of polars is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        told(name, f"{type(error).__qualname__} from {_origin(error)}")


def _origin(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "nowhere" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def compare(name: str, got: Rows, want: Rows) -> None:
    """Values of the same rows; names the first column that differs."""
    if got.keys() != want.keys():
        told(name, f"kept rows {sorted(got.keys() ^ want.keys())[:5]} wrongly, or not at all")
    for row in want:
        wrong = sorted(
            k for k in {*got[row], *want[row]} if got[row].get(k, ...) != want[row].get(k, ...)
        )
        if wrong:
            told(name, f"row {row}: {', '.join(wrong[:5])} wrong")


def must_be_as_judged(
    name: str, judged: list[Judged], stopped: Read | DataError, sifted: Read | DataError, path: Path
) -> None:
    want = {row: found.values for row, found in enumerate(judged) if found.values is not None}
    bad = {row: found.line for row, found in enumerate(judged) if found.values is None}
    if bad:
        must_be_refused(name, stopped, path, min(bad.values()))
    elif isinstance(stopped, DataError):
        told(name, "refused, and every row is right")
    else:
        compare(name, stopped.rows, want)
    if isinstance(sifted, DataError):
        told(name, "an error of the file, and only rows are wrong")
    elif sifted.num_rows != len(judged):
        told(name, f"{sifted.num_rows} rows read; there are {len(judged)}")
    elif sifted.rejected != bad:
        told(name, f"rejected rows and lines {sifted.rejected}; they are {bad}")
    else:
        compare(name, sifted.rows, want)


def must_be_refused(name: str, found: Read | DataError, path: Path, line: int | None) -> None:
    if not isinstance(found, DataError):
        told(name, f"{len(found.rows)} rows were read without an error")
    first = found.problems[0]
    if not first.startswith(str(path)):
        told(name, "the file is not named")
    if len(first) > 2000:
        told(name, f"the first problem has {len(first)} characters")
    place = re.match(rf"{re.escape(str(path))}(?::|: row )(\d+): ", first)
    named = {place and int(place[1]), *map(int, re.findall(r" in line (\d+)\.", first))}
    if line is not None and line not in named:
        told(name, f"line {line} is not named; named are {named}")


def fail_with(wrong: list[str]) -> None:
    """Fails without a traceback, which would quote rows."""
    if wrong:
        pytest.fail("\n".join([f"{len(wrong)} mutations", *wrong[:60]]), pytrace=False)


def first_rows(samples: Path, kind: str) -> list[bytes]:
    """The first lines of a dataset."""
    with (samples / FILES[kind][0]).open("rb") as stream:
        return [stream.readline() for _ in range(NUM_ROWS)]
