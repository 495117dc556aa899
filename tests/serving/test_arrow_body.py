"""Bodies that are Arrow streams: of any type a raw column has, and of any damage."""

import datetime
import decimal
import struct
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from recsys_had.data.encode import Encoder
from recsys_had.errors import DataError
from recsys_had.schema import parse_card
from recsys_had.serving.arrow_body import frame_of_arrow
from recsys_had.serving.request_error import RequestError

CARD = parse_card("""
name: shop
format: {type: csv}
columns:
  click: {kind: label}
  user: {kind: categorical, hash_buckets: 1000000}
  tags: {kind: multi_categorical, separator: ",", hash_buckets: 1000000}
  price: {kind: float}
split: {by: given}
""")
ENCODER = Encoder.fit_frame(
    CARD, pl.DataFrame({"click": ["1"], "user": ["a"], "tags": ["a"], "price": ["1"]})
)
MAX_BYTES = 1 << 20
PLAIN = pa.table(
    {
        "user": ["a", None, "é", "b" * 40],
        "tags": pa.array([["x", "y"], [], None, ["z"]]),
        "price": pa.array([0.5, None, -1.0, 1e-3]),
    }
)
CODED = pa.array(["a", "b"]).dictionary_encode()


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    written = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(sink, table.schema, options=written) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def read(body: bytes, *, max_rows: int = 100_000, max_bytes: int = MAX_BYTES) -> pl.DataFrame:
    return frame_of_arrow(body, CARD, max_rows=max_rows, max_bytes=max_bytes)


def encoded(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return ENCODER.encode(frame).rows()


def as_text(users: list[str | None]) -> list[tuple[Any, ...]]:
    rows = {"user": users, "tags": ["a"] * len(users), "price": ["1"] * len(users)}
    return encoded(pl.DataFrame(rows, schema=dict.fromkeys(rows, pl.String)))


def with_users(users: pa.Array) -> pa.Table:
    return pa.table({"user": users, "tags": ["a"] * len(users), "price": [1] * len(users)})


def problems_of(body: bytes, **limits: int) -> tuple[int, tuple[str, ...]]:
    """Status and lines of what is refused."""
    with pytest.raises((RequestError, DataError)) as error:
        read(body, **limits)
    return getattr(error.value, "status", 422), error.value.problems


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}, {"compression": "lz4"}])
def test_a_stream_says_what_its_table_says(options: dict[str, Any]) -> None:
    more = PLAIN.append_column("session", pa.array([{"a": 1}] * 4)).select([3, 2, 0, 1])
    for table in (PLAIN, more):
        assert encoded(read(stream(table, **options))) == encoded(
            pl.DataFrame(
                {
                    "user": ["a", None, "é", "b" * 40],
                    "tags": ["x,y", "", None, "z"],
                    "price": ["0.5", None, "-1.0", "0.001"],
                }
            )
        )


@pytest.mark.parametrize(
    "users, texts",
    [
        (pa.array([12, None], pa.int8()), ["12", None]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([12.0, 0.5, float("nan")], pa.float32()), ["12", "0.5", None]),
        (pa.array([12.0, None], pa.float16()), ["12", None]),
        (pa.array([True, False]), ["1", "0"]),
        (pa.array([decimal.Decimal("12.50"), decimal.Decimal("12.00")]), ["12.5", "12"]),
        (pa.array([decimal.Decimal("1.50"), None], pa.decimal32(5, 2)), ["1.5", None]),
        (pa.array([decimal.Decimal("-1.25")], pa.decimal64(12, 2)), ["-1.25"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array([5, 6, 5]).dictionary_encode(), ["5", "6", "5"]),
        (pa.array(["a", "b" * 40], pa.string_view()), ["a", "b" * 40]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array([b"a", None], pa.binary()), ["a", None]),
        (pa.array([b"ab"], pa.binary(2)), ["ab"]),
        (pa.array([datetime.date(2024, 2, 29)]), ["2024-02-29"]),
        (pa.nulls(2), [None, None]),
        (pa.array([], pa.string()), []),
        (pa.array([], pa.dictionary(pa.int8(), pa.string())), []),
        (pa.chunked_array([["a"], ["b", "c"]]), ["a", "b", "c"]),
        (pa.chunked_array([CODED.slice(1), pa.array(["c"]).dictionary_encode()]), ["b", "c"]),
        (pa.array(["x", "a", "y"]).slice(1, 1), ["a"]),
        (pa.array(["x", "a", "y"]).dictionary_encode().slice(1, 1), ["a"]),
    ],
)  # fmt: skip
def test_a_value_of_any_type_has_the_id_that_its_text_has_in_a_raw_file(
    users: pa.Array, texts: list[str | None]
) -> None:
    assert encoded(read(stream(with_users(users)))) == as_text(texts)


def test_no_batch_is_no_row() -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, PLAIN.schema):
        pass
    assert encoded(read(sink.getvalue().to_pybytes())) == []


