"""Damaged Parquet files made of real rows: refused with file and row, or their wrong rows are."""

import datetime
import decimal
import functools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_had.errors import DataError
from tests.data.corruption import flipped
from tests.data.damaged import (
    FILES,
    NUM_ROWS,
    Read,
    WrongError,
    attempt,
    compare,
    fail_with,
    first_rows,
    must_be_as_judged,
    must_be_refused,
    read_file,
    told,
)
from tests.data.plain_reader import Judged, values_of

# Stands in a row's text where the row must be refused.
REFUSED = None
DAY = datetime.datetime(2014, 10, 21, 5)


@dataclass(frozen=True)
class Cell:
    """One value of a column of another type.

    Args:
        kind: criteo or avazu.
        column: the column, all of it of that type.
        type: the type.
        value: what stands in one row of it.
        text: what the value must be read as; REFUSED where its row must be.
        others: what stands in the other rows, as a text; by default what stood there.
    """

    kind: str
    column: str
    type: pa.DataType
    value: object
    text: str | None
    others: Callable[[str], object] = str


def integer(text: str) -> object:
    return int(text) if text else None


def number(text: str) -> object:
    return float(text) if text else None


def exact(text: str) -> object:
    return decimal.Decimal(text) if text else None


def hour(text: str) -> object:
    return datetime.datetime.strptime(text, "%y%m%d%H")


