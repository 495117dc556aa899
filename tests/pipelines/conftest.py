"""Runs commands in this process, and one small job that many tests look at."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from recsys_had.pipelines.cli import main

CARD = """\
name: shop
format: {type: tsv, header: false}
columns:
  label: {kind: label}
  age: {kind: integer, transform: log1p}
  visits: {kind: integer, transform: log_squared_bucket}
  user: {kind: categorical}
  item: {kind: categorical, min_count: 2}
  tags: {kind: multi_categorical, separator: ","}
  session: {kind: id}
split: {by: content_hash, ratios: {train: 0.8, valid: 0.1, test: 0.1}}
"""
EXPERIMENT = """\
dataset: {card}
model:
  embedding_dim: 4
  nodes:
    linear:
    fm:
    deep: {{layer: mlp, hidden_units: [8]}}
train: {{batch_size: 128, epochs: 2, learning_rate: 0.01, seed: 3}}
"""


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as the one JSON object it must be."""
        return json.loads(self.out)


@pytest.fixture(scope="session")
def cli() -> Callable[..., Done]:
    """Runs ``recsys-had`` with the given words, and bytes on standard input."""

    def run(*words: object, given: bytes | None = None) -> Done:
        result = CliRunner().invoke(main, [str(word) for word in words], input=given)
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


def raw_rows(num_rows: int, seed: int) -> list[str]:
    """Rows in which clicks depend on a pair of columns; some values are missing."""
    generator = np.random.default_rng(seed)
    taste = np.random.default_rng(99).normal(size=(20, 10))
    rows = []
    for row in range(num_rows):
        user, item = generator.integers(20), generator.integers(10)
        click = int(generator.random() < 1 / (1 + np.exp(-2 * taste[user, item])))
        age = "" if row % 7 == 0 else str(generator.integers(15, 80))
        tags = ",".join(f"t{t}" for t in generator.integers(0, 6, generator.integers(0, 4)))
        rows.append(
            "\t".join(
                [
                    str(click),
                    age,
                    str(generator.integers(-1, 40)),
                    f"u{user}",
                    f"i{item}",
                    tags,
                    f"s{seed}-{row}",
                ]
            )
        )
    return rows


@dataclass(frozen=True)
class Job:
    """A card, raw rows, encoded rows and a trained run."""

    folder: Path
    card: Path
    experiment: Path
    raw: Path
    data: Path
    run: Path
    ingested: Any
    trained: Any


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory, cli: Callable[..., Done]) -> Job:
    """The small job, done once."""
    folder = tmp_path_factory.mktemp("job")
    card, experiment = folder / "shop.yaml", folder / "shop_deepfm.yaml"
    card.write_text(CARD)
    experiment.write_text(EXPERIMENT.format(card=card))
    raw = folder / "raw.tsv"
    raw.write_text("\n".join(raw_rows(3000, seed=1)) + "\n")
    data, run = folder / "data", folder / "runs" / "shop"
    ingested = cli("ingest", card, "--raw", raw, "--out", data, "--json")
    assert ingested.code == 0, ingested.err
    trained = cli("train", experiment, "--data", data, "--out", run, "--no-tracking", "--json")
    assert trained.code == 0, trained.err
    return Job(folder, card, experiment, raw, data, run, ingested.json, trained.json)


@pytest.fixture(scope="session")
def later(cli: Callable[..., Done], job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other rows: users 5 to 24 instead of 0 to 19, in other numbers, so that ids are others."""
    folder = tmp_path_factory.mktemp("later")
    rows = []
    for line in raw_rows(2000, seed=7):
        cells = line.split("\t")
        cells[3] = f"u{int(cells[3][1:]) + 5}"
        rows.append("\t".join(cells))
    (folder / "raw.tsv").write_text("\n".join(rows) + "\n")
    done = cli("ingest", job.card, "--raw", folder / "raw.tsv", "--out", folder / "data", "--json")
    assert done.code == 0, done.err
    return folder / "data"


@pytest.fixture(scope="session")
def kind_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of a card with a column of every kind, by the files that it describes."""
    from tests.pipelines.every_kind import make_run

    folder = tmp_path_factory.mktemp("kinds")
    return {
        "csv": make_run(folder / "csv"),
        "bare": make_run(folder / "bare", header=False),
        "tsv": make_run(folder / "tsv", type="tsv", header=False),
    }


@pytest.fixture(scope="session")
def kind_predictor(kind_runs: dict[str, Path]) -> Any:
    """That of files with a header."""
    from recsys_had.scoring import BatchPredictor

    return BatchPredictor.load(kind_runs["csv"])


@pytest.fixture(scope="session")
def expected(kind_predictor: Any) -> Any:
    """The scores of :data:`tests.pipelines.mistaken_inputs.ROWS`."""
    import polars as pl

    from tests.pipelines.mistaken_inputs import ROWS

    found = kind_predictor.score_frame(pl.DataFrame(ROWS))
    assert len(np.unique(found)) > 20
    return found


@pytest.fixture
def predict(cli: Callable[..., Done], kind_runs: dict[str, Path], tmp_path: Path) -> Any:
    """Scores inputs of any kind; see :class:`tests.pipelines.mistaken_inputs.Predict`."""
    from tests.pipelines.mistaken_inputs import Predict

    return Predict(cli, kind_runs, tmp_path)
