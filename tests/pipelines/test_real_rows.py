"""The whole job on real rows: ingest, train, evaluate, predict, and the model MLflow holds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score

CRITEO_COLUMNS = [*(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]


def scores_of(folder: Path) -> pd.DataFrame:
    return pl.read_parquet(folder / "part-*.parquet").to_pandas()


@pytest.fixture(scope="module")
def criteo(cli, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tracked DCN-V2 on the 8,000 labelled rows."""
    folder = tmp_path_factory.mktemp("criteo")
    raw = samples / "criteo" / "train_head_8000.tsv"
    done = cli("ingest", "criteo", "--raw", raw, "--out", folder / "data", "--json")
    assert done.code == 0, done.err
    done = cli(
        *("train", "criteo_dcn_v2", "train.batch_size=512", "train.epochs=3"),
        *("train.warmup_steps=0", "--data", folder / "data", "--out", folder / "runs" / "dcn"),
        "--json",
    )
    assert done.code == 0, done.err
    assert done.json["valid"]["auc"] > 0.6
    (folder / "trained.json").write_text(done.out)
    return {"folder": folder, "raw": raw, "data": folder / "data", "run": folder / "runs" / "dcn"}


def test_unlabelled_criteo_rows_are_scored_once_each_in_order(cli, criteo, samples) -> None:
    raw, out = samples / "criteo" / "unlabelled_10000.tsv", criteo["folder"] / "unlabelled"
    done = cli("predict", criteo["run"], "--input", raw, "--out", out, "--json")
    assert done.code == 0, done.err
    scores = scores_of(out)
    assert scores["row_id"].tolist() == list(range(10_000))
    assert scores["score"].between(0, 1, inclusive="neither").all()
    assert done.json["rows"] == 10_000
    # Most hashes of other days were never seen in 6,400 rows, and are counted.
    assert done.json["oov"]["C3"] > 1000


def test_evaluate_is_what_scikit_learn_says_of_predicted_real_rows(cli, criteo) -> None:
    out = criteo["folder"] / "scores"
    assert cli("predict", criteo["run"], "--input", criteo["raw"], "--out", out).code == 0
    score = scores_of(out)["score"].to_numpy().astype(np.float64)
    for split in ("valid", "test"):
        rows = pl.read_parquet(
            criteo["data"] / split / "part-*.parquet", columns=["row_id", "label"]
        )
        label, chosen = rows["label"].to_numpy(), score[rows["row_id"].to_numpy()]
        words = ("evaluate", criteo["run"], "--data", criteo["data"], "--split", split, "--json")
        found = cli(*words).json
        assert found["auc"] == pytest.approx(roc_auc_score(label, chosen), abs=1e-6)
        assert found["logloss"] == pytest.approx(log_loss(label, chosen), abs=1e-6)
        assert found["calibration"] == pytest.approx(chosen.mean() / label.mean(), abs=1e-6)


def test_the_logged_model_scores_raw_frames_as_predict_does(cli, criteo, samples) -> None:
    out = criteo["folder"] / "frames"
    raw = samples / "criteo" / "unlabelled_10000.tsv"
    assert cli("predict", criteo["run"], "--input", raw, "--out", out).code == 0
    expected = scores_of(out)["score"].to_numpy()[:2000]
    trained = json.loads((criteo["folder"] / "trained.json").read_text())
    mlflow.set_tracking_uri(trained["mlflow_uri"])
    found = mlflow.MlflowClient().get_run(trained["mlflow_run_id"])
    assert found.inputs.dataset_inputs
    models = mlflow.MlflowClient().search_logged_models([found.info.experiment_id])
    model = mlflow.pyfunc.load_model(models[0].model_uri)
    # As pandas reads them: integers with gaps are floats, hashes of digits alone are numbers.
    for options in (
        {"dtype": str, "keep_default_na": False},
        {"dtype": dict.fromkeys(CRITEO_COLUMNS[13:], str)},
    ):
        frame = pd.read_csv(raw, sep="\t", names=CRITEO_COLUMNS, nrows=2000, quoting=3, **options)
        score = model.predict(frame)["score"].to_numpy()
        np.testing.assert_allclose(score, expected, rtol=0, atol=1e-6)