# Ways to write a text that keep what it says.
SAME = (str, str.encode, integer, number, exact, hour)
I64, F64, TEXT = pa.int64(), pa.float64(), pa.string()
CELLS = [
    Cell("criteo", "I1", I64, -(2**63), "-9223372036854775808", integer),
    Cell("criteo", "I1", I64, 2**63 - 1, "9223372036854775807", integer),
    Cell("criteo", "I1", I64, None, "", integer),
    Cell("criteo", "I1", pa.uint64(), 2**64 - 1, REFUSED, integer),
    Cell("criteo", "I1", pa.uint64(), 2**63, REFUSED, integer),
    Cell("criteo", "I1", F64, float("nan"), "", number),
    Cell("criteo", "I1", F64, float("inf"), REFUSED, number),
    Cell("criteo", "I1", F64, float("-inf"), REFUSED, number),
    Cell("criteo", "I1", F64, 1e300, REFUSED, number),
    Cell("criteo", "I1", F64, 1.5, REFUSED, number),
    Cell("criteo", "I1", F64, -0.0, "0", number),
    Cell("criteo", "I1", F64, 2.0**63, REFUSED, number),
    Cell("criteo", "I1", F64, -(2.0**63), "-9223372036854775808", number),
    Cell("criteo", "I1", F64, 7.0, "7", number),
    Cell("criteo", "I1", pa.float32(), 2.0**31, "2147483648", number),
    Cell("criteo", "I1", pa.decimal128(38, 0), decimal.Decimal(10) ** 30, REFUSED, exact),
    Cell("criteo", "I1", pa.decimal128(20, 0), decimal.Decimal(2**63 - 1), str(2**63 - 1), exact),
    Cell("criteo", "I1", pa.decimal128(20, 2), decimal.Decimal("1.50"), REFUSED, exact),
    Cell("criteo", "I1", pa.decimal128(20, 2), decimal.Decimal("4.00"), "4", exact),
    Cell("criteo", "I1", TEXT, "1e400", REFUSED),
    Cell("criteo", "I1", TEXT, "1e2", "100"),
    Cell("criteo", "I1", TEXT, " 1", REFUSED),
    Cell("criteo", "I1", TEXT, "", ""),
    Cell("criteo", "I1", TEXT, "5\0", REFUSED),
    Cell("criteo", "I1", pa.large_string(), "x" * (1 << 20), REFUSED),
    Cell("criteo", "I1", pa.binary(), b"12", "12", str.encode),
    Cell("criteo", "I1", pa.binary(), b"\xff", REFUSED, str.encode),
    Cell("criteo", "label", I64, 2, REFUSED, integer),
    Cell("criteo", "label", I64, -1, REFUSED, integer),
    Cell("criteo", "label", I64, None, REFUSED, integer),
    Cell("criteo", "label", F64, float("nan"), REFUSED, number),
    Cell("criteo", "label", F64, 0.5, REFUSED, number),
    Cell("criteo", "label", F64, 1.0, "1", number),
    Cell("criteo", "label", pa.bool_(), True, "1", lambda text: text == "1"),
    Cell("criteo", "label", pa.bool_(), None, REFUSED, lambda text: text == "1"),
    Cell("criteo", "label", TEXT, "true", REFUSED),
    Cell("criteo", "label", TEXT, "1\u2028", REFUSED),
    Cell("criteo", "C1", TEXT, "a\0b\u2028\x85\r\n\t,\"'", "a\0b\u2028\x85\r\n\t,\"'"),
    Cell("criteo", "C1", TEXT, "f" * (1 << 20), "f" * (1 << 20)),
    Cell("criteo", "C1", TEXT, None, ""),
    Cell("criteo", "C1", TEXT, b"\xff", REFUSED, str.encode),
    Cell("criteo", "C1", TEXT, b"\xed\xa0\x80", REFUSED, str.encode),
    Cell("criteo", "C1", TEXT, b"a\xc3", REFUSED, str.encode),
    Cell("criteo", "C1", pa.large_string(), b"\xc0\x80", REFUSED, str.encode),
    Cell("criteo", "C1", pa.binary(), b"\xc3\xa9", "\u00e9", str.encode),
    Cell("criteo", "C1", pa.large_binary(), b"\x80", REFUSED, str.encode),
    Cell("criteo", "C1", pa.binary(3), b"abc", "abc", lambda text: b"xyz"),
    Cell("criteo", "C1", pa.binary(3), b"ab\xc3", REFUSED, lambda text: b"xyz"),
    Cell("criteo", "C1", pa.dictionary(pa.int32(), TEXT), "new", "new"),
    Cell("criteo", "C1", pa.null(), None, "", lambda text: None),
    Cell("criteo", "C1", pa.int32(), -5, "-5", lambda text: 7),
    Cell("criteo", "C1", F64, 153.0, "153", lambda text: 7.0),
    Cell("criteo", "C1", pa.uint64(), 2**64 - 1, "18446744073709551615", lambda text: 7),
    Cell(
        "criteo",
        "C1",
        pa.decimal128(38, 0),
        decimal.Decimal(10**37 + 1),
        str(10**37 + 1),
        lambda text: decimal.Decimal(7),
    ),
    Cell(
        "criteo",
        "C1",
        pa.decimal128(20, 2),
        decimal.Decimal("1.50"),
        "1.5",
        lambda text: decimal.Decimal(7),
    ),
    Cell("criteo", "C1", pa.bool_(), True, "1", lambda text: False),
    Cell("avazu", "hour", TEXT, "14130100", REFUSED),
    Cell("avazu", "hour", TEXT, "99999", REFUSED),
    Cell("avazu", "hour", TEXT, "1410212", REFUSED),
    Cell("avazu", "hour", I64, 14102124, REFUSED, integer),
    Cell("avazu", "hour", I64, -14102123, REFUSED, integer),
    Cell("avazu", "hour", I64, None, "", integer),
    Cell("avazu", "hour", F64, 14102123.0, "14102123", number),
    Cell("avazu", "hour", F64, 14102123.5, REFUSED, number),
    Cell("avazu", "hour", pa.timestamp("us"), DAY, "14102105", hour),
    Cell("avazu", "hour", pa.timestamp("ns"), DAY, "14102105", hour),
    Cell("avazu", "hour", pa.timestamp("s"), DAY, "14102105", hour),
    Cell(
        "avazu",
        "hour",
        pa.timestamp("us", "Asia/Tokyo"),
        DAY.replace(tzinfo=datetime.UTC),
        "14102105",
        lambda text: DAY.replace(tzinfo=datetime.UTC),
    ),
    Cell("avazu", "hour", pa.timestamp("us"), None, "", hour),
    # Two digits cannot say these years.
    Cell("avazu", "hour", pa.timestamp("us"), datetime.datetime(1914, 10, 21), REFUSED, hour),
    Cell("avazu", "hour", pa.timestamp("us"), datetime.datetime(1, 1, 1), REFUSED, hour),
    Cell("avazu", "hour", pa.timestamp("us"), datetime.datetime(9999, 12, 31), REFUSED, hour),
    Cell("avazu", "hour", pa.timestamp("us"), 2**63 - 1, REFUSED, lambda text: 1413853200 * 10**6),
    Cell("avazu", "hour", pa.timestamp("us"), -(2**63) + 1, REFUSED, lambda text: 0),
    Cell("avazu", "hour", pa.timestamp("ms"), 2**62, REFUSED, lambda text: 0),
    Cell("avazu", "hour", pa.timestamp("s"), 2**40, REFUSED, lambda text: 0),
    Cell(
        "avazu",
        "hour",
        pa.date32(),
        datetime.date(2014, 10, 21),
        "14102100",
        lambda text: DAY.date(),
    ),
    Cell("avazu", "hour", pa.date32(), 2**31 - 1, REFUSED, lambda text: 0),
    Cell("avazu", "hour", pa.date32(), -(2**31), REFUSED, lambda text: 0),
    Cell(
        "avazu",
        "hour",
        pa.date64(),
        datetime.date(2014, 10, 21),
        "14102100",
        lambda text: DAY.date(),
    ),
    Cell("avazu", "click", TEXT, "\ufeff1", REFUSED),
    Cell("avazu", "id", pa.uint64(), 2**64 - 1, "18446744073709551615", lambda text: 7),
    Cell("avazu", "id", pa.binary(), b"\xff", REFUSED, str.encode),
    Cell("avazu", "C21", pa.int8(), -128, "-128", lambda text: 1),
]


