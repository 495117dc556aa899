"""The application of ``recsys-had serve``: the same scores as elsewhere, and whom it refuses."""

import asyncio
import gzip
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI

from recsys_had.data.folder import DataFolder
from recsys_had.extra_columns import LAST, extra_columns
from recsys_had.scoring import BatchPredictor
from recsys_had.scoring.splits import score_split
from recsys_had.serving.app import make_app
from recsys_had.serving.scorer import Limits, Scorer
from tests.serving.caller import Answer, ask, body_of, call
from tests.serving.prometheus import parse, value

COLUMNS = ["label", "age", "visits", "user", "item", "tags", "session"]
JSON = {"Content-Type": "application/json"}
ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}
CELL = "must be text, a number, a truth or null"
MISSING = "is missing. Write null where there is no value."
LATIN = "application/json; charset=latin-1"
ROW = {"age": 30, "visits": 5, "user": "u1", "item": "i1", "tags": ["t1", "t2"]}


@pytest.fixture(scope="module")
def predictor(job) -> BatchPredictor:
    return BatchPredictor.load(job.run)


@pytest.fixture
def scorer(predictor: BatchPredictor) -> Iterator[Scorer]:
    limits = Limits(max_body_bytes=1 << 20, max_rows=4000, max_open=2, body_timeout_s=0.2)
    scorer = Scorer(predictor, limits=limits)
    yield scorer
    scorer.close()


@pytest.fixture
def app(scorer: Scorer) -> FastAPI:
    return make_app(scorer)


@pytest.fixture(scope="module")
def raw(job) -> pl.DataFrame:
    """Rows of the raw file as text, nulls where nothing stands."""
    frame = pl.read_csv(
        job.raw, separator="\t", has_header=False, new_columns=COLUMNS, infer_schema=False
    )
    return frame.with_columns(pl.all().replace("", None))


def post(app: FastAPI, content: object, **headers: str) -> Answer:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return call(app, "POST", "/score", headers={**JSON, **headers}, chunks=[body])


def stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def bits(scores: Any) -> list[int]:
    return np.asarray(scores).astype(np.float32).view(np.uint32).tolist()


def typed(raw: pl.DataFrame) -> pl.DataFrame:
    """The same rows as a client holds them: numbers, and lists."""
    return raw.with_columns(
        pl.col("label", "age", "visits").cast(pl.Int64), pl.col("tags").str.split(",")
    )


def test_the_columns_beside_the_score_are_those_of_predict(
    cli, job, predictor, raw, tmp_path
) -> None:
    few = tmp_path / "few.tsv"
    few.write_text("\n".join(job.raw.read_text().splitlines()[:50]) + "\n")
    words = ("--input", few, "--out", tmp_path / "s", "--explain", 2, "--novelty")
    assert cli("predict", job.run, *words).code == 0
    [part] = (tmp_path / "s").glob("part-*.parquet")
    expected = pq.read_table(part).drop_columns("row_id")
    assert expected.column_names == ["score", "novelty", "explanation"]
    extras = [make(predictor) for make in extra_columns(explain=2, novelty=LAST)]
    scorer = Scorer(predictor, limits=Limits(), extras=extras)
    app = make_app(scorer)
    try:
        answer = post(app, {"rows": raw.head(50).to_dicts()})
        streamed = post(app, {"rows": raw.head(50).to_dicts()}, Accept=ARROW["Content-Type"])
    finally:
        scorer.close()
    assert pa.ipc.open_stream(streamed.body).read_all().equals(expected)
    assert [*answer.json] == ["scores", "novelty", "explanation"]
    assert bits(answer.json["novelty"]) == bits(expected["novelty"].to_numpy())
    shown = [
        [(entry["fields"], np.float32(entry["effect"])) for entry in row]
        for row in answer.json["explanation"]
    ]
    assert shown == [
        [(entry["fields"], np.float32(entry["effect"])) for entry in row]
        for row in expected["explanation"].to_pylist()
    ]


