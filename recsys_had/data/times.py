"""Times in raw columns and in a card's split rule."""

import datetime
import functools
import re

import polars as pl

from recsys_had.columns import TIME_UNITS
from recsys_had.data.numbers import add_problems, whole_numbers
from recsys_had.data.problems import Place, Problems
from recsys_had.errors import SchemaError

_HOUR = re.compile(r"%[-_0]?[HkIl]")
_MINUTE = re.compile(r"%[-_0]?[MTRXcrs+]")
_MICROSECONDS = {"unix": 1_000_000, "unix_ms": 1_000}
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_DIRECTIVE = re.compile(r"%.|[^%]+", re.DOTALL)
_DIGITS = {"%Y": 4, "%y": 2, "%m": 2, "%d": 2, "%H": 2, "%M": 2, "%S": 2, "%j": 3}


def parse_times(text: pl.Series, pattern: str, *, place: Place, problems: Problems) -> pl.Series:
    """Times in UTC, null where missing.

    Args:
        text: what a raw column holds.
        pattern: ``unix`` (seconds), ``unix_ms`` or a strptime pattern.
        place: names a row in a problem.
        problems: takes what is no time of this pattern.

    Raises:
        SchemaError: the pattern is none.

    >>> parse_times(pl.Series("hour", ["14102123"]), "%y%m%d%H", place=str, problems=Problems())[0]
    datetime.datetime(2014, 10, 21, 23, 0)
    """
    times = _parse(text, pattern)
    bad = times.is_null() & text.is_not_null()
    add_problems(problems, bad, text, f"must be a time written as {_in_words(pattern)}", place)
    return times


def parse_moment(text: str, pattern: str) -> datetime.datetime:
    """A time a card names, in the column's own pattern or as ``2014-10-30[T12:00:00]``.

    Raises:
        SchemaError: it is neither.

    >>> parse_moment("2014-10-30", "%y%m%d%H")
    datetime.datetime(2014, 10, 30, 0, 0)
    """
    moment: datetime.datetime | None = _parse(pl.Series([text]), pattern)[0]
    if moment is not None:
        return moment
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as cause:
        raise SchemaError(
            "split: must name a time like 2014-10-30T12:00:00 or one written as "
            f"{_in_words(pattern)}; got '{text}'."
        ) from cause
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return moment


def _in_words(pattern: str) -> str:
    return f"{pattern}, {TIME_UNITS[pattern]}" if pattern in TIME_UNITS else pattern


@functools.cache
def _packed(pattern: str) -> str | None:
    r"""A regular expression for the digits of directives that stand side by side.

    Polars takes fewer digits than a directive has, and blanks before them. Where nothing stands
    between two directives, a digit that is missing would move the others to another place.

    >>> _packed("%y%m%d %H")
    '^[0-9]{2}[0-9]{2}[0-9]{2}\\ .+$'
    >>> _packed("%Y-%m-%d") is None
    True
    """
    tokens = _DIRECTIVE.findall(pattern)
    known = [token in _DIGITS for token in tokens]
    beside = zip([False, *known], known, [*known[1:], False], strict=False)
    packed = [here and (before or after) for before, here, after in beside]
    if not any(packed):
        return None
    parts = [
        f"[0-9]{{{_DIGITS[token]}}}" if fixed else ".+" if token[0] == "%" else re.escape(token)
        for token, fixed in zip(tokens, packed, strict=True)
    ]
    return f"^{''.join(parts)}$"


@functools.cache
def _check(pattern: str) -> None:
    """Writes a time and reads it back, because Polars takes any pattern and finds no times."""
    noon = datetime.datetime(2014, 10, 21, 12)
    try:
        text = pl.Series([noon]).dt.strftime(pattern)
        if text.str.strptime(pl.Datetime("us"), pattern, strict=False)[0] is not None:
            return
        reason = "it holds no whole date"
    except pl.exceptions.PolarsError as cause:
        reason = str(cause)
    raise SchemaError(
        f"format: must be unix, unix_ms or a strptime pattern; got '{pattern}' ({reason})."
    )


def _parse(text: pl.Series, pattern: str) -> pl.Series:
    if pattern in _MICROSECONDS:
        factor = _MICROSECONDS[pattern]
        number = whole_numbers(text)
        # Years 1 to 9999, the ones a date part is defined for.
        in_range = number.is_between(
            _FIRST_SECOND * 10**6 // factor, _LAST_SECOND * 10**6 // factor
        )
        return (number.set(~in_range.fill_null(True), None) * factor).cast(pl.Datetime("us"))
    packed = _packed(pattern)
    whole = text.str.contains(packed) if packed is not None else text.is_not_null()
    if _HOUR.search(pattern) and not _MINUTE.search(pattern):
        # Polars wants minutes beside hours; a bar keeps them apart from the digits before.
        text, pattern = text + "|00", pattern + "|%M"
    # Python's fraction is digits alone; Polars' own holds the point.
    pattern = pattern.replace(".%f", "%.f").replace("%f", "%6f")
    _check(pattern)
    times = text.str.strptime(pl.Datetime("us"), pattern, strict=False).dt.replace_time_zone(None)
    # Years 1 to 9999 here too.
    in_range = times.is_between(datetime.datetime.min, datetime.datetime.max)
    return times.set(~(in_range & whole).fill_null(True), None)
