"""Every newer kind of column on one card, from raw rows to scores, and what is told of sampling."""

import json
import re
import typing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from recsys_had.columns import Column, IntegerColumn
from recsys_had.data.encoder_files import load_encoder
from recsys_had.data.folder import DataFolder
from recsys_had.schema import FileFormat, Lookup, Split, parse_card
from recsys_had.scoring import BatchPredictor
from recsys_had.scoring.splits import score_split, split_logits
from recsys_had.tracking import model_signature
from tests.pipelines.conftest import raw_rows

CARD = """\
name: shop
format: {type: tsv, header: false}
columns:
  label: {kind: label}
  age: {kind: integer, transform: quantile_bins, num_bins: 8, clip: [18, null]}
  visits: {kind: integer, transform: min_max}
  user: {kind: categorical, top_k: 15}
  item: {kind: categorical, min_count: 2}
  user_x_item: {kind: crossed, of: [user, item], top_k: 150}
  item_x_age: {kind: crossed, of: [item, age], min_count: 2}
  user_x_age: {kind: crossed, of: [user, age], hash_buckets: 50}
  tags: {kind: multi_categorical, separator: ","}
  session: {kind: id}
split: {by: content_hash, ratios: {train: 0.8, valid: 0.1, test: 0.1}}
sampling: {negatives: 0.5}
"""
EXPERIMENT = """\
dataset: card.yaml
model: {embedding_dim: 4, nodes: [linear, fm]}
train: {batch_size: 128, epochs: 2, learning_rate: 0.01, seed: 3}
"""


