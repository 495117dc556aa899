"""Bodies of JSON: read as strictly as they are written, and each cell for itself."""

import json
import time
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_had.data.encode import Encoder
from recsys_had.errors import DataError
from recsys_had.schema import parse_card
from recsys_had.serving.json_body import frame_of_json
from recsys_had.serving.request_error import RequestError

CARD = parse_card("""
name: shop
format: {type: csv, missing: ["", "NULL"]}
columns:
  click: {kind: label}
  user: {kind: categorical, hash_buckets: 1000000}
  age: {kind: integer, transform: none}
  price: {kind: float}
  tags: {kind: multi_categorical, separator: ",", hash_buckets: 1000000}
  image: {kind: vector, size: 2, separator: ","}
  drama: {kind: ignored}
  session: {kind: id}
split: {by: given}
""")
ENCODER = Encoder.fit_frame(
    CARD,
    pl.DataFrame(
        {
            "click": ["1"],
            "user": ["a"],
            "age": ["1"],
            "price": ["1"],
            "tags": ["a"],
            "image": ["1,2"],
        }
    ),
)
ROW = {"user": "a", "age": 1, "price": 0.5, "tags": ["a"], "image": [1, 2]}


def of_rows(*rows: object) -> pl.DataFrame:
    return frame_of_json(json.dumps({"rows": rows}).encode(), CARD, max_rows=1000)


def encoded(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return ENCODER.encode(frame).rows()


def as_text(**cells: str | None) -> list[tuple[Any, ...]]:
    """What the encoder makes of the texts of a raw file's row."""
    row = {"user": "a", "age": "1", "price": "0.5", "tags": "a", "image": "1,2", **cells}
    return encoded(
        pl.DataFrame({name: pl.Series([cell], dtype=pl.String) for name, cell in row.items()})
    )


@pytest.mark.parametrize(
    "cell, text",
    [
        (12, "12"),
        ("12", "12"),
        (12.0, "12"),
        (-0, "0"),
        (True, "1"),
        (False, "0"),
        (None, None),
        ("", None),
        ("NULL", None),
        (0.5, "0.5"),
        (2**63 - 1, "9223372036854775807"),
        (2**64 + 1, "18446744073709551617"),
        (10**40, "1" + "0" * 40),
        ("a\u0000b", "a\u0000b"),
        ("\U0001f600", "\U0001f600"),
        ("/etc/passwd", "/etc/passwd"),
    ],
)
@pytest.mark.parametrize("beside", [None, "x", 3, 0.5, True, 2**70])
def test_a_cell_has_the_id_that_its_text_has_in_a_raw_file_whatever_stands_beside_it(
    cell: object, text: str | None, beside: object
) -> None:
    expected = as_text(user=text)
    assert encoded(of_rows({**ROW, "user": cell})) == expected
    together = encoded(of_rows({**ROW, "user": cell}, {**ROW, "user": beside}))
    assert together[:1] == expected
    columns = {name: [value] for name, value in {**ROW, "user": cell}.items()}
    body = json.dumps({"columns": columns}).encode()
    assert encoded(frame_of_json(body, CARD, max_rows=1)) == expected


@pytest.mark.parametrize(
    "cell, text",
    [
        (["a", "b"], "a,b"),
        ("a,b", "a,b"),
        ([1, 2.0, "x", True, None, ""], "1,2,x,1"),
        ([], None),
        (None, None),
        (7, "7"),
        ("NULL", None),
    ],
)
@pytest.mark.parametrize("beside", [None, "x,y", ["x"], [1], [0.5], [], 3])
def test_a_list_holds_the_values_of_its_text(
    cell: object, text: str | None, beside: object
) -> None:
    found = encoded(of_rows({**ROW, "tags": cell}, {**ROW, "tags": beside}))
    assert found[:1] == as_text(tags=text)


@pytest.mark.parametrize(
    "cell, text",
    [([1, 2.5], "1,2.5"), ("1,2.5", "1,2.5"), (["1", 2.5], "1,2.5"), ([], None), (None, None)],
)
@pytest.mark.parametrize("beside", [None, "3,4", [3, 4], [0.5, 0.25], ["7", 8]])
def test_a_vector_holds_the_numbers_of_its_text(
    cell: object, text: str | None, beside: object
) -> None:
    found = encoded(of_rows({**ROW, "image": cell}, {**ROW, "image": beside}))
    assert found[:1] == as_text(image=text)


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**66), 2**66),
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-5, 5).map(lambda x: round(x, 1)),
    st.text(max_size=4).filter(lambda text: text.isprintable()),
)
NUMBERS = st.integers(-9, 9) | st.floats(-9, 9)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "user": CELLS,
                "tags": st.one_of(CELLS, st.lists(CELLS, max_size=3)),
                "image": st.one_of(
                    st.none(),
                    st.just("1,2"),
                    st.lists(st.floats(-9, 9) | st.integers(-9, 9), min_size=2, max_size=2),
                ),
                "age": st.one_of(st.none(), st.integers(-9, 9), st.sampled_from(["7", "8.0", 3.0])),
                "price": st.one_of(
                    st.none(), st.integers(-9, 9), st.floats(-9, 9), st.just("1e-3")
                ),
            }
        ),
        max_size=5,
    )
)
def test_rows_mean_together_what_they_mean_alone(rows: list[dict[str, object]]) -> None:
    alone = [row for one in rows for row in encoded(of_rows(one))]
    assert encoded(of_rows(*rows)) == alone
    columns = {name: [row[name] for row in rows] for name in ROW}
    body = json.dumps({"columns": columns}).encode()
    assert encoded(frame_of_json(body, CARD, max_rows=1000)) == alone


