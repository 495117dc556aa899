"""Values: numbers, labels, times, lists and flags as they stand in raw text."""

import datetime
import math
import re
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys_had.data.normalise import normalise
from recsys_had.data.numbers import log_squared_bucket, parse_floats, whole_numbers
from recsys_had.data.prepare import prepare
from recsys_had.data.problems import Problems
from recsys_had.data.times import parse_moment, parse_times
from recsys_had.errors import DataError, SchemaError
from recsys_had.schema import DatasetCard, parse_card

MAX_FLOAT32 = 3.4028234663852886e38
at_any_speed = settings(deadline=None)


def card_of(*columns: str, label: str = "{kind: label}") -> DatasetCard:
    lines = "".join(f"  {column}\n" for column in columns)
    return parse_card(
        f"name: n\nformat: {{type: csv}}\nsplit: {{by: given}}\ncolumns:\n  y: {label}\n{lines}"
    )


def values_of(
    card: DatasetCard, frame: dict[str, Any], *, require_label: bool = False
) -> dict[str, list[Any]]:
    """The values of each field and dense input."""
    texts = normalise(pl.DataFrame(frame), card)
    batch = prepare(texts, card, {}, place=lambda row: f"f:{row + 2}", require_label=require_label)
    return {name: batch.column(name).to_pylist() for name in batch.schema.names}


def problems_of(
    card: DatasetCard, frame: dict[str, Any], *, require_label: bool = False
) -> DataError:
    with pytest.raises(DataError) as caught:
        values_of(card, frame, require_label=require_label)
    return caught.value


@at_any_speed
@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_whole_numbers_of_64_bits_are_read_exactly(numbers: list[int]) -> None:
    text = pl.Series([str(number) for number in numbers], dtype=pl.String)
    assert whole_numbers(text).to_list() == numbers


@at_any_speed
@given(st.lists(st.integers(-(2**53), 2**53)))
def test_a_whole_number_may_be_written_with_a_fraction_of_nothing(numbers: list[int]) -> None:
    text = pl.Series([f"{number}.0" for number in numbers], dtype=pl.String)
    assert whole_numbers(text).to_list() == numbers


@at_any_speed
@given(st.lists(st.floats(-MAX_FLOAT32, MAX_FLOAT32)))
def test_numbers_are_read_to_the_last_bit(numbers: list[float]) -> None:
    text = pl.Series([repr(number) for number in numbers], dtype=pl.String)
    problems = Problems()
    assert parse_floats(text, place=str, problems=problems).to_list() == numbers
    assert problems.total == 0


def test_text_where_a_number_belongs_is_told_with_its_place() -> None:
    card = card_of("I: {kind: integer}", "x: {kind: float}")
    integers = ["5", "x", "5.5", None, "1e3", "inf", "9223372036854775808", " 5", "1_000"]
    floats = ["nan", "1e39", "-inf", None, "1,5", "5.", "", "0x1", "-1e38"]
    error = problems_of(card, {"y": ["1"] * 9, "I": integers, "x": floats})
    assert error.problems == (
        "f:3: column I: must be a whole number; got 'x'.",
        "f:3: column x: must be a finite number; got '1e39'.",
        "f:4: column I: must be a whole number; got '5.5'.",
        "f:4: column x: must be a finite number; got '-inf'.",
        "f:6: column x: must be a finite number; got '1,5'.",
        "f:7: column I: must be a whole number; got 'inf'.",
        "f:8: column I: must be a whole number; got '9223372036854775808'.",
        "f:9: column I: must be a whole number; got ' 5'.",
        "f:9: column x: must be a finite number; got '0x1'.",
        "f:10: column I: must be a whole number; got '1_000'.",
    )
    assert error.total == 10
    assert str(error) == "\n".join(error.problems)


def test_of_many_problems_the_first_twenty_rows_are_told_and_all_are_counted() -> None:
    card = card_of("I: {kind: integer}", "x: {kind: float}")
    rows = 300
    x = ["1"] * 5 + ["?"] * (rows - 5)
    error = problems_of(card, {"y": ["1"] * rows, "I": ["?"] * rows, "x": x})
    assert error.total == rows + rows - 5
    places = [problem.split(": must")[0] for problem in error.problems]
    both = [f"f:{line}: column {name}" for line in range(7, 15) for name in ("I", "x")]
    assert places == [f"f:{line}: column I" for line in range(2, 7)] + both[:15]