@pytest.fixture(scope="module")
def shop(cli: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with card, raw rows, data, run and scores."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "card.yaml").write_text(CARD)
    (folder / "experiment.yaml").write_text(EXPERIMENT)
    (folder / "raw.tsv").write_text("\n".join(raw_rows(3000, seed=1)) + "\n")
    job = ("--data", folder / "data", "--out", folder / "run", "--no-tracking")
    for words in (
        ("ingest", folder / "card.yaml", "--raw", folder / "raw.tsv", "--out", folder / "data"),
        ("train", folder / "experiment.yaml", *job),
        ("predict", folder / "run", "--input", folder / "raw.tsv", "--out", folder / "scores"),
    ):
        done = cli(*words)
        assert done.code == 0, done.err
    return folder


def test_the_page_of_kinds_names_all_of_them_and_its_card_can_be_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    first, written = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(parse_card(first).fields) == 30
    card = parse_card(written)
    names = [field.name for field in card.fields]
    assert names == ["user", "price", "hour", "user_x_hour", "user_x_price"]
    assert card.sampling is not None and card.sampling.negatives == 0.1
    parts = [FileFormat, Lookup, *typing.get_args(typing.get_args(Split)[0])]
    keys = {key for part in parts for key in part.model_fields}
    assert {key for key in keys if f"`{key}`" in page or f"{key}:" in page} == keys
    table = page[page.index("## Kinds") : page.index("## Ids")]
    known = {literal for kind in typing.get_args(typing.get_args(Column)[0])
             for literal in typing.get_args(kind.model_fields["kind"].annotation)}  # fmt: skip
    assert {kind for kind in known if f"`{kind}`" in table} == known
    told = set(re.findall(r"^\| `(\w+)` \|", page[page.index("## Numbers") :], re.MULTILINE))
    told.remove("transform")
    assert told == set(typing.get_args(IntegerColumn.model_fields["transform"].annotation))


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def test_the_rate_and_what_was_left_out_go_from_the_data_to_the_run(cli: Any, shop: Path) -> None:
    told = manifest_of(shop / "data")
    assert told["sampling"]["negatives"] == 0.5
    assert sum(told["rows"].values()) + told["sampling"]["left_out"] == 3000
    assert manifest_of(shop / "run")["sampling"] == told["sampling"]
    words = ("--raw", shop / "raw.tsv", "--out", shop / "again")
    done = cli("ingest", shop / "card.yaml", *words, "--json")
    assert done.json["sampling"] == told["sampling"]
    assert done.json["rows_read"] == 3000
    done = cli("ingest", shop / "card.yaml", *words, "--overwrite")
    left_out = told["sampling"]["left_out"]
    assert f", {left_out:,} of label 0 left out\n" in done.out


def test_scores_are_corrected_for_what_was_left_out(cli: Any, shop: Path) -> None:
    done = cli("predict", shop / "run", "--input", shop / "raw.tsv", "--out", shop / "noted")
    assert "too high" not in done.err
    words = ("evaluate", shop / "run", "--data", shop / "data", "--split", "valid", "--json")
    done = cli(*words)
    assert done.json["rows"] == manifest_of(shop / "data")["rows"]["valid"]
    assert 0.85 < done.json["calibration"] < 1.15
    trained = json.loads((shop / "run" / "metrics.json").read_text())
    assert done.json == pytest.approx({**trained["valid"], "calibrated": False}, abs=1e-6)
    best = max(epoch["valid"]["auc"] for epoch in trained["history"])
    (epoch,) = (one["valid"] for one in trained["history"] if one["valid"]["auc"] == best)
    assert epoch["logloss"] == pytest.approx(done.json["logloss"], abs=1e-6)

    predictor = BatchPredictor.load(shop / "run")
    label, logits, _ = split_logits(predictor, DataFolder.open(shop / "data"), "valid")
    raw = 1 / (1 + np.exp(-logits.astype(np.float64)))
    # Half of the others are gone.
    assert raw.mean() > 1.3 * label.mean()
    expected = raw / (raw + (1 - raw) / 0.5)
    scores = pl.read_parquet(shop / "noted" / "part-*.parquet")["score"].to_numpy()
    rows = pl.read_parquet(shop / "data" / "valid" / "part-*.parquet")["row_id"].to_numpy()
    assert scores[rows] == pytest.approx(expected, abs=1e-6)


def test_a_row_has_the_same_score_raw_and_encoded(shop: Path) -> None:
    scores = pl.read_parquet(shop / "scores" / "part-*.parquet")
    predictor = BatchPredictor.load(shop / "run")
    _, encoded = score_split(predictor, DataFolder.open(shop / "data"), "valid")
    rows = pl.read_parquet(shop / "data" / "valid" / "part-*.parquet")["row_id"].to_numpy()
    assert scores["score"].to_numpy()[rows] == pytest.approx(encoded, abs=1e-7)
    raw = pl.read_csv(
        shop / "raw.tsv", separator="\t", has_header=False, infer_schema=False,
        new_columns=["label", "age", "visits", "user", "item", "tags", "session"],
    )  # fmt: skip
    frame = raw.drop("label", "session")
    assert predictor.score_frame(frame).tolist() == pytest.approx(scores["score"].to_list())
    signature = model_signature(predictor.run.card)
    assert signature.inputs.input_names() == [*frame.columns, "session"]


def test_the_ids_are_those_of_the_kinds(shop: Path) -> None:
    encoder = load_encoder(shop / "run" / "encoder")
    sizes = encoder.num_embeddings
    assert sizes["user"] == 16 and sizes["user_x_item"] == 151 and sizes["user_x_age"] == 51
    assert sizes["age"] == 9
    counts = encoder.counts_of("age")["count"].to_numpy()
    assert np.ptp(counts) < 0.35 * counts.mean()
    train = pl.read_parquet(shop / "data" / "train" / "part-*.parquet")
    assert train["visits"].min() == 0 and train["visits"].max() == 1
    for field in ("age", "user_x_item", "item_x_age"):
        held = train.filter(pl.col(field) > 0)[field].value_counts().sort(field)["count"]
        assert held.to_list() == encoder.counts_of(field)["count"].to_list()


def test_tables_are_exported_with_intervals_and_crosses_as_values(cli: Any, shop: Path) -> None:
    done = cli("export", shop / "run", "--out", shop / "tables", "--json")
    assert done.code == 0, done.err
    ages = pl.read_parquet(shop / "tables" / "age.values.parquet")["value"].to_list()
    assert ages[0] is None and ages[1].startswith("(-inf, ") and ages[-1].endswith(", inf)")
    crossed = pl.read_parquet(shop / "tables" / "user_x_item.values.parquet")["value"]
    assert crossed[1:].str.contains(r"^u\d+\|i\d$").all()
    assert not (shop / "tables" / "user_x_age.values.parquet").exists()
    words = ("--data", shop / "data", "--out", shop / "warm", "--no-tracking")
    tables = [
        f"--pretrained={name}={shop}/tables/fields.{name}.safetensors"
        for name in ("age", "item_x_age")
    ]
    done = cli("train", shop / "experiment.yaml", *words, *tables, "train.epochs=1", "--json")
    assert done.code == 0, done.err
    for told in done.json["pretrained"].values():
        assert told["unknown"] == 0 and told["given"] == told["taken"] > 1


def test_a_model_is_described_and_planned_with_its_crosses(cli: Any, shop: Path) -> None:
    done = cli("describe", shop / "experiment.yaml", "--data", shop / "data", "--json")
    assert done.code == 0, done.err
    # age, user, item, three crosses and tags; visits is a field by its scale.
    assert done.json["num_fields"] == 8
    done = cli("plan", shop / "experiment.yaml", "--data", shop / "data", "--world-size", 2,
               "--machine", "h100", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert "user_x_item" in done.out


def test_a_column_in_a_cross_that_a_file_lacks_is_told(cli: Any, shop: Path) -> None:
    card = yaml.safe_load(CARD) | {"format": {"type": "csv"}}
    (shop / "headed.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    assert parse_card((shop / "headed.yaml").read_text()).fields[3].name == "user_x_item"
    (shop / "headed.csv").write_text("label,age,visits,item,tags,session\n1,30,5,i1,t1,s1\n")
    words = ("--raw", shop / "headed.csv", "--out", shop / "none")
    done = cli("ingest", shop / "headed.yaml", *words)
    assert done.code == 2
    told = "column user: is missing. Known: age, item, label, session, tags, visits."
    assert done.err == f"{shop}/headed.csv:1: {told}\n"
