"""Arrow streams to be scored: read to their end, and told from others that look alike."""

import io
from typing import Any

import pyarrow as pa
import pytest

from recsys_had.data.raw import RawBlock
from recsys_had.data.stream import StreamSource
from recsys_had.errors import DataError
from recsys_had.schema import parse_card

CARD = parse_card("""
name: clicks
format: {type: csv}
columns: {click: {kind: label}, C1: {kind: categorical}, I1: {kind: integer}}
split: {by: given}
""")


def stream(*batches: pa.RecordBatch) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def blocks(content: bytes, *, block_bytes: int = 1) -> list[RawBlock]:
    return list(StreamSource(io.BytesIO(content), CARD).blocks(block_bytes))


def batch(users: Any, numbers: Any = None) -> pa.RecordBatch:
    return pa.record_batch({"C1": users, "I1": pa.array(numbers or [1] * len(users), pa.int64())})


def test_a_stream_whose_sender_was_stopped_between_batches_is_refused() -> None:
    """To Arrow the end of the bytes is the end of the rows, wherever they end."""
    whole, short = stream(batch(["a"]), batch(["b"])), stream(batch(["a"]))
    assert whole.startswith(short[:-8])
    told = r"^standard input: is cut off: the mark that ends an Arrow stream is missing\."
    for cut in (short[:-8], whole[:-8], stream(batch(["a"]).slice(0, 0))[:-8]):
        with pytest.raises(DataError, match=told):
            blocks(cut)
    assert [block.frame["C1"].to_list() for block in blocks(whole)] == [["a"], ["b"]]


def test_two_streams_one_after_the_other_are_not_read_as_the_first() -> None:
    content = stream(batch(["a"]))
    for more in (content, b"\n"):
        with pytest.raises(DataError, match=r"^standard input: goes on after the end of the Arrow"):
            blocks(content + more)


@pytest.mark.parametrize(
    "one, other",
    [
        (["a", "b"], ["a", "c"]),
        # A dictionary is no part of its batch, nor is a type.
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"]).dictionary_encode()),
        (pa.array([-1], pa.int8()), pa.array([255], pa.uint8())),
    ],
)
def test_blocks_of_other_rows_have_another_digest(one: Any, other: Any) -> None:
    [first], [second] = blocks(stream(batch(one))), blocks(stream(batch(other)))
    [again] = blocks(stream(batch(one)))
    assert first.digest == again.digest != second.digest


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("coded", [False, True])
def test_a_text_that_is_no_utf_8_is_told_with_its_row(kind: pa.DataType, coded: bool) -> None:
    bytes_of = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    raw = pa.array([b"x", b"\xff"], bytes_of.get(kind, pa.binary_view()))
    wrong, right = raw.view(kind), pa.array(["y", "z"], kind)
    if coded:
        if kind == pa.string_view():
            pytest.skip("Arrow makes no dictionaries of views")
        wrong, right = (
            pa.DictionaryArray.from_arrays(pa.array([0, 1]), each) for each in (wrong, right)
        )
    content = stream(batch(right), batch(wrong), batch(right))
    found = blocks(content, block_bytes=1 << 20)
    assert [block.num_rows for block in found] == [2, 2, 2]
    with pytest.raises(DataError) as error:
        found[1].read()
    told = "standard input: row 3: column C1: must be UTF-8; got the byte 0xff."
    assert error.value.problems == (told,)
    assert found[2].read()["C1"].to_list() == ["y", "z"]


@pytest.mark.parametrize(
    "users, told",
    [
        (pa.array([None], pa.decimal256(50, 2)), "decimal256(50, 2)"),
        (pa.array([["a"]], pa.list_view(pa.string())), "list_view<item: string>"),
        (pa.array([None], pa.month_day_nano_interval()), "month_day_nano_interval"),
        (pa.array([[None]], pa.list_(pa.decimal256(50, 2))), "list<item: decimal256(50, 2)>"),
    ],
)
def test_types_that_would_end_the_process_are_refused(users: pa.Array, told: str) -> None:
    [block] = blocks(stream(batch(users)))
    with pytest.raises(DataError) as error:
        block.read()
    must = "must hold text, numbers, times or lists of them"
    assert error.value.problems == (f"standard input: column C1: {must}; got {told}.",)


def test_columns_that_nobody_reads_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pa.record_batch({"C1": ["a"], "I1": [1], "click": [1], "colour": ["red"], "z": [1]})
    told: list[str] = []
    monkeypatch.setattr(
        "recsys_had.data.stream._log.info", lambda text, *words: told.append(text % words)
    )
    blocks(stream(rows, rows))
    assert told == ["standard input: not in the card and so not read: colour, z."]