def test_scores_are_those_of_predict_evaluate_and_the_predictor_to_the_bit(
    cli, job, predictor, app, raw, tmp_path
) -> None:
    done = cli("predict", job.run, "--input", job.raw, "--out", tmp_path / "s")
    assert done.code == 0, done.err
    [part] = (tmp_path / "s").glob("part-*.parquet")
    expected = bits(pq.read_table(part)["score"].to_numpy())
    assert bits(predictor.score_frame(raw)) == expected
    for frame in (raw, typed(raw), typed(raw).select(reversed(ROW))):
        for content in (
            {"rows": frame.to_dicts()},
            {"columns": frame.to_dict(as_series=False)},
        ):
            answer = post(app, content)
            assert answer.status == 200, answer.json
            assert bits(answer.json["scores"]) == expected
            assert answer.headers["x-run-digest"] == predictor.run.manifest["digest"]
    for frame in (raw, typed(raw)):
        for accept in ("*/*", ARROW["Content-Type"]):
            headers = {**ARROW, "Accept": accept}
            answer = call(app, "POST", "/score", headers=headers, chunks=[stream(frame.to_arrow())])
            assert answer.status == 200
            if accept == "*/*":
                assert bits(answer.json["scores"]) == expected
            else:
                assert answer.headers["content-type"] == accept
                found = pa.ipc.open_stream(answer.body).read_all()
                assert bits(found["score"].to_numpy()) == expected
    data = DataFolder.open(job.data)
    _, scores = score_split(predictor, data, "valid")
    rows = np.concatenate(
        [
            pq.read_table(path, columns=["row_id"])["row_id"].to_numpy()
            for path in sorted((job.data / "valid").glob("part-*.parquet"))
        ]
    )
    assert bits(post(app, {"rows": raw[rows].to_dicts()}).json["scores"]) == bits(scores)


def test_rows_one_by_one_score_as_they_do_together(app, predictor, raw) -> None:
    rows = typed(raw).head(50).to_dicts()
    together = predictor.score_frame(raw.head(50))
    alone = [post(app, {"rows": [row]}).json["scores"][0] for row in rows]
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)


def test_an_id_is_the_same_as_a_number_or_as_text(app) -> None:
    scores = [
        post(app, {"rows": [{**ROW, "visits": visits, "age": age}]}).json["scores"]
        for visits, age in ((5, 30), ("5", "30"), (5.0, 30.0), ("5.0", "3e1"))
    ]
    assert scores == [scores[0]] * 4


def test_no_rows_give_no_scores(app) -> None:
    assert post(app, {"rows": []}).json == {"scores": []}
    assert post(app, {"columns": {name: [] for name in ROW}}).json == {"scores": []}
    empty = pa.table({name: pa.array([], pa.string()) for name in ROW})
    answer = call(app, "POST", "/score", headers=ARROW, chunks=[stream(empty)])
    assert answer.json == {"scores": []}


@pytest.mark.parametrize(
    "cells, told",
    [
        ({"age": "x"}, "row 1: column age: must be a whole number; got 'x'."),
        ({"age": 1.5}, "row 1: column age: must be a whole number; got '1.5'."),
        ({"visits": 2**63}, f"row 1: column visits: must be a whole number; got '{2**63}'."),
        ({"user": ["u1"]}, f"row 1: column user: {CELL}; got a list."),
        ({"usr": "u1"}, f"row 1: column user: {MISSING} Did you mean 'usr'?"),
    ],
)
def test_what_a_column_does_not_allow_is_told_with_row_and_column(app, cells, told) -> None:
    row = {**ROW, **cells}
    if "usr" in cells:
        del row["user"]
    answer = post(app, {"rows": [ROW, row]})
    assert answer.status == 422
    assert answer.json == {"errors": [told], "total": 1}


def test_of_many_problems_the_first_are_told_and_all_are_counted(app) -> None:
    answer = post(app, {"rows": [{**ROW, "age": "x"}] * 1000})
    assert answer.status == 422
    assert len(answer.json["errors"]) == 20
    assert answer.json["total"] == 1000


@pytest.mark.parametrize(
    "headers, told",
    [
        ({}, "must be application/json (UTF-8) or application/vnd.apache.arrow.stream; got none."),
        ({"Content-Type": "text/csv"}, "got 'text/csv'."),
        ({"Content-Type": LATIN}, f"got '{LATIN}'."),
        ({**JSON, "Content-Encoding": "gzip"}, "Content-Encoding: must be identity; got 'gzip'."),
        ({**ARROW, "Content-Encoding": "br, gzip"}, "must be identity; got 'br, gzip'."),
    ],
)
def test_a_body_of_another_kind_is_refused_unread(app, headers, told) -> None:
    bomb = gzip.compress(bytes(1 << 20))
    answer = call(app, "POST", "/score", headers=headers, chunks=[bomb])
    assert answer.status == 415
    assert told in answer.json["errors"][0]


