"""What befalls files of rows: one mutation each, at a place that is known."""

import gzip
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import xxhash

VALUES = {
    "nothing": "",
    "a blank": " ",
    "a word": "x",
    "minus one": "-1",
    "plus one": "+1",
    "two": "2",
    "leading zeros": "007",
    "one point nothing": "1.0",
    "a fraction": "1.5",
    "a fraction a float rounds away": "9007199254740993.5",
    "an exponent": "1e2",
    "1e400": "1e400",
    "-1e400": "-1e400",
    "not a number": "nan",
    "infinity": "inf",
    "minus infinity": "-inf",
    "the last of 64 bits": "9223372036854775807",
    "beyond 64 bits": "9223372036854775808",
    "the first of 64 bits": "-9223372036854775808",
    "below 64 bits": "-9223372036854775809",
    "23 digits": "9" * 23,
    "hexadecimal": "0x1F",
    "an underscore": "1_000",
    "a wide digit": "\uff11",
    "an Arabic digit": "\u0663",
    "null": "NULL",
    "backslash N": "\\N",
    "a NUL byte": "\0",
    "a NUL byte after a digit": "1\0",
    "a byte order mark": "\ufeff1",
    "a line separator": "1\u2028",
    "a next line": "\x851",
    "a vertical tab": "\x0b",
    "a form feed": "a\x0cb",
    "a record separator": "\x1e",
    "an accent": "\u00e9",
    "a surrogate pair's character": "\U0001f600",
    "a lone return": "\r",
    "a lone return after a digit": "1\r",
    "a lone return inside": "1\r0",
    "an apostrophe": "'",
    "a stray quote": '1"0',
    "a quote alone": '"',
    "two quotes": '""',
    "four quotes": '""""',
    "a quoted digit": '"1"',
    "a quoted line end": '"a\nb"',
    "quotes and a letter": '"1"0',
    "month 13": "14130123",
    "month 0": "14003023",
    "day 30 of February": "14023023",
    "hour 24": "14102124",
    "only zeros": "00000000",
    "99999": "99999",
    "a digit less": "1410212",
    "a digit more": "141021230",
    "a blank in a time": "141021 3",
    "a time of another form": "2014-10-21",
    "a year before time": "-4102123",
}
BAD_BYTES = {
    "0xff": b"\xff",
    "half a letter": b"a\xc3",
    "an overlong zero": b"\xc0\x80",
    "half a surrogate pair": b"\xed\xa0\x80",
    "a continuation": b"\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "a byte of UTF-16": b"\xfe\x31\x00",
}
HUGE = b"f" * (1 << 20)


@dataclass(frozen=True)
class Mutation:
    """A damaged file.

    Args:
        name: what befell it, and where.
        kind: criteo (TSV without a header) or avazu (CSV with one).
        data: its bytes.
        line: the line that is no longer what it was; None where more than one is.
        whole: whether the file as a whole must be refused, at that line where there is one.
        suffix: of the file's name.
        plain: what the bytes stand for, where they are squeezed and whole.
    """

    name: str
    kind: str
    data: bytes = field(repr=False)
    line: int | None = None
    whole: bool = False
    suffix: str = ""
    plain: bytes | None = field(default=None, repr=False)


