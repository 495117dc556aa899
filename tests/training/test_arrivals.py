"""Managed fields in training: rows begin anew, two ranks are one, a stopped run goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position
from recsys_had.model.ctr import weights_digest
from recsys_had.schema import parse_card
from recsys_had.training.loop import Trainer
from recsys_had.training.state import state_pieces
from tests.conftest import SMALL_CARD
from tests.training.launch import launch_forked
from tests.training.small_model import MODEL, ROWS

Make = Callable[..., DataFolder]
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "rowwise_adagrad": {},
    "adagrad": {"embedding_optimizer": "adagrad"},
    "lazy_adam": {"embedding_optimizer": "lazy_adam"},
    "adam": {"regime": "published"},
}
MIXED = {"default": "row_wise", "tables": {"A": "table_wise", "fields.tags": "data_parallel"}}


@pytest.fixture
def data(tmp_path: Path, make_small_data: Make, manage: Make) -> DataFolder:
    """30 and 7 values for 4 rows a field: they change hands at every step."""
    return manage(make_small_data(tmp_path / "data", rows=ROWS), rows=4)


def experiment(**train: Any) -> Experiment:
    settings = {"batch_size": 64, "learning_rate": 0.003, "seed": 5, "epochs": 2, **train}
    return Experiment.model_validate({"dataset": "small", "model": MODEL, "train": settings})


@pytest.mark.parametrize("sharding", ["table_wise", "data_parallel"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_row_that_changes_hands_begins_anew(
    tmp_path: Path, alone: torch.device, data: DataFolder, optimizer: str, sharding: str
) -> None:
    one = Trainer(
        experiment=experiment(sharding=sharding, **OPTIMIZERS[optimizer]),
        data=data,
        device=alone,
        work=tmp_path / "work",
    )
    for step in list(one._read("train", seed=0).steps(Position(0, 0)))[:3]:
        one.step(step)
        one.progress.step += 1
    before = pieces(one)
    # Two new values in place of two of the four; the other two are seen again.
    rows = one.model.embeddings.managed_fields["A"]
    held = rows.keys.clone()
    one._arrivals.admit(
        [Ids({"A": torch.tensor([held[0], held[2], 11, 12]), "tags": torch.tensor([0])})], step=4
    )
    after = pieces(one)
    assert sorted(rows(torch.tensor([11, 12])).tolist()) == [2, 4]
    tables = [name for name, tensor in before.items() if ".A.weight" in name and tensor.dim()]
    assert len(tables) >= 4 and any(not name.startswith("model/") for name in tables)
    for name in before:
        if name not in tables:
            assert name.startswith("model/embeddings.managed.A.") or torch.equal(
                before[name], after[name]
            ), name
            continue
        assert torch.equal(before[name][[0, 1, 3]], after[name][[0, 1, 3]]), name
        if name.startswith("model/"):
            assert not torch.equal(before[name][[2, 4]], after[name][[2, 4]]), name
            width = one.model.table_width(name.removeprefix("model/"))
            fresh = one.model.initial.drawn_anew(name.removeprefix("model/"), 4, 2, width)
            assert torch.equal(after[name][[2, 4], :width], fresh)
            assert not after[name][:, width:].any()
        else:
            assert before[name][[2, 4]].any() and not after[name][[2, 4]].any(), name


class Ids(dict[str, torch.Tensor]):
    """Stands for a batch's ids, by field."""

    def __getitem__(self, field: str) -> Any:
        return Values(super().__getitem__(field))


class Values:
    """Stands for a field's ids."""

    def __init__(self, values: torch.Tensor) -> None:
        self._values = values

    def values(self) -> torch.Tensor:
        return self._values


def pieces(trainer: Trainer) -> dict[str, torch.Tensor]:
    found = state_pieces(trainer.sharded, trainer.optimizers)
    return {piece.name: piece.tensor.detach().clone() for piece in found}


@pytest.mark.parametrize("sharding", ["row_wise", "mixed"])
def test_two_ranks_train_as_one(tmp_path: Path, data: DataFolder, sharding: str) -> None:
    """The last step has a row on one rank alone."""
    found = []
    for world_size in (1, 2):
        folder = tmp_path / str(world_size)
        folder.mkdir()
        chosen = MIXED if sharding == "mixed" else sharding
        told = experiment(batch_size=64 // world_size, sharding=chosen)
        (folder / "experiment.json").write_text(told.model_dump_json())
        names = [folder / "experiment.json", data.path, folder / "work", folder / "found.json"]
        launch_forked(Path(__file__).with_name("ranks.py"), *names, world_size=world_size)
        found.append(json.loads((folder / "found.json").read_text()))
    one, two = found
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0, atol=2e-5)
    assert two["valid"]["logloss"] == pytest.approx(one["valid"]["logloss"], abs=1e-4)
    managed = [name for name in one["weights"] if ".managed." in name]
    assert len(managed) == 4
    for name in managed:
        assert two["weights"][name] == one["weights"][name], name
        assert any(one["weights"][name])


