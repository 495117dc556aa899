"""``recsys-had demo`` on few rows: the whole job, told in a table and in JSON."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

SMALL = ("--rows", "20000", "--seed", "5")


def demo(*words: object) -> subprocess.CompletedProcess[str]:
    """A process of its own, as a newcomer starts it."""
    command = [sys.executable, "-m", "recsys_had.pipelines.cli", "demo", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The demo as it is, tracked; what it printed."""
    out = tmp_path_factory.mktemp("tried") / "demo"
    done = demo(*SMALL, "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout, done.stderr


def test_the_table_measures_both_models_against_the_limit(finished) -> None:
    out, told, _ = finished
    lines = told.splitlines()
    assert lines[0].startswith("Bayes AUC (no model can do better): 0.8")
    rows = {line.split()[0]: line.split() for line in lines if line.startswith("synthetic_")}
    assert set(rows) == {"synthetic_fm", "synthetic_dcn_v2"}
    for _, valid, fresh, of_the_way, train_rows_per_s, predict_rows_per_s in rows.values():
        assert 0.5 < float(valid) < 0.9
        assert 0.5 < float(fresh) < 0.9
        assert 0 < float(of_the_way.rstrip("%")) < 100
        assert int(train_rows_per_s.replace(",", "")) > 0
        assert int(predict_rows_per_s.replace(",", "")) > 0
    assert (
        lines[-1] == f"See the runs: mlflow ui --backend-store-uri sqlite:///{out}/runs/mlflow.db"
    )


def test_the_folders_it_names_hold_what_it_says(finished) -> None:
    out, _, _ = finished
    assert len((out / "raw" / "train.tsv").read_text().splitlines()) == 20_000
    for model in ("synthetic_fm", "synthetic_dcn_v2"):
        scores = pl.read_parquet(out / "scores" / model / "part-*.parquet")
        assert scores["row_id"].to_list() == list(range(20_000 // 6))
        assert (out / "runs" / model / "weights.safetensors").is_file()
        assert (out / "runs" / model / "plots" / "valid_roc.png").is_file()
    assert (out / "runs" / "mlflow.db").is_file()


def test_it_says_what_it_does_and_nothing_else(finished) -> None:
    _, _, log = finished
    assert log.splitlines()[0].startswith("generating 20,000 rows")
    for foreign in ("Warning", "warning", "INFO", "Traceback"):
        assert foreign not in log


def test_the_next_demo_replaces_it_and_tells_json(cli, finished) -> None:
    out, _, _ = finished
    again = cli("demo", *SMALL, "--out", out, "--no-tracking", "--json")
    assert again.code == 0, again.err
    found = again.json
    assert 0.8 < found["bayes_auc"] < 0.9
    assert found["mlflow_uri"] is None
    assert found["ingest"]["rows"]["train"] > 15_000
    for entry in found["models"].values():
        gained = (entry["fresh_auc"] - 0.5) / (found["bayes_auc"] - 0.5)
        assert entry["share_of_bayes"] == pytest.approx(gained, abs=1e-12)
        assert entry["predict"]["rows"] == 20_000 // 6
        assert Path(entry["scores"], "_SUCCESS").is_file()


def test_a_folder_it_did_not_make_is_left_alone(cli, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text("mine")
    done = cli("demo", *SMALL, "--out", tmp_path)
    assert done.code == 2
    assert f"{tmp_path}: is not empty and was not made by the demo" in done.err
    assert (tmp_path / "data" / "manifest.json").read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_too_few_rows_to_learn_from_are_refused(cli, tmp_path: Path) -> None:
    done = cli("demo", "--rows", "100", "--out", tmp_path / "demo")
    assert done.code == 2
    assert "20000" in done.err
    assert not (tmp_path / "demo").exists()
