"""Bins of numeric columns: exact quantiles of the training rows, kept wherever a model goes."""

import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.errors import DataError
from recsys_had.model.ctr import CTRModel, weights_digest
from recsys_had.model.embeddings import field_specs
from recsys_had.training import bins
from recsys_had.training.bins import fit_bins, quantile_edges
from recsys_had.training.loop import Trainer

MakeData = Callable[..., DataFolder]
ROWS = {"train": 500, "valid": 200}
EDGES = "embeddings.numeric_fields.groups.piecewise_linear.encoder.edges"


def experiment(num_bins: int = 6, **train: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "dataset": "small",
            "model": {
                "embedding_dim": 6,
                "nodes": {"linear": {"layer": "linear"}, "fm": {"layer": "fm"}},
                "numeric": {
                    "kind": "piecewise_linear",
                    "num_bins": num_bins,
                    "normalise": "none",
                },
            },
            "train": {"batch_size": 64, "epochs": 2, "learning_rate": 0.01, "seed": 5, **train},
        }
    )


@pytest.mark.parametrize("num_rows", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("num_bins", [1, 2, 7, 64])
def test_edges_are_numpys_quantiles_told_once_in_any_order_of_rows(
    num_rows: int, num_bins: int
) -> None:
    generator = np.random.default_rng(num_rows)
    # A third of the values coincide.
    values = np.round(generator.normal(size=num_rows), 1).astype(np.float32)
    found = quantile_edges(values, num_bins)
    quantiles = np.quantile(values.astype(np.float64), np.linspace(0, 1, num_bins + 1))
    expected = np.unique(quantiles.astype(np.float32))
    # Quantiles that are equal but for numpy's rounding are one edge.
    assert len(found) <= len(expected) <= num_bins + 1
    nearest = np.abs(found[:, None] - quantiles[None]).min(axis=0)
    assert nearest.max() < 1e-6
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(quantile_edges(generator.permutation(values), num_bins), found)


def test_edges_by_hand() -> None:
    """Nine values in four bins: edges at the places 0, 2, 4, 6 and 8; the ties leave three."""
    values = np.array([5, 0, 0, 0, 1, 2, 3, 4, 0], np.float32)
    assert quantile_edges(values, 4).tolist() == [0.0, 1.0, 3.0, 5.0]


def test_bins_are_fitted_on_the_training_rows_alone(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = Trainer(experiment=experiment(), data=data, device=alone, work=tmp_path / "work")
    values = pq.read_table(data.path / "train", columns=["price"])["price"].to_numpy()
    expected = np.quantile(values.astype(np.float64), np.linspace(0, 1, 7)).astype(np.float32)
    np.testing.assert_allclose(one.sharded.state_dict()[EDGES][0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("regime", ["scale", "published"])
def test_an_interrupted_run_keeps_its_bins_and_resumes_bit_for_bit(
    tmp_path: Path,
    alone: torch.device,
    make_small_data: MakeData,
    monkeypatch: pytest.MonkeyPatch,
    regime: str,
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    settings = experiment(regime=regime)
    whole = Trainer(experiment=settings, data=data, device=alone, work=tmp_path / "whole")
    expected = whole.run()

    def interrupt(metrics: dict[str, float], step: int) -> None:
        if step == 5 and "train_loss" in metrics:
            os.kill(os.getpid(), signal.SIGINT)

    work = tmp_path / "work"
    first = Trainer(experiment=settings, data=data, device=alone, work=work, on_metrics=interrupt)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    # The checkpoint's bins are used, not those fitted anew.
    monkeypatch.setattr(bins, "quantile_edges", lambda values, num: np.float32([0.0, 9.0]))
    second = Trainer(experiment=settings, data=data, device=alone, work=work)
    assert second.resume()
    result = second.run()
    assert first.losses + second.losses == whole.losses
    assert expected.state is not None and result.state is not None
    assert weights_digest(result.state) == weights_digest(expected.state)
    assert torch.equal(result.state[EDGES], expected.state[EDGES])


def test_a_column_of_a_single_value_is_told_and_harms_nothing(
    tmp_path: Path,
    alone: torch.device,
    make_small_data: MakeData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    logger = logging.getLogger("recsys_had")
    monkeypatch.setattr(logger, "warning", lambda text, *values: told.append(text % values))
    data = make_small_data(tmp_path / "data", rows=ROWS)
    monkeypatch.setattr(
        DataFolder,
        "column",
        lambda self, split, name: (
            np.full(500, 3.5, np.float32)
            if name == "price"
            else np.arange(500, dtype=np.float32) % 2
        ),
    )
    one = Trainer(experiment=experiment(epochs=1), data=data, device=alone, work=tmp_path / "w")
    assert told == [
        "model.numeric.columns.price: every training row holds 3.5, so there is no bin and nothing "
        "to learn from the column."
    ]
    assert np.isfinite(one.run().progress.history[0]["train_loss"])


def test_a_model_without_bins_reads_no_row(
    alone: torch.device, make_small_data: MakeData, tmp_path: Path
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    settings = json.loads(experiment().model.model_dump_json())
    for numeric in (None, "autodis"):
        config = type(experiment().model).model_validate({**settings, "numeric": numeric})
        model = CTRModel(
            fields=field_specs(data.card, data.num_embeddings),
            dense=data.card.dense,
            config=config,
        )
        nowhere = DataFolder(tmp_path / "nowhere", data.card, data.manifest)
        fit_bins(model, nowhere)


def test_rows_without_the_column_are_refused(make_small_data: MakeData, tmp_path: Path) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    with pytest.raises(DataError, match=r"data/train: cannot be read: No match for .*prize"):
        data.column("train", "prize")
