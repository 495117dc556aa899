"""A dataset with content vectors, from raw rows to scores: text and Parquet, side table, MLflow."""

from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from recsys_had.errors import DataError
from recsys_had.scoring import BatchPredictor
from recsys_had.tracking import model_signature

NUM_ROWS = 600
CARD = """\
name: shop
format: {type: parquet}
columns:
  click: {kind: label}
  user: {kind: categorical}
  item: {kind: categorical}
  image: {kind: vector, size: 4}
lookups:
  items:
    file: items.parquet
    key: item
    format: {type: parquet}
    columns: {item: {kind: id}, text: {kind: vector, size: 2, transform: l2}}
split: {by: content_hash, ratios: {train: 0.8, valid: 0.2}}
"""
EXPERIMENT = """\
dataset: shop.yaml
model:
  embedding_dim: 4
  nodes:
    fm:
    deep: {layer: mlp, inputs: [image, text], hidden_units: [3]}
train: {batch_size: 64, epochs: 20, learning_rate: 0.03}
"""


@dataclass(frozen=True)
class VectorJob:
    folder: Path
    run: Path
    rows: pd.DataFrame
    trained: dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def vector_job(tmp_path_factory: pytest.TempPathFactory, cli) -> VectorJob:
    """Clicks that depend on the first number of the image; some rows have none."""
    folder = tmp_path_factory.mktemp("vectors")
    generator = np.random.default_rng(3)
    images = generator.normal(size=(NUM_ROWS, 4)).astype(np.float32)
    chance = 1 / (1 + np.exp(-3 * images[:, 0]))
    item = generator.integers(0, 9, NUM_ROWS)
    rows = pd.DataFrame(
        {
            "click": (generator.random(NUM_ROWS) < chance).astype(np.int64),
            "user": generator.integers(0, 5, NUM_ROWS),
            "item": [f"i{number}" for number in item],
            "image": [None if row % 20 == 0 else image for row, image in enumerate(images)],
        }
    )
    rows.to_parquet(folder / "rows.parquet")
    texts = generator.normal(size=(8, 2)).tolist()
    pq.write_table(
        pa.table({"item": [f"i{number}" for number in range(8)], "text": texts}),
        folder / "items.parquet",
    )
    (folder / "shop.yaml").write_text(CARD)
    (folder / "shop_mlp.yaml").write_text(EXPERIMENT)
    data, run = folder / "data", folder / "run"
    done = cli("ingest", folder / "shop.yaml", "--raw", folder / "rows.parquet", "--out", data)
    assert done.code == 0, done.err
    done = cli(
        *("train", folder / "shop_mlp.yaml", "--data", data, "--out", run),
        *("--no-tracking", "--json"),
    )
    assert done.code == 0, done.err
    return VectorJob(folder, run, rows, done.json)


def predicted(cli, job: VectorJob, source: Path, out: Path, *words: object) -> pl.DataFrame:
    done = cli("predict", job.run, "--input", source, "--out", out, *words)
    assert done.code == 0, done.err
    return pl.read_parquet(out / "part-*.parquet")


def test_the_model_learns_from_the_vectors(vector_job: VectorJob) -> None:
    assert vector_job.trained["valid"]["auc"] > 0.75


def test_predicted_scores_are_those_of_the_model_run_by_hand(
    cli, vector_job: VectorJob, tmp_path: Path
) -> None:
    score = predicted(cli, vector_job, vector_job.folder / "rows.parquet", tmp_path / "s")["score"]
    state = {
        name: w.double() for name, w in load_file(vector_job.run / "weights.safetensors").items()
    }
    tables = [
        state[f"embeddings.tables.fields.embedding_bags.{name}.weight"] for name in ("user", "item")
    ]
    encoder = BatchPredictor.load(vector_job.run).encoder
    ids = encoder.encode(pl.from_pandas(vector_job.rows))
    u, i = (
        table[ids[name].to_numpy(writable=True)]
        for table, name in zip(tables, ("user", "item"), strict=True)
    )
    image = torch.tensor(
        np.stack([np.zeros(4) if v is None else v for v in vector_job.rows["image"]])
    ).double()
    known = pl.read_parquet(vector_job.folder / "items.parquet")
    by_item = {name: np.array(text) / np.linalg.norm(text) for name, text in known.iter_rows()}
    text = torch.tensor(
        np.stack([by_item.get(name, np.zeros(2)) for name in vector_job.rows["item"]])
    )
    graph = {tuple(w.shape): w for name, w in state.items() if name.startswith("graph.layers.deep")}
    head = next(w for name, w in state.items() if name.startswith("graph.heads.deep"))
    hidden = torch.relu(torch.cat([image, text], 1) @ graph[3, 6].T + graph[3,])
    logit = (u * i).sum(1) + (hidden @ head.reshape(3, 1)).flatten() + state["graph.bias"]
    np.testing.assert_allclose(score, torch.sigmoid(logit).numpy(), rtol=0, atol=1e-6)


