"""Checkpoints move: to another number of ranks, another plan; what is torn is never read."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position
from recsys_had.errors import CheckpointError
from recsys_had.model.ctr import weights_digest
from recsys_had.training import piece_files
from recsys_had.training.loop import Trainer
from tests.training.launch import launch_forked
from tests.training.small_model import MODEL, OPTIMIZERS, ROWS

STOP, END = 10, 30
KINDS: dict[str, dict[str, Any]] = {
    **OPTIMIZERS,
    # Its eps changes from step to step.
    "adam": {"regime": "published"},
    "half": {"embedding_optimizer": "adagrad", "table_precision": "fp16"},
}
MIXED = {"default": "row_wise", "tables": {"A": "table_wise", "fields.B": "data_parallel"}}
# World size and sharding of the first steps, then of the rest.
MOVES: dict[str, tuple[int, Any, int, Any]] = {
    "1-to-2": (1, "table_wise", 2, "row_wise"),
    "2-to-1": (2, "row_wise", 1, "table_wise"),
    "plan": (2, "table_wise", 2, MIXED),
    "back": (2, MIXED, 2, "column_wise"),
}


def experiment(world_size: int, sharding: Any, **train: Any) -> dict[str, Any]:
    return {
        "dataset": "small",
        "model": MODEL,
        "train": {
            "batch_size": 64 // world_size,
            "learning_rate": 0.003,
            "seed": 5,
            "epochs": 9,
            # It goes by the rows seen: whoever goes on must be where the other was.
            "schedule": "cosine",
            "sharding": sharding,
            **train,
        },
    }


def moves() -> dict[str, tuple[str, str]]:
    return {
        f"{move}-{optimizer}": (move, optimizer)
        for move in MOVES
        for optimizer in KINDS
        if not ("column_wise" in MOVES[move] and optimizer == "rowwise_adagrad")
        and not (MIXED in MOVES[move] and optimizer == "half")
    }


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory, make_small_data: Callable[..., DataFolder]
) -> Path:
    """Folders of what each run came to: ``whole/OPTIMIZER``, ``first/MOVE``, ``rest/MOVE``."""
    folder = tmp_path_factory.mktemp("checkpoint")
    data = make_small_data(folder / "data", rows=ROWS)
    script = Path(__file__).with_name("checkpoint_ranks.py")

    def run(stage: str, world_size: int, cases: dict[str, Any]) -> None:
        note = folder / f"{stage}-{world_size}.json"
        note.write_text(json.dumps(cases))
        launch_forked(script, note, data.path, folder / stage, world_size=world_size)

    def case(name: str, world_size: int, sharding: Any, optimizer: str, **options: Any) -> Any:
        settings = experiment(world_size, sharding, **KINDS[optimizer])
        return {"experiment": settings, "work": str(folder / "work" / name), **options}

    undisturbed = {
        optimizer: case(optimizer, 1, "table_wise", optimizer, until=END, resume=False)
        for optimizer in KINDS
    }
    run("whole", 1, undisturbed)
    for stage, until, resume in (("first", STOP, False), ("rest", END, True)):
        cases: dict[int, dict[str, Any]] = {1: {}, 2: {}}
        for name, (move, optimizer) in moves().items():
            at = 2 if resume else 0
            world_size, sharding = MOVES[move][at : at + 2]
            cases[world_size][name] = case(
                name, world_size, sharding, optimizer, until=until, resume=resume
            )
        for world_size, some in cases.items():
            run(stage, world_size, some)
    return folder


@pytest.mark.parametrize("name", moves())
def test_a_checkpoint_moves_bit_for_bit_and_training_goes_on_alike(found: Path, name: str) -> None:
    _, optimizer = moves()[name]
    saved, loaded = (
        load_file(found / "first" / name / "end"),
        load_file(found / "rest" / name / "begin"),
    )
    assert saved.keys() == loaded.keys()
    num_state = sum(key.startswith(("tables/", "adam/")) for key in saved)
    assert num_state > (20 if optimizer == "sgd" else 27)
    for key, tensor in saved.items():
        assert torch.equal(tensor, loaded[key]), key
        assert not tensor.isnan().any(), key
    whole = json.loads((found / "whole" / optimizer / "losses.json").read_text())
    parts = [
        loss
        for stage in ("first", "rest")
        for loss in json.loads((found / stage / name / "losses.json").read_text())
    ]
    assert len(parts) == END
    # Half tables round the sums of two ranks' gradients to neighbouring numbers now and then.
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-4 if optimizer == "half" else 1e-6)


@pytest.fixture
def trained(
    tmp_path: Path, alone: torch.device, make_small_data: Callable[..., DataFolder]
) -> Callable[..., Trainer]:
    """Makes trainers on one work folder."""
    data = make_small_data(tmp_path / "data", rows=ROWS)

    def make(**train: Any) -> Trainer:
        settings = Experiment.model_validate(experiment(1, "table_wise", **{"epochs": 2, **train}))
        return Trainer(experiment=settings, data=data, device=alone, work=tmp_path / "work")

    return make


def steps_kept(trainer: Trainer) -> list[str]:
    return sorted(path.name for path in (trainer.work / "checkpoint").iterdir())


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_ones_are_kept(trained: Callable[..., Trainer], keep: int) -> None:
    one = trained(keep_checkpoints=keep, checkpoint_every_steps=3)
    one.run()
    # 8 steps an epoch, one at the end of each.
    expected = ["step-000000012", "step-000000015", "step-000000016"]
    assert steps_kept(one) == expected[-keep:]
    assert sorted(path.name for path in one.work.glob("*.tmp")) == []


def damage(path: Path, how: str) -> None:
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif how == "flipped":
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
@pytest.mark.parametrize("file", ["rank-00000.safetensors", "manifest.json"])
def test_a_damaged_checkpoint_is_passed_over(
    trained: Callable[..., Trainer], caplog: pytest.LogCaptureFixture, file: str, how: str
) -> None:
    one = trained(checkpoint_every_steps=3)
    one.run()
    damage(one.work / "checkpoint" / "step-000000016" / file, how)
    other = trained(checkpoint_every_steps=3)
    with caplog.at_level(logging.WARNING):
        assert other.resume()
    assert "step-000000016: is not whole; the checkpoint before it is tried." in caplog.text
    assert other.progress.step == 15
    # What it then comes to is what it would have come to.
    again, first = other.run().state, one.run().state
    assert again is not None and first is not None
    assert weights_digest(again) == weights_digest(first)


def test_no_whole_checkpoint_is_told(trained: Callable[..., Trainer]) -> None:
    one = trained(keep_checkpoints=1)
    one.run()
    damage(one.work / "checkpoint" / "step-000000016" / "manifest.json", "cut")
    with pytest.raises(CheckpointError, match=r"no checkpoint in it is whole\. Add --overwrite"):
        trained().resume()


def test_an_unfinished_write_is_no_checkpoint(trained: Callable[..., Trainer]) -> None:
    one = trained(checkpoint_every_steps=3)
    one.run()
    newest = one.work / "checkpoint" / "step-000000016"
    newest.rename(one.work / "checkpoint.tmp")
    other = trained(checkpoint_every_steps=3)
    assert other.resume()
    assert other.progress.step == 15


def test_a_checkpoint_of_another_optimizer_is_refused(trained: Callable[..., Trainer]) -> None:
    trained(embedding_optimizer="adagrad").run()
    with pytest.raises(CheckpointError, match=r"does not fit this model; tables/embed.* shape"):
        trained(embedding_optimizer="rowwise_adagrad").resume()
    with pytest.raises(CheckpointError, match=r"does not fit this model; the model has no tables/"):
        trained(embedding_optimizer="sgd").resume()


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Checkpoints are not written before this is set."""
    go_on, write = Event(), piece_files.save_file

    def slow(*arguments: Any, **options: Any) -> None:
        if arguments[1].parent.name == "checkpoint.tmp":
            assert go_on.wait(60)
        write(*arguments, **options)

    monkeypatch.setattr(piece_files, "save_file", slow)
    return go_on


