"""Lazy Adam: dense Adam's update on a step's rows, nothing on others; SparseAdam's over a run."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from recsys_had.config import Experiment, TrainConfig
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_of_weight, field_specs
from recsys_had.model.torchrec_tables import TORCHREC
from recsys_had.training.lazy_adam import _of_bags, _parts, _Rows
from recsys_had.training.loop import Trainer
from recsys_had.training.pieces import local_pieces

MODEL = {"embedding_dim": 6, "nodes": {"linear": {"layer": "linear"}, "fm": {"layer": "fm"}}}


def experiment(**train: Any) -> Experiment:
    settings = {"batch_size": 64, "learning_rate": 0.01, "embedding_optimizer": "lazy_adam"}
    return Experiment.model_validate(
        {"dataset": "small", "model": MODEL, "train": settings | train}
    )


@pytest.mark.parametrize("sharding", ["table_wise", "data_parallel"])
def test_a_step_is_dense_adams_on_its_rows_and_nothing_on_others(
    tmp_path: Path,
    alone: torch.device,
    make_small_data: Callable[..., DataFolder],
    sharding: str,
) -> None:
    data = make_small_data(tmp_path / "data", rows={"train": 400})
    ours = Trainer(
        experiment=experiment(sharding=sharding), data=data, device=alone, work=tmp_path / "work"
    )
    lazy = ours.optimizers.lazy
    assert lazy is not None
    steps = list(ours._read("train", seed=0).steps(Position(0, 0)))[:4]
    for step in steps[:3]:
        ours.step(step)
        ours.progress.step += 1
    before = {piece.name: piece.tensor.clone() for piece in tables(ours)}
    moments = {
        piece.name: {key: value.clone() for key, value in lazy.moments(piece)}
        for piece in tables(ours)
    }
    plain = CTRModel(
        fields=field_specs(data.card, data.num_embeddings),
        dense=data.card.dense,
        config=experiment().model,
        backend=TORCHREC,
    )
    plain.load_state_dict(whole(ours, plain))
    weights = {name: w for name, w in plain.named_parameters() if name in before}
    adam = torch.optim.Adam(weights.values(), lr=0.01, eps=1e-8)
    for name, weight in weights.items():
        held = {key: value.clone() for key, value in moments[name].items()}
        adam.state[weight] = {"step": torch.tensor(3.0), **held}
    batch = steps[3].batch
    functional.binary_cross_entropy_with_logits(plain(batch), batch.label).backward()
    adam.step()
    ours.step(steps[3])
    assert len(before) == 6
    for piece in tables(ours):
        touched = batch.sparse[field_of_weight(piece.name)].values().long().unique()
        rest = torch.ones(len(piece.tensor), dtype=torch.bool)
        rest[touched] = False
        expected = weights[piece.name].detach()
        torch.testing.assert_close(
            piece.tensor[touched], expected[touched], rtol=0, atol=1e-6, msg=piece.name
        )
        assert not torch.equal(piece.tensor[touched], before[piece.name][touched])
        assert torch.equal(piece.tensor[rest], before[piece.name][rest])
        for key, value in lazy.moments(piece):
            torch.testing.assert_close(
                value[touched], adam.state[weights[piece.name]][key][touched], rtol=1e-4, atol=1e-9
            )
            assert torch.equal(value[rest], moments[piece.name][key][rest])


def tables(trainer: Trainer) -> list[Any]:
    return [piece for piece in local_pieces(trainer.sharded) if ".tables." in piece.name]


def whole(trainer: Trainer, plain: CTRModel) -> dict[str, torch.Tensor]:
    """The trainer's weights as the plain model holds them, padding included."""
    found = {piece.name: piece.tensor.clone() for piece in local_pieces(trainer.sharded)}
    assert found.keys() == plain.state_dict().keys()
    return found


@pytest.mark.parametrize("is_mean", [False, True])
def test_features_of_two_widths_are_taken_one_by_one(is_mean: bool) -> None:
    """What TorchRec puts into one lookup when a plan cuts columns differently."""
    # Two tables, of 3 rows of 4 columns and of 2 rows of 8.
    module = SimpleNamespace(
        D_offsets=torch.tensor([0, 4, 12]),
        weights_offsets=torch.tensor([0, 12]),
        weights=torch.zeros(28),
    )
    kernel: Any = SimpleNamespace(_feature_table_map=[0, 1], emb_module=module)
    first, second = _parts(kernel)
    assert first.rows.weight.shape == (3, 4) and second.rows.weight.shape == (2, 8)
    # Two bags a feature: of the first table (2, 0) and none, of the second (1) and (1).
    indices, offsets = torch.tensor([2, 0, 1, 1]), torch.tensor([0, 2, 2, 3, 4])
    grad = torch.arange(24.0).view(2, 12)
    ids, vectors = _of_bags(first, indices, offsets, grad, is_mean=is_mean)
    assert ids.tolist() == [2, 0]
    share = 0.5 if is_mean else 1.0
    assert torch.equal(vectors, share * torch.stack([grad[0, :4], grad[0, :4]]))
    ids, vectors = _of_bags(second, indices, offsets, grad, is_mean=is_mean)
    assert ids.tolist() == [1, 1]
    assert torch.equal(vectors, grad[:, 4:])


def test_more_rows_than_are_updated_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_had.training.lazy_adam._ROWS", 3)
    grad = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    rows = _Rows.of(torch.zeros(10, 2))
    at = torch.tensor([0, 1, 3, 4, 5, 7, 8, 9])
    rows.update(at, grad, rate=0.1, eps=1e-8, step=1)
    # The first step of Adam goes the rate's length against each number's sign.
    torch.testing.assert_close(rows.weight[at], -0.1 * grad.sign())
    assert not rows.weight[[2, 6]].any()


def test_lazy_adam_belongs_to_regime_scale() -> None:
    with pytest.raises(ValidationError, match="'lazy_adam' does not belong to regime 'published'"):
        TrainConfig.model_validate({"regime": "published", "embedding_optimizer": "lazy_adam"})
