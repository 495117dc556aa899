"""Mistakes in frames and HTTP bodies, and types of columns, which mean the same everywhere."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from recsys_had.errors import ConfigError, DataError
from recsys_had.frame_scorer import FrameScorer
from recsys_had.scoring import BatchPredictor
from recsys_had.serving.app import make_app
from recsys_had.serving.scorer import Limits, Scorer
from tests.pipelines.every_kind import COLUMNS, Row
from tests.pipelines.mistaken_inputs import (
    KINDS,
    ROWS,
    VALUES,
    Predict,
    parquet,
    stream,
    table,
    table_of,
    told_of,
    without,
    wrong_rows,
)
from tests.serving.caller import call


class Ask:
    """Scores rows by an HTTP body; a refusal is raised as a DataError of its lines."""

    def __init__(self, kind_predictor: BatchPredictor) -> None:
        self._scorer = Scorer(kind_predictor, limits=Limits())
        self._app = make_app(self._scorer)

    def close(self) -> None:
        """Ends its thread."""
        self._scorer.close()

    def _post(self, media_type: str, body: bytes) -> Any:
        answer = call(
            self._app, "POST", "/score", headers={"Content-Type": media_type}, chunks=[body]
        )
        if answer.status != 200:
            assert answer.status == 422, answer
            raise DataError(answer.json["errors"])
        return np.array(answer.json["scores"], np.float32)

    def rows(self, rows: Sequence[Row]) -> Any:
        return self._post("application/json", json.dumps({"rows": list(rows)}).encode())

    def columns(self, rows: Sequence[Row]) -> Any:
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else COLUMNS)}
        return self._post("application/json", json.dumps({"columns": columns}).encode())

    def arrow(self, rows: Sequence[Row] | pa.Table) -> Any:
        given = rows if isinstance(rows, pa.Table) else table_of(rows)
        return self._post("application/vnd.apache.arrow.stream", stream(given))


@pytest.fixture(scope="module")
def ask(kind_predictor: BatchPredictor) -> Iterator[Ask]:
    asking = Ask(kind_predictor)
    yield asking
    asking.close()


@pytest.fixture(scope="module")
def ways(kind_predictor: BatchPredictor, ask: Ask) -> dict[str, Callable[[Sequence[Row]], Any]]:
    """Frames of all libraries, the model that MLflow calls, and HTTP bodies."""
    of_mlflow = FrameScorer(kind_predictor.run.path)

    def pandas(rows: Sequence[Row]) -> pd.DataFrame:
        return table_of(rows).to_pandas()

    return {
        "pandas": lambda rows: kind_predictor.score_frame(pandas(rows)),
        "polars": lambda rows: kind_predictor.score_frame(pl.DataFrame(table_of(rows))),
        "lazy": lambda rows: kind_predictor.score_frame(pl.LazyFrame(table_of(rows))),
        "arrow": lambda rows: kind_predictor.score_frame(table_of(rows)),
        "mlflow": lambda rows: of_mlflow(pandas(rows), {})["score"].to_numpy(),
        "json rows": ask.rows,
        "json columns": ask.columns,
        "arrow body": ask.arrow,
    }


WAYS = (
    "pandas", "polars", "lazy", "arrow", "mlflow", "json rows", "json columns", "arrow body"
)  # fmt: skip
every_way = pytest.mark.parametrize("way", WAYS)


@every_way
def test_frames_and_bodies_tell_a_wrong_value_by_its_row(
    ways: Any, way: str, expected: Any
) -> None:
    with pytest.raises(DataError) as error:
        ways[way](wrong_rows())
    assert error.value.problems == tuple(
        f"row {number}: {told_of(number)}" for number in range(len(VALUES))
    )
    np.testing.assert_array_equal(ways[way](ROWS), expected)


@every_way
def test_frames_and_bodies_at_scoring(
    ways: Any, way: str, expected: Any, kind_predictor: BatchPredictor
) -> None:
    score = ways[way]
    with pytest.raises(DataError, match=r"column user: is missing\."):
        score(without("user"))
    for rows in (
        without("click"),
        [{**row, "click": "perhaps"} for row in ROWS],
        [{**row, "colour": "red"} for row in ROWS],
    ):
        np.testing.assert_array_equal(score(rows), expected)
    assert len(score([])) == 0
    unseen = [{**row, "user": "never", "tags": "never"} for row in ROWS]
    missing = [{**row, "user": "", "tags": ""} for row in ROWS]
    np.testing.assert_array_equal(score(unseen), score(missing))
    everything = [dict.fromkeys(COLUMNS, "") for _ in ROWS]
    found = score(everything)
    assert np.isfinite(found).all() and len(np.unique(found)) == 1


@dataclass(frozen=True)
class Typed:
    """Columns of types, and the text each row's cell must be taken for."""

    columns: dict[str, pa.Array]
    texts: dict[str, list[str]]


