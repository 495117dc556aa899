"""What is minimised: each loss against loops in double precision, and through a whole training."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys_had.config import Bce, Experiment, Focal, LossConfig, SelfDistillation, TriBce
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position
from recsys_had.errors import ConfigError
from recsys_had.training.loop import Trainer
from recsys_had.training.losses import row_losses

LOSSES = [Bce(), Focal(), Focal(gamma=0.5, alpha=0.3), TriBce(), SelfDistillation()]


def cross_entropy(logit: float, target: float) -> float:
    share = 1 / (1 + math.exp(-logit))
    return -target * math.log(share) - (1 - target) * math.log(1 - share)


def plain(logits: list[float], students: list[list[float]], labels: list[float],
          config: LossConfig) -> list[float]:  # fmt: skip
    whole = [cross_entropy(z, y) for z, y in zip(logits, labels, strict=True)]
    rows = range(len(labels))
    if isinstance(config, Focal):
        found = []
        for row in rows:
            right = math.exp(-whole[row])
            weight = 1.0
            if config.alpha is not None:
                weight = config.alpha if labels[row] == 1 else 1 - config.alpha
            found.append(weight * (1 - right) ** config.gamma * whole[row])
        return found
    if isinstance(config, TriBce):
        found = list(whole)
        for s in range(len(students[0])):
            own = [cross_entropy(students[row][s], labels[row]) for row in rows]
            weight = max(0.0, sum(own) / len(own) - sum(whole) / len(whole))
            found = [total + weight * loss for total, loss in zip(found, own, strict=True)]
        return found
    if isinstance(config, SelfDistillation):
        shares = [1 / (1 + math.exp(-z)) for z in logits]
        return [
            whole[row] + sum(cross_entropy(z, shares[row]) for z in students[row]) for row in rows
        ]
    return whole


def drawn(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    students = torch.randn(9, 3, generator=generator, dtype=torch.float64) * 2
    labels = (torch.rand(9, generator=generator) < 0.4).double()
    return students.mean(dim=1), students, labels


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("config", LOSSES, ids=str)
def test_a_loss_equals_its_formula_written_with_loops(config: LossConfig, seed: int) -> None:
    logits, students, labels = drawn(seed)
    expected = plain(logits.tolist(), students.tolist(), labels.tolist(), config)
    found = row_losses(logits, students, labels, config=config)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_a_focal_loss_by_hand() -> None:
    # p = 1/2: (1 - 1/2)^2 ln 2, weighted by 1/4 for a click and 3/4 for none.
    found = row_losses(
        torch.zeros(2), torch.zeros(2, 1), torch.tensor([1.0, 0.0]), config=Focal(alpha=0.25)
    )
    torch.testing.assert_close(found, math.log(2) / 4 * torch.tensor([0.25, 0.75]))


def test_focal_without_focus_is_cross_entropy() -> None:
    logits, students, labels = drawn(0)
    found = row_losses(logits, students, labels, config=Focal(gamma=0.0))
    torch.testing.assert_close(found, row_losses(logits, students, labels, config=Bce()))


@pytest.mark.parametrize("config", LOSSES, ids=str)
def test_gradients_are_finite_however_sure_the_model_is(config: LossConfig) -> None:
    students = torch.tensor([[200.0, 300.0], [-200.0, -300.0], [0.0, 0.0]], requires_grad=True)
    logits = students.mean(dim=1)
    for labels in (torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])):
        (gradient,) = torch.autograd.grad(
            row_losses(logits, students, labels, config=config).sum(), students, retain_graph=True
        )
        assert torch.isfinite(gradient).all()


def test_what_the_students_learn_from_is_not_moved_by_them() -> None:
    logits = torch.tensor([0.3], requires_grad=True)
    students = torch.tensor([[2.0, -1.0]])
    found = row_losses(logits, students, torch.tensor([1.0]), config=SelfDistillation())
    found.sum().backward()
    # The derivative of the cross entropy alone: sigmoid(0.3) - 1.
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.sigmoid(torch.tensor([0.3])) - 1)


def experiment(loss: Any, **model: Any) -> Experiment:
    nodes = {
        "fm": {"layer": "fm"},
        "deep": {"layer": "mlp", "hidden_units": (8,), "dropout": 0.2},
    }
    return Experiment.model_validate(
        {
            "dataset": "small",
            "model": {"embedding_dim": 6, "nodes": nodes, **model},
            "train": {"batch_size": 64, "epochs": 2, "seed": 5, "loss": loss},
        }
    )


@pytest.mark.parametrize("combine", ["sum", "mean"])
@pytest.mark.parametrize(
    "loss", ["focal", "tri_bce", {"kind": "self_distillation", "passes": 3}], ids=str
)
def test_a_model_trains_by_it(
    tmp_path: Path,
    alone: torch.device,
    make_small_data: Callable[..., DataFolder],
    loss: Any,
    combine: str,
) -> None:
    data = make_small_data(tmp_path / "data", rows={"train": 500, "valid": 200})
    trainer = Trainer(
        experiment=experiment(loss, combine=combine),
        data=data,
        device=alone,
        work=tmp_path / "work",
    )
    trainer.run()
    first, last = trainer.losses[:8], trainer.losses[-8:]
    assert sum(last) < sum(first)


def test_passes_differ_by_their_dropout_alone(
    tmp_path: Path, alone: torch.device, make_small_data: Callable[..., DataFolder]
) -> None:
    data = make_small_data(tmp_path / "data", rows={"train": 500, "valid": 200})
    trainer = Trainer(
        experiment=experiment({"kind": "self_distillation", "passes": 2}),
        data=data,
        device=alone,
        work=tmp_path / "work",
    )
    model = trainer.sharded
    batch = next(iter(trainer._reader.steps(Position(0, 0)))).batch
    with torch.no_grad():
        found = model(batch, passes=2)
        assert not torch.equal(found[:, 1], found[:, 2])
        torch.testing.assert_close(found[:, 0], found[:, 1:].mean(dim=1))
        model.eval()
        found = model(batch, passes=2)
        torch.testing.assert_close(found[:, 1], model(batch))
        torch.testing.assert_close(found[:, 2], model(batch))
        heads = model(batch, passes=1)
        torch.testing.assert_close(heads[:, 0], model(batch))


def test_passes_that_would_be_all_alike_are_refused(
    tmp_path: Path, alone: torch.device, make_small_data: Callable[..., DataFolder]
) -> None:
    data = make_small_data(tmp_path / "data", rows={"train": 500, "valid": 200})
    nodes = {"deep": {"layer": "mlp", "hidden_units": (4,)}}
    with pytest.raises(ConfigError) as refusal:
        Trainer(
            experiment=experiment({"kind": "self_distillation", "passes": 3}, nodes=nodes),
            data=data,
            device=alone,
            work=tmp_path / "work",
        )
    assert str(refusal.value) == (
        "train.loss.passes: self_distillation compares 3 passes, which are all alike in a model "
        "without dropout. Give a node some, or leave passes out."
    )


def test_a_loss_of_heads_refuses_a_model_with_one(
    tmp_path: Path, alone: torch.device, make_small_data: Callable[..., DataFolder]
) -> None:
    data = make_small_data(tmp_path / "data", rows={"train": 500, "valid": 200})
    line = (
        "train.loss: tri_bce compares a model's heads with their sum or mean; this model has one "
        "head. Give it a second one, set train.loss.passes to 2, or use bce."
    )
    with pytest.raises(ConfigError) as refusal:
        Trainer(
            experiment=experiment("tri_bce", nodes={"fm": {"layer": "fm"}}),
            data=data,
            device=alone,
            work=tmp_path / "work",
        )
    assert str(refusal.value) == line
