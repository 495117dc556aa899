"""Scores as JSON and Arrow: whoever reads them has the bits back."""

import json

import numpy as np
import pyarrow as pa
import pytest

from recsys_had.serving.answers import ARROW, JSON, accepted, arrow_of, json_of


def column(scores: np.ndarray) -> dict[str, pa.Array]:
    return {"score": pa.array(scores)}


def test_what_is_read_back_has_the_same_bits() -> None:
    generator = np.random.default_rng(3)
    bits = generator.integers(0, 0x3F800001, 200_000).astype(np.uint32)  # 0.0 to 1.0
    edges = np.array([0, 1, 0x007FFFFF, 0x00800000, 0x3F7FFFFF, 0x3F800000], np.uint32)
    scores = np.concatenate([bits, edges]).view(np.float32)
    found = np.array(json.loads(json_of(column(scores)))["scores"]).astype(np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), scores.view(np.uint32))
    table = pa.ipc.open_stream(arrow_of(column(scores))).read_all()
    assert table.schema == pa.schema({"score": pa.float32()})
    np.testing.assert_array_equal(table["score"].to_numpy().view(np.uint32), scores.view(np.uint32))


def test_a_score_that_its_shortest_text_loses_by_way_of_64_bits_is_written_longer() -> None:
    # A known case: "7.038531e-26" is the float32 0x15AE43FD, but as a float64 it lies so near the
    # middle between that and the next one that it is rounded to 0x15AE43FE.
    score = np.array([0x15AE43FD], np.uint32).view(np.float32)
    assert np.float32(float("7.038531e-26")).view(np.uint32) == 0x15AE43FE
    [found] = json.loads(json_of(column(score)))["scores"]
    assert np.float32(found).view(np.uint32) == 0x15AE43FD


def test_scores_are_short_and_gaps_are_null() -> None:
    scores = np.array([0.1, 1 / 3, 1.0, np.nan], np.float32)
    assert json_of(column(scores)) == b'{"scores": [0.1, 0.33333334, 1.0, null]}'
    assert json_of(column(scores[:0])) == b'{"scores": []}'
    assert len(pa.ipc.open_stream(arrow_of(column(scores[:0]))).read_all()) == 0


def test_lists_of_named_values_are_written_as_such() -> None:
    kind = pa.list_(pa.struct([("fields", pa.list_(pa.string())), ("effect", pa.float32())]))
    told = [
        [{"fields": ["a", 'b"'], "effect": 0.1}, {"fields": ["c"], "effect": -2.0}],
        [],
        [{"fields": ["\u00e9"], "effect": float("inf")}],
    ]
    columns = {
        "score": pa.array([0.5, 0.25, 1.0], pa.float32()),
        "novelty": pa.array([float("nan"), 1.5, 3e-8], pa.float32()),
        "explanation": pa.array(told, kind),
    }
    answer = json_of(columns)
    assert answer.isascii()
    told[2][0]["effect"] = None
    assert json.loads(answer) == {
        "scores": [0.5, 0.25, 1.0],
        "novelty": [None, 1.5, 3e-8],
        "explanation": told,
    }
    sliced = {name: values.slice(1, 2) for name, values in columns.items()}
    assert json.loads(json_of(sliced))["explanation"] == told[1:]
    assert pa.ipc.open_stream(arrow_of(sliced)).read_all().equals(pa.table(sliced))


@pytest.mark.parametrize(
    "accept, expected",
    [
        ("", JSON),
        ("*/*", JSON),
        ("text/html", JSON),
        (JSON, JSON),
        (ARROW, ARROW),
        (ARROW.upper(), ARROW),
        (f"{ARROW}, */*;q=0.1", ARROW),
        (f"{JSON}, {ARROW}", JSON),
        (f"{JSON};q=0.5,{ARROW};q=0.6", ARROW),
        (f"{ARROW};q=0", JSON),
        (f"{ARROW};q=x", JSON),
        (f"{ARROW};version=1;q=0.3", ARROW),
        (";;;,,;q=1", JSON),
    ],
)
def test_an_arrow_stream_is_answered_where_it_is_asked_for(accept: str, expected: str) -> None:
    assert accepted(accept) == expected
