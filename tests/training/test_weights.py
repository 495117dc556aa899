"""Weights in training: a row of weight 3 is three rows, one of weight 0 is none."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position, Step
from recsys_had.errors import DataError
from recsys_had.training.loop import Trainer

MakeData = Callable[..., DataFolder]
NODES = {
    "linear": {"layer": "linear"},
    "fm": {"layer": "fm"},
    "deep": {"layer": "mlp", "hidden_units": (8,), "batch_norm": False},
}


def trainer(
    data: DataFolder, work: Path, device: torch.device, *, batch_size: int = 1000, epochs: int = 1
) -> Trainer:
    settings = Experiment.model_validate(
        {
            "dataset": "small",
            "model": {"embedding_dim": 4, "nodes": NODES},
            # All gradients are dense ones, and can be looked at.
            "train": {"batch_size": batch_size, "epochs": epochs, "regime": "published"},
        }
    )
    return Trainer(experiment=settings, data=data, device=device, work=work)


def first_step(trainer: Trainer) -> Step:
    return next(iter(trainer._read("train", seed=0).steps(Position(0, 0))))


def gradients(data: DataFolder, work: Path, device: torch.device) -> dict[str, Tensor]:
    """Of every weight, in one step over all rows."""
    one = trainer(data, work, device)
    one.step(first_step(one))
    found = {}
    for name, weight in one.optimizers.named.items():
        assert weight.grad is not None
        found[name] = weight.grad.clone()
    assert len(found) > 5
    return found


def rows_taken(data: DataFolder, index: np.ndarray) -> DataFolder:  # type: ignore[type-arg]
    """The same folder with other rows."""
    part = data.path / "train" / "part-00000.parquet"
    pq.write_table(pq.read_table(part).take(pa.array(index)), part)
    return data


def test_a_row_of_weight_3_is_three_rows_and_one_of_weight_0_is_none(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData, weigh: MakeData
) -> None:
    rows = {"train": 120}
    weight = np.random.default_rng(2).integers(0, 4, 120)
    weighted = weigh(make_small_data(tmp_path / "a", rows=rows), {"train": weight})
    repeated = rows_taken(
        make_small_data(tmp_path / "b", rows=rows), np.repeat(np.arange(120), weight)
    )
    found = gradients(weighted, tmp_path / "1", alone)
    expected = gradients(repeated, tmp_path / "2", alone)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)


def test_all_weights_of_1_change_no_gradient(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData, weigh: MakeData
) -> None:
    rows = {"train": 50}
    plain = gradients(make_small_data(tmp_path / "a", rows=rows), tmp_path / "1", alone)
    ones = weigh(make_small_data(tmp_path / "b", rows=rows), {"train": np.ones(50)})
    for name, gradient in gradients(ones, tmp_path / "2", alone).items():
        torch.testing.assert_close(gradient, plain[name], rtol=0, atol=0)


def test_a_step_whose_rows_all_have_weight_0_has_a_gradient_of_0(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData, weigh: MakeData
) -> None:
    weights = np.ones(60)
    data = weigh(make_small_data(tmp_path / "a", rows={"train": 60}), {"train": weights})
    one = trainer(data, tmp_path / "work", alone)
    step = first_step(one)
    assert step.batch.weight is not None
    step.batch.weight.zero_()
    loss = one.step(Step(step.batch, step.global_rows, step.after, global_weight=0.0))
    assert float(loss) == 0.0
    for name, weight in one.optimizers.named.items():
        assert weight.grad is not None
        assert not weight.grad.any(), name


def test_an_epoch_with_such_a_step_goes_on_and_tells_the_weighted_loss(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData, weigh: MakeData
) -> None:
    weight = np.zeros(60)
    weight[:9] = np.linspace(0.5, 3, 9)
    data = weigh(make_small_data(tmp_path / "a", rows={"train": 60}), {"train": weight})
    one = trainer(data, tmp_path / "work", alone, batch_size=4)
    steps = list(one._reader.steps(Position(0, 0)))
    totals = [step.total for step in steps]
    assert 0.0 in totals
    result = one.run()
    assert all(np.isfinite(one.losses))
    assert [loss == 0 for loss in one.losses] == [total == 0 for total in totals]
    mean = np.dot(one.losses, totals) / weight.sum()
    assert result.progress.history[0]["train_loss"] == pytest.approx(mean, rel=1e-6)


def test_a_split_is_measured_as_scikit_learn_measures_it(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData, weigh: MakeData
) -> None:
    rows = {"train": 100, "valid": 90}
    weights = {name: np.random.default_rng(1).choice([0, 0.3, 2], n) for name, n in rows.items()}
    data = weigh(make_small_data(tmp_path / "a", rows=rows), weights)
    metrics, (label, score, weight) = trainer(data, tmp_path / "work", alone).evaluate("valid")
    assert weight is not None
    np.testing.assert_array_equal(weight, weights["valid"].astype(np.float32))
    assert metrics["rows"] == 90
    assert metrics["auc"] == pytest.approx(roc_auc_score(label, score, sample_weight=weight))
    expected = log_loss(label, score.astype(np.float64), sample_weight=weight)
    assert metrics["logloss"] == pytest.approx(expected)


@pytest.mark.parametrize("which", ["all", "clicks"])
def test_rows_that_count_for_nothing_teach_nothing(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData, weigh: MakeData, which: str
) -> None:
    data = make_small_data(tmp_path / "a", rows={"train": 60})
    weight = np.zeros(60) if which == "all" else 1 - data.labels("train")
    told = {
        "all": "every weight is 0, so there is nothing to learn. Give rows that count.",
        "clicks": "every label of a row whose weight is not 0 is 0, so there is nothing to learn. "
        "A training split needs both classes.",
    }
    message = f"{data.path}/train: {told[which]}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        trainer(weigh(data, {"train": weight}), tmp_path / "work", alone)
