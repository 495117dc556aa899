"""What must hold for a GPU and shows on a CPU: no tensor is made beside those it meets.

Where nobody says where, a tensor is made on the default device. With ``meta`` for that, one made in
passing meets the CPU's as it would meet a GPU's: torch refuses, or what comes out is another thing.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from recsys_had import interactions, numeric
from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position
from recsys_had.errors import ConfigError
from recsys_had.training.distributed import process_group
from recsys_had.training.loop import Trainer
from tests.gpu.cases import LAYERS, experiment, inputs, layer
from tests.training.small_model import OPTIMIZERS, ROWS

Make = Callable[..., Trainer]


def _dropouts(key: str) -> dict[str, float]:
    return {option: 0.3 for option in interactions.options(LAYERS[key][0]) if "dropout" in option}


@pytest.mark.parametrize("key", LAYERS)
def test_a_layer_makes_every_tensor_where_its_input_is(key: str) -> None:
    found = []
    for default in ("cpu", "meta"):
        one, read = layer(key, **_dropouts(key)), [x.requires_grad_() for x in inputs(key, 6)]
        torch.manual_seed(3)
        with torch.device(default):
            out = one(*read)
            out.sum().backward()
        found.append([out, *(x.grad for x in read), *(p.grad for p in one.parameters())])
    for expected, given in zip(*found, strict=True):
        assert torch.equal(given, expected)


@pytest.mark.parametrize("key", LAYERS)
def test_all_that_a_layer_holds_moves_with_it(key: str) -> None:
    held = [
        f"{type(module).__name__}.{attribute}"
        for module in layer(key).modules()
        for attribute, value in vars(module).items()
        if isinstance(value, Tensor)
    ]
    assert held == []


@pytest.fixture
def trained(
    tmp_path: Path, alone: torch.device, make_small_data: Callable[..., DataFolder]
) -> Make:
    data = make_small_data(tmp_path / "data", rows=ROWS)

    def make(work: str = "work", **train: Any) -> Trainer:
        settings = Experiment.model_validate(experiment(**train))
        return Trainer(experiment=settings, data=data, device=alone, work=tmp_path / work)

    return make


def _trains_wherever_tensors_are_made(trained: Make, **settings: Any) -> None:
    found = []
    for default in ("cpu", "meta"):
        trainer = trained(default, gradient_clip_norm=0.02, **settings)
        steps = [*trainer._read("train", seed=0).steps(Position(0, 0))]
        with torch.device(default):
            found.append([float(trainer.step(step)) for step in steps])
    assert found[0] == found[1]


@pytest.mark.parametrize("sharding", ["row_wise", "data_parallel"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_makes_every_tensor_where_the_weights_are(
    trained: Make, optimizer: str, sharding: str
) -> None:
    _trains_wherever_tensors_are_made(trained, **OPTIMIZERS[optimizer], sharding=sharding)


@pytest.mark.parametrize("loss", ["focal", "tri_bce", "self_distillation"])
def test_so_does_every_loss(trained: Make, loss: str) -> None:
    _trains_wherever_tensors_are_made(trained, loss=loss)


@pytest.mark.parametrize("kind", [kind for kind in numeric.kinds() if kind != "none"])
def test_so_does_every_kind_of_numeric_column(trained: Make, kind: str) -> None:
    options = {} if kind == "scale" else {"normalise": "batch"}
    if kind == "piecewise_linear":
        options = {}
    _trains_wherever_tensors_are_made(trained, numeric={"kind": kind, **options})


def test_norms_of_gradients_are_summed_up_on_one_device_whatever_a_rank_holds(
    trained: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank without a table would wait at another backend than those that have one."""
    trainer = trained(regime="published", gradient_clip_norm=1.0)
    weight = torch.zeros(2, device="meta", requires_grad=True)
    trainer.optimizers.named = {"graph.bias": weight}
    met: list[str] = []
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda total: met.append(total.device.type))
    trainer.optimizers._clip(1.0)
    weight.grad = torch.zeros_like(weight)
    trainer.optimizers._sharded_names = {"graph.bias"}
    trainer.optimizers._clip(1.0)
    assert met == ["meta", "meta"]


def test_making_a_model_leaves_gpus_alone(trained: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each rank would take memory on every GPU of its host."""

    def touched(*arguments: Any) -> None:
        raise AssertionError("a GPU was touched")

    trainer = trained()
    for name in ("get_rng_state", "set_rng_state", "manual_seed_all", "_lazy_call"):
        monkeypatch.setattr(torch.cuda, name, touched)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = type(trainer.model)(
            fields=trainer.model.embeddings.fields,
            dense=trainer.model.embeddings.dense,
            config=Experiment.model_validate(experiment()).model,
        )
    assert again.num_parameters() == trainer.model.num_parameters()
    assert torch.equal(torch.get_rng_state(), state)


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"got 2 ranks and 1 GPUs on a host\. Start 1 there"):
        with process_group():
            pass


def test_a_test_that_asks_for_no_gpu_sees_none() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not torch.cuda.is_available()
