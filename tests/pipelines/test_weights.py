"""A dataset with weights: trained and measured with them, scored without."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from recsys_had.scoring import BatchPredictor
from recsys_had.tracking import model_signature

CARD = """\
name: shop
format: {type: csv}
columns:
  click: {kind: label}
  user: {kind: categorical}
  item: {kind: categorical}
  counts: {kind: weight, missing: 1}
split: {by: content_hash, ratios: {train: 0.7, valid: 0.3}}
"""
EXPERIMENT = """\
dataset: shop.yaml
model: {embedding_dim: 4, nodes: [linear, fm]}
train: {batch_size: 64, epochs: 2, learning_rate: 0.01}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cli) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    generator = np.random.default_rng(4)
    user, item = generator.integers(0, 9, 500), generator.integers(0, 7, 500)
    counts = generator.choice([0.0, 0.5, 1.0, 4.0], 500).tolist()
    counts[::50] = [None] * 10
    click = (generator.random(500) < 0.2 + 0.6 * (user % 2)).astype(int)
    rows = {"click": click, "user": user, "item": item, "counts": counts}
    pl.DataFrame(rows).write_csv(folder / "rows.csv")
    (folder / "shop.yaml").write_text(CARD)
    (folder / "shop_fm.yaml").write_text(EXPERIMENT)
    job = ("--data", folder / "data", "--out", folder / "run", "--no-tracking")
    for words in (
        ("ingest", folder / "shop.yaml", "--raw", folder / "rows.csv", "--out", folder / "data"),
        ("train", folder / "shop_fm.yaml", *job),
        ("predict", folder / "run", "--input", folder / "rows.csv", "--out", folder / "scores"),
    ):
        done = cli(*words)
        assert done.code == 0, done.err
    return folder


def scores_of(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "part-*.parquet")


def test_evaluate_weighs_rows_as_scikit_learn_does(cli, folder: Path) -> None:
    score = scores_of(folder / "scores")["score"].to_numpy()
    raw = pl.read_csv(folder / "rows.csv")
    valid = pl.read_parquet(folder / "data" / "valid" / "part-*.parquet")
    weight = raw["counts"].fill_null(1.0).to_numpy()[valid["row_id"]]
    assert valid["weight"].to_list() == weight.tolist()
    label, score = valid["label"].to_numpy(), score[valid["row_id"]]
    found = cli("evaluate", folder / "run", "--data", folder / "data", "--split", "valid", "--json")
    assert found.json["rows"] == len(valid)
    expected = roc_auc_score(label, score, sample_weight=weight)
    assert found.json["auc"] == pytest.approx(expected, abs=1e-6)
    assert expected != pytest.approx(roc_auc_score(label, score), abs=1e-4)
    expected = log_loss(label, score.astype(np.float64), sample_weight=weight)
    assert found.json["logloss"] == pytest.approx(expected, abs=1e-6)


def test_rows_to_be_scored_need_no_weight(cli, folder: Path, tmp_path: Path) -> None:
    raw = pl.read_csv(folder / "rows.csv").drop("counts", "click")
    raw.write_csv(tmp_path / "bare.csv")
    raw.with_columns(counts=pl.lit("not a number")).write_csv(tmp_path / "odd.csv")
    expected = scores_of(folder / "scores")["score"].to_list()
    for name in ("bare", "odd"):
        source, out = tmp_path / f"{name}.csv", tmp_path / name
        done = cli("predict", folder / "run", "--input", source, "--out", out)
        assert done.code == 0, done.err
        assert scores_of(out)["score"].to_list() == expected
    predictor = BatchPredictor.load(folder / "run")
    assert predictor.score_frame(raw).tolist() == expected
    assert model_signature(predictor.run.card).inputs.input_names() == ["user", "item"]


def test_a_weight_is_kept_where_it_is_asked_for(cli, folder: Path, tmp_path: Path) -> None:
    done = cli(
        *("predict", folder / "run", "--input", folder / "rows.csv", "--out", tmp_path / "s"),
        *("--keep", "counts"),
    )
    assert done.code == 0, done.err
    raw = pl.read_csv(folder / "rows.csv", schema_overrides={"counts": pl.String})
    assert scores_of(tmp_path / "s")["counts"].to_list() == raw["counts"].to_list()
