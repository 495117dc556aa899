"""``recsys-had serve`` as a process of its own: where it listens, what it endures, how it ends."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys_had.scoring import BatchPredictor, Mode
from tests.serving.mutations import mutated_requests, plain_rows
from tests.serving.prometheus import parse, value

JSON = {"Content-Type": "application/json"}
NAMES = ["age", "visits", "user", "item", "tags"]
ROWS = [
    {"age": 30, "visits": 5, "user": "u1", "item": "i1", "tags": ["t1", "t2"]},
    {"age": None, "visits": -1, "user": "u2", "item": "i7", "tags": []},
    {"age": 71, "visits": 39, "user": "u19", "item": "new", "tags": ["t5"]},
]


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    process: subprocess.Popen[str]
    ready: Any

    def connection(self) -> http.client.HTTPConnection:
        """A connection of its own."""
        return http.client.HTTPConnection("127.0.0.1", self.ready["port"], timeout=60)

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of the answer to a request."""
        with closing(self.connection()) as connection:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def scores(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """Scores of rows that are right."""
        status, body = self.ask("POST", "/score", json.dumps({"rows": rows}).encode(), JSON)
        assert status == 200, body
        return np.array(json.loads(body)["scores"], np.float32)


@contextmanager
def served(run: Path, log: Path, *words: str) -> Iterator[Server]:
    with log.open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "recsys_had.pipelines.cli", "serve", str(run),
             "--port", "0", "--json", *words],
            stdout=subprocess.PIPE, stderr=err, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, log.read_text()
        yield Server(process, json.loads(line))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def server(job, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("serve") / "log"
    with served(job.run, log, "--max-body-bytes", "1000000", "--max-rows", "5000") as found:
        yield found
        assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def predictor(job) -> BatchPredictor:
    return BatchPredictor.load(job.run)


def scored(predictor: BatchPredictor, rows: list[dict[str, Any]]) -> np.ndarray:
    return predictor.score_frame(pl.DataFrame(rows, infer_schema_length=None))


def test_it_tells_where_it_listens_and_scores_as_the_predictor_does(server, predictor) -> None:
    assert server.ready["host"] == "127.0.0.1"
    assert server.ready["score_error"] is None
    assert server.ready["url"] == f"http://127.0.0.1:{server.ready['port']}"
    status, health = server.ask("GET", "/health")
    assert status == 200
    assert json.loads(health)["run_digest"] == server.ready["run_digest"]
    np.testing.assert_array_equal(server.scores(ROWS), scored(predictor, ROWS))


def test_a_mode_is_told_with_its_error_and_scores_as_the_predictors_in_it(
    job, tmp_path: Path
) -> None:
    words = ("--precision", "bf16", "--tables", "int8")
    mode = {"precision": "bf16", "tables": "int8", "compile": False}
    with served(job.run, tmp_path / "log", *words) as server:
        assert server.ready["mode"] == mode
        error = server.ready["score_error"]
        assert error["rows"] == 4096 and 0 < error["largest_score_difference"] < 0.05
        assert json.loads(server.ask("GET", "/health")[1])["mode"] == mode
        found = server.scores(ROWS)
    expected = scored(BatchPredictor.load(job.run, mode=Mode("bf16", "int8")), ROWS)
    np.testing.assert_array_equal(found, expected)
    assert (found != scored(BatchPredictor.load(job.run), ROWS)).any()


def check_errors(content: Any) -> None:
    assert content.keys() == {"errors", "total"}
    assert 0 < len(content["errors"]) <= min(20, content["total"])
    for line in content["errors"]:
        # Place, what is wrong: as all errors of this house.
        assert ": " in line
        assert len(line) < 1000
        assert "Traceback" not in line and 'File "' not in line


def test_300_mutated_requests_are_refused_or_right_and_the_server_stays(server, predictor) -> None:
    statuses: Counter[int] = Counter()
    with closing(server.connection()) as connection:
        for request in mutated_requests(ROWS, number=300, seed=20):
            connection.request("POST", "/score", request.body, request.headers)
            answer = connection.getresponse()
            content = json.loads(answer.read())
            statuses[answer.status] += 1
            if answer.status == 200:
                expected = predictor.score_frame(plain_rows(request, NAMES))
                found = np.array(content["scores"], np.float32)
                np.testing.assert_array_equal(found, expected, request.told)
            else:
                assert answer.status in (400, 413, 415, 422), (request, content)
                check_errors(content)
    assert sum(statuses.values()) == 300
    assert statuses[200] >= 30 and statuses[400] >= 60 and statuses[422] >= 40, statuses
    np.testing.assert_array_equal(server.scores(ROWS), scored(predictor, ROWS))
    assert server.process.poll() is None


POST = b"POST /score HTTP/1.1\r\nHost: a\r\n"
OF_JSON = POST + b"Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    "sent, status",
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b" 400 "),
        (POST + b"Content-Length: x\r\n\r\n", b" 400 "),
        (POST + b"Content-Length: -1\r\n\r\n", b" 400 "),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", b" 400 "),
        (OF_JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b""),
        (OF_JSON + b"Content-Length: 9\r\n\r\n{", b""),
        (OF_JSON + b"Content-Length: 999999\r\nExpect: 100-continue\r\n\r\n", b" 100 "),
        (OF_JSON + b"Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n", b" 413 "),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b""),
        (b"GET /health HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", b""),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", b" 404 "),
    ],
)
def test_what_is_no_request_is_refused_and_the_server_stays(server, sent, status) -> None:
    with socket.create_connection(("127.0.0.1", server.ready["port"]), timeout=60) as connection:
        connection.sendall(sent)
        if status:
            assert status in connection.recv(1000)
    assert len(server.scores(ROWS)) == 3