class Damage:
    """Mutations of one file.

    Args:
        kind: criteo or avazu.
        data: the rows as they are.
        columns: their columns.
    """

    def __init__(self, kind: str, data: bytes, columns: list[str]) -> None:
        self.kind, self.data, self.columns = kind, data, columns
        self.separator = b"\t" if kind == "criteo" else b","
        self.lines = data.removesuffix(b"\n").split(b"\n")
        self._random = random.Random(f"{kind} 5")

    def all(self) -> Iterator[Mutation]:
        yield Mutation("nothing", self.kind, self.data)
        for make in (self._values, self._bytes, self._columns, self._rows, self._files, self._head):
            yield from make()
        yield from self._compressed()

    def _line(
        self, name: str, change: Callable[[bytes], bytes], line: int | None = None
    ) -> Mutation:
        """One line, by default any but the first two, is no longer what it was."""
        line = line or self._random.randrange(3, len(self.lines))
        lines = list(self.lines)
        lines[line - 1] = change(lines[line - 1])
        return Mutation(f"{name} in line {line}", self.kind, b"\n".join(lines) + b"\n", line)

    def _set(self, name: str, column: str, value: bytes) -> Mutation:
        def change(line: bytes) -> bytes:
            row = line.split(self.separator)
            row[self.columns.index(column)] = value
            return self.separator.join(row)

        return self._line(f"{name} as {column}", change)

    def _values(self) -> Iterator[Mutation]:
        if self.kind == "criteo":
            columns = ["label", "I13", "C1", "C26"]
        else:
            columns = ["id", "click", "hour", "C21"]
        for name, value in VALUES.items():
            for column in columns:
                yield self._set(name, column, value.encode())
        for column in columns:
            yield self._set("1 MiB", column, HUGE)
            yield self._set("1 MiB of digits", column, b"9" * (1 << 20))
            yield self._set("1 MiB of zeros", column, b"0" * (1 << 20) + b"1")

    def _bytes(self) -> Iterator[Mutation]:
        for name, data in BAD_BYTES.items():
            for column in (self.columns[0], self.columns[1], self.columns[5], self.columns[-1]):
                yield self._set(name, column, data)
        for name, data in {
            "1,000 NUL bytes": b"\0" * 1000,
            "random bytes": self._random.randbytes(500).replace(b"\n", b"").replace(b'"', b""),
        }.items():
            yield self._line(name, lambda line, data=data: data)  # type: ignore[misc]
            yield self._line(f"{name} at the end", lambda line, data=data: line + data)  # type: ignore[misc]

    def _columns(self) -> Iterator[Mutation]:
        comma = self.separator

        def edit(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
            return lambda line: comma.join(change(line.split(comma)))

        for at in (0, 1, len(self.columns) // 2, len(self.columns) - 1):
            yield self._line(
                f"column {at} dropped", edit(lambda row, at=at: row[:at] + row[at + 1 :])
            )
            yield self._line(
                f"column {at} doubled", edit(lambda row, at=at: [*row[:at], row[at], *row[at:]])
            )
        last = len(self.columns) - 1
        for one, other in ((last, last - 1), (0, 1), (1, last), (2, 3), (0, last), (5, 9)):

            def swap(row: list[bytes], one: int = one, other: int = other) -> list[bytes]:
                row[one], row[other] = row[other], row[one]
                return row

            yield self._line(f"columns {one} and {other} swapped", edit(swap))
        yield self._line("a separator at the end", lambda line: line + comma)
        yield self._line("a separator at the start", lambda line: comma + line)
        yield self._line("another separator", lambda line: line.replace(comma, b";"))
        yield self._line("separators alone", lambda line: comma * last)
        yield self._line("half a row", lambda line: line[: len(line) // 2])
        yield self._line("all but a byte", lambda line: line[:-1])
        yield self._line("blanks around", lambda line: b"  " + line + b"  ")

    def _rows(self) -> Iterator[Mutation]:
        yield self._line("nothing", lambda line: b"")
        yield self._line("a blank alone", lambda line: b" ")
        yield self._line("a return alone", lambda line: b"\r")
        yield self._line("a return at the end", lambda line: line + b"\r")
        yield self._line("two returns at the end", lambda line: line + b"\r\r")
        yield self._line("a byte order mark at the start", lambda line: b"\xef\xbb\xbf" + line)
        yield self._line("a quote at the end", lambda line: line + b'"')
        yield self._line("quotes around the row", lambda line: b'"' + line + b'"')
        yield self._line("the last row cut", lambda line: line[:-9], len(self.lines))
        yield self._line("an open quote in the last row", lambda line: b'"' + line, len(self.lines))
        at = self._random.randrange(4, len(self.lines))
        for name, changed in {
            "a row dropped": self.lines[: at - 1] + self.lines[at:],
            "a row doubled": self.lines[:at] + self.lines[at - 1 :],
            "a blank line": [*self.lines[: at - 1], b"", *self.lines[at - 1 :]],
            "two rows in one line": [
                *self.lines[: at - 1],
                self.lines[at - 1] + self.lines[at],
                *self.lines[at + 1 :],
            ],
            "a return for a line end": [
                *self.lines[: at - 1],
                self.lines[at - 1] + b"\r" + self.lines[at],
                *self.lines[at + 1 :],
            ],
        }.items():
            data = b"\n".join(changed) + b"\n"
            yield Mutation(f"{name} at line {at}", self.kind, data, at)

    def _files(self) -> Iterator[Mutation]:
        data = self.data
        mark = b"\xef\xbb\xbf"
        every = b"\n".join(self.lines)
        blank = len(self.lines) + 1
        yield Mutation("no line end at the end", self.kind, every)
        yield Mutation("returns before line ends", self.kind, data.replace(b"\n", b"\r\n"))
        yield Mutation("returns alone", self.kind, every.replace(b"\n", b"\r"), 1, whole=True)
        yield Mutation("a mark at the start", self.kind, mark + data)
        yield Mutation(
            "two marks at the start", self.kind, mark + mark + data, 1, whole=self.kind == "avazu"
        )
        yield Mutation("a blank line at the end", self.kind, data + b"\n", blank)
        yield Mutation("a return at the end", self.kind, data + b"\r", blank)
        yield Mutation("the end of a DOS file", self.kind, data + b"\x1a", blank)
        yield Mutation("NUL bytes at the end", self.kind, data + b"\0" * 4096, blank)
        yield Mutation("UTF-16", self.kind, data.decode().encode("utf-16"), 1, whole=True)
        yield Mutation(
            "another file's bytes",
            self.kind,
            b"PAR1" + random.Random(1).randbytes(5000),
            whole=True,
        )
        yield Mutation("the file twice, marks and all", self.kind, mark + data + mark + data)

    def _head(self) -> Iterator[Mutation]:
        """The first line, by which the columns are known."""
        comma = self.separator
        for name, change in {
            "cut": lambda line: line[: len(line) // 2],
            "with a column more": lambda line: line + comma + b"x",
            "with a column less": lambda line: line.rsplit(comma, 1)[0],
            "of another separator": lambda line: line.replace(comma, b"|"),
            "blank": lambda line: b"",
            "no UTF-8": lambda line: b"\xff" + line,
        }.items():
            changed = self._line(name, change, 1)
            # A header may have columns that are not the card's; its rows then are too short.
            whole = (self.kind, name) != ("avazu", "with a column more")
            line = 1 if whole else None
            yield Mutation(f"a first line {name}", self.kind, changed.data, line, whole=whole)
        if self.kind == "avazu":
            for name, old, new, whole in (
                ("a column renamed", b"banner_pos", b"banner", True),
                ("a column named twice", b"banner_pos", b"C1", True),
                ("two columns swapped", b"C1,banner_pos", b"banner_pos,C1", False),
                ("an open quote", b"C1", b'"C1', True),
                ("a quoted name", b"C1", b'"C1"', False),
            ):
                lines = [self.lines[0].replace(old, new, 1), *self.lines[1:]]
                data = b"\n".join(lines) + b"\n"
                yield Mutation(f"a header with {name}", self.kind, data, 1, whole=whole)

    def _compressed(self) -> Iterator[Mutation]:
        wrong = self._set("a word", self.columns[1], b"x" * 3)
        for suffix, squeeze in ((".gz", lambda data: gzip.compress(data, mtime=0)), (".zst", zstd)):
            yield Mutation(
                "squeezed", self.kind, squeeze(self.data), suffix=suffix, plain=self.data
            )
            yield Mutation(
                wrong.name,
                self.kind,
                squeeze(wrong.data),
                wrong.line,
                suffix=suffix,
                plain=wrong.data,
            )
            whole = squeeze(self.data)
            for left in (
                1,
                3,
                10,
                len(whole) // 3,
                len(whole) // 2,
                len(whole) - 9,
                len(whole) - 1,
            ):
                yield Mutation(
                    f"cut to {left} bytes", self.kind, whole[:left], whole=True, suffix=suffix
                )
            yield Mutation(
                "trailing bytes", self.kind, whole + b"garbage", whole=True, suffix=suffix
            )
            yield Mutation("not squeezed", self.kind, self.data, whole=True, suffix=suffix)
            for at in sorted(self._random.sample(range(12, len(whole)), 12)):
                yield Mutation(
                    f"a bit flipped at {at}",
                    self.kind,
                    flipped(whole, at),
                    whole=True,
                    suffix=suffix,
                )


def zstd(data: bytes) -> bytes:
    """A frame with a checksum, as the command line writes it and Arrow does not."""
    frame = bytearray(pa.compress(data, "zstd", asbytes=True))
    frame[4] |= 0x04
    return bytes(frame) + (xxhash.xxh64_intdigest(data) & 0xFFFFFFFF).to_bytes(4, "little")


def flipped(data: bytes, at: int) -> bytes:
    """The bytes with one bit of one of them turned round."""
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