def test_a_checkpoint_is_written_while_training_goes_on(
    trained: Callable[..., Trainer], held_back: Event
) -> None:
    """The weights it holds are those of the step it began at, however long writing takes."""
    one = trained()
    bias = one.optimizers.named["graph.bias"].clone()
    one._save(wait=False)
    step = next(iter(one._read("train", seed=0).steps(Position(0, 0))))
    one.step(step)
    one._checkpoints.settle(wait=False)
    assert one._checkpoints.is_writing
    assert not torch.equal(one.optimizers.named["graph.bias"], bias)
    held_back.set()
    one._checkpoints.settle(wait=True)
    other = trained()
    assert other.resume()
    assert torch.equal(other.optimizers.named["graph.bias"], bias)


def test_the_best_weights_a_checkpoint_goes_back_to_are_kept(
    trained: Callable[..., Trainer],
) -> None:
    one = trained(epochs=5, keep_checkpoints=2, monitor="logloss")
    one.run()
    assert one.progress.best_epoch == 5
    kept = sorted(path.name for path in one.work.glob("best-*"))
    assert kept[-1] == "best-5"
    assert "best-4" in kept and "best-1" not in kept


def test_best_weights_are_kept_for_a_checkpoint_that_is_still_written(
    trained: Callable[..., Trainer], held_back: Event
) -> None:
    one = trained()
    one._keep_best()
    one._save(wait=False)
    one.progress.epoch += 1
    one._keep_best()
    held_back.set()
    one._checkpoints.settle(wait=True)
    assert [counters["best_epoch"] for counters in one._checkpoints.counters()] == [1]
    assert sorted(path.name for path in one.work.glob("best-*")) == ["best-1", "best-2"]


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device")])
def test_a_checkpoint_that_cannot_be_written_takes_no_others_place(
    trained: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    one = trained(keep_checkpoints=1)
    one._save(wait=True)

    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(piece_files, "save_file", fail)
    one.progress.step = 3
    with pytest.raises(type(error)):
        one._save(wait=True)
    assert steps_kept(one) == ["step-000000000"]
    assert trained().resume()


def test_a_damaged_checkpoint_takes_no_good_ones_place(trained: Callable[..., Trainer]) -> None:
    one = trained(keep_checkpoints=2)
    for step in (8, 9):
        one.progress.step = step
        one._save(wait=True)
    damage(one.work / "checkpoint" / "step-000000009" / "manifest.json", "cut")
    other = trained(keep_checkpoints=1)
    assert other.resume()
    assert other.progress.step == 8
    # Fewer steps than the damaged one had, on more ranks perhaps, and it must not be the one kept.
    other._save(wait=True)
    assert [counters["step"] for counters in other._checkpoints.counters()] == [8]
    assert steps_kept(other) == ["damaged-step-000000009", "step-000000008.1"]