HOUR = datetime(2024, 3, 2, 5, 15)
TYPED = {
    "numbers with gaps": Typed(
        {"age": pa.array([21, None]), "price": pa.array([0.25, None]), "user": pa.array([1, 2])},
        {"age": ["21", ""], "price": ["0.25", ""], "user": ["1", "2"]},
    ),
    "integers as floats": Typed(
        {"age": pa.array([21.0, float("nan")]), "user": pa.array([153.0, None], pa.float32())},
        {"age": ["21", ""], "user": ["153", ""]},
    ),
    "small and large": Typed(
        {"age": pa.array([21, -1], pa.int8()), "price": pa.array([0.5, 1], pa.float16()),
         "user": pa.array([2**64 - 1, 0], pa.uint64())},
        {"age": ["21", "-1"], "price": ["0.5", "1"], "user": ["18446744073709551615", "0"]},
    ),
    "decimals": Typed(
        {"age": pa.array([Decimal("21.00"), None]), "price": pa.array([Decimal("0.50"), None],
         pa.decimal32(5, 2)), "user": pa.array([Decimal("1.50"), Decimal(7)], pa.decimal64(9, 2))},
        {"age": ["21", ""], "price": ["0.5", ""], "user": ["1.5", "7"]},
    ),
    "truths": Typed(
        {"age": pa.array([True, None]), "user": pa.array([False, True])},
        {"age": ["1", ""], "user": ["0", "1"]},
    ),
    "dictionaries": Typed(
        {"user": pa.array(["u1", None]).dictionary_encode(), "age": pa.array([21, 22])
         .dictionary_encode(), "time": pa.array([HOUR, HOUR]).dictionary_encode()},
        {"user": ["u1", ""], "age": ["21", "22"], "time": ["2024-03-02 05:15:00"] * 2},
    ),
    "texts": Typed(
        {"user": pa.array(["u1", None], pa.large_string()), "age": pa.array(["21", ""]),
         "tags": pa.array(["t1|t2", None], pa.large_string()), "price": pa.array([b"0.5", None])},
        {"user": ["u1", ""], "age": ["21", ""], "tags": ["t1|t2", ""], "price": ["0.5", ""]},
    ),
    "lists": Typed(
        {"tags": pa.array([["t1", None, "t2"], None]), "image": pa.array([[0.5, 1], None])},
        {"tags": ["t1|t2", ""], "image": ["0.5;1", ""]},
    ),
    "other lists": Typed(
        {"tags": pa.array([["t1"], []], pa.large_list(pa.large_string())),
         "image": pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2))},
        {"tags": ["t1", ""], "image": ["1;2", "3;4"]},
    ),
    "times": Typed(
        {"time": pa.array([HOUR, None], pa.timestamp("s"))}, {"time": ["2024-03-02 05:15:00", ""]}
    ),
    "times of a zone": Typed(
        {"time": pa.array([HOUR.replace(tzinfo=UTC)] * 2, pa.timestamp("ns", "Asia/Tokyo"))},
        {"time": ["2024-03-02 05:15:00"] * 2},
    ),
    "days": Typed({"time": pa.array([date(2024, 3, 2), None])}, {"time": ["2024-03-02 00:00:00",
                                                                          ""]}),
    "nothing": Typed(
        {"age": pa.nulls(2), "tags": pa.nulls(2), "image": pa.nulls(2), "time": pa.nulls(2)},
        {"age": ["", ""], "tags": ["", ""], "image": ["", ""], "time": ["", ""]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("typed", TYPED.values(), ids=TYPED)
def test_a_typed_column_says_what_its_text_would(
    predict: Predict, kind_predictor: BatchPredictor, ask: "Ask", typed: Typed
) -> None:
    given = table(ROWS[:2])
    for name, column in typed.columns.items():
        given = given.set_column(given.column_names.index(name), name, column)
    rows = [
        {**row, **{name: texts[number] for name, texts in typed.texts.items()}}
        for number, row in enumerate(ROWS[:2])
    ]
    wanted = kind_predictor.score_frame(pl.DataFrame(rows))
    for name, content in (("parquet", parquet(given)), ("stream", stream(given))):
        done = predict(KINDS[name], content)
        assert done.code == 0, done.err
        np.testing.assert_array_equal(predict.scores()["score"], wanted, name)
    np.testing.assert_array_equal(kind_predictor.score_frame(given), wanted, "table")
    np.testing.assert_array_equal(kind_predictor.score_frame(given.to_pandas()), wanted, "pandas")
    np.testing.assert_array_equal(ask.arrow(given), wanted, "body")


@pytest.mark.parametrize(
    "params, told",
    [
        ({"explain": -1}, "explain"),
        ({"explain": 1, "baseline": "mode"}, "baseline"),
        ({"novelty": "novel"}, "novelty"),
    ],
)
def test_a_parameter_of_the_logged_model_that_is_none_is_told(
    kind_runs: dict[str, Path], params: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        FrameScorer(kind_runs["csv"])(pd.DataFrame(ROWS), params)
