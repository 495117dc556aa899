"""An interaction declared in an experiment: no Python from raw rows to scores."""

from copy import deepcopy

import numpy as np
import polars as pl
import pytest
import yaml

from recsys_had.nodes import Placed

EXPERIMENT = """\
dataset: {card}
model:
  embedding_dim: 4
  nodes:
    linear:
    gated:
      formula: |
        gate = sigmoid(lin(pool(x, "C", "mean"), "T"))
        y = x
        for _ in range(depth):
            y = x * lin(y, "TC", bias=True) * gate + y
        lin(outer(y, x, "upper"), "T", out=width)
      width: 6
      depth: 2
    deep: {{layer: mlp, inputs: [gated, dense], hidden_units: [8]}}
train: {{batch_size: 128, epochs: 2, learning_rate: 0.01, seed: 3}}
"""


@pytest.fixture
def experiment(job, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(EXPERIMENT.format(card=job.card))
    return path


def test_it_trains_is_described_saved_reloaded_and_scored(cli, job, experiment, tmp_path) -> None:
    run, scores = tmp_path / "run", tmp_path / "s"
    words = ("--data", job.data, "--json")
    told = cli("describe", experiment, *words).json
    node = next(node for node in told["nodes"] if node["name"] == "gated")
    # Five fields of width 4: a 5 x 5 map of the means, two maps 20 x 20 with bias, 10 pairs to 6.
    assert node["parameters"] == 25 + 2 * (400 + 20) + 60
    assert node["output_shape"] == [6, 4]
    trained = cli("train", experiment, *words, "--out", run, "--no-tracking")
    assert trained.code == 0, trained.err
    assert trained.json["valid"]["auc"] > 0.55
    evaluated = cli("evaluate", run, *words, "--split", "valid").json
    assert evaluated["auc"] == trained.json["valid"]["auc"]
    assert cli("predict", run, "--input", job.raw, "--out", scores).code == 0
    score = pl.read_parquet(scores / "part-*.parquet")["score"].to_numpy()
    assert len(score) == 3000
    assert np.unique(score).size > 1000
    written = (run / "experiment.yaml").read_text()
    assert yaml.safe_load(written)["model"]["nodes"]["gated"]["width"] == 6
    assert "\n        for _ in range(depth):\n" in written


def test_its_values_can_be_overridden(cli, job, experiment) -> None:
    words = ("--data", job.data, "--json", "model.nodes.gated.width=9")
    node = next(
        n for n in cli("describe", experiment, *words).json["nodes"] if n["name"] == "gated"
    )
    assert node["output_shape"] == [9, 4]
    refused = cli("describe", experiment, "model.nodes.gated.widht=9")
    assert refused.code == 2
    assert "the formula has no such value. Did you mean 'width'?" in refused.err


@pytest.mark.parametrize(
    ("wrong", "right", "told"),
    [
        ("sigmoid(lin", "sigmod(lin", "mine.yaml:8: gated.formula: no function 'sigmod'. Did you"),
        ("pool(x,", "pool(z,", "mine.yaml:8: gated.formula: 'z' is unknown. Known: depth, fields,"),
        ("range(depth)", "range(dept)", "mine.yaml:10: gated.formula: 'dept' is unknown. Did you"),
        ("y = x\n", "y = x.shape\n", "mine.yaml:9: gated.formula: `x.shape` is no part of a form"),
        (
            "width: 6",
            "width: [6]",
            "mine.yaml:12: gated.formula: lin: out must be a whole number or",
        ),
        ("width: 6", "width: {a: 6}", "mine.yaml:6: gated.width: a formula's value must be a n"),
        ("width: 6", "width: .nan", "mine.yaml:6: gated.width: must be a finite number; got nan."),
        (
            "width: 6",
            "width: 6\n      widht: 7",
            "mine.yaml:6: gated.widht: the formula does not read",
        ),
        ("width: 6", "width: 0", "mine.yaml:12: gated.formula: out must be at least 1; got 0"),
        ("* gate + y", "* gate + x[:2]", "mine.yaml:11: gated.formula: "),
        ("width: 6", "layer: fm", "mine.yaml:6: gated: has a layer and a formula. Leave one of"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    cli, job, experiment, wrong: str, right: str, told: str
) -> None:
    experiment.write_text(experiment.read_text().replace(wrong, right, 1))
    done = cli("describe", experiment)
    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err


def test_a_mistake_of_a_run_folder_is_told_with_its_line(cli, job, experiment, tmp_path) -> None:
    run = tmp_path / "run"
    words = ("--data", job.data, "--out", run, "--no-tracking", "train.epochs=1")
    assert cli("train", experiment, *words).code == 0
    written = run / "experiment.yaml"
    lines = written.read_text().splitlines()
    again = tmp_path / "again.yaml"
    again.write_text("\n".join(lines).replace("width: 6", "width: 0"))
    at = next(number for number, text in enumerate(lines, 1) if "lin(outer(" in text)
    refused = cli("describe", again)
    assert refused.code == 2
    assert f"again.yaml:{at}: gated.formula: out must be at least 1; got 0" in refused.err


def test_a_copied_formula_keeps_its_place() -> None:
    text = deepcopy(Placed("lin(x)", place="mine.yaml:7"))
    assert (text, text.place, type(str(text))) == ("lin(x)", "mine.yaml:7", str)
