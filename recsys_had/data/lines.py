"""Records in the bytes of a text file: where each ends, and whether it has all its columns.

A TSV record is a line; a quote in it is a character like any other. A CSV record (RFC 4180) may
hold line ends and separators between quotes. The separators of every record are counted here,
because a CSV parser fills a short row with nulls and says nothing.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_had.utf8 import wrong_byte

_NEWLINE, _QUOTE = b'\n"'
_MAX_BYTE = 255


@dataclass(frozen=True)
class Dialect:
    """How columns stand in a line.

    Args:
        separator: the byte between columns.
        quoted: whether a column may stand in double quotes.
    """

    separator: bytes
    quoted: bool


class Records:
    r"""The records of a piece of text that begins with one.

    Args:
        data: the text; line ends are ``\n``.
        dialect: how columns stand in a line.

    >>> records = Records(b'a,"x\ny"\nb,c,d\n', Dialect(b",", quoted=True))
    >>> len(records), records.lines.tolist()
    (2, [0, 2])
    >>> records.wrong_widths(2)
    (array([1]), array([3]))
    """

    def __init__(self, data: bytes, dialect: Dialect) -> None:
        self._data = data
        self._bytes = np.frombuffer(data, np.uint8)
        self._dialect = dialect

    def __len__(self) -> int:
        if self._quotes is None and "ends" not in self.__dict__:
            return self.num_lines + self._has_open_end
        return len(self.ends)

    @cached_property
    def num_lines(self) -> int:
        """Line ends."""
        return self._data.count(b"\n")

    def numbers_in(self, size_bytes: int) -> tuple[int, int]:
        r"""Records and line ends in the first bytes, which end with a record.

        >>> Records(b'a,"x\ny"\nb,c\n', Dialect(b",", quoted=True)).numbers_in(8)
        (1, 2)
        """
        if self._quotes is None:
            is_open = size_bytes == len(self._data) and self._has_open_end
            num_lines = self._data.count(b"\n", 0, size_bytes)
            return num_lines + is_open, num_lines
        first = Records(self._data[:size_bytes], self._dialect)
        return len(first), first.num_lines

    @property
    def has_quotes(self) -> bool:
        """Whether a quote stands in it that means something."""
        return self._quotes is not None

    @property
    def _has_open_end(self) -> bool:
        return bool(self._data) and not self._data.endswith(b"\n")

    @cached_property
    def _quotes(self) -> NDArray[np.int64] | None:
        """Positions of the quotes, or None where there are none that mean anything."""
        if not self._dialect.quoted or b'"' not in self._data:
            return None
        quotes: NDArray[np.int64] = np.flatnonzero(self._bytes == _QUOTE)
        return quotes

    def _outside(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the positions that do not stand between quotes."""
        if self._quotes is None:
            return positions
        outside: NDArray[np.int64] = positions[np.searchsorted(self._quotes, positions) % 2 == 0]
        return outside

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Position of the line end of each record; the last may be the end of the text."""
        ends = self._outside(np.flatnonzero(self._bytes == _NEWLINE))
        if self._has_open_end:
            ends = np.append(ends, len(self._data))
        return ends

    @property
    def lines(self) -> NDArray[np.int64]:
        """Line each record begins in, counted from 0."""
        if self._quotes is None:
            return np.arange(len(self))
        newlines = np.flatnonzero(self._bytes == _NEWLINE)
        starts = np.append(0, self.ends[:-1] + 1)
        lines: NDArray[np.int64] = np.searchsorted(newlines, starts)
        return lines

    @property
    def whole_bytes(self) -> int:
        """Bytes up to the end of the last record that ends in a line end."""
        if self._quotes is None:
            return self._data.rfind(b"\n") + 1
        ends = self._outside(np.flatnonzero(self._bytes == _NEWLINE))
        return int(ends[-1]) + 1 if len(ends) else 0

    @property
    def first_bytes(self) -> int:
        """Bytes of the first record, or 0 where its end is not in the text."""
        if self._quotes is None:
            return self._data.find(b"\n") + 1
        ends = self._outside(np.flatnonzero(self._bytes == _NEWLINE))
        return int(ends[0]) + 1 if len(ends) else 0

    def line_at(self, position: int) -> int:
        """Line of a byte, counted from 0."""
        return self._data.count(b"\n", 0, position)

    def start_line(self, position: int) -> int:
        """Line the record begins in that a byte belongs to, counted from 0."""
        return self.line_at(self._start(int(np.searchsorted(self.ends, position))))

    def stray_quotes(self) -> NDArray[np.int64]:
        r"""Positions of the quotes that stand where RFC 4180 allows none.

        A quote opens a column right after a separator or a line end, closes it right before
        one, and is doubled inside. Also found: the last quote, where it is never closed.

        >>> Records(b'a,b"c"\n', Dialect(b",", quoted=True)).stray_quotes()
        array([3])
        """
        quotes = self._quotes
        if quotes is None:
            return _none()
        opens, closes = quotes[0::2], quotes[1::2]
        limits = [self._dialect.separator[0], _NEWLINE, _QUOTE]
        before = np.where(opens > 0, self._bytes[opens - 1], _NEWLINE)
        padded = np.append(self._bytes, np.uint8(_NEWLINE))
        wrong = np.concatenate(
            [opens[~np.isin(before, limits)], closes[~np.isin(padded[closes + 1], limits)]]
        )
        if len(quotes) % 2:
            wrong = np.append(wrong, quotes[-1])
        return np.unique(wrong)

    @property
    def open_record(self) -> int | None:
        """The record whose last quote is never closed, or None."""
        if self._quotes is None or len(self._quotes) % 2 == 0:
            return None
        return int(np.searchsorted(self.ends, self._quotes[-1]))

    def wrong_widths(self, num_columns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Records that do not have ``num_columns`` columns, and how many they have."""
        if self._quotes is None and self._all_have(num_columns):
            return _none(), _none()
        separators = self._outside(np.flatnonzero(self._bytes == self._dialect.separator[0]))
        ends = self.ends
        widths = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
        wrong = np.flatnonzero(widths != num_columns)
        return wrong, widths[wrong]

    def _all_have(self, num_columns: int) -> bool:
        """Whether every record has so many columns, where no quote means anything."""
        each = num_columns - 1
        is_separator = self._bytes == self._dialect.separator[0]
        if each > _MAX_BYTE or np.count_nonzero(is_separator) != each * len(self.ends):
            return False
        if not len(self.ends):
            return True
        # Counted in bytes, 256 too many look like none; but then others would have too few.
        starts = np.append(0, self.ends[:-1] + 1)
        counts = np.add.reduceat(is_separator.view(np.uint8), starts, dtype=np.uint8)
        return bool((counts == each).all())

    def mask(self, records: NDArray[np.int64]) -> NDArray[np.bool_]:
        """One truth a record: whether it is among ``records``."""
        found = np.zeros(len(self), np.bool_)
        found[records] = True
        return found

    def is_blank(self, record: int) -> bool:
        """Whether a record holds nothing at all."""
        return self._start(record) == int(self.ends[record])

    def record(self, record: int) -> bytes:
        """The bytes of a record without its line end."""
        return self._data[self._start(record) : int(self.ends[record])]

    def holding(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each of some bytes, the record it stands in."""
        found: NDArray[np.int64] = np.searchsorted(self.ends, positions)
        return found

    def undecodable(self) -> NDArray[np.bool_]:
        r"""One truth a record: whether it is no UTF-8.

        >>> Records(b"a\nb\xff\n", Dialect(b",", quoted=True)).undecodable()
        array([False,  True])
        """
        limits = pairwise(self._limits.tolist())
        return np.array(
            [wrong_byte(self._data[start:end]) is not None for start, end in limits], np.bool_
        )

    def take(self, wanted: NDArray[np.bool_]) -> bytes:
        r"""The text with some of its records alone.

        >>> Records(b"a\nb\nc", Dialect(b",", quoted=True)).take(np.array([True, False, True]))
        b'a\nc'
        """
        return self._bytes[np.repeat(wanted, np.diff(self._limits))].tobytes()

    @property
    def _limits(self) -> NDArray[np.int64]:
        """Where each record begins, and where the last one ends."""
        return np.concatenate([[0], self.ends[:-1] + 1, [len(self._data)]]).astype(np.int64)

    def _start(self, record: int) -> int:
        return 0 if record == 0 else int(self.ends[record - 1]) + 1


def _none() -> NDArray[Any]:
    return np.empty(0, np.int64)


def plain_line_ends(data: bytes) -> bytes:
    r"""Writes ``\r\n`` as ``\n``.

    >>> plain_line_ends(b"a\r\nb\r\n")
    b'a\nb\n'
    """
    # A text without a return is by far the most frequent one and is not copied.
    return data.replace(b"\r\n", b"\n") if b"\r" in data else data
