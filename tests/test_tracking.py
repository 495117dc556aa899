"""Runs in MLflow: what is recorded, where, and what happens when a run breaks."""

import json
import logging
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from recsys_had.errors import ConfigError
from recsys_had.schema import DatasetCard
from recsys_had.tracking import MlflowTracker, NullTracker, model_signature, start_tracker


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs whose database is made once: the first connection takes seconds."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def start(store: Path, **options: Any) -> MlflowTracker:
    tracker = start_tracker(
        enabled=True, out=store / "run", experiment_name="shop", run_name="fm", **options
    )
    assert isinstance(tracker, MlflowTracker)
    return tracker


def read(tracker: MlflowTracker) -> Any:
    return MlflowClient(tracking_uri=tracker.uri).get_run(tracker.run_id)


def test_the_default_store_lies_beside_the_run_folders(store: Path) -> None:
    tracker = start(store)
    assert tracker.uri == f"sqlite:///{store / 'mlflow.db'}"
    assert (store / "mlflow.db").is_file()
    assert read(tracker).info.artifact_uri.startswith((store / "mlartifacts").as_uri())
    tracker.close("FINISHED")


def test_the_usual_variable_names_another_store(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{store / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = start_tracker(
        enabled=True, out=Path("elsewhere/run"), experiment_name="shop", run_name="fm"
    )
    assert tracker.uri == uri
    tracker.close("FINISHED")


def test_settings_tags_and_every_step_are_recorded(store: Path) -> None:
    tracker = start(store)
    tracker.log_params({f"key{number}": str(number) for number in range(250)})
    tracker.log_params({"long": "x" * 9000})
    tracker.set_tags({"git_commit": "abc", "world_size": "1"})
    for step in range(1200):
        tracker.log_metrics({"train_loss": step / 2}, step)
    tracker.close("FINISHED")
    run = read(tracker)
    assert run.data.params["key249"] == "249"
    assert len(run.data.params["long"]) == 6000
    assert run.data.tags["git_commit"] == "abc"
    assert run.info.status == "FINISHED"
    history = MlflowClient(tracking_uri=tracker.uri).get_metric_history(
        tracker.run_id, "train_loss"
    )
    assert sorted((point.step, point.value) for point in history) == [
        (step, step / 2) for step in range(1200)
    ]


def test_metrics_that_wait_are_written_when_a_run_breaks(store: Path) -> None:
    tracker = start(store)
    tracker.log_metrics({"train_loss": 1.5}, 1)
    assert "train_loss" not in read(tracker).data.metrics
    tracker.close("FAILED")
    run = read(tracker)
    assert run.data.metrics["train_loss"] == 1.5
    assert run.info.status == "FAILED"


def test_a_resumed_run_goes_on_under_its_own_id(store: Path) -> None:
    first = start(store)
    first.log_metrics({"train_loss": 2.0}, 1)
    first.close("KILLED")
    second = start(store, resume_run_id=first.run_id)
    assert second.run_id == first.run_id
    assert read(second).info.status == "RUNNING"
    second.log_metrics({"train_loss": 1.0}, 2)
    second.close("FINISHED")
    assert read(second).data.metrics["train_loss"] == 1.0


def test_the_data_is_an_input_of_the_run_with_its_digests(
    store: Path, small_card: DatasetCard
) -> None:
    tracker = start(store)
    manifest = {
        "vocabulary_digest": "ab" * 32,
        "card_digest": small_card.digest,
        "rows": {"train": 8, "valid": 2},
    }
    tracker.log_dataset(small_card, manifest, store / "data")
    tracker.close("FINISHED")
    found = read(tracker).inputs.dataset_inputs[0]
    assert found.dataset.name == "small"
    assert found.dataset.digest == ("ab" * 32)[:36]
    assert json.loads(found.dataset.profile) == {"rows": {"train": 8, "valid": 2}}
    assert json.loads(found.dataset.schema)["fields"] == ["A", "B", "tags"]
    tags = {tag.key: tag.value for tag in found.tags}
    assert tags["card_digest"] == small_card.digest
    assert tags["vocabulary_digest"] == "ab" * 32


def test_the_signature_names_the_raw_columns_and_takes_any_frame(small_card: DatasetCard) -> None:
    signature = model_signature(small_card)
    assert signature.inputs.input_names() == ["A", "B", "tags", "price"]
    assert signature.outputs.input_names() == ["score"]
    for frame in (
        pd.DataFrame({"A": [1, 2], "B": ["x", None], "price": [0.5, None]}),
        pd.DataFrame({"A": ["1", "2"], "tags": ["a|b", ""], "price": ["0.5", None]}),
        pd.DataFrame({"A": [1.0, None]}),
    ):
        mlflow.models.utils._enforce_schema(frame, signature.inputs)


def test_a_store_that_cannot_be_used_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for uri in ("bogus://x", f"sqlite:///{tmp_path}/file/store.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(ConfigError) as told:
            start_tracker(enabled=True, out=tmp_path, experiment_name="shop", run_name="fm")
        assert len(told.value.problems) == 1
        assert "\n" not in str(told.value)
        assert str(told.value).startswith(f"MLflow at {uri}: cannot be used. ")
        assert str(told.value).endswith("or add --no-tracking.")


def test_a_store_that_fails_later_is_told_once_and_not_tried_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = start(store)
    assert tracker.error is None
    calls = []

    def gone(*arguments: object, **options: object) -> None:
        calls.append(arguments)
        raise ConnectionError("the server went away\nlong story")

    monkeypatch.setattr(MlflowClient, "log_batch", gone)
    told: list[str] = []
    logger = logging.getLogger("recsys_had")
    monkeypatch.setattr(logger, "warning", lambda text, *values: told.append(text % values))
    for step in range(5):
        tracker.log_metrics({"train_loss": 1.0}, step)
        tracker.flush()
    tracker.log_run_folder(store / "nowhere", None)  # type: ignore[arg-type]
    tracker.close("FINISHED")
    assert len(calls) == 1
    assert tracker.error == "the server went away."
    assert told == [
        f"MLflow at {tracker.uri}: the server went away. Nothing more is recorded; "
        "the run folder is not affected."
    ]


def test_without_tracking_nothing_is_written(tmp_path: Path) -> None:
    tracker = start_tracker(
        enabled=False, out=tmp_path / "run", experiment_name="shop", run_name="fm"
    )
    assert isinstance(tracker, NullTracker)
    tracker.log_params({"a": "b"})
    tracker.log_metrics({"a": 1.0}, 1)
    tracker.close("FINISHED")
    assert tracker.run_id is None
    assert not list(tmp_path.iterdir())