def test_a_label_is_0_or_1_and_must_be_there_where_it_is_required() -> None:
    card = card_of("C: {kind: categorical}")
    frame = {"y": ["0", "1", "2", "true", None, "nan", "0.0"], "C": ["a"] * 7}
    wrong = [
        "f:4: column y: must be 0 or 1; got '2'. If it is a rating, let positive_from in the card "
        "say from where on it counts as 1.",
        "f:5: column y: must be 0 or 1; got 'true'. Write 1 and 0 in the raw rows.",
        "f:6: column y: must be 0 or 1; got nothing.",
        "f:7: column y: must be 0 or 1; got 'nan'.",
    ]
    assert problems_of(card, frame, require_label=True).problems == tuple(wrong)
    assert problems_of(card, frame).problems == (wrong[0], wrong[1], wrong[3])
    assert values_of(card, {"y": [True, None, False], "C": [1, 2, 3]})["label"] == [1.0, None, 0.0]


def test_a_rating_counts_as_1_from_its_limit_on() -> None:
    card = card_of("C: {kind: categorical}", label="{kind: label, positive_from: 3.5}")
    stars = ["3", "3.5", "5", "-1", "3.49"]
    assert values_of(card, {"y": stars, "C": stars}, require_label=True)["label"] == [0, 1, 1, 0, 0]
    error = problems_of(card, {"y": ["five", None], "C": ["a", "b"]}, require_label=True)
    assert error.problems == (
        "f:2: column y: must be a number; got 'five'.",
        "f:3: column y: must be a number; got nothing.",
    )


def test_a_bucket_is_the_floor_of_the_squared_logarithm() -> None:
    # ln(3)^2 = 1.0986^2 = 1.2069; ln(100)^2 = 4.6052^2 = 21.2076; ln(1000)^2 = 6.9078^2 = 47.717.
    numbers = pl.Series([-5, 0, 1, 2, 3, 100, 1000, None])
    assert log_squared_bucket(numbers).to_list() == [-5, 0, 1, 2, 1, 21, 47, None]


@at_any_speed
@given(st.lists(st.integers(-(10**12), 10**12)))
def test_a_bucket_equals_its_formula(numbers: list[int]) -> None:
    oracle = [math.floor(math.log(x) ** 2) if x > 2 else x for x in numbers]
    assert log_squared_bucket(pl.Series(numbers, dtype=pl.Int64)).to_list() == oracle


def test_a_missing_value_is_filled_before_it_is_transformed() -> None:
    card = card_of(
        "none: {kind: integer, transform: log_squared_bucket}",
        "zero: {kind: integer, transform: log_squared_bucket, missing: 0}",
        "many: {kind: integer, transform: log_squared_bucket, missing: 100}",
        "dense: {kind: integer, missing: 7}",
        "price: {kind: float}",
        "rate: {kind: float, missing: 0.5}",
        "plain: {kind: categorical}",
        "named: {kind: categorical, missing: other}",
    )
    names = [name for name in card.columns if name != "y"]
    found = values_of(card, {name: [None, "", None] for name in names})
    assert {name: values[0] for name, values in found.items()} == {
        "none": None,
        "zero": "0",
        "many": "21",
        "dense": 7.0,
        "price": None,
        "rate": 0.5,
        "plain": None,
        "named": "other",
    }
    assert all(values[0] == values[1] for values in found.values())


@at_any_speed
@given(
    st.lists(st.one_of(st.none(), st.text(alphabet="ab|é ", max_size=8)), min_size=1, max_size=9),
    st.one_of(st.none(), st.integers(1, 3)),
)
def test_a_list_is_split_like_str_split_without_empty_values(
    cells: list[str | None], max_length: int | None
) -> None:
    limit = "" if max_length is None else f", max_length: {max_length}"
    card = card_of(f"t: {{kind: multi_categorical{limit}}}")
    oracle = [[text for text in (cell or "").split("|") if text][:max_length] for cell in cells]
    assert values_of(card, {"t": pl.Series(cells, dtype=pl.String)})["t"] == oracle
    assert values_of(card, {"t": pl.Series(oracle, dtype=pl.List(pl.String))})["t"] == oracle


def test_a_separator_may_hold_several_letters_none_of_which_is_special() -> None:
    card = card_of('t: {kind: multi_categorical, separator: ".*"}')
    assert values_of(card, {"t": ["a.*b", "a.b", ".*.*c"]})["t"] == [["a", "b"], ["a.b"], ["c"]]