def test_no_rows_are_a_frame_without_rows() -> None:
    assert encoded(of_rows()) == []
    body = json.dumps({"columns": {name: [] for name in ROW}}).encode()
    assert encoded(frame_of_json(body, CARD, max_rows=1)) == []


def test_columns_that_the_model_does_not_read_do_not_matter() -> None:
    more = {**ROW, "session": {"a": [1]}, "click": "x", "other": [[[]]], "drama": "\ud800"}
    assert of_rows(more).equals(of_rows(ROW))


EITHER = "body: must hold either rows or columns;"
TOO_MANY = "body: at most 2 rows are scored at once. Send fewer, or serve with --max-rows."
TWICE = "body: key 'user' stands twice in an object."
OBJECT = "must be an object of columns; got"
MISSING = "is missing. Write null where there is no value."
LENGTH = "columns: must be of one length"
CONSTANT = "is no number of it. Write null for a gap."
CELL = "must be text, a number, a truth or null; got"
PAIR = "must be Unicode; got half of a pair of surrogates in"
COLUMNS = {name: [cell] for name, cell in ROW.items()}
HOW = 'Write {"rows": [{column: value, ...}, ...]} or {"columns": {column: [value, ...], ...}}.'


@pytest.mark.parametrize(
    "body, status, told",
    [
        (b"", 400, "body:1: is no JSON: Expecting value at character 1 of the line."),
        (b'{"rows": [}', 400, "body:1: is no JSON: Expecting value at character 11 of the line."),
        (
            b'{"rows":\n [] x',
            400,
            "body:2: is no JSON: Expecting ',' delimiter at character 5 of the line.",
        ),
        (b'{"rows": "\xff"}', 400, "body: must be UTF-8; got the byte 0xff."),
        (b"\xef\xbb\xbf{}", 422, f"{EITHER} got neither. {HOW}"),
        ('{"rows": []}'.encode("utf-16"), 400, "body: must be UTF-8; got the byte 0xff."),
        (b'{"rows": [], "rows": []}', 400, "body: key 'rows' stands twice in an object."),
        (b'{"rows": [{"user": 1, "user": 2}]}', 400, TWICE),
        (b'{"rows": [NaN]}', 400, f"body: is no JSON: NaN {CONSTANT}"),
        (b"[-Infinity]", 400, f"body: is no JSON: -Infinity {CONSTANT}"),
        (b"[" * 100_000, 400, "body: is nested too deep. Only cells hold lists."),
        (b'{"a":' * 100_000, 400, "body: is nested too deep. Only cells hold lists."),
        (b"[" + b"1" * 5000 + b"]", 400, "body: a number has more than 4,300 digits."),
        (b"[]", 422, f"body: must be an object; got a list. {HOW}"),
        (b"null", 422, f"body: must be an object; got null. {HOW}"),
        (b"true", 422, f"body: must be an object; got a truth. {HOW}"),
        (b"{}", 422, f"body: must hold either rows or columns; got neither. {HOW}"),
        (b'{"rows": [], "columns": {}}', 422, f"{EITHER} got both. {HOW}"),
        (b'{"row": []}', 422, "body: unknown key 'row'. Did you mean 'rows'?"),
        (b'{"rows": {}}', 422, f"body: rows must be a list; got an object. {HOW}"),
        (b'{"columns": []}', 422, f"body: columns must be an object; got a list. {HOW}"),
        (b'{"rows": [{}, {}, {}]}', 413, TOO_MANY),
    ],
)
def test_what_is_no_body_of_rows_is_refused(body: bytes, status: int, told: str) -> None:
    with pytest.raises(RequestError) as error:
        frame_of_json(body, CARD, max_rows=2)
    assert (error.value.status, error.value.problems) == (status, (told,))