Make = Callable[[str], list[list[str]]]


@pytest.fixture(scope="module")
def rows(samples: Path) -> Make:
    """A dataset's first rows as text."""

    @functools.cache
    def make(kind: str) -> list[list[str]]:
        separator = "\t" if kind == "criteo" else ","
        lines = [line.decode().rstrip("\n").split(separator) for line in first_rows(samples, kind)]
        return lines[1:] if kind == "avazu" else lines

    return make


def table_of(rows: Sequence[Sequence[str]], kind: str) -> pa.Table:
    """Typed as a warehouse would have it."""
    arrays = {}
    for name, texts in zip(FILES[kind][1], zip(*rows, strict=True), strict=True):
        is_number = name in ("label", "click") or name.startswith("I")
        arrays[name] = pa.array([*map(integer, texts)], I64) if is_number else pa.array(texts)
    return pa.table(arrays)


def array_of(values: list[object], kind: pa.DataType) -> pa.Array:
    """The values; bytes may stand for texts that are no UTF-8."""
    if kind in (pa.string(), pa.large_string()) and isinstance(values[0], bytes):
        raw = pa.array(values, pa.binary() if kind == pa.string() else pa.large_binary())
        return pa.Array.from_buffers(kind, len(raw), raw.buffers())
    return pa.array(values, kind)


def write(table: pa.Table, path: Path, **how: object) -> None:
    pq.write_table(table, path, row_group_size=16, write_page_checksum=True, **how)


def read_twice(name: str, path: Path, kind: str) -> tuple[Read | DataError, Read | DataError]:
    """With wrong rows an error, and with wrong rows rejected."""
    stopped, sifted = (
        attempt(name, functools.partial(read_file, path, kind, reject=reject))
        for reject in (False, True)
    )
    return stopped, sifted


def judged(rows: Sequence[Sequence[str] | None], kind: str) -> list[Judged]:
    """Rows of a Parquet file are counted from 0."""
    return [Judged(at, values_of(row, FILES[kind][1], kind)) for at, row in enumerate(rows)]


def test_every_value_of_another_type_is_told_with_its_row_or_rejected(
    rows: Make, tmp_path: Path
) -> None:
    wrong = []
    place = random.Random(5)
    for cell in CELLS:
        name = f"{cell.kind}.{cell.column} as {cell.type}: {str(cell.value)[:40]!r}"
        texts = [list(row) for row in rows(cell.kind)]
        at = FILES[cell.kind][1].index(cell.column)
        values = [cell.others(row[at]) for row in texts]
        bad = place.randrange(1, len(values))
        values[bad] = cell.value
        column = array_of(values, cell.type)
        table = table_of(texts, cell.kind).set_column(at, cell.column, column)
        path = tmp_path / "rows.parquet"
        write(table, path)
        try:
            want = judged(as_text(texts, at, bad, cell), cell.kind)
            must_be_as_judged(name, want, *read_twice(name, path, cell.kind), path)
        except WrongError as error:
            wrong.append(str(error))
    fail_with(wrong)


def as_text(rows: list[list[str]], at: int, bad: int, cell: Cell) -> list[list[str] | None]:
    """The rows as a text file would hold them."""
    found: list[list[str] | None] = []
    for number_of_row, row in enumerate(rows):
        text: str | None = row[at]
        if number_of_row == bad:
            text = cell.text
        elif cell.others not in SAME:
            text = plain(cell.others(row[at]), cell)
        found.append(None if text is None else [*row[:at], text, *row[at + 1 :]])
    return found