def test_flags_that_are_set_are_the_values_of_a_list() -> None:
    card = card_of("g: {kind: multi_categorical, flags: [drama, comedy, war], max_length: 2}")
    frame = {
        "drama": ["1", "0", None, "1"],
        "comedy": ["0", "0", "1", "1"],
        "war": ["1", "0", "0", "1"],
    }
    assert values_of(card, frame)["g"] == [["drama", "war"], [], ["comedy"], ["drama", "comedy"]]
    assert values_of(card, {name: [True] for name in frame})["g"] == [["drama", "comedy"]]
    error = problems_of(card, frame | {"war": ["1", "yes", "0", "2"]})
    assert error.problems == (
        "f:3: column war: must be 0 or 1; got 'yes'.",
        "f:5: column war: must be 0 or 1; got '2'.",
    )


@at_any_speed
@given(
    st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)),
    st.sampled_from(["%y%m%d%H", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%d/%m/%Y %I %p", "%F %R"]),
)
@example(time=datetime.datetime(2000, 2, 29), pattern="%y%m%d%H")
@example(time=datetime.datetime(2000, 2, 29), pattern="%Y-%m-%d")
def test_parts_of_a_time_are_those_of_datetime(time: datetime.datetime, pattern: str) -> None:
    if "%y" in pattern:
        # Not every year has a 29th of February.
        time = time.replace(year=1970 + time.year % 99, day=min(time.day, 28))
    text = time.strftime(pattern)
    oracle = datetime.datetime.strptime(
        text, pattern.replace("%F", "%Y-%m-%d").replace("%R", "%H:%M")
    )
    card = card_of(
        f'at: {{kind: timestamp, format: "{pattern}", parts: [hour, weekday, is_weekend]}}'
    )
    assert values_of(card, {"at": [text, None]}) == {
        "hour": [str(oracle.hour), None],
        "weekday": [str(oracle.weekday()), None],
        "is_weekend": [str(int(oracle.weekday() >= 5)), None],
    }


@at_any_speed
@given(st.integers(-62_135_596_800, 253_402_300_798), st.integers(0, 999))
def test_seconds_and_milliseconds_count_from_1970(second: int, thousandth: int) -> None:
    oracle = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=second)
    found = parse_times(pl.Series([str(second)]), "unix", place=str, problems=Problems())
    assert found[0] == oracle
    text = pl.Series([str(1000 * second + thousandth)])
    found = parse_times(text, "unix_ms", place=str, problems=Problems())
    assert found[0] == oracle + datetime.timedelta(milliseconds=thousandth)


def test_what_is_no_time_is_told_with_its_place() -> None:
    card = card_of(
        "at: {kind: timestamp, format: '%y%m%d%H', parts: {hour: h1}}",
        "since: {kind: timestamp, format: unix, parts: {hour: h2}}",
    )
    at = ["14102123", "14102124", "14023001", "x", None]
    error = problems_of(card, {"at": at, "since": ["1", "1.5", "now", "1e18", None]})
    assert error.problems == (
        "f:3: column at: must be a time written as %y%m%d%H; got '14102124'.",
        "f:3: column since: must be a time written as unix, whole seconds since 1970; got '1.5'.",
        "f:4: column at: must be a time written as %y%m%d%H; got '14023001'.",
        "f:4: column since: must be a time written as unix, whole seconds since 1970; got 'now'.",
        "f:5: column at: must be a time written as %y%m%d%H; got 'x'.",
        "f:5: column since: must be a time written as unix, whole seconds since 1970; got '1e18'.",
    )


def test_a_pattern_that_is_none_is_a_mistake_of_the_card() -> None:
    with pytest.raises(SchemaError, match=r"^format: must be unix, unix_ms or a strptime pattern"):
        parse_times(pl.Series(["x"]), "%Q", place=str, problems=Problems())


def test_a_moment_of_the_card_is_in_its_columns_pattern_or_iso() -> None:
    noon = datetime.datetime(2014, 10, 30, 12)
    assert parse_moment("14103012", "%y%m%d%H") == noon
    assert parse_moment("2014-10-30T12:00:00", "%y%m%d%H") == noon
    assert parse_moment("2014-10-30T14:00:00+02:00", "unix") == noon
    assert parse_moment("1414670400", "unix") == noon
    message = (
        "split: must name a time like 2014-10-30T12:00:00 or one written as unix, "
        "whole seconds since 1970; got 'tomorrow'."
    )
    with pytest.raises(SchemaError, match=f"^{re.escape(message)}$"):
        parse_moment("tomorrow", "unix")


