"""Numbers in raw columns."""

import decimal
import math
from collections.abc import Callable

import numpy as np
import polars as pl

from recsys_had.columns import LabelColumn, WeightColumn
from recsys_had.data.problems import Place, Problems, quoted

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def whole_numbers(text: pl.Series) -> pl.Series:
    """Text as Int64, null where it is no whole number.

    ``5.0`` is one, because a nullable integer is often written so.

    >>> whole_numbers(pl.Series(["5", "-7", "5.0", "5.5", "x", None])).to_list()
    [5, -7, 5, None, None, None]
    """
    numbers = text.cast(pl.Int64, strict=False)
    if numbers.null_count() > text.null_count():
        trimmed = text.str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)
        numbers = numbers.fill_null(trimmed)
    if numbers.null_count() > text.null_count():
        fraction = text.cast(pl.Float64, strict=False)
        whole = fraction.cast(pl.Int64, strict=False)
        is_whole = (whole.cast(pl.Float64) == fraction).fill_null(False) & numbers.is_null()
        exact = [_exactly(number) for number in text.filter(is_whole).to_list()]
        found = pl.Series(exact, dtype=pl.Int64)
        numbers = numbers.scatter(np.flatnonzero(is_whole.to_numpy()), found)
    return numbers


def _exactly(text: str) -> int | None:
    """A number that a float takes for a whole one of 64 bits, unless the float has rounded it.

    >>> _exactly("1e3"), _exactly("9007199254740993.5"), _exactly("-9223372036854775809")
    (1000, None, None)
    """
    try:
        number = decimal.Decimal(text)
    except decimal.InvalidOperation:  # an exponent beyond all reason
        return None
    if not number:
        return 0
    if not -(2**63) <= number < 2**63 or number != number.to_integral_value():
        return None
    return int(number)


def parse_integers(text: pl.Series, *, place: Place, problems: Problems) -> pl.Series:
    """Whole numbers as Int64, null where missing; what is none is a problem."""
    numbers = whole_numbers(text)
    add_problems(
        problems, numbers.is_null() & text.is_not_null(), text, "must be a whole number", place
    )
    return numbers


def parse_floats(text: pl.Series, *, place: Place, problems: Problems) -> pl.Series:
    """Finite numbers as Float64, null where missing or not a number (NaN)."""
    numbers = text.cast(pl.Float64, strict=False)
    is_nan = numbers.is_nan().fill_null(False)
    # A NaN compares as larger than any number.
    too_large = (numbers.abs() > _FLOAT32_MAX).fill_null(False) & ~is_nan
    bad = too_large | (numbers.is_null() & text.is_not_null())
    add_problems(problems, bad, text, "must be a finite number", place)
    return numbers.fill_nan(None)


def parse_labels(
    column: LabelColumn, text: pl.Series, *, required: bool, place: Place, problems: Problems
) -> pl.Series:
    """Labels as 0.0 and 1.0 in Float32, null where missing.

    Args:
        column: what counts as 1.
        text: what the raw column holds.
        required: whether a missing label is a problem.
        place: names a row in a problem.
        problems: takes what is no label.

    >>> column = LabelColumn(kind="label", positive_from=4)
    >>> stars = pl.Series("stars", ["3", "5"])
    >>> parse_labels(column, stars, required=True, place=str, problems=Problems()).to_list()
    [0.0, 1.0]
    """
    numbers = text.cast(pl.Float64, strict=False)
    if column.positive_from is None:
        valid, told = numbers.is_in([0.0, 1.0]), "must be 0 or 1"
    else:
        valid, told = numbers.is_not_nan(), "must be a number"
        numbers = (numbers >= column.positive_from).cast(pl.Float64)
    bad = ~valid.fill_null(False)
    if not required:
        bad &= text.is_not_null()
    add_problems(problems, bad, text, told, place, advice=_label_advice)
    return numbers.cast(pl.Float32)


def parse_weights(
    column: WeightColumn, text: pl.Series, *, place: Place, problems: Problems
) -> pl.Series:
    """Weights as Float32.

    Args:
        column: what a missing weight is taken for.
        text: what the raw column holds.
        place: names a row in a problem.
        problems: takes what is no weight, and a missing one where the card does not fill it.

    >>> column = WeightColumn(kind="weight", missing=1)
    >>> weights = pl.Series("weight", ["0", "2.5", None])
    >>> parse_weights(column, weights, place=str, problems=Problems()).to_list()
    [0.0, 2.5, 1.0]
    """
    numbers = text.cast(pl.Float64, strict=False)
    # A NaN compares as larger than any number.
    valid = numbers.is_between(0, _FLOAT32_MAX)
    bad = ~valid.fill_null(False) & text.is_not_null()
    add_problems(problems, bad, text, "must be a finite number, 0 or more", place)
    if column.missing is None:
        told = "is missing. Give every row a weight, or let missing in the card say what it is."
        problems.add_rows(
            text.is_null().to_numpy(), place, lambda row: f"column {text.name}: {told}"
        )
    else:
        numbers = numbers.fill_null(column.missing)
    return numbers.cast(pl.Float32, strict=False)


def _label_advice(text: str) -> str:
    if text.lower() in {"true", "false", "yes", "no"}:
        return "Write 1 and 0 in the raw rows."
    try:
        number = float(text)
    except ValueError:
        return ""
    rating = "If it is a rating, let positive_from in the card say from where on it counts as 1."
    return rating if math.isfinite(number) else ""


def clip(numbers: pl.Series, limits: tuple[float | None, float | None] | None) -> pl.Series:
    """Numbers beyond a limit are taken for it.

    >>> clip(pl.Series([-1, 5, None, 99]), (0, 10)).to_list()
    [0, 5, None, 10]
    """
    return numbers if limits is None else numbers.clip(*limits)


def log_squared_bucket(numbers: pl.Series) -> pl.Series:
    """``floor(ln(x)^2)`` above 2, else x itself.

    >>> log_squared_bucket(pl.Series([-1, 2, 3, 100, None])).to_list()
    [-1, 2, 1, 21, None]
    """
    x = pl.lit(numbers)
    bucket = x.cast(pl.Float64).log().pow(2).floor().cast(pl.Int64, strict=False)
    return pl.select(pl.when(x > 2).then(bucket).otherwise(x)).to_series()


def add_problems(
    problems: Problems,
    bad: pl.Series,
    text: pl.Series,
    told: str,
    place: Place,
    *,
    advice: Callable[[str], str] = lambda text: "",
) -> None:
    """Adds a problem for every row where ``bad`` holds: what was asked, and what stands there."""

    def describe(row: int) -> str:
        found = text[row]
        got = "nothing" if found is None else quoted(found)
        todo = "" if found is None else advice(found)
        return f"column {text.name}: {told}; got {got}.{todo and ' '}{todo}"

    if bad.any():
        problems.add_rows(bad.to_numpy(), place, describe)
