"""Numeric columns of every kind, from raw rows to scores."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from recsys_had.data.folder import DataFolder
from recsys_had.scoring import BatchPredictor
from recsys_had.scoring.splits import score_split

CARD = """\
name: shop
format: {type: csv}
columns:
  click: {kind: label}
  user: {kind: categorical}
  a: {kind: float}
  b: {kind: float, transform: standardise}
  c: {kind: float, transform: log1p}
  d: {kind: float}
  e: {kind: float}
  f: {kind: float}
split: {by: content_hash, ratios: {train: 0.8, valid: 0.2}}
"""
EXPERIMENT = """\
dataset: CARD
model:
  embedding_dim: 4
  numeric:
    kind: piecewise_linear
    num_bins: 8
    columns:
      b: {kind: periodic, num_frequencies: 4}
      c: {kind: autodis, num_meta_embeddings: 5, normalise: batch}
      d: {kind: mlp, hidden_units: [6], normalise: batch}
      e: {kind: mlp, hidden_units: [6], normalise: batch}
      f: {kind: scale, bias: true}
  nodes:
    linear:
    deep: {layer: mlp, hidden_units: [16]}
train: {batch_size: 128, epochs: 6, learning_rate: 0.02, seed: 3}
"""


def raw_rows(num_rows: int) -> str:
    """Clicks follow the distance of ``a`` from its middle: no straight line tells them."""
    generator = np.random.default_rng(1)
    lines = ["click,user,a,b,c,d,e,f"]
    for row in range(num_rows):
        a = generator.normal()
        chance = 0.9 if abs(a) < 0.6 else 0.1
        others = ",".join(f"{value:.3f}" for value in generator.normal(size=5))
        a_text = "" if row % 50 == 0 else f"{a:.3f}"
        lines.append(
            f"{int(generator.random() < chance)},u{generator.integers(9)},{a_text},{others}"
        )
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def shop(cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run and what it was made of."""
    folder = tmp_path_factory.mktemp("numeric")
    (folder / "card.yaml").write_text(CARD)
    (folder / "e.yaml").write_text(EXPERIMENT.replace("CARD", str(folder / "card.yaml")))
    (folder / "raw.csv").write_text(raw_rows(3000))
    for words in (
        ("ingest", folder / "card.yaml", "--raw", folder / "raw.csv", "--out", folder / "data"),
        ("train", folder / "e.yaml", "--data", folder / "data", "--out", folder / "run",
         "--no-tracking", "--json"),
    ):  # fmt: skip
        done = cli(*words)
        assert done.code == 0, done.err
    (folder / "trained.json").write_text(done.out)
    return folder


def test_bins_find_what_a_straight_line_cannot(cli, shop: Path, tmp_path: Path) -> None:
    bent = json.loads((shop / "trained.json").read_text())["valid"]["auc"]
    done = cli(
        "train", shop / "e.yaml", "--data", shop / "data", "--out", tmp_path / "run",
        "--no-tracking", "--json", "model.numeric=scale", "model.nodes.deep.activation=identity",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["valid"]["auc"] < 0.6 < 0.8 < bent


def test_raw_rows_get_the_scores_of_the_training(cli, shop: Path, tmp_path: Path) -> None:
    """The encoded split scored by the run folder, and the same rows predicted from the raw file."""
    done = cli("evaluate", shop / "run", "--data", shop / "data", "--split", "valid", "--json")
    trained = json.loads((shop / "trained.json").read_text())
    assert done.json == pytest.approx({**trained["valid"], "calibrated": False}, abs=1e-6)
    predicted = cli("predict", shop / "run", "--input", shop / "raw.csv", "--out", tmp_path / "s")
    assert predicted.code == 0, predicted.err
    scores = pl.read_parquet(tmp_path / "s" / "part-*.parquet")
    predictor = BatchPredictor.load(shop / "run")
    data = DataFolder.open(shop / "data")
    _, encoded = score_split(predictor, data, "valid")
    rows = pl.read_parquet(shop / "data" / "valid" / "part-*.parquet")["row_id"]
    found = scores.filter(pl.col("row_id").is_in(rows.implode())).sort("row_id")["score"]
    expected = encoded[rows.to_numpy().argsort()]
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=0, atol=1e-6)
    frame = pd.read_csv(shop / "raw.csv")
    np.testing.assert_allclose(
        predictor.score_frame(frame), scores["score"].to_numpy(), rtol=0, atol=1e-6
    )


def test_each_group_is_described(cli, shop: Path) -> None:
    done = cli("describe", shop / "e.yaml", "--data", shop / "data", "--json")
    assert done.code == 0, done.err
    found = done.json
    assert [(group["kind"], group["columns"]) for group in found["numeric"]] == [
        ("piecewise_linear", ["a"]),
        ("periodic", ["b"]),
        ("autodis", ["c"]),
        ("mlp", ["d", "e"]),
        ("scale", ["f"]),
    ]
    # user, a, b, c, d+e, f.
    assert found["num_fields"] == 6
    outside = [*found["nodes"], *found["numeric"]]
    assert found["dense_parameters"] == sum(part["parameters"] for part in outside) + 1
    # Users and id 0 in both sets; one vector of 4; the first-order set scales all six columns.
    assert found["table_parameters"] == 10 * (4 + 1) + 4 + 6
    told = cli("describe", shop / "e.yaml").out
    assert "mlp makes 1 field of 2 numeric columns: " in told


def test_a_column_the_card_does_not_have_is_told_before_anything_is_written(
    cli, shop: Path, tmp_path: Path
) -> None:
    done = cli(
        "train", shop / "e.yaml", "--data", shop / "data", "--out", tmp_path / "run",
        "--no-tracking", "model.numeric.columns.user=autodis",
    )  # fmt: skip
    assert done.code == 2
    assert "model.numeric.columns.user: is no numeric column. Known: a, b, c, d, e, f." in done.err
    assert not (tmp_path / "run").exists()
