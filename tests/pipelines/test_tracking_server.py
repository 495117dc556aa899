"""Training tracked on an MLflow server, as a team runs one."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from recsys_had.model_uri import local_run
from recsys_had.run_folder import RunFolder


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server on this machine."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", "sqlite:///store.db", "--artifacts-destination", "files"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
        # Its workers are of its own session.
        os.killpg(process.pid, 15)
        process.wait(60)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def train(job, out: Path, uri: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: what libraries print there would be seen here."""
    words = ["train", str(job.experiment), "--data", str(job.data), "--out", str(out), "--json"]
    return subprocess.run(
        [sys.executable, "-m", "recsys_had.pipelines.cli", *words],
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_server_holds_the_whole_run_and_stdout_is_json_alone(
    job, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train(job, tmp_path / "run", server)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["mlflow_uri"] == server
    assert found["mlflow_error"] is None
    client = MlflowClient(tracking_uri=server)
    run = client.get_run(found["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["run_folder"] == str((tmp_path / "run").resolve())
    assert run.data.metrics["final_valid_auc"] == pytest.approx(found["valid"]["auc"])
    names = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert {"experiment.yaml", "manifest.json", "metrics.json", "plots"} <= names
    models = client.search_logged_models(experiment_ids=[run.info.experiment_id])
    assert [model.source_run_id for model in models] == [run.info.run_id]
    assert not (tmp_path / "mlflow.db").exists()
    # The files are behind the server: the run folder is downloaded, and is whole.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    copy = RunFolder.open(local_run(f"runs:/{run.info.run_id}/model"))
    assert not copy.path.is_relative_to(tmp_path)
    assert copy.manifest["weights_digest"] == found["weights_digest"]


def test_a_server_that_does_not_answer_is_told_and_nothing_is_left(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://127.0.0.1:{free_port()}"
    done = train(job, tmp_path / "run", uri)
    assert done.returncode == 2
    assert done.stderr.startswith(f"MLflow at {uri}: cannot be used. ")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
