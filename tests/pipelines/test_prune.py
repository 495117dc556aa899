"""``recsys-had prune``: a smaller run that is a run like any other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from recsys_had.calibration import Calibrator
from recsys_had.calibration.maps import PlattMap
from recsys_had.run_folder import RunFolder


@pytest.fixture(scope="module")
def paired(cli, job, tmp_path_factory) -> Path:
    """A run whose model has pairs one by one."""
    folder = tmp_path_factory.mktemp("paired")
    experiment = folder / "shop_ipnn.yaml"
    experiment.write_text(
        f"dataset: {job.card}\nmodel:\n  embedding_dim: 4\n  nodes:\n    products: inner_product\n"
        "    deep: {layer: mlp, inputs: [fields, products], hidden_units: [8]}\n"
        "train: {batch_size: 128, epochs: 2, learning_rate: 0.01, seed: 3}\n"
    )
    words = ("--data", job.data, "--out", folder / "run", "--no-tracking")
    done = cli("train", experiment, *words)
    assert done.code == 0, done.err
    return folder / "run"


def test_a_pruned_run_scores_evaluates_and_describes_like_any_other(
    cli, job, paired, tmp_path
) -> None:
    out = tmp_path / "small"
    words = ("--data", job.data, "--out", out, "--rows", 60)
    done = cli("prune", paired, *words, "--keep", 3, "--json")
    assert done.code == 0, done.err
    found = done.json
    assert (found["pairs"], found["kept"], found["nodes"]) == (10, 3, ["products"])
    # 7 inner products less, each with 8 weights in the network's first layer.
    assert found["before"]["parameters"] - found["after"]["parameters"] == 7 * 8
    assert found["before"]["rows_per_s"] > 0 and found["after"]["rows_per_s"] > 0
    for run, told in ((paired, "before"), (out, "after")):
        words = ("--data", job.data, "--split", "valid", "--json")
        evaluated = cli("evaluate", run, *words)
        assert evaluated.code == 0, evaluated.err
        for name in ("auc", "logloss", "normalized_entropy", "calibration", "rows"):
            assert found[told][name] == evaluated.json[name]
    scored = cli("predict", out, "--input", job.raw, "--out", tmp_path / "s")
    assert scored.code == 0, scored.err
    scores = [pq.read_table(part)["score"].to_numpy() for part in (tmp_path / "s").glob("part-*")]
    assert np.isfinite(np.concatenate(scores)).all()
    described = cli("describe", out / "experiment.yaml", "--data", job.data, "--json")
    (products, _) = described.json["nodes"]
    assert products["output_shape"] == [3]
    assert described.json["parameters"] == found["after"]["parameters"]
    shown = cli("interactions", out, "--data", job.data, "--rows", 5)
    assert shown.code == 0, shown.err


def test_the_pairs_that_are_left_are_the_strongest(cli, job, paired, tmp_path) -> None:
    words = ("--data", job.data, "--rows", 60)
    done = cli("prune", paired, *words, "--out", tmp_path / "small", "--pairs", 0.4)
    assert done.code == 0, done.err
    assert "4 of 10 pairs kept in products" in done.out
    strongest = cli("interactions", paired, *words, "--json").json["pairs"][:4]
    manifest = json.loads((tmp_path / "small" / "manifest.json").read_text())
    kept = {frozenset(pair) for pair in manifest["pruned"]["kept"]}
    assert kept == {frozenset(pair["fields"]) for pair in strongest}
    experiment = yaml.safe_load((tmp_path / "small" / "experiment.yaml").read_text())
    named = experiment["model"]["nodes"]["products"]["keep"]
    assert named == sorted(named) and len(named) == 4
    assert all(i < j for i, j in named)


def test_a_pruned_run_can_be_trained_on(cli, job, paired, tmp_path) -> None:
    words = ("--data", job.data, "--rows", 20, "--keep", 5)
    assert cli("prune", paired, *words, "--out", tmp_path / "small").code == 0
    done = cli(
        "train", tmp_path / "small" / "experiment.yaml", "--data", job.data,
        "--out", tmp_path / "again", "--warm-start", tmp_path / "small", "--no-tracking",
    )  # fmt: skip
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "needs one of --pairs SHARE and --keep N"),
        (("--pairs", 0.5, "--keep", 3), "needs one of --pairs SHARE and --keep N"),
        (("--pairs", 1.5), "--pairs"),
        (("--keep", 10), "must keep 1 to 9 of 10 pairs; got 10"),
        (("--keep", 3, "--split", "tset"), "has no row in split 'tset'"),
    ],
)
def test_what_cannot_be_pruned_is_refused(cli, job, paired, tmp_path, words, told) -> None:
    out = tmp_path / "small"
    done = cli("prune", paired, "--data", job.data, "--out", out, "--rows", 5, *words)
    assert done.code == 2
    assert told in done.err
    assert not out.exists()


def test_a_model_without_pairs_is_refused_with_the_reason(cli, job, later, tmp_path) -> None:
    words = ("--out", tmp_path / "small", "--keep", 3)
    done = cli("prune", job.run, "--data", job.data, *words)
    assert done.code == 2
    assert "prune: node fm (fm) sums all pairs at once" in done.err
    assert "Train a model with afm, bilinear" in done.err


def test_rows_of_another_vocabulary_are_refused(cli, job, paired, later, tmp_path) -> None:
    done = cli("prune", paired, "--data", later, "--out", tmp_path / "small", "--keep", 3)
    assert done.code == 2
    assert "was encoded with another vocabulary" in done.err


def test_both_runs_are_measured_without_a_calibrator(cli, job, paired, tmp_path) -> None:
    """It is not carried over, and what it does to logloss is no cost of pruning."""
    folder = tmp_path / "run"
    shutil.copytree(paired, folder)
    words = ("--data", job.data, "--rows", 20, "--keep", 9, "--json")
    plain = cli("prune", folder, *words, "--out", tmp_path / "a").json["before"]
    far_off = Calibrator(whole=PlattMap(slope=1.0, intercept=5.0))
    RunFolder.open(folder).add("calibrator", far_off.to_text())
    done = cli("prune", folder, *words, "--out", tmp_path / "b")
    assert done.code == 0, done.err
    assert done.json["before"]["logloss"] == plain["logloss"]
