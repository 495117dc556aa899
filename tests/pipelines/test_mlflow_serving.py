"""The logged model behind MLflow's own server and in Spark, by the lines of docs/serving.md."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from recsys_had.scoring import BatchPredictor

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"
COLUMNS = ["age", "visits", "user", "item", "tags", "session"]

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Logged:
    """A model in a registry of its own."""

    uri: str
    frame: pd.DataFrame
    bits: list[int]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "MLFLOW_TRACKING_URI": self.uri}


@pytest.fixture(scope="module")
def logged(cli, job, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    run = tmp_path_factory.mktemp("runs") / "shop"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        done = cli("train", job.experiment, "--data", job.data, "--out", run, "--json")
    assert done.code == 0, done.err
    uri = done.json["mlflow_uri"]
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        client = mlflow.MlflowClient()
        found = client.get_run(done.json["mlflow_run_id"])
        [model] = client.search_logged_models([found.info.experiment_id])
        version = mlflow.register_model(model.model_uri, "ctr").version
        client.set_registered_model_alias("ctr", "champion", version)
    finally:
        mlflow.set_tracking_uri(before)
    frame = pd.read_csv(
        job.raw, sep="\t", names=["label", *COLUMNS], dtype=str, keep_default_na=False, nrows=200
    )[COLUMNS]
    scores = BatchPredictor.load(run).score_frame(frame)
    return Logged(uri, frame, scores.view(np.uint32).tolist())


def block_with(text: str, language: str) -> str:
    """The code block of docs/serving.md that holds a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    [found] = [block for block in blocks if text in block]
    return found


@pytest.fixture
def address(logged: Logged, tmp_path: Path) -> Iterator[str]:
    """Where ``mlflow models serve`` answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = block_with("mlflow models serve", "sh").splitlines()
    [line] = [line for line in lines if line.startswith("mlflow models serve")]
    words = shlex.split(line.replace("--port 5000", f"--port {port}"))
    assert str(port) in words
    with (tmp_path / "log").open("w") as log:
        # It starts processes of its own, which must end with it.
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            env=logged.environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while not _answers(f"http://127.0.0.1:{port}/ping"):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def test_mlflow_models_serve_answers_with_the_predictors_scores(
    logged: Logged, address: str
) -> None:
    split = json.loads(logged.frame.to_json(orient="split"))
    records = json.loads(logged.frame.to_json(orient="records"))
    numbers = [{**row, "age": int(row["age"]) if row["age"] else None} for row in records]
    without = [{name: row[name] for name in COLUMNS[:-1]} for row in records]
    bodies: list[dict[str, Any]] = [
        {"dataframe_split": {key: split[key] for key in ("columns", "data")}},
        {"dataframe_records": records},
        {"dataframe_records": numbers},
        {"dataframe_records": without},
        {"inputs": records},
    ]
    for body in bodies:
        request = urllib.request.Request(
            address, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as answer:
                predictions = json.load(answer)["predictions"]
        except urllib.error.HTTPError as refused:
            pytest.fail(f"{[*body]}: {refused.read().decode()[-2000:]}")
        scores = np.array([row["score"] for row in predictions]).astype(np.float32)
        assert scores.view(np.uint32).tolist() == logged.bits, list(body)
    asked = {"dataframe_records": records[:5], "params": {"explain": 1, "novelty": "last"}}
    request = urllib.request.Request(
        address, json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        for row in json.load(answer)["predictions"]:
            [effect] = row["explanation"]
            assert set(effect) == {"fields", "effect"} and isinstance(row["novelty"], float)


def test_a_spark_udf_gives_the_predictors_scores(logged: Logged, tmp_path: Path) -> None:
    pytest.importorskip(
        "pyspark", reason="pyspark is not installed: the model is not tried in Spark"
    )
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Java is not installed: the model is not tried in Spark")
    rows = tmp_path / "rows.json"
    logged.frame.to_json(rows, orient="records", lines=True)
    script = tmp_path / "score.py"
    script.write_text(
        "import json, sys\n"
        "from pyspark.sql import SparkSession\n"
        "spark = SparkSession.builder.master('local[1]').config('spark.ui.enabled', False)\n"
        "spark = spark.getOrCreate()\n"
        f"schema = {', '.join(f'{name} string' for name in COLUMNS)!r}\n"
        f"rows = spark.read.schema(schema).json({str(rows)!r})\n"
        + block_with("spark_udf", "python").replace("sqlite:///runs/mlflow.db", logged.uri)
        + "found = [row.score for row in scored.select('score').collect()]\n"
        f"json.dump(found, open({str(tmp_path / 'scores.json')!r}, 'w'))\n"
        "spark.stop()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        env={**logged.environment, "PYSPARK_PYTHON": sys.executable},
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    scores = np.array(json.loads((tmp_path / "scores.json").read_text()), np.float32)
    assert scores.view(np.uint32).tolist() == logged.bits