WANTED = "must hold text, numbers, times or lists; got"


@pytest.mark.parametrize(
    "table, told",
    [
        (PLAIN.rename_columns(["usr", "tags", "price"]), "is missing. Did you mean 'usr'?"),
        (PLAIN.append_column("user", PLAIN["user"]), "stands 2 times. Send it once."),
        (with_users(pa.array([{"a": 1}])), f"{WANTED} 'struct<a: int64>'."),
        (with_users(pa.array([1], pa.duration("s"))), f"{WANTED} 'duration[s]'."),
        (with_users(pa.nulls(1, pa.decimal256(40, 2))), f"{WANTED} 'decimal256(40, 2)'."),
        (with_users(pa.array([[[1]]])), f"{WANTED} 'list<item: list<item: int64>>'."),
        (with_users(pa.array([["a"]])), "must hold text or numbers; got List(String)."),
    ],
)
def test_columns_that_no_raw_file_has_are_refused(table: pa.Table, told: str) -> None:
    with pytest.raises(DataError) as error:
        ENCODER.encode(read(stream(table)))
    assert error.value.problems == (f"column user: {told}",)


def test_a_time_zone_that_is_not_known_is_refused() -> None:
    times = with_users(pa.array([0], pa.timestamp("s", "Moon/Sea")))
    with pytest.raises(DataError, match=r"^body: holds what cannot be read: .*'Moon/Sea'"):
        read(stream(times))


def test_texts_that_are_no_utf_8_are_told_with_their_rows() -> None:
    wrong = pa.chunked_array([[b"a"], [b"b", b"\xff"]], pa.binary())
    texts = pa.chunked_array([chunk.view(pa.string()) for chunk in wrong.chunks])
    coded = pa.chunked_array(
        pa.DictionaryArray.from_arrays(pa.array([0, 1, 1][: len(c)], pa.int8()), c)
        for c in (pa.array([b"a", b"\xff"]).view(pa.string()),)
    )
    told = "column user: must be UTF-8; got the byte 0xff."
    for column in (wrong, texts):
        assert problems_of(stream(with_users(column))) == (422, (f"row 2: {told}",))
    assert problems_of(stream(with_users(coded))) == (422, (f"row 1: {told}",))


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}])
def test_a_stream_cut_at_any_byte_is_refused_and_so_is_one_that_goes_on(
    options: dict[str, Any],
) -> None:
    chunks = pa.concat_tables([PLAIN, PLAIN.slice(1)])
    body = stream(chunks, **options)
    assert len(read(body)) == 7
    for length in range(len(body)):
        status, [told] = problems_of(body[:length])
        assert status == 400
        assert told.startswith("body: is no whole Arrow stream: ")
    for more in (b"\0", b"\xff", body, bytes(8)):
        status, [told] = problems_of(body + more)
        assert (status, told) == (400, "body: is no whole Arrow stream: it goes on after its end.")
    early = body[:-8]
    status, [told] = problems_of(early)
    assert (status, told) == (400, "body: is no whole Arrow stream: its end is missing.")


TOO_LARGE = (
    f"body: takes more than {MAX_BYTES:,} bytes once it is unpacked. Send fewer rows, or serve "
    "with --max-body-bytes."
)


def test_a_body_that_unpacks_to_more_than_is_allowed_is_refused_before_it_is_unpacked() -> None:
    rows = 1 << 23
    table = pa.table({"user": pa.array(np.zeros(rows, np.int64))})
    body = stream(table, compression="zstd")
    assert len(body) < 20_000
    del table
    before = pa.total_allocated_bytes()
    assert problems_of(body, max_rows=1 << 40) == (413, (TOO_LARGE,))
    assert pa.total_allocated_bytes() == before


@pytest.mark.parametrize(
    "declared, status", [(2**62, 413), (2**40, 413), (-2, 400), (-(2**63), 400), (7, 400)]
)
def test_a_packed_buffer_may_not_lie_about_its_length(declared: int, status: int) -> None:
    table = with_users(pa.array(range(1000), pa.int64()))
    body = stream(table, compression="zstd")
    packed = body.index(struct.pack("<q", 8000))
    wrong = body[:packed] + struct.pack("<q", declared) + body[packed + 8 :]
    assert len(read(body)) == 1000
    assert problems_of(wrong)[0] == status


def test_short_texts_that_stand_for_long_ones_are_refused() -> None:
    long = "x" * 10_000
    coded = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1000, np.int8)), pa.array([long]))
    view = struct.pack("<i4sii", len(long), b"xxxx", 0, 0)
    buffers = [None, pa.py_buffer(view * 1000), pa.py_buffer(long.encode())]
    views = pa.Array.from_buffers(pa.string_view(), 1000, buffers)
    for users in (coded, views):
        body = stream(with_users(users))
        assert len(body) < 60_000
        assert problems_of(body) == (413, (TOO_LARGE,))
        assert len(read(body, max_bytes=100 << 20)) == 1000


