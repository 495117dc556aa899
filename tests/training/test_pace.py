"""Compiled and half precision training steps: near the plain ones, resumed to the bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position
from recsys_had.errors import ConfigError
from recsys_had.model.ctr import weights_digest
from recsys_had.training.loop import Trainer
from tests.training.compiler import needs_compiler

# Seven whole steps and one of two rows.
ROWS = {"train": 450, "valid": 200}
NODES: dict[str, dict[str, Any]] = {
    "linear": {"layer": "linear"},
    "cross": {"layer": "hadamard_cross", "num_layers": 2},
    "deep": {
        "layer": "mlp",
        "inputs": ("cross",),
        "hidden_units": (16,),
        "dropout": 0.1,
        "batch_norm": True,
    },
}


@pytest.fixture
def trained(
    tmp_path: Path, alone: torch.device, make_small_data: Callable[..., DataFolder]
) -> Callable[..., Trainer]:
    """Makes a trainer; each works in the folder it names."""
    data = make_small_data(tmp_path / "data", rows=ROWS)

    def make(work: str = "work", **train: Any) -> Trainer:
        settings = {"batch_size": 64, "epochs": 2, "learning_rate": 0.01, "seed": 5, **train}
        experiment = Experiment.model_validate(
            {
                "dataset": "small",
                "model": {"embedding_dim": 6, "nodes": NODES},
                "train": settings,
            }
        )
        return Trainer(experiment=experiment, data=data, device=alone, work=tmp_path / work)

    return make


FAST: dict[str, Any] = {"compile": True, "precision": "bf16"}


@needs_compiler
@pytest.mark.parametrize(("fast", "gap"), [({"compile": True}, 1e-5), (FAST, 2e-2)])
def test_a_fast_step_is_near_the_plain_one(
    trained: Callable[..., Trainer], fast: dict[str, Any], gap: float
) -> None:
    # Dropout is drawn otherwise in compiled code.
    plain, quick = trained("plain"), trained("quick", **fast)
    for one in (plain, quick):
        for module in one.model.modules():
            if hasattr(module, "share"):
                module.share = 0.0
        for step in list(one._read("train", seed=0).steps(Position(0, 0)))[:3]:
            one.losses.append(float(one.step(step)) / step.total)
    np.testing.assert_allclose(quick.losses, plain.losses, rtol=0, atol=gap)
    # In half precision it is another number, or it was not half.
    assert fast != FAST or quick.losses[0] != plain.losses[0]


@needs_compiler
def test_whole_steps_alone_are_compiled(trained: Callable[..., Trainer]) -> None:
    torch._dynamo.reset()
    counters.clear()
    one = trained(compile=True, epochs=1)
    one.run()
    # The tail, and validation, ran as they stand: nothing was compiled for them.
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@needs_compiler
def test_scores_are_those_of_float32_whatever_training_runs_in(
    trained: Callable[..., Trainer],
) -> None:
    plain, quick = trained("plain"), trained("quick", **FAST)
    ours, theirs = quick.evaluate("valid")[1], plain.evaluate("valid")[1]
    np.testing.assert_array_equal(ours.score, theirs.score)


@needs_compiler
def test_a_fast_training_resumes_bit_for_bit(
    trained: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained("whole", **FAST).run()
    stopped = trained("stopped", **FAST)
    step = stopped.step

    def failing(rows: Any, coming: Any) -> torch.Tensor:
        if stopped.progress.step == 5:
            stopped._save(wait=True)
            raise KeyboardInterrupt
        return step(rows, coming=coming)

    monkeypatch.setattr(stopped, "step", failing)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    again = trained("stopped", **FAST)
    assert again.resume()
    rest = again.run()
    assert whole.state is not None and rest.state is not None
    assert weights_digest(rest.state) == weights_digest(whole.state)


@needs_compiler
def test_every_training_of_a_process_is_compiled(trained: Callable[..., Trainer]) -> None:
    """torch compiles eight graphs of one place in the code and runs the ninth as it stands."""
    counters.clear()
    for number in range(10):
        one = trained(f"work{number}", compile=True, batch_size=32 + number)
        one.step(next(iter(one._reader.steps(Position(0, 0)))))
        assert counters["stats"]["unique_graphs"] == number + 1


@needs_compiler
def test_passes_are_compiled_too(trained: Callable[..., Trainer]) -> None:
    torch._dynamo.reset()
    counters.clear()
    trained(compile=True, epochs=1, loss={"kind": "self_distillation", "passes": 2}).run()
    assert counters["stats"]["unique_graphs"] == 1


def test_without_a_compiler_compile_is_refused(
    trained: Callable[..., Trainer], no_compiler: None
) -> None:
    with pytest.raises(ConfigError, match=r"train\.compile: there is no C\+\+ compiler"):
        trained(compile=True)
