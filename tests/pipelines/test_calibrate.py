"""``recsys-had calibrate``: from a trained run to calibrated scores, the same by every way."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import polars as pl
import pytest
from mlflow import MlflowClient

from recsys_had.calibration import METHODS, Calibrator, fit_calibrator, parse_calibrator
from recsys_had.calibration.maps import PlattMap
from recsys_had.data.folder import DataFolder
from recsys_had.errors import CheckpointError, ConfigError
from recsys_had.run_folder import RunFolder
from recsys_had.scoring import BatchPredictor
from recsys_had.scoring.splits import score_split, split_logits
from tests.pipelines.conftest import Job

COLUMNS = ["label", "age", "visits", "user", "item", "tags", "session"]
Cli = Callable[..., Any]


@pytest.fixture
def run(job: Job, tmp_path: Path) -> Path:
    shutil.copytree(job.run, tmp_path / "run")
    return tmp_path / "run"


def calibrated(cli: Cli, run: Path, job: Job, *words: object) -> Any:
    done = cli("calibrate", run, "--data", job.data, "--json", *words)
    assert done.code == 0, done.err
    return done.json


def scores_in(folder: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    return pl.read_parquet(folder / "part-*.parquet").sort("row_id")["score"].to_numpy()


def frame_of(job: Job) -> pd.DataFrame:
    return pd.read_csv(job.raw, sep="\t", names=COLUMNS, dtype=str, keep_default_na=False)


@pytest.mark.parametrize("words", [("--method", method) for method in METHODS])
def test_a_calibrated_run_scores_alike_by_every_way(
    cli: Cli, run: Path, job: Job, tmp_path: Path, words: tuple[str, ...]
) -> None:
    before = cli("evaluate", run, "--data", job.data, "--json").json
    calibrated(cli, run, job, *words)
    done = cli("predict", run, "--input", job.raw, "--out", tmp_path / "s", "--json")
    assert done.json["calibrated"] is True
    assert json.loads((tmp_path / "s" / "manifest.json").read_text())["calibrated"] is True
    scores = scores_in(tmp_path / "s")
    predictor = BatchPredictor.load(run)
    framed = predictor.score_frame(frame_of(job))
    np.testing.assert_array_equal(framed, scores)
    found = cli("evaluate", run, "--data", job.data, "--json").json
    rows = pl.read_parquet(job.data / "test" / "part-*.parquet")
    label, chosen = rows["label"].to_numpy(), scores[rows["row_id"].to_numpy()]
    assert found["calibrated"] is True
    assert found["calibration"] == pytest.approx(chosen.mean() / label.mean(), abs=1e-6)
    assert found["logloss"] != before["logloss"]
    if words[1] != "isotonic":
        assert found["auc"] == pytest.approx(before["auc"], abs=1e-6)
    plain = cli("evaluate", run, "--data", job.data, "--json", "--no-calibration").json
    assert plain == before
    assert plain["calibrated"] is False


def test_the_calibrator_is_fitted_on_the_validation_rows(cli: Cli, run: Path, job: Job) -> None:
    told = calibrated(cli, run, job, "--method", "platt")
    predictor = BatchPredictor.load(run, calibrate=False)
    label, logits, _ = split_logits(predictor, DataFolder.open(job.data), "valid")
    text = RunFolder.open(run).addition("calibrator")
    assert text is not None
    found = parse_calibrator(text, place="run")
    assert found.whole == fit_calibrator(label, logits, method="platt").whole
    assert found.fitted_on["split"] == "valid"
    assert found.fitted_on["rows"] == told["rows"] == len(label)
    assert set(told["before"]) == set(told["after"])
    # A mean score that Platt's map makes equals the rate of clicks, but for his targets.
    valid = cli("evaluate", run, "--data", job.data, "--split", "valid", "--json").json
    assert valid["calibration"] == pytest.approx(1.0, abs=0.02)


def test_a_segments_rows_have_its_map(cli: Cli, run: Path, job: Job, tmp_path: Path) -> None:
    told = calibrated(cli, run, job, "--segment", "user", "--method", "platt")
    assert (told["segment"], told["segments"], told["segment_rows"]) == ("user", 0, 0)
    # The fewest rows it takes, of the largest split there is.
    data = DataFolder.open(job.data)
    plain = BatchPredictor.load(run)
    label, logits, ids = split_logits(plain, data, "train", segment="item")
    assert ids is not None
    fitted = fit_calibrator(
        label, logits, method="platt", field="item", segments=ids, min_segment_rows=200
    )
    assert 1 < len(fitted.segments) < len(np.unique(ids))
    RunFolder.open(run).add("calibrator", fitted.to_text())
    predictor = BatchPredictor.load(run)
    _, scores = score_split(predictor, data, "train")
    np.testing.assert_array_equal(scores, fitted(logits.astype(np.float64), ids).astype(np.float32))
    assert cli("predict", run, "--input", job.raw, "--out", tmp_path / "s").code == 0
    rows = pl.read_parquet(job.data / "train" / "part-*.parquet")["row_id"].to_numpy()
    predicted = scores_in(tmp_path / "s")
    np.testing.assert_allclose(predicted[rows], scores, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(predictor.score_frame(frame_of(job)), predicted)


def test_a_segment_that_is_no_field_of_one_value_is_refused(cli: Cli, run: Path, job: Job) -> None:
    for name, told in (
        ("users", "segment users: is no field of card 'shop'. Did you mean 'user'?"),
        ("age", "segment age: is no field of card 'shop'."),
        ("tags", "segment tags: holds several values a row. Name a field of one value: "),
    ):
        done = cli("calibrate", run, "--data", job.data, "--segment", name)
        assert done.code == 2
        assert told in done.err
    assert RunFolder.open(run).addition("calibrator") is None


def test_it_is_drawn_told_and_taken_away(cli: Cli, run: Path, job: Job, tmp_path: Path) -> None:
    before = RunFolder.open(run).manifest
    files = {path.name for path in run.iterdir()}
    plot = tmp_path / "reliability.png"
    done = cli("calibrate", run, "--data", job.data, "--plot", plot)
    assert done.code == 0, done.err
    assert "before       after" in done.out
    assert f"reliability diagram: {plot}" in done.out
    assert plot.read_bytes()[1:4] == b"PNG"
    assert RunFolder.open(run).manifest["weights_digest"] == before["weights_digest"]
    done = cli("calibrate", run, "--remove", "--json")
    assert done.json["removed"] is True
    after = RunFolder.open(run).manifest
    assert after["files"] == before["files"]
    assert {path.name for path in run.iterdir()} == files
    assert cli("calibrate", run, "--remove").out == f"there was no calibrator: {run}\n"
    assert "Missing option '--data'" in cli("calibrate", run).err


def test_what_cannot_be_used_is_told_and_adds_nothing(
    cli: Cli, run: Path, job: Job, later: Path, tmp_path: Path
) -> None:
    for words, told in (
        (("--data", job.data, "--split", "train"), "the model has seen these labels"),
        (("--data", job.data, "--split", "vlid"), "has no row in split 'vlid'."),
        (("--data", later), "was encoded with another vocabulary"),
        (("--data", job.data, "--plot", tmp_path / "no" / "r.png"), "its folder is not there"),
        (("--data", job.data, "--method", "spline"), "Invalid value for '--method'"),
    ):
        done = cli("calibrate", run, *words)
        assert done.code == 2, done.err
        assert told in done.err
        assert "Traceback" not in done.err
    assert RunFolder.open(run).addition("calibrator") is None


def test_a_damaged_calibrator_is_refused(cli: Cli, run: Path, job: Job, tmp_path: Path) -> None:
    folder = RunFolder.open(run).add("calibrator", '{"whole": {"method": "platt"}}')
    words = ("--input", job.raw, "--out", tmp_path / "s")
    done = cli("predict", run, *words)
    assert done.code == 2
    assert f"{run}/calibrator: whole.platt.slope: is not usable: Field required." in done.err
    assert not (tmp_path / "s").exists()
    # It can be scored without, and mended.
    assert cli("predict", run, *words, "--no-calibration").code == 0
    calibrated(cli, run, job)
    assert BatchPredictor.load(run).calibrated
    missing = Calibrator(whole=PlattMap(slope=1.0, intercept=0.0), field="gone")
    folder.add("calibrator", missing.to_text())
    with pytest.raises(Exception, match=r"segment gone: is no field of card 'shop'"):
        BatchPredictor.load(run)
    (run / RunFolder.open(run).manifest["additions"]["calibrator"]).write_text("{}")
    with pytest.raises(CheckpointError, match=r"was changed after training"):
        BatchPredictor.load(run)


def test_a_prediction_is_not_gone_on_with_otherwise_calibrated(
    cli: Cli, run: Path, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: BatchPredictor, rows: object, **options: object) -> None:
        raise KeyboardInterrupt

    calibrated(cli, run, job)
    words = ("predict", run, "--input", job.raw, "--out", tmp_path / "s")
    with monkeypatch.context() as patch:
        patch.setattr(BatchPredictor, "score_rows", interrupt)
        assert cli(*words).code == 130
    assert cli(*words, "--resume", "--no-calibration").code == 2
    assert cli(*words, "--resume").code == 0


def test_an_experiment_may_ask_for_it(cli: Cli, job: Job, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("--data", job.data, "--out", run, "--no-tracking", "--json")
    done = cli("train", job.experiment, "train.calibration=platt", *words)
    assert done.code == 0, done.err
    assert done.json["weights_digest"] == job.trained["weights_digest"]
    for split in ("valid", "test"):
        found = cli("evaluate", run, "--data", job.data, "--split", split, "--json").json
        assert found == pytest.approx({**done.json[split], "calibrated": True}, abs=1e-6)
    plain = cli("evaluate", run, "--data", job.data, "--json", "--no-calibration").json
    assert plain == pytest.approx({**job.trained["test"], "calibrated": False}, abs=1e-6)
    text = RunFolder.open(run).addition("calibrator")
    assert text is not None
    afterwards = tmp_path / "afterwards"
    shutil.copytree(job.run, afterwards)
    calibrated(cli, afterwards, job, "--method", "platt")
    other = RunFolder.open(afterwards).addition("calibrator")
    assert other is not None
    one, two = (parse_calibrator(each, place="run") for each in (text, other))
    assert (one.fitted_on["rows"], one.fitted_on["split"]) == (two.fitted_on["rows"], "valid")
    asked = np.linspace(-5, 5, 21)
    assert one(asked) == pytest.approx(two(asked), rel=1e-6)


def test_a_training_that_could_not_be_calibrated_does_not_begin(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    lines = job.raw.read_text().splitlines()
    (tmp_path / "valid.tsv").write_text("\n".join(lines[:60]) + "\n")
    words = ("--raw", f"train={job.raw}", f"valid={tmp_path / 'valid.tsv'}")
    assert cli("ingest", job.card, *words, "--out", tmp_path / "data").code == 0
    words = ("--data", tmp_path / "data", "--out", tmp_path / "run", "--no-tracking")
    done = cli("train", job.experiment, "train.calibration=platt", *words)
    assert done.code == 2
    told = f"train.calibration: {tmp_path / 'data'}/valid: calibration needs 100 rows that count"
    assert told in done.err
    assert not (tmp_path / "run").exists()


def test_with_a_tenth_of_the_negatives_the_corrected_mean_is_the_true_rate(
    cli: Cli, tmp_path: Path
) -> None:
    """Clicks of two fields whose effects add up, so that the model can be right: within 2 %."""
    generator = np.random.default_rng(11)
    users, items = (generator.integers(0, size, 150_000) for size in (12, 8))
    effects = generator.normal(0, 0.7, 12), generator.normal(0, 0.7, 8)
    rate = 1 / (1 + np.exp(2.0 - effects[0][users] - effects[1][items]))
    label = (generator.random(150_000) < rate).astype(int)
    frame = {"label": label, "user": users, "item": items, "key": np.arange(150_000)}
    pl.DataFrame(frame).write_csv(tmp_path / "raw.csv")
    (tmp_path / "card.yaml").write_text(
        "name: tenth\nformat: {type: csv}\n"
        "columns: {label: {kind: label}, user: {kind: categorical}, item: {kind: categorical}, "
        "key: {kind: id}}\n"
        "split: {by: content_hash, ratios: {train: 0.9, valid: 0.1}}\nsampling: {negatives: 0.1}\n"
    )
    (tmp_path / "lr.yaml").write_text(
        "dataset: card.yaml\nmodel: {nodes: [linear]}\n"
        "train: {epochs: 8, batch_size: 512, learning_rate: 0.05, embedding_learning_rate: 0.3,"
        " embedding_optimizer: adagrad, schedule: linear, monitor: logloss}\n"
    )
    raw, data, run = tmp_path / "raw.csv", tmp_path / "data", tmp_path / "run"
    assert cli("ingest", tmp_path / "card.yaml", "--raw", raw, "--out", data).code == 0
    done = cli("train", tmp_path / "lr.yaml", "--data", data, "--out", run, "--no-tracking")
    assert done.code == 0, done.err
    rows = pl.read_parquet(data / "valid" / "part-*.parquet")["row_id"].to_numpy()
    predictor = BatchPredictor.load(run)
    _, logits, _ = split_logits(predictor, DataFolder.open(data), "valid")
    _, scores = score_split(predictor, DataFolder.open(data), "valid")
    assert scores.mean() == pytest.approx(rate[rows].mean(), rel=0.02)
    assert (1 / (1 + np.exp(-logits))).mean() > 2.5 * rate[rows].mean()
    # A calibrator is fitted after the correction, so its own mean is that of the labels.
    calibrated(cli, run, Job(tmp_path, raw, raw, raw, data, run, None, None), "--method", "platt")
    after = BatchPredictor.load(run).to_scores(logits)
    assert after.mean() == pytest.approx(label[rows].mean(), rel=0.002)


def test_mlflow_has_the_figures_and_a_calibrated_model(
    cli: Cli, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tmp_path / "runs" / "shop"
    trained = cli("train", job.experiment, "--data", job.data, "--out", run, "--json").json
    client = MlflowClient(tracking_uri=trained["mlflow_uri"])
    ended = client.get_run(trained["mlflow_run_id"]).info.end_time
    told = calibrated(cli, run, job, "--plot", tmp_path / "reliability.png")
    assert told["mlflow_run_id"] == trained["mlflow_run_id"]
    assert told["mlflow_error"] is None
    found = client.get_run(trained["mlflow_run_id"])
    # Still when its training ended.
    assert (found.info.status, found.info.end_time) == ("FINISHED", ended)
    assert found.data.metrics["calibration_ece_after"] == told["after"]["ece"]
    plots = client.list_artifacts(trained["mlflow_run_id"], "plots")
    assert "plots/reliability.png" in [each.path for each in plots]
    # Of MLflow's own setting the variable would be left to the tests that follow.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained["mlflow_uri"])
    mlflow.set_tracking_uri(trained["mlflow_uri"])
    model = mlflow.pyfunc.load_model(f"runs:/{trained['mlflow_run_id']}/model")
    frame = frame_of(job)[:200].drop(columns=["label", "session"])
    expected = BatchPredictor.load(run).score_frame(frame)
    np.testing.assert_array_equal(model.predict(frame)["score"].to_numpy(), expected)
    plain = BatchPredictor.load(run, calibrate=False).score_frame(frame)
    assert not np.array_equal(plain, expected)
    beside = model.predict(frame, params={"novelty": "last", "explain": 2})
    assert list(beside) == ["score", "novelty", "explanation"]
    assert list(beside.index) == list(frame.index)
    assert [len(told) for told in beside["explanation"]] == [2] * 200
    with pytest.raises(ConfigError, match=r"novelty method .likelyhood.: is unknown\. Did"):
        model.predict(frame, params={"novelty": "likelyhood"})


def test_a_store_that_is_gone_costs_nothing(
    cli: Cli, job: Job, run: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    manifest = json.loads((run / "manifest.json").read_text())
    from recsys_had import run_folder

    manifest["mlflow_run_id"] = "f" * 32
    manifest["digest"] = run_folder._manifest_digest(manifest)
    (run / "manifest.json").write_text(json.dumps(manifest))
    logging.getLogger("recsys_had").propagate = True
    told = calibrated(cli, run, job)
    assert told["mlflow_error"] == f"MLflow: {run.resolve().parent / 'mlflow.db'} is not there."
    assert not (run.parent / "mlflow.db").exists()
    assert BatchPredictor.load(run).calibrated
    told = calibrated(cli, run, job, "--no-tracking")
    assert told["mlflow_run_id"] is None
