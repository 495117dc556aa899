"""Runs named by an MLflow model URI: the same scores as those of the run folder."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from recsys_had.errors import CheckpointError, ConfigError, DataError
from recsys_had.model_uri import _location, local_run
from recsys_had.scoring import BatchPredictor
from tests.pipelines.conftest import Job
from tests.pipelines.test_predict import raw_frame


@dataclass(frozen=True)
class Logged:
    """A run whose model MLflow has, registered as version 1 of `ctr`, alias `champion`."""

    store: str
    run: Path
    run_id: str
    model_id: str


@pytest.fixture(scope="module")
def logged(cli: Callable[..., Any], job: Job, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    folder = tmp_path_factory.mktemp("logged")
    words = ("--data", job.data, "--out", folder / "shop", "train.epochs=1", "--json")
    done = cli("train", job.experiment, *words)
    assert done.code == 0, done.err
    store = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=store)
    run_id = json.loads((folder / "shop" / "manifest.json").read_text())["mlflow_run_id"]
    model_id = client.get_run(run_id).outputs.model_outputs[0].model_id
    mlflow.set_tracking_uri(store)
    try:
        mlflow.register_model(f"models:/{model_id}", "ctr")
    finally:
        mlflow.set_tracking_uri(None)
    client.set_registered_model_alias("ctr", "champion", "1")
    return Logged(store, folder / "shop", run_id, model_id)


@pytest.fixture(autouse=True)
def store(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", logged.store)


def uris(logged: Logged) -> list[str]:
    return [
        "models:/ctr@champion",
        "models:/ctr/1",
        "models:/ctr/latest",
        f"models:/{logged.model_id}",
        f"runs:/{logged.run_id}/model",
    ]


def test_every_way_to_name_a_model_finds_its_run_folder(logged: Logged) -> None:
    wanted = json.loads((logged.run / "manifest.json").read_text())
    for uri in uris(logged):
        found = local_run(uri)
        manifest = json.loads((found / "manifest.json").read_text())
        assert manifest["weights_digest"] == wanted["weights_digest"], uri
        # Files on this machine are read where they lie.
        assert found.is_relative_to(logged.run.parent)


def test_scores_metrics_and_tables_are_those_of_the_run_folder(
    cli: Callable[..., Any], job: Job, logged: Logged, tmp_path: Path
) -> None:
    found = []
    for number, run in enumerate((logged.run, "models:/ctr@champion")):
        out = tmp_path / str(number)
        done = cli("predict", run, "--input", job.raw, "--out", out / "scores", "--json")
        assert done.code == 0, done.err
        metrics = cli("evaluate", run, "--data", job.data, "--json")
        assert metrics.code == 0, metrics.err
        tables = cli("export", run, "--out", out / "tables", "--json")
        assert tables.code == 0, tables.err
        found.append((pd.read_parquet(out / "scores" / "part-00000.parquet"), metrics, tables))
    assert found[0][0].equals(found[1][0])
    assert found[0][1].json == found[1][1].json
    assert found[0][2].json == found[1][2].json


def test_a_version_registered_by_hand_names_the_run(logged: Logged) -> None:
    client = MlflowClient(tracking_uri=logged.store)
    client.create_registered_model("by_hand")
    client.create_model_version("by_hand", f"runs:/{logged.run_id}/model", logged.run_id)
    assert local_run("models:/by_hand/1") == local_run("models:/ctr/1")


def test_a_store_elsewhere_is_downloaded_from(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = local_run("models:/ctr/1").parents[1]
    monkeypatch.setattr("recsys_had.model_uri._location", lambda client, uri: str(remote))
    copy = local_run("models:/ctr/1")
    assert not copy.is_relative_to(remote)
    expected = BatchPredictor.load(remote / "artifacts" / "publish").run.manifest["digest"]
    assert BatchPredictor.load("models:/ctr/1").run.manifest["digest"] == expected


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("models:/crt@champion", "the store has no registered model 'crt'. Did you mean 'ctr'?"),
        ("models:/ctr@champoin", "the model has no alias 'champoin'. Did you mean 'champion'?"),
        ("models:/ctr/7", "the model has no version 7. Known: 1."),
        ("models:/ctr", "is no model URI. Give models:/NAME@ALIAS, models:/NAME/VERSION or "),
        ("runs:/abc/model", "MLflow at sqlite"),
        ("runs:/{run_id}/modle", "the run has no model 'modle'. Did you mean 'model'?"),
        ("models:/m-00000000000000000000000000000000", "MLflow at sqlite"),
    ],
)
def test_an_unknown_model_is_told_in_one_line(
    cli: Callable[..., Any], job: Job, logged: Logged, tmp_path: Path, uri: str, told: str
) -> None:
    uri = uri.format(run_id=logged.run_id)
    done = cli("predict", uri, "--input", job.raw, "--out", tmp_path / "scores")
    assert done.code == 2
    assert done.err.startswith(f"{uri}: {told}")
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "scores").exists()


def test_without_a_store_the_variable_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(CheckpointError, match=r"^models:/ctr/1: is a model in MLflow, and MLFLOW_"):
        local_run("models:/ctr/1")


def test_a_model_that_is_not_ours_is_refused(
    logged: Logged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("recsys_had.model_uri._location", lambda client, uri: tmp_path.as_uri())
    told = r"^models:/ctr/1: is no model that `recsys-had train` logged: its MLmodel names no run"
    for text in (None, "", "flavors: {sklearn: {}}", "a: [", "flavors: {python_function: {}}"):
        if text is not None:
            (tmp_path / "MLmodel").write_text(text)
        with pytest.raises(CheckpointError, match=told):
            local_run("models:/ctr/1")
    path = "flavors: {python_function: {artifacts: {run: {path: ../../etc}}}}"
    (tmp_path / "MLmodel").write_text(path)
    with pytest.raises(CheckpointError, match=r"its MLmodel names a folder outside of it: \.\./"):
        local_run("models:/ctr/1")


def test_a_changed_file_of_a_logged_model_is_refused(
    cli: Callable[..., Any], job: Job, logged: Logged, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    changed = tmp_path / "model"
    shutil.copytree(local_run("models:/ctr/1").parents[1], changed)
    weights = changed / "artifacts" / "publish" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    monkeypatch.setattr("recsys_had.model_uri._location", lambda client, uri: changed.as_uri())
    done = cli("predict", "models:/ctr/1", "--input", job.raw, "--out", tmp_path / "scores")
    assert done.code == 2
    assert "weights.safetensors: was changed after training. Restore it." in done.err


@pytest.mark.parametrize("order", [1, -1])
def test_a_run_names_the_model_that_it_logged_last(
    monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    """A store tells a run's models in the order of their random ids, whenever they were logged."""
    models = {
        name: SimpleNamespace(name="model", creation_timestamp=time, artifact_location=f"at {time}")
        for name, time in [("m-1", 10), ("m-2", 30), ("m-3", 20)][::order]
    }
    held = [SimpleNamespace(model_id=name) for name in models]
    client = SimpleNamespace(
        get_run=lambda run_id: SimpleNamespace(outputs=SimpleNamespace(model_outputs=held)),
        get_logged_model=models.__getitem__,
    )
    assert _location(client, "runs:/ab/model") == "at 30"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mistakes_in_a_frame_are_told_through_mlflow(job: Job, logged: Logged) -> None:
    model = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
    right = raw_frame(job)[:5].drop(columns=["label", "session"])
    expected = BatchPredictor.load(logged.run).score_frame(right)
    for frame in (right, right.assign(label="?", session=[["a"]] * 5, colour=[object()] * 5)):
        assert model.predict(frame)["score"].to_numpy().tolist() == expected.tolist()
    for frame, told in (
        (right.drop(columns="user"), r"column user: is missing\. Known: age, "),
        (right.assign(age="x"), r"row 4: column age: must be a whole number; got 'x'\.$"),
        (right.assign(tags=["t1", ["t2"], "", None, "t3"]), r"row 0: column tags: must be a list"),
        (right.assign(user=[{"a": 1}] * 5), r"column user: must hold text or numbers; got Struct"),
    ):
        with pytest.raises(DataError, match=told):
            model.predict(frame)
    with pytest.raises(ConfigError, match=r"baseline 'mode': is unknown\."):
        model.predict(right, params={"explain": 1, "baseline": "mode"})
    assert len(model.predict(right[:0])) == 0