def test_avazu_trains_and_scores_with_the_parts_of_its_hour(cli, samples, tmp_path) -> None:
    raw, data = samples / "avazu" / "train_first_hour.csv", tmp_path / "data"
    done = cli("ingest", "avazu", "--raw", raw, "--out", data, "--json")
    assert done.code == 0, done.err
    assert {"hour", "weekday", "is_weekend"} <= set(done.json["num_embeddings"])
    for model in ("fm", "fibinet", "dcn_v2"):
        run = tmp_path / model
        words = ("train.batch_size=512", "--data", data, "--out", run, "--no-tracking", "--json")
        done = cli("train", f"avazu_{model}", *words)
        assert done.code == 0, done.err
        assert 0.4 < done.json["valid"]["auc"] < 1
        out = tmp_path / f"{model}_scores"
        done = cli("predict", run, "--input", raw, "--keep", "id", "--out", out, "--json")
        assert done.code == 0, done.err
        scores = scores_of(out)
        assert scores["row_id"].tolist() == list(range(8999))
        # Ids beyond 64 bits come back to the last digit.
        ids = [line.split(",", 1)[0] for line in raw.read_text().splitlines()[1:]]
        assert scores["id"].tolist() == ids


def test_movielens_scores_rows_without_its_side_tables_at_hand(cli, samples, tmp_path) -> None:
    raw = samples / "movielens" / "u.data"
    assert cli("ingest", "movielens", "--raw", raw, "--out", tmp_path / "data").code == 0
    words = ("--data", tmp_path / "data", "--out", tmp_path / "run", "--no-tracking", "--json")
    done = cli("train", "movielens_fm", "train.epochs=2", *words)
    assert done.code == 0, done.err
    assert done.json["valid"]["auc"] > 0.7
    bare = tmp_path / "bare.tsv"
    bare.write_text("".join(raw.read_text().splitlines(keepends=True)[:500]))
    done = cli("predict", tmp_path / "run", "--input", bare, "--out", tmp_path / "s", "--json")
    assert done.code == 0, done.err
    assert done.json["oov"]["genres"] == 0
    assert scores_of(tmp_path / "s")["score"].nunique() > 300


@pytest.fixture(scope="module")
def frappe(cli, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frappe")
    raw = [f"{split}={samples / 'frappe' / f'{split}.csv'}" for split in ("train", "valid")]
    done = cli("ingest", "frappe", "--raw", *raw, "--out", folder / "data", "--json")
    assert done.json["rows"] == {"train": 202_027, "valid": 57_722}
    assert sum(done.json["num_embeddings"].values()) == 5_379 + 10
    return folder


def torchrun(frappe: Path, name: str, world_size: int, *overrides: str) -> dict[str, object]:
    scripts = Path(sys.executable).parent
    command = [
        *(str(scripts / "torchrun"), "--no-python", f"--nproc-per-node={world_size}"),
        *("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"),
        *(
            str(scripts / "recsys-had"),
            "train",
            "frappe_fm",
            f"train.batch_size={4096 // world_size}",
        ),
        *("train.epochs=2", *overrides, "--data", str(frappe / "data")),
        *("--out", str(frappe / name), "--no-tracking", "--json"),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_frappe_under_torchrun_equals_one_process(cli, frappe: Path) -> None:
    words = ("--data", frappe / "data", "--out", frappe / "one", "--no-tracking", "--json")
    one = cli("train", "frappe_fm", "train.epochs=2", *words).json
    for sharding in ("table_wise", "row_wise"):
        two = torchrun(frappe, sharding, 2, f"train.sharding={sharding}")
        assert two["world_size"] == 2
        assert two["steps"] == one["steps"]
        assert two["valid"]["logloss"] == pytest.approx(one["valid"]["logloss"], abs=1e-4)
        assert two["valid"]["rows"] == 57_722
        # A run of two ranks scores in one process, in torch's own sums rather than FBGEMM's: scores
        # differ in their last bit, so a pair of rows in a hundred million may change places.
        words = ("evaluate", frappe / sharding, "--data", frappe / "data", "--split", "valid")
        expected = {**two["valid"], "calibrated": False}
        assert cli(*words, "--json").json == pytest.approx(expected, abs=1e-6)


def test_a_users_mistake_under_torchrun_is_told_once(frappe: Path) -> None:
    with pytest.raises(AssertionError) as told:
        torchrun(frappe, "wrong", 2, "train.epoch=3")
    assert str(told.value).count("train.epoch: unknown key. Did you mean") == 1