def test_pythons_fraction_of_a_second_is_read() -> None:
    text = pl.Series("at", ["2014-10-21 23:59:58.25", "2014-10-21 23:59:58"])
    problems = Problems()
    times = parse_times(text, "%Y-%m-%d %H:%M:%S.%f", place=str, problems=problems)
    assert times[0] == datetime.datetime(2014, 10, 21, 23, 59, 58, 250_000)


def test_a_whole_number_written_as_a_fraction_keeps_all_its_digits() -> None:
    # 2^53 + 1 is no float64.
    assert whole_numbers(pl.Series(["9007199254740993.0"])).to_list() == [2**53 + 1]


def test_a_number_that_a_float_would_round_to_a_whole_one_is_none() -> None:
    # 2^53 + 1.5 lies between two doubles, -2^63 - 1 is that of -2^63, and 1 - 1e-20 that of 1.
    texts = ["9007199254740993.5", "-9223372036854775809", "0.99999999999999999999", "1e-400"]
    assert whole_numbers(pl.Series(texts)).to_list() == [None] * 4
    whole = {"1e3": 1000, "5.": 5, "-9223372036854775808.00": -(2**63), "0e999": 0, "12.50e1": 125}
    assert whole_numbers(pl.Series(list(whole))).to_list() == list(whole.values())


@pytest.mark.parametrize(
    ("pattern", "right", "wrong"),
    [
        ("%y%m%d%H", "14102105", ["1410215", "141021 5", "141021055", "-4102105", "\uff114102105"]),
        ("%Y%m%d %H:%M", "20141021 5:07", ["2014102 5:07", "2014 102105:07", "14102105:07"]),
        ("%Y-%m-%d", "2014-1-2", ["0000-01-02", "+99999-01-02", "-2014-01-02", "2014-13-02"]),
    ],
)
def test_digits_side_by_side_are_all_there_and_years_are_those_of_a_calendar(
    pattern: str, right: str, wrong: list[str]
) -> None:
    problems = Problems()
    times = parse_times(pl.Series("at", [right, *wrong]), pattern, place=str, problems=problems)
    assert times[0] == datetime.datetime.strptime(right, pattern)
    assert problems.total == len(wrong) and times.null_count() == len(wrong)


def test_a_decimal_keeps_all_its_digits() -> None:
    card = card_of("C: {kind: categorical}")
    texts = ["12345678901234567890", "-7", "0", "10"]
    whole = pl.Series("C", texts).cast(pl.Decimal(38, 0))
    fraction = pl.Series("C", ["1234567890123456789.50", "-7.00", "0.00", "10.25"])
    assert normalise(whole.to_frame(), card)["C"].to_list() == texts
    frame = fraction.cast(pl.Decimal(38, 2)).to_frame()
    assert normalise(frame, card)["C"].to_list() == ["1234567890123456789.5", "-7", "0", "10.25"]


def test_a_time_that_a_pattern_cannot_say_is_not_taken_for_another() -> None:
    card = card_of('at: {kind: timestamp, format: "%y%m%d", parts: [weekday]}')
    days = [datetime.date(1970, 1, 1), datetime.date(2069, 12, 31), datetime.date(1914, 10, 21)]
    past = (days[2] - datetime.date(1970, 1, 1)).days
    frame = normalise(pl.DataFrame({"at": days}), card)
    assert frame["at"].to_list() == ["700101", "691231", f"{past} days since 1970"]
    end = pl.DataFrame({"at": [2**63 - 1]}, schema={"at": pl.Int64})
    frame = normalise(end.select(pl.col("at").cast(pl.Datetime("us"))), card)
    assert frame["at"].to_list() == ["9223372036854775807 us since 1970"]


def test_an_error_quotes_the_beginning_of_a_long_value() -> None:
    card = card_of("I: {kind: integer}")
    error = problems_of(card, {"I": ["7" * 99 + "x" * (1 << 20)]})
    told = f"column I: must be a whole number; got '{'7' * 99}x'... (1048675 characters)."
    assert error.problems == (f"f:2: {told}",)