@pytest.mark.parametrize(
    "rows, told",
    [
        ([1], ["row 0: must be an object of columns; got a number."]),
        ([ROW, None, []], [f"row 1: {OBJECT} null.", f"row 2: {OBJECT} a list."]),
        (
            [ROW, {k: v for k, v in ROW.items() if k != "user"} | {"usr": 1}],
            [f"row 1: column user: {MISSING} Did you mean 'usr'?"],
        ),
        ([{**ROW, "user": {"a": 1}}], [f"row 0: column user: {CELL} an object."]),
        ([ROW, {**ROW, "user": ["a"]}], [f"row 1: column user: {CELL} a list."]),
        ([{**ROW, "tags": [["a"]]}], [f"row 0: column tags: {CELL} a list."]),
        ([{**ROW, "image": [True, 2]}], ["row 0: column image: must hold numbers; got a truth."]),
        ([{**ROW, "user": "\ud800"}], [f"row 0: column user: {PAIR} '\\ud800'."]),
        ([{**ROW, "tags": ["a", "\udfff"]}], [f"row 0: column tags: {PAIR} '\\udfff'."]),
    ],
)
def test_a_row_that_is_none_is_told_with_its_number(rows: list[object], told: list[str]) -> None:
    with pytest.raises(DataError) as error:
        of_rows(*rows)
    assert list(error.value.problems) == told


def test_a_number_beyond_64_bits_is_told_with_its_row() -> None:
    body = b'{"rows": [' + json.dumps(ROW).replace("0.5", "1e400").encode() + b"]}"
    told = "row 0: column price: must be a finite number; got one beyond 64 bits."
    with pytest.raises(DataError) as error:
        frame_of_json(body, CARD, max_rows=1)
    assert error.value.problems == (told,)


@pytest.mark.parametrize(
    "columns, told",
    [
        ({}, [f"column {name}: is missing." for name in ROW]),
        ({**COLUMNS, "user": "a"}, ["column user: must be a list of values; got text."]),
        ({**COLUMNS, "age": [1, 2]}, [f"{LENGTH}; got 1 values of user and 2 of age."]),
    ],
)
def test_columns_that_are_none_are_told(columns: object, told: list[str]) -> None:
    with pytest.raises(DataError) as error:
        frame_of_json(json.dumps({"columns": columns}).encode(), CARD, max_rows=10)
    assert list(error.value.problems) == told


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"rows": [{}] * 60_000}),
        json.dumps({"rows": [{f"usr{n}": 0 for n in range(100_000)}] * 3}),
        json.dumps({f"row{n}": 0 for n in range(100_000)}),
        json.dumps({"rows": [{"x" * 3_000_000: 0}]}),
        json.dumps({"x" * 3_000_000: 0}),
        json.dumps({"columns": {f"usr{n}": 0 for n in range(100_000)}}),
        '{"rows": [{' + ", ".join(f'"k{n}": 0' for n in range(100_000)) + ', "k0": 1}]}',
        json.dumps({"columns": {"x" * 1_000_000: [1, 2], **COLUMNS}}),
    ],
)
def test_many_wrong_things_are_told_shortly_and_soon(body: str) -> None:
    begin = time.perf_counter()
    with pytest.raises((DataError, RequestError)) as error:
        frame_of_json(body.encode(), CARD, max_rows=1 << 16)
    assert time.perf_counter() - begin < 10  # it would be minutes to hours
    assert len(str(error.value)) < 100_000