@pytest.mark.parametrize(
    "kind", ["application/json; charset=UTF-8", 'Application/JSON;charset="utf-8"']
)
def test_a_media_type_may_be_written_in_any_way(app, kind: str) -> None:
    body = json.dumps({"rows": [ROW]}).encode()
    answer = call(app, "POST", "/score", headers={"Content-Type": kind}, chunks=[body])
    assert answer.status == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_held(app, scorer) -> None:
    limit = scorer.limits.max_body_bytes
    told = f"body: at most {limit:,} bytes are read."
    headers = {**JSON, "Content-Length": str(limit + 1)}
    taken = []

    def chunks() -> Iterator[bytes]:
        for number in range(10_000):
            taken.append(number)
            yield b" " * (1 << 16)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(endless), "more_body": True}

    endless = chunks()
    for sent in (headers, JSON):  # told, and found out while it is read
        answer = asyncio.run(ask(app, "POST", "/score", headers=sent, receive=receive))
        assert answer.status == 413
        assert answer.json["errors"][0].startswith(told)
        assert len(taken) == (0 if sent is headers else limit // (1 << 16) + 1)
    body = json.dumps({"rows": [ROW]}).encode()
    padded = body + b" " * (limit - len(body))
    assert post(app, padded).status == 200
    assert post(app, padded + b" ").status == 413


def test_too_many_rows_are_refused(app, scorer) -> None:
    told = "body: at most 4,000 rows are scored at once. Send fewer, or serve with --max-rows."
    columns = {name: [None] * 4001 for name in ROW}
    bodies = [(JSON, json.dumps({"columns": columns}).encode())]
    bodies += [(ARROW, stream(pa.table({name: pa.nulls(4001) for name in ROW})))]
    for headers, body in bodies:
        answer = call(app, "POST", "/score", headers=headers, chunks=[body])
        assert (answer.status, answer.json["errors"]) == (413, [told])


def test_a_body_that_does_not_come_is_given_up(app, scorer) -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    answer = asyncio.run(ask(app, "POST", "/score", headers=JSON, receive=receive))
    assert answer.status == 408
    assert answer.headers["connection"] == "close"
    assert answer.json["errors"] == ["body: did not arrive within 0.2 s. Send it faster."]
    assert scorer.open_requests == 0


def test_a_client_that_leaves_takes_its_place_along(app, scorer) -> None:
    assert call(app, "POST", "/score", headers=JSON, chunks=[]).status == 499
    assert scorer.open_requests == 0
    assert post(app, {"rows": [ROW]}).status == 200


@pytest.mark.parametrize(
    "method, path, status, told",
    [
        ("GET", "/scor", 404, "'/scor': there is no such path. Did you mean '/score'?"),
        ("POST", "/score/", 404, "'/score/': there is no such path. Did you mean '/score'?"),
        ("GET", "/docs", 404, "'/docs': there is no such path. Known: /health, /metrics, "),
        ("GET", "/../../etc/passwd", 404, "'/../../etc/passwd': there is no such path. Known: "),
        ("GET", "/score", 405, "/score: GET is not served here. Use POST."),
        ("DELETE", "/health", 405, "/health: DELETE is not served here. Use GET."),
    ],
)
def test_another_path_or_method_is_refused_with_what_there_is(app, method, path, status, told):
    answer = call(app, method, path, headers=JSON)
    assert answer.status == status
    assert answer.json["errors"][0].startswith(told)


def test_health_and_schema_tell_what_is_served(app, predictor) -> None:
    health = call(app, "GET", "/health").json
    assert health["status"] == "ready"
    assert health["run_digest"] == predictor.run.manifest["digest"]
    assert health["weights_digest"] == predictor.run.manifest["weights_digest"]
    assert {"recsys_had", "torch"} <= health["versions"].keys()
    assert health["mode"] == {"precision": "fp32", "tables": "saved", "compile": False}
    schema = call(app, "GET", "/schema").json
    assert schema["card_digest"] == predictor.run.card.digest
    assert [column["name"] for column in schema["columns"]] == list(ROW)
    assert schema["columns"][-1] == {"name": "tags", "kind": "multi_categorical", "separator": ","}
    # What it asks for is what is scored.
    row = dict.fromkeys(column["name"] for column in schema["columns"])
    assert post(app, {"rows": [row]}).status == 200


def test_metrics_count_what_was_answered(app) -> None:
    post(app, {"rows": [{**ROW, "user": "new", "tags": ["t1", "never", "ever"]}, ROW]})
    post(app, {"rows": [{**ROW, "age": "x"}]})
    call(app, "GET", "/nowhere")
    call(app, "GET", "/elsewhere")
    answer = call(app, "GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    _, samples = parse(answer.body.decode())
    requests = "recsys_had_requests_total"
    assert value(samples, requests, path="/score", status="200") == 1
    assert value(samples, requests, path="/score", status="422") == 1
    assert value(samples, requests, path="other", status="404") == 2
    assert value(samples, "recsys_had_rows_total") == 2
    assert value(samples, "recsys_had_unseen_values_total", field="user") == 1
    assert value(samples, "recsys_had_unseen_values_total", field="tags") == 2
    assert value(samples, "recsys_had_unseen_values_total", field="item") == 0
    assert value(samples, "recsys_had_score_seconds_count") == 1
    assert value(samples, "recsys_had_open_requests") == 0


def test_health_is_answered_while_rows_are_scored_and_who_is_too_many_is_sent_away(
    app, scorer, predictor, monkeypatch
) -> None:
    go_on, begun = threading.Event(), threading.Event()
    score_rows = predictor.score_rows

    def slow(rows: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return score_rows(rows, **options)

    monkeypatch.setattr(predictor, "score_rows", slow)
    body = json.dumps({"rows": [ROW]}).encode()

    async def several() -> list[Answer]:
        def score() -> Any:
            return ask(app, "POST", "/score", headers=JSON, receive=body_of([body]))

        first, second = (asyncio.create_task(score()) for _ in range(2))
        await asyncio.to_thread(begun.wait, 30)
        health = await ask(app, "GET", "/health", receive=body_of([b""]))
        third = await score()
        go_on.set()
        return [health, third, await first, await second, await score()]

    health, third, *others = asyncio.run(several())
    assert health.status == 200
    assert third.status == 503
    assert third.headers["retry-after"] == "1"
    assert third.json["errors"] == ["server: has 2 requests to answer already. Try again later."]
    assert [answer.status for answer in others] == [200] * 3


@pytest.mark.parametrize(
    "cause", [RuntimeError("secret"), KeyError("secret"), pl.exceptions.PanicException("secret")]
)
def test_a_bug_is_told_in_the_log_and_not_to_the_client(
    app, predictor, monkeypatch, caplog, cause: BaseException
) -> None:
    def broken(rows: Any, **options: Any) -> Any:
        raise cause

    with monkeypatch.context() as patch:
        patch.setattr(predictor, "score_rows", broken)
        patch.setattr("recsys_had.serving.scorer._log.propagate", True)
        answer = post(app, {"rows": [ROW]})
    assert answer.status == 500
    told = "server: could not score these rows; its log says why."
    assert answer.json == {"errors": [told], "total": 1}
    assert "secret" in caplog.text
    assert post(app, {"rows": [ROW]}).status == 200


def test_no_request_opens_a_file(app, job) -> None:
    """Whatever a body says: texts are values, also where they name files or URLs."""
    opened: list[str] = []
    watching = True

    def watch(event: str, arguments: Any) -> None:
        if watching and event in ("open", "os.listdir", "os.scandir", "socket.connect"):
            opened.append(f"{event} {arguments[0]}")

    sys.addaudithook(watch)  # it stays, and sleeps
    post(app, {"rows": [ROW]})  # what is imported at the first request is
    assert (job.run / "manifest.json").read_text()
    assert opened[-1].endswith("manifest.json")  # the watch sees
    del opened[:]
    for text in (str(job.raw), f"file://{job.raw}", "/etc/passwd", "../x", "s3://bucket/key", "\0"):
        row = {**ROW, "user": text, "item": text, "tags": [text]}
        assert post(app, {"rows": [row]}).status == 200
        table = pa.table({name: [cell] for name, cell in row.items()})
        assert call(app, "POST", "/score", headers=ARROW, chunks=[stream(table)]).status == 200
        post(app, {"rows": [{**row, "age": text}]})
        call(app, "GET", f"/{text}")
    watching = False
    assert opened == []
