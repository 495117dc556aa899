"""The training loop: deterministic, resumable, equal to plain torch."""

import logging
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position
from recsys_had.errors import DataError, DivergenceError
from recsys_had.model.ctr import CTRModel, weights_digest
from recsys_had.model.embeddings import field_specs
from recsys_had.model.torchrec_tables import TORCHREC
from recsys_had.training.loop import Trainer
from tests.training.plain_loop import ROWS, experiment, trainer

MakeData = Callable[..., DataFolder]


@pytest.mark.parametrize("regime", ["scale", "published"])
def test_the_same_seed_gives_the_same_losses_bit_for_bit(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData, regime: str
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    runs = []
    for number in range(2):
        one = trainer(data, tmp_path / str(number), alone, regime=regime)
        result = one.run()
        assert result.state is not None
        runs.append((one.losses, weights_digest(result.state)))
    assert runs[0] == runs[1]
    other = trainer(data, tmp_path / "other", alone, regime=regime, seed=6)
    other.run()
    assert other.losses != runs[0][0]


@pytest.mark.parametrize("embedding_dim", [6, 8, 1])
@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad", "sgd"])
def test_fused_updates_equal_those_written_out_by_hand(
    tmp_path: Path,
    alone: torch.device,
    make_small_data: MakeData,
    optimizer: str,
    embedding_dim: int,
) -> None:
    """Three steps on tables, padding included, against autograd and the published update."""
    data = make_small_data(tmp_path / "data", rows={"train": 200})
    settings = Experiment.model_validate(
        {
            "dataset": "small",
            "model": {"embedding_dim": embedding_dim, "nodes": {"fm": {"layer": "fm"}}},
            "train": {
                "batch_size": 64,
                "learning_rate": 1e-9,
                "embedding_learning_rate": 0.1,
                "embedding_optimizer": optimizer,
            },
        }
    )
    ours = Trainer(experiment=settings, data=data, device=alone, work=tmp_path / "work")
    plain = CTRModel(
        fields=field_specs(data.card, data.num_embeddings),
        dense=data.card.dense,
        config=settings.model,
        backend=TORCHREC,
    )
    tables = {name: p for name, p in plain.named_parameters() if ".tables." in name}
    state = {name: torch.zeros(()) for name in tables}
    for step in list(ours._read("train", seed=0).steps(Position(0, 0)))[:3]:
        ours.step(step)
        plain.zero_grad()
        logit = plain(step.batch)
        functional.binary_cross_entropy_with_logits(logit, step.batch.label).backward()
        with torch.no_grad():
            for name, weight in tables.items():
                grad = weight.grad
                assert grad is not None
                width = plain.table_width(name)
                if optimizer == "rowwise_adagrad":
                    # One number a row: the mean over the row's own columns.
                    state[name] = state[name] + grad[:, :width].square().mean(1, keepdim=True)
                elif optimizer == "adagrad":
                    state[name] = state[name] + grad.square()
                scale = 1.0 if optimizer == "sgd" else state[name].sqrt() + 1e-8
                weight -= 0.1 * grad / scale
    found = ours.sharded.state_dict()
    for name, weight in tables.items():
        shard = found[name].local_shards()[0].tensor
        torch.testing.assert_close(shard, weight.detach(), rtol=1e-5, atol=1e-6)


def test_dense_adam_with_l2_equals_plain_torch(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData
) -> None:
    # Without batch norm: it makes the gradient of a bias before it pure rounding, which Adam
    # would blow up to full steps.
    data = make_small_data(tmp_path / "data", rows={"train": 200})
    settings = experiment(batch_norm=False, regime="published", embedding_l2=0.1, dense_l2=0.01)
    ours = Trainer(experiment=settings, data=data, device=alone, work=tmp_path / "work")
    plain = CTRModel(
        fields=field_specs(data.card, data.num_embeddings),
        dense=data.card.dense,
        config=settings.model,
        seed=5,
        backend=TORCHREC,
    )
    named = list(plain.named_parameters())
    adam = torch.optim.Adam(
        [
            {"params": [p for n, p in named if n.startswith("embeddings.")], "weight_decay": 0.1},
            {"params": [p for n, p in named if n.startswith("graph.")], "weight_decay": 0.01},
        ],
        lr=0.01,
    )
    torch.manual_seed(6)
    random = torch.get_rng_state()
    steps = list(ours._read("train", seed=5).steps(Position(0, 0)))[:3]
    for step in steps:
        ours.step(step)
        ours.progress.step += 1
    torch.set_rng_state(random)
    for number, step in enumerate(steps):
        adam.zero_grad()
        for group in adam.param_groups:
            group["eps"] = 1e-8 / math.sqrt(1 - 0.999 ** (number + 1))
        logit = plain(step.batch)
        functional.binary_cross_entropy_with_logits(logit, step.batch.label).backward()
        adam.step()
    found = ours.sharded.state_dict()
    for name, weight in named:
        value = found[name]
        value = value.local_shards()[0].tensor if hasattr(value, "local_shards") else value
        torch.testing.assert_close(value, weight.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("regime", ["scale", "published"])
@pytest.mark.parametrize("sharding", ["table_wise", "row_wise"])
def test_every_table_changes_in_one_step(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData, regime: str, sharding: str
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = trainer(data, tmp_path / "work", alone, regime=regime, sharding=sharding)
    before = {
        name: value.local_shards()[0].tensor.clone()
        for name, value in one.sharded.state_dict().items()
        if ".tables." in name
    }
    assert len(before) == 6
    one.step(next(iter(one._read("train", seed=0).steps(Position(0, 0)))))
    for name, value in one.sharded.state_dict().items():
        if ".tables." in name:
            assert not torch.equal(value.local_shards()[0].tensor, before[name]), name


@pytest.mark.parametrize("regime", ["scale", "published"])
@pytest.mark.parametrize("stop_at", [3, 8, 11])
def test_an_interrupted_run_resumes_bit_for_bit(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData, regime: str, stop_at: int
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    options = {"regime": regime, "schedule": "cosine", "warmup_steps": 4, "epochs": 2}
    whole = trainer(data, tmp_path / "whole", alone, **options)
    expected = whole.run()

    def interrupt(metrics: dict[str, float], step: int) -> None:
        if step == stop_at and "train_loss" in metrics:
            os.kill(os.getpid(), signal.SIGINT)

    first = Trainer(
        experiment=experiment(**options),
        data=data,
        device=alone,
        work=tmp_path / "work",
        on_metrics=interrupt,
    )
    with pytest.raises(KeyboardInterrupt):
        first.run()
    # The signal is seen at the end of the step it came in, or of the next.
    assert len(first.losses) in {stop_at, stop_at + 1}
    second = trainer(data, tmp_path / "work", alone, **options)
    assert second.resume()
    result = second.run()
    assert first.losses + second.losses == whole.losses
    assert expected.state is not None and result.state is not None
    assert weights_digest(result.state) == weights_digest(expected.state)
    assert result.metrics == expected.metrics
    assert result.progress.history == expected.progress.history


def test_sigterm_ends_with_143_and_leaves_a_checkpoint(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = Trainer(
        experiment=experiment(),
        data=data,
        device=alone,
        work=tmp_path / "work",
        on_metrics=lambda metrics, step: step == 2 and os.kill(os.getpid(), signal.SIGTERM),
    )
    with pytest.raises(SystemExit) as caught:
        one.run()
    assert caught.value.code == 143
    assert trainer(data, tmp_path / "work", alone).resume()


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize(
    "optimizer", [{"regime": "published"}, {"embedding_optimizer": "lazy_adam"}]
)
def test_batches_summed_up_for_an_update_are_one_batch(
    tmp_path: Path,
    alone: torch.device,
    make_small_data: MakeData,
    weigh: Callable[..., DataFolder],
    optimizer: dict[str, Any],
    is_weighted: bool,
) -> None:
    """The last update of an epoch too, which has fewer batches, one of them short."""
    data = make_small_data(tmp_path / "data", rows=ROWS)
    if is_weighted:
        generator = np.random.default_rng(8)
        data = weigh(data, {name: generator.choice([0, 0.5, 7], n) for name, n in ROWS.items()})
    found = []
    for name, settings in (
        ("whole", {"batch_size": 96}),
        ("parts", {"batch_size": 32, "accumulate_steps": 3}),
    ):
        one = Trainer(
            experiment=experiment(**settings, **optimizer).model_copy(
                update={"model": experiment(batch_norm=False).model}
            ),
            data=data,
            device=alone,
            work=tmp_path / name,
        )
        for module in one.model.modules():
            if hasattr(module, "share"):
                module.share = 0.0
        one.run()
        found.append(one)
    whole, parts = found
    assert parts.progress.step == whole.progress.step == 12
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=0, atol=1e-5)


def test_accumulation_under_a_fused_optimizer_is_refused() -> None:
    with pytest.raises(ValidationError, match="accumulate_steps cannot sum up gradients under"):
        experiment(accumulate_steps=2)


def test_nothing_to_resume_starts_afresh(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    assert not trainer(data, tmp_path / "work", alone).resume()


def test_training_stops_out_of_patience_and_keeps_the_best_weights(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = trainer(
        data,
        tmp_path / "work",
        alone,
        epochs=40,
        patience=2,
        monitor="logloss",
        embedding_learning_rate=0.3,
    )
    result = one.run()
    history = [entry["valid"]["logloss"] for entry in result.progress.history]
    assert len(history) < 40
    assert history.index(min(history)) == len(history) - 3
    assert result.metrics["valid"]["logloss"] == min(history)


def test_a_plateau_lowers_the_rates(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = trainer(
        data,
        tmp_path / "work",
        alone,
        epochs=30,
        patience=3,
        schedule="plateau",
        plateau_factor=0.5,
        embedding_learning_rate=0.3,
    )
    one.run()
    misses = sum(
        entry["valid"]["auc"]
        <= max((e["valid"]["auc"] for e in one.progress.history[:n]), default=0)
        for n, entry in enumerate(one.progress.history)
    )
    assert misses > 0
    assert one.optimizers.rate_factor(0, done=0) == 0.5**misses


def test_scores_that_are_no_numbers_are_a_divergence(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData
) -> None:
    """The last step of an epoch may spoil the weights after its loss was looked at."""
    data = make_small_data(tmp_path / "data", rows={"train": 60, "valid": 20})
    one = trainer(data, tmp_path / "work", alone, regime="published", learning_rate=1e30)
    with pytest.raises(
        DivergenceError, match=r"^valid: \d+ of 20 scores are not finite numbers\. "
    ):
        one.run()


def test_schedules_follow_their_formulas(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    linear = trainer(data, tmp_path / "a", alone, schedule="linear", warmup_steps=4).optimizers
    assert linear.rate_factor(0, done=0) == 1 / 4
    assert linear.rate_factor(8, done=0.375) == 1 - 0.375
    cosine = trainer(data, tmp_path / "b", alone, schedule="cosine").optimizers
    assert cosine.rate_factor(8, done=0.5) == pytest.approx(0.5)
    cosine.prepare(8, done=0.5)
    assert cosine.adam.param_groups[0]["lr"] == pytest.approx(0.005)


def test_gradient_clipping_bounds_the_global_norm(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = trainer(data, tmp_path / "work", alone, regime="published", gradient_clip_norm=1e-3)
    one.step(next(iter(one._read("train", seed=0).steps(Position(0, 0)))))
    grads = [w.grad for w in one.optimizers.named.values() if w.grad is not None]
    norm = torch.sqrt(sum((g.square().sum() for g in grads), torch.zeros(())))
    assert float(norm) == pytest.approx(1e-3, rel=1e-2)


def test_a_validation_split_of_one_class_gives_no_auc_and_training_goes_on(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData
) -> None:
    data = make_small_data(tmp_path / "data", rows={"train": 300, "valid": 1})
    result = trainer(data, tmp_path / "work", alone).run()
    assert result.metrics["valid"]["auc"] is None
    assert result.metrics["valid"]["rows"] == 1


def test_a_training_split_of_one_class_or_none_is_refused(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData
) -> None:
    data = make_small_data(tmp_path / "data", rows={"train": 1, "valid": 9})
    with pytest.raises(DataError, match=r"every label is [01], so there is nothing to learn"):
        trainer(data, tmp_path / "work", alone)
    none = DataFolder(data.path, data.card, {**data.manifest, "rows": {"valid": 9}})
    with pytest.raises(DataError, match=r"the training split has no row\. Ingest some\.$"):
        trainer(none, tmp_path / "work", alone)


@pytest.mark.parametrize(("warmup_steps", "is_told"), [(0, False), (15, False), (16, True)])
def test_a_warm_up_as_long_as_the_training_is_told(
    tmp_path: Path,
    alone: torch.device,
    make_small_data: MakeData,
    monkeypatch: pytest.MonkeyPatch,
    warmup_steps: int,
    is_told: bool,
) -> None:
    """500 rows are 8 steps of 64, and there are 2 epochs."""
    told: list[str] = []
    logger = logging.getLogger("recsys_had")
    monkeypatch.setattr(logger, "warning", lambda text, *values: told.append(text % values))
    data = make_small_data(tmp_path / "data", rows=ROWS)
    trainer(data, tmp_path / "work", alone, warmup_steps=warmup_steps)
    expected = (
        "train.warmup_steps: must be below the 16 steps of this training, or the learning rate "
        "ends before it is what the experiment says; got 16. Lower it, or train longer."
    )
    assert told == [expected] * is_told


def test_a_loss_that_is_not_finite_ends_with_the_step(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = trainer(data, tmp_path / "work", alone, learning_rate=1e30, regime="published")
    told = r"^step \d+: the loss is (nan|inf)\. .*: it comes of the network\. Lower train\.learn"
    with pytest.raises(DataError, match=told):
        one.run()