def everything(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("by", ["uri", "path"])
@pytest.mark.parametrize(
    "command",
    [
        ("calibrate", "--data", "DATA"),
        ("calibrate", "--remove"),
        ("novelty", "--data", "DATA", "--method", "unseen"),
        ("interactions", "--data", "DATA", "--keep-mean", "--rows", "2"),
    ],
)
def test_what_is_logged_stays_as_it_was_logged(
    cli: Callable[..., Any], job: Job, logged: Logged, command: tuple[str, ...], by: str
) -> None:
    """Commands that add to a run are told to be given the run folder, and do no work first."""
    kept = local_run("models:/ctr@champion")
    before = everything(kept.parents[1])
    words = [job.data if word == "DATA" else word for word in command[1:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchPredictor, "logits", None)
        done = cli(command[0], "models:/ctr@champion" if by == "uri" else kept, *words)
    assert done.code == 2
    assert done.err == (
        f"{kept}: is the copy of a run that MLflow keeps as a model, and stays what was logged. "
        "Give the run folder that `recsys-had train` wrote; with what is added to it, it is "
        "logged as a new model.\n"
    )
    assert everything(kept.parents[1]) == before


def test_a_logged_model_is_looked_at_all_the_same(
    cli: Callable[..., Any], job: Job, logged: Logged
) -> None:
    words = ("interactions", "models:/ctr@champion", "--data", job.data, "--rows", 2, "--json")
    done = cli(*words)
    assert done.code == 0, done.err