def test_a_body_that_is_too_large_is_answered_although_all_of_it_is_sent(server) -> None:
    body = b" " * 1_000_001
    assert server.ask("POST", "/score", body, JSON)[0] == 413
    chunked = (b" " * 100_000 for _ in range(50))
    with closing(server.connection()) as connection:
        connection.request("POST", "/score", chunked, JSON, encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.loads(answer.read())["errors"][0].startswith("body: at most 1,000,000 bytes")


def test_a_head_that_does_not_come_to_an_end_is_waited_for_so_long_and_no_longer(
    job, predictor, tmp_path
) -> None:
    expected = scored(predictor, ROWS)
    with served(job.run, tmp_path / "log", "--body-timeout", "1.5") as server:
        address = ("127.0.0.1", server.ready["port"])
        with (
            closing(server.connection()) as kept,
            socket.create_connection(address, timeout=60) as silent,
            socket.create_connection(address, timeout=60) as dripping,
        ):
            begin = time.monotonic()
            dripping.sendall(b"GET /health HTTP/1.1\r\n")
            is_open = True
            while is_open:
                # Requests of another connection, whole each, for longer than a head may take.
                kept.request("POST", "/score", json.dumps({"rows": ROWS}), JSON)
                found = json.loads(kept.getresponse().read())["scores"]
                np.testing.assert_array_equal(np.array(found, np.float32), expected)
                assert time.monotonic() < begin + 60
                time.sleep(0.05)
                try:
                    dripping.sendall(b"a: b\r\n")
                except ConnectionError:
                    is_open = False
            assert 1 < time.monotonic() - begin < 30
            assert silent.recv(1) == b""
            kept.request("GET", "/health")
            assert kept.getresponse().status == 200


def test_what_drips_on_after_its_answer_is_waited_for_so_long_and_no_longer(job, tmp_path) -> None:
    with served(job.run, tmp_path / "log", "--body-timeout", "1") as server:
        address = ("127.0.0.1", server.ready["port"])
        with socket.create_connection(address, timeout=60) as dripping:
            begin = time.monotonic()
            dripping.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
            assert b" 200 " in dripping.recv(1000)
            with pytest.raises(ConnectionError):
                while time.monotonic() < begin + 60:
                    dripping.sendall(b" ")
                    time.sleep(0.05)
        # Uvicorn's own limit of five seconds holds between requests.
        with closing(server.connection()) as kept:
            for pause in (2, 0):
                kept.request("GET", "/health")
                assert kept.getresponse().read()
                time.sleep(pause)


def test_it_ends_when_it_is_told_and_answers_what_it_has_begun(job, predictor, tmp_path) -> None:
    body = json.dumps({"rows": ROWS}).encode()
    with served(job.run, tmp_path / "log") as server:
        address = ("127.0.0.1", server.ready["port"])
        with socket.create_connection(address, timeout=60) as connection:
            head = OF_JSON + f"Content-Length: {len(body)}\r\n\r\n".encode()
            connection.sendall(head + body[:20])
            while value(_metrics(server), "recsys_had_open_requests") != 1:
                assert server.process.poll() is None
            os.kill(server.process.pid, signal.SIGTERM)
            _wait_until_refused(address)
            assert server.process.poll() is None
            connection.sendall(body[20:])
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200
            found = np.array(json.loads(answer.read())["scores"], np.float32)
        np.testing.assert_array_equal(found, scored(predictor, ROWS))
        assert server.process.wait(60) == 143
        assert server.process.stdout.read() == ""
    assert (tmp_path / "log").read_text() == ""


@pytest.mark.slow
def test_ctrl_c_ends_it_and_says_so(job, tmp_path) -> None:
    with served(job.run, tmp_path / "log", "--host", "::1") as server:
        assert server.ready["url"] == f"http://[::1]:{server.ready['port']}"
        os.kill(server.process.pid, signal.SIGINT)
        assert server.process.wait(60) == 130
    assert (tmp_path / "log").read_text() == "interrupted.\n"


def _metrics(server: Server) -> Any:
    return parse(server.ask("GET", "/metrics")[1].decode())[1]


def _wait_until_refused(address: tuple[str, int]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(address, timeout=60).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            # It came while the listening socket was being closed: the next one is refused.
            continue
    raise AssertionError("it listens still")


def test_a_port_that_is_taken_is_told_in_one_line_before_anything_is_loaded(cli, job) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli("serve", "nowhere", "--port", port)
    assert done.code == 2
    told = "is in use at 127.0.0.1. Give another, or 0 for any that is free."
    assert done.err == f"--port {port}: {told}\n"
    assert done.out == ""


def test_an_address_of_another_machine_is_refused(cli, job) -> None:
    done = cli("serve", job.run, "--host", "203.0.113.7", "--port", 0)
    assert (done.code, done.err) == (2, "--host 203.0.113.7: is no address of this machine.\n")
    done = cli("serve", job.run, "--host", "a..b", "--port", 0)
    assert done.code == 2
    assert done.err.startswith("--host a..b: is no address of this machine: ")


def test_what_is_no_run_is_told_and_nothing_listens(cli, tmp_path: Path) -> None:
    done = cli("serve", tmp_path, "--port", 0, "--json")
    assert done.code == 2
    assert done.err.startswith(f"{tmp_path}: is not a run folder: ")
    assert done.out == ""


@pytest.mark.parametrize("name", ["fastapi", "uvicorn"])
def test_a_package_that_is_not_there_is_told_in_one_line(cli, job, monkeypatch, name: str) -> None:
    for module in [*sys.modules]:
        if module.startswith("recsys_had.serving"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    done = cli("serve", job.run, "--port", 0)
    told = f"serve: {name} is not installed. Run `pip install 'recsys_had[serve]'`.\n"
    assert (done.code, done.err) == (2, told)