def test_batches_of_one_update_find_their_values_together(
    tmp_path: Path, alone: torch.device, data: DataFolder
) -> None:
    found = []
    for name, size, parts in (("whole", 64, 1), ("parts", 32, 2)):
        told = experiment(batch_size=size, accumulate_steps=parts, embedding_optimizer="lazy_adam")
        one = Trainer(experiment=told, data=data, device=alone, work=tmp_path / name)
        one.run()
        found.append({**one.model.embeddings.managed.state_dict()})
    assert len(found[0]) == 4
    for name, buffer in found[0].items():
        assert torch.equal(found[1][name], buffer), name


def test_the_best_weights_come_with_whose_they_are(
    tmp_path: Path, alone: torch.device, data: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first epoch, when the last one gave the rows to others."""
    one = Trainer(
        experiment=experiment(epochs=3, monitor="logloss"),
        data=data,
        device=alone,
        work=tmp_path / "work",
    )
    measured = iter([0.5, 0.6, 0.7])
    monkeypatch.setattr("recsys_had.training.loop.monitored", lambda *told: next(measured))
    kept: list[torch.Tensor] = []
    keep = one._best.keep

    def watched(*told: Any, **named: Any) -> None:
        kept.append(one.model.embeddings.managed_fields["A"].keys.clone())
        keep(*told, **named)

    monkeypatch.setattr(one._best, "keep", watched)
    last: list[torch.Tensor] = []
    restore = one._best.restore

    def restored(epoch: int) -> None:
        last.append(one.model.embeddings.managed_fields["A"].keys.clone())
        restore(epoch)

    monkeypatch.setattr(one._best, "restore", restored)
    result = one.run()
    assert len(kept) == 1 and one.progress.best_epoch == 1
    assert not torch.equal(last[0], kept[0])
    assert torch.equal(one.model.embeddings.managed_fields["A"].keys, kept[0])
    assert result.state is not None
    assert torch.equal(result.state["embeddings.managed.A.keys"], kept[0])


@pytest.mark.parametrize("name", ["tables", "managed"])
def test_a_column_may_have_any_name(
    tmp_path: Path, alone: torch.device, data: DataFolder, name: str
) -> None:
    """Weights are told apart by where their names begin."""
    text = SMALL_CARD.replace("  A: {kind", f"  {name}: {{managed: {{rows: 4}}, kind")
    card = parse_card(text)
    for part in data.path.glob("*/part-*.parquet"):
        table = pq.read_table(part)
        names = [name if column == "A" else column for column in table.column_names]
        table = table.rename_columns(names)
        tags = pa.array([[0]] * len(table), pa.list_(pa.int32()))
        table = table.set_column(table.schema.get_field_index("tags"), "tags", tags)
        pq.write_table(table, part, row_group_size=64)
    sizes = {**data.num_embeddings, name: 5}
    manifest = {**data.manifest, "num_embeddings": sizes, "card_digest": card.digest}
    nodes = {"linear": {"layer": "linear"}, "tables": {"layer": "mlp", "hidden_units": (4,)}}
    one = Trainer(
        experiment=Experiment.model_validate(
            {
                "dataset": "small",
                "model": {"embedding_dim": 4, "nodes": nodes},
                "train": {"batch_size": 64, "seed": 5},
            }
        ),
        data=DataFolder(data.path, card, manifest),
        device=alone,
        work=tmp_path / "work",
    )
    before = {name: weight.clone() for name, weight in one.optimizers.named.items()}
    assert any(name.startswith("graph.layers.tables.") for name in before)
    one.run()
    for weight_name, weight in before.items():
        assert not torch.equal(weight, one.optimizers.named[weight_name]), weight_name


def test_a_stopped_training_goes_on_bit_for_bit(
    tmp_path: Path, alone: torch.device, make_small_data: Make, manage: Make
) -> None:
    """With values that wait when it is stopped."""
    data = manage(make_small_data(tmp_path / "data", rows=ROWS), rows=6, admit_after=9)

    def trainer(work: str) -> Trainer:
        return Trainer(experiment=experiment(), data=data, device=alone, work=tmp_path / work)

    whole = trainer("whole").run()
    stopped = trainer("stopped")
    steps = list(stopped._reader.steps(Position(0, 0)))
    for step in steps[:5]:
        stopped.step(step)
        stopped.progress.step += 1
        stopped.progress.row = step.after.row
    assert stopped.model.embeddings.managed_fields["A"].waiting.any()
    stopped._save(wait=True)
    again = trainer("stopped")
    assert again.resume()
    rest = again.run()
    assert whole.state is not None and rest.state is not None
    assert weights_digest(rest.state) == weights_digest(whole.state)
