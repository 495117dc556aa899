"""What damaged rows of Criteo and Avazu say, in plain Python that shares no code with recsys_had.

Every row is judged: its line, and its values or None where it must be refused. UnreadableError
is raised where no reader could tell the rows apart.
"""

import datetime
import decimal
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.data.reference import HEXES, INTEGERS, split_by_content

CRITEO = ["label", *INTEGERS, *HEXES]
AVAZU = [
    *("id", "click", "hour", "C1", "banner_pos", "site_id", "site_domain", "site_category"),
    *("app_id", "app_domain", "app_category", "device_id", "device_ip", "device_model"),
    *("device_type", "device_conn_type", *(f"C{number}" for number in range(14, 22))),
]
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COLUMN = rb'(?:"(?:[^"]|"")*"|[^",]*)'
_CSV_RECORD = re.compile(rb"%s(?:,%s)*" % (_COLUMN, _COLUMN))
_CSV_COLUMN = re.compile(rb"(?:^|,)(%s)" % _COLUMN)


class UnreadableError(Exception):
    """The row that begins in this line has no end that could be known."""

    def __init__(self, line: int) -> None:
        self.line = line


@dataclass(frozen=True)
class Judged:
    """One row: its line (or number) and what it says, None where it is to be refused."""

    line: int
    values: Mapping[str, object] | None = field(repr=False)


def judge(data: bytes, kind: str) -> list[Judged]:
    """The rows of a TSV of Criteo or a CSV of Avazu."""
    lines = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").split(b"\n")
    if lines[-1] == b"":
        lines = lines[:-1]
    if kind == "criteo":
        records = enumerate((line.split(b"\t") for line in lines), start=1)
        return [Judged(line, values_of(_texts(row), CRITEO, kind)) for line, row in records]
    (_, header), *rows = _csv_records(lines)
    names = [name.decode() for name in header or []]
    return [Judged(line, values_of(_texts(row), names, kind)) for line, row in rows]


def _csv_records(lines: Sequence[bytes]) -> Iterator[tuple[int, list[bytes] | None]]:
    """Line and columns of each record, None where a quote stands out of place in its line."""
    at = 0
    while at < len(lines):
        begin, record = at + 1, lines[at]
        while record.count(b'"') % 2:
            at += 1
            if at == len(lines):
                raise UnreadableError(begin)
            record += b"\n" + lines[at]
        at += 1
        if _CSV_RECORD.fullmatch(record):
            columns = _CSV_COLUMN.findall(record)
            yield begin, [_unquoted(column) for column in columns]
        elif b"\n" in record:
            raise UnreadableError(begin)
        else:
            yield begin, None


def _unquoted(column: bytes) -> bytes:
    return column[1:-1].replace(b'""', b'"') if column.startswith(b'"') else column


def _texts(row: Sequence[bytes] | None) -> list[str] | None:
    try:
        return None if row is None else [column.decode() for column in row]
    except UnicodeDecodeError:
        return None


def values_of(
    row: Sequence[str] | None, names: Sequence[str], kind: str
) -> dict[str, object] | None:
    """Values of a row of text, its split among them; None where one is not what it must be."""
    if row is None or len(row) != len(names):
        return None
    texts = dict(zip(names, row, strict=True))
    try:
        found = _criteo(texts) if kind == "criteo" else _avazu(texts)
    except ValueError:
        return None
    order = CRITEO if kind == "criteo" else AVAZU
    return {**found, "split": split_by_content([[texts[name] for name in order]])[0]}


def _criteo(texts: Mapping[str, str]) -> dict[str, object]:
    buckets = {name: _bucket(texts[name]) for name in INTEGERS}
    return {"label": _label(texts["label"]), **buckets, **_categories(texts, HEXES)}


def _avazu(texts: Mapping[str, str]) -> dict[str, object]:
    parts: dict[str, object] = dict.fromkeys(["hour", "weekday", "is_weekend"])
    if texts["hour"]:
        if not re.fullmatch(r"[0-9]{8}", texts["hour"]):
            raise ValueError
        time = datetime.datetime.strptime(texts["hour"], "%y%m%d%H")
        weekday = time.weekday()
        parts = {
            "hour": str(time.hour),
            "weekday": str(weekday),
            "is_weekend": str(int(weekday in (5, 6))),
        }
    return {"label": _label(texts["click"]), **parts, **_categories(texts, AVAZU[3:])}


def _categories(texts: Mapping[str, str], names: Sequence[str]) -> dict[str, object]:
    return {name: texts[name] or None for name in names}


def _label(text: str) -> float:
    if not _NUMBER.fullmatch(text) or float(text) not in (0.0, 1.0):
        raise ValueError
    return float(text)


def _bucket(text: str) -> str | None:
    if text == "":
        return None
    if not _NUMBER.fullmatch(text):
        raise ValueError
    number = decimal.Decimal(text)
    if not -(2**63) <= number < 2**63 or number % 1:
        raise ValueError
    return str(math.floor(math.log(number) ** 2) if number > 2 else int(number))