def test_text_parquet_and_frames_score_alike(cli, vector_job: VectorJob, tmp_path: Path) -> None:
    rows = pl.from_pandas(vector_job.rows).drop("click")
    as_text = rows.with_columns(pl.col("image").cast(pl.List(pl.String)).list.join("|"))
    arrays = rows.with_columns(pl.col("image").list.to_array(4))
    arrays.write_parquet(tmp_path / "arrays.parquet")
    expected = predicted(cli, vector_job, vector_job.folder / "rows.parquet", tmp_path / "a")
    found = predicted(
        cli, vector_job, tmp_path / "arrays.parquet", tmp_path / "b", "--keep", "image"
    )
    assert found["score"].to_list() == expected["score"].to_list()
    kept = found["image"].to_list()
    assert kept == rows["image"].to_list()
    predictor = BatchPredictor.load(vector_job.run)
    lists = vector_job.rows.assign(
        image=[None if v is None else v.tolist() for v in vector_job.rows["image"]]
    )
    for frame in (rows, as_text, arrays, vector_job.rows, lists, rows.to_arrow()):
        assert predictor.score_frame(frame).tolist() == expected["score"].to_list()


def test_a_list_of_words_in_a_pandas_frame_is_told(vector_job: VectorJob) -> None:
    rows = vector_job.rows.head(2).assign(image=[[1.0, "x", 2.0, 3.0], None])
    with pytest.raises(DataError, match=r"^row 0: column image: .*; got 'x' as number 2\.$"):
        BatchPredictor.load(vector_job.run).score_frame(rows)


def test_mlflow_takes_vectors_of_any_type(vector_job: VectorJob) -> None:
    card = BatchPredictor.load(vector_job.run).run.card
    signature = model_signature(card)
    assert signature.inputs.input_names() == ["user", "item", "image"]
    lists = [[1.0, 2.0, 3.0, 4.0], None]
    for image in (lists, [np.array(lists[0]), None], ["1|2|3|4", ""]):
        frame = pd.DataFrame({"user": [1, 2], "item": ["i1", "i2"], "image": image})
        checked = mlflow.models.utils._enforce_schema(frame, signature.inputs)
        assert len(BatchPredictor.load(vector_job.run).score_frame(checked)) == 2


def test_describe_tells_and_draws_the_vectors(cli, vector_job: VectorJob, tmp_path: Path) -> None:
    words = ("describe", vector_job.folder / "shop_mlp.yaml", "--draw", tmp_path / "m.svg")
    found = cli(*words, "--json").json
    assert found["vectors"] == {"image": 4, "text": 2}
    deep = next(node for node in found["nodes"] if node["name"] == "deep")
    assert (deep["inputs"], deep["input_shapes"]) == (["image", "text"], [[1, 6]])
    told = cli(*words)
    assert told.code == 0, told.err
    assert "2 fields of width 4; vector image of 4; vector text of 2; " in told.out
    drawn = (tmp_path / "m.svg").read_text()
    assert ">image<" in drawn
    assert ">content vector<" in drawn


def test_a_run_is_loaded_whatever_becomes_of_the_card(vector_job: VectorJob) -> None:
    card = vector_job.folder / "shop.yaml"
    before = card.read_text()
    for after in (before.replace("image:", "photo:"), before.replace("text:", "deep:"), None):
        try:
            card.unlink() if after is None else card.write_text(after)
            assert BatchPredictor.load(vector_job.run) is not None
        finally:
            card.write_text(before)


@pytest.mark.parametrize("regime", ["scale", "published"])
def test_a_card_of_vectors_alone_is_trained_and_scored(cli, tmp_path: Path, regime: str) -> None:
    (tmp_path / "shop.yaml").write_text(
        "name: shop\nformat: {type: tsv}\nsplit: {by: given}\n"
        "columns: {click: {kind: label}, image: {kind: vector, size: 2, separator: ','}}\n"
    )
    (tmp_path / "mlp.yaml").write_text(
        "dataset: shop.yaml\nmodel: {nodes: {deep: {layer: mlp, inputs: [image]}}}\n"
    )
    (tmp_path / "rows.tsv").write_text("click\timage\n" + "1\t1,-1\n0\t-1,1\n" * 50)
    raw, data, run = tmp_path / "rows.tsv", tmp_path / "data", tmp_path / "run"
    settings = (f"train.regime={regime}", "train.epochs=3", "--no-tracking")
    for words in (
        ("ingest", tmp_path / "shop.yaml", "--raw", f"train={raw}", "--out", data),
        ("train", tmp_path / "mlp.yaml", *settings, "--data", data, "--out", run),
        ("predict", run, "--input", raw, "--out", tmp_path / "scores"),
    ):
        done = cli(*words)
        assert done.code == 0, done.err
    score = pl.read_parquet(tmp_path / "scores" / "part-*.parquet")["score"]
    assert score[0] > score[1]
