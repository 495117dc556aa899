"""A field whose rows training gives out, from raw rows to scores."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from recsys_had.data.folder import DataFolder
from recsys_had.experiment_file import load_experiment
from recsys_had.run_folder import RunFolder
from recsys_had.training.loop import Trainer
from tests.pipelines.conftest import CARD, EXPERIMENT, raw_rows

ROWS = 15


@pytest.fixture(scope="module")
def shop(cli: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with card, raw rows, data and a run; 20 users have 15 rows, tags and visits too."""
    folder = tmp_path_factory.mktemp("managed")
    card = CARD.replace("user: {kind: categorical}", f"user: {{kind: categorical, {told(1)}}}")
    card = card.replace('separator: ","}', f'separator: ",", {told(2)}}}')
    card = card.replace("log_squared_bucket}", f"log_squared_bucket, {told(1)}}}")
    assert card.count("managed") == 3
    (folder / "card.yaml").write_text(card)
    (folder / "experiment.yaml").write_text(EXPERIMENT.format(card=folder / "card.yaml"))
    (folder / "raw.tsv").write_text("\n".join(raw_rows(3000, seed=3)) + "\n")
    for words in (
        ("ingest", folder / "card.yaml", "--raw", folder / "raw.tsv", "--out", folder / "data"),
        ("train", folder / "experiment.yaml", "--data", folder / "data", "--out", folder / "run",
         "--no-tracking"),
    ):  # fmt: skip
        done = cli(*words)
        assert done.code == 0, done.err
    return folder


def told(admit_after: int) -> str:
    return f"managed: {{rows: {ROWS}, admit_after: {admit_after}}}"


def test_the_table_has_the_rows_it_was_given_and_the_run_knows_whose_they_are(shop: Path) -> None:
    data = DataFolder.open(shop / "data")
    assert data.num_embeddings["user"] == ROWS + 1
    weights = load_file(shop / "run" / "weights.safetensors")
    assert len(weights["embeddings.tables.fields.embedding_bags.user.weight"]) == ROWS + 1
    keys = weights["embeddings.managed.user.keys"]
    assert len(keys.unique()) == ROWS and (keys > 0).all()
    assert not (shop / "run" / "encoder" / "vocab" / "user.parquet").exists()


def test_raw_rows_are_scored_as_encoded_ones_are(cli: Any, shop: Path) -> None:
    """The predictor knows the rows of values by the run folder alone."""
    done = cli("evaluate", shop / "run", "--data", shop / "data", "--split", "test", "--json")
    assert done.code == 0, done.err
    report = RunFolder.open(shop / "run")
    assert done.json["auc"] > 0.6
    metrics = json.loads((shop / "run" / "metrics.json").read_text())
    assert done.json["auc"] == pytest.approx(metrics["test"]["auc"], abs=1e-9)
    assert report.card.fields[1].managed is not None
    out = shop / "scores"
    done = cli("predict", shop / "run", "--input", shop / "raw.tsv", "--out", out, "--json")
    assert done.code == 0, done.err
    # Five of twenty users have no row.
    assert 0.1 < done.json["oov"]["user"] / 3000 < 0.5
    assert done.json["oov"]["item"] == 0


def test_a_later_run_begins_with_the_rows_of_the_values_it_knows(
    cli: Any, shop: Path, alone: Any, tmp_path: Path
) -> None:
    trainer = Trainer(
        experiment=load_experiment(str(shop / "experiment.yaml")),
        data=DataFolder.open(shop / "data"),
        device=alone,
        work=tmp_path,
    )
    found = trainer.warm_start(RunFolder.open(shop / "run"))
    assert found["fresh"] == []
    assert found["tables"]["fields.user"] == {"kept": ROWS + 1, "new": 0, "gone": 0}
    before = load_file(shop / "run" / "weights.safetensors")
    rows = trainer.model.embeddings.managed_fields["user"]
    assert rows.keys.tolist() == before["embeddings.managed.user.keys"].tolist()
    # The steps of that run count no more, or nobody could be replaced for as many.
    assert rows.seen.max() == 0


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("managed: {rows: 5}, min_count: 2", "managed excludes min_count and hash_buckets"),
        ("managed: {rows: 5}, hash_buckets: 9", "managed excludes min_count and hash_buckets"),
        ("managed: {rows: 0}", "managed.rows: must be at least 1"),
        ("managed: {admit_after: 2}", "managed.rows: the key is missing"),
    ],
)
def test_a_wrong_option_is_told_with_its_line(
    cli: Any, tmp_path: Path, option: str, problem: str
) -> None:
    card = CARD.replace("user: {kind: categorical}", f"user: {{kind: categorical, {option}}}")
    (tmp_path / "card.yaml").write_text(card)
    (tmp_path / "raw.tsv").write_text("\n".join(raw_rows(10, seed=3)) + "\n")
    words = ("--raw", tmp_path / "raw.tsv", "--out", tmp_path / "data")
    done = cli("ingest", tmp_path / "card.yaml", *words)
    assert done.code == 2
    assert problem in done.err
    assert "card.yaml:7" in done.err