def test_rows_are_counted_before_any_is_looked_at() -> None:
    told = "body: at most 3 rows are scored at once. Send fewer, or serve with --max-rows."
    gap = pa.Array.from_buffers(pa.null(), 1 << 40, [None])
    nothing = stream(pa.table(dict.fromkeys(PLAIN.column_names, gap)), allow_64bit=True)
    assert problems_of(stream(PLAIN), max_rows=3) == (413, (told,))
    assert problems_of(nothing, max_rows=3) == (413, (told,))
    assert problems_of(nothing, max_rows=1 << 41) == (413, (TOO_LARGE,))
    inside = pa.ListArray.from_arrays(pa.array([0, 1 << 30], pa.int32()), gap)
    hidden = stream(pa.table({"user": ["a"], "tags": inside, "price": [1]}), allow_64bit=True)
    assert problems_of(hidden) == (413, (TOO_LARGE,))
    one_by_one = stream(pa.concat_tables([PLAIN.slice(row, 1) for row in range(4)]))
    assert problems_of(one_by_one, max_rows=3) == (413, (told,))
    assert len(read(one_by_one, max_rows=4)) == 4


def view_of(length: int, buffer: int, offset: int) -> bytes:
    """A view of a text that begins with yyyy."""
    return struct.pack("<i4sii", length, b"yyyy", buffer, offset)


ABC = pa.array(list("abcabc")).dictionary_encode()
VIEW = pa.array(["y" * 20], pa.string_view())


@pytest.mark.parametrize(
    "users, right, wrong",
    [
        (["ab", "cd"], struct.pack("<3i", 0, 2, 4), struct.pack("<3i", 0, 2, 1 << 30)),
        (["ab", "cd"], struct.pack("<3i", 0, 2, 4), struct.pack("<3i", 0, -7, 4)),
        (["ab", "cd"], struct.pack("<3i", 0, 2, 4), struct.pack("<3i", 3, 2, 1)),
        (
            pa.array(["ab", "cd"], pa.large_string()),
            struct.pack("<3q", 0, 2, 4),
            struct.pack("<3q", 0, 2, 1 << 62),
        ),
        (ABC, struct.pack("<6i", 0, 1, 2, 0, 1, 2), struct.pack("<6i", 0, 1, 2, 0, 1, 3)),
        (ABC, struct.pack("<6i", 0, 1, 2, 0, 1, 2), struct.pack("<6i", 0, -1, 2, 0, 1, 2)),
        (VIEW, view_of(20, 0, 0), view_of(20, 0, 1 << 30)),
        (VIEW, view_of(20, 0, 0), view_of(20, 9, 0)),
        (VIEW, view_of(20, 0, 0), view_of(1 << 30, 0, 0)),
    ],
)
def test_offsets_and_indices_that_point_nowhere_are_refused(
    users: pa.Array, right: bytes, wrong: bytes
) -> None:
    body = stream(with_users(users))
    assert body.count(right) == 1
    assert len(read(body)) == len(users)
    status, [told] = problems_of(body.replace(right, wrong))
    assert status == 400
    assert told.startswith("body: is no whole Arrow stream: ")


def test_a_name_inside_a_type_may_be_no_text() -> None:
    body = stream(PLAIN)
    assert body.count(b"item") == 1
    assert encoded(read(body.replace(b"item", b"i\xffem"))) == encoded(read(body))
    times = stream(with_users(pa.array([0], pa.timestamp("s", "Moon/Sea"))))
    assert problems_of(times.replace(b"Moon/Sea", b"Moon/S\xffa"))[0] == 422


def test_damaged_streams_are_refused_or_say_what_arrow_reads_in_them() -> None:
    """Arrow's own reader, and its full validation, are the oracle of what a stream says."""
    generator = np.random.default_rng(11)
    coded = PLAIN.set_column(0, "user", PLAIN["user"].dictionary_encode())
    bodies = [stream(PLAIN), stream(PLAIN, compression="zstd"), stream(coded)]
    read_all = 0
    for number in range(1500):
        body = bytearray(bodies[number % 3])
        for _ in range(int(generator.integers(1, 4))):
            body[generator.integers(len(body))] = generator.integers(256)
        try:
            found = read(bytes(body))
        except (RequestError, DataError):
            continue
        table = pa.ipc.open_stream(bytes(body)).read_all()
        table.validate(full=True)
        rows = table.select(["user", "tags", "price"]).to_pylist()
        expected = [tuple(row.values()) for row in rows]
        assert str(found.with_columns(pl.col("price").fill_nan(None)).rows()) == str(
            [tuple(None if cell != cell else cell for cell in row) for row in expected]
        )
        read_all += 1
    assert 100 < read_all < 1400