def plain(value: object, cell: Cell) -> str:
    """The text of a value that stands in for another."""
    match value:
        case None:
            return ""
        case bytes():
            return value.decode()
        case bool():
            return str(int(value))
        case datetime.date():
            return value.strftime("%y%m%d%H")
        case int() if cell.column == "hour":
            unit = cell.type.unit if pa.types.is_timestamp(cell.type) else "s"
            seconds = value / {"s": 1, "ms": 1e3, "us": 1e6}[unit]
            return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%y%m%d%H")
        case float() | int() | decimal.Decimal():
            return str(int(value))
        case _:
            return str(value)


def changed_tables(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Tables whose columns are not what the card says."""
    names = table.column_names
    num_rows = len(table)
    yield "a column dropped", table.drop([names[3]])
    yield "the label dropped", table.drop(["label" if "label" in names else "click"])
    yield "a column renamed", table.rename_columns([*names[:-1], "other"])
    doubled = pa.Table.from_arrays([*table.columns, table.column(3)], [*names, names[3]])
    yield "a column doubled", doubled
    numbers = pa.array(range(num_rows))
    for kind, array in {
        "structs": pa.array([{"a": 1}] * num_rows),
        "lists": pa.array([["a"]] * num_rows),
        "maps": pa.array([[("a", 1)]] * num_rows, pa.map_(pa.string(), pa.int64())),
        "durations": numbers.cast(pa.duration("us")),
        "times of day": numbers.cast(pa.time64("us")),
        "lists of lists": pa.array([[["a"]]] * num_rows),
        "bytes in lists": pa.array([[b"\xff"]] * num_rows),
    }.items():
        for at in (1, len(names) - 1):
            yield f"{kind} as {names[at]}", table.set_column(at, names[at], array)


@pytest.mark.parametrize("kind", ["criteo", "avazu"])
def test_a_table_of_other_columns_is_refused(kind: str, rows: Make, tmp_path: Path) -> None:
    wrong = []
    path = tmp_path / "rows.parquet"
    for name, table in changed_tables(table_of(rows(kind), kind)):
        write(table, path)
        try:
            for found in read_twice(name, path, kind):
                must_be_refused(name, found, path, None)
        except WrongError as error:
            wrong.append(str(error))
    fail_with(wrong)


@pytest.mark.parametrize("kind", ["criteo", "avazu"])
def test_columns_in_another_order_and_further_ones_do_not_matter(
    kind: str, rows: Make, tmp_path: Path
) -> None:
    table = table_of(rows(kind), kind)
    path = tmp_path / "rows.parquet"
    write(table.select(table.column_names[::-1]).append_column("more", table.column(0)), path)
    try:
        must_be_as_judged(kind, judged(rows(kind), kind), *read_twice(kind, path, kind), path)
    except WrongError as error:
        fail_with([str(error)])


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("kind", ["criteo", "avazu"])
def test_a_damaged_file_is_refused_or_read_as_it_was(
    kind: str, compression: str, rows: Make, tmp_path: Path
) -> None:
    path = tmp_path / "rows.parquet"
    write(table_of(rows(kind), kind), path, compression=compression)
    whole = path.read_bytes()
    place = random.Random(f"{kind} {compression} 5")
    damaged = {f"cut to {left}": whole[:left] for left in (0, 1, 3, 4, 8, 11)}
    for left in [
        len(whole) - 1,
        len(whole) - 4,
        len(whole) - 9,
        *place.sample(range(len(whole)), 6),
    ]:
        damaged[f"cut to {left}"] = whole[:left]
    for at in [*range(len(whole) - 8, len(whole)), *place.sample(range(4, len(whole) - 8), 40)]:
        damaged[f"a bit flipped at {at}"] = flipped(whole, at)
    damaged["bytes put in"] = whole[:500] + b"\0" * 7 + whole[500:]
    damaged["bytes before"] = b"\n" + whole
    want = {row: found.values or {} for row, found in enumerate(judged(rows(kind), kind))}
    wrong = []
    for name, data in damaged.items():
        path.write_bytes(data)
        try:
            for found in read_twice(name, path, kind):
                if not isinstance(found, DataError):
                    if found.rejected:
                        told(name, "rows were rejected, and the file is damaged")
                    compare(name, found.rows, want)
                elif not found.problems[0].startswith(str(path)):
                    told(name, "the file is not named")
        except WrongError as error:
            wrong.append(str(error))
    fail_with(wrong)
    assert len(want) in (NUM_ROWS, NUM_ROWS - 1)
