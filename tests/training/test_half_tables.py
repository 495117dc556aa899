"""Tables in half precision: near float32 ones, saved and moved as they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from recsys_had.config import Experiment, TrainConfig
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_specs
from recsys_had.training.loop import Trainer
from recsys_had.training.pieces import local_pieces
from tests.training.launch import launch_forked
from tests.training.small_model import MODEL, ROWS


def experiment(**train: Any) -> Experiment:
    settings = {"batch_size": 64, "learning_rate": 0.01, "seed": 5, "epochs": 2, **train}
    return Experiment.model_validate({"dataset": "small", "model": MODEL, "train": settings})


def tables(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {
        piece.name: piece.tensor.detach().clone()
        for piece in local_pieces(trainer.sharded)
        if ".tables." in piece.name
    }


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad", "sgd"])
def test_half_tables_train_near_whole_ones_and_score_as_they_were_saved(
    tmp_path: Path,
    alone: torch.device,
    make_small_data: Callable[..., DataFolder],
    optimizer: str,
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    found = {}
    for precision in ("fp32", "fp16"):
        one = Trainer(
            experiment=experiment(embedding_optimizer=optimizer, table_precision=precision),
            data=data,
            device=alone,
            work=tmp_path / precision,
        )
        begun = tables(one)
        result = one.run()
        found[precision] = (begun, tables(one), one.losses, result)
    whole, half = found["fp32"], found["fp16"]
    for name, rows in half[0].items():
        assert rows.dtype == torch.float16
        assert torch.equal(rows, whole[0][name].half())
        assert not torch.equal(half[1][name], rows)
    np.testing.assert_allclose(half[2], whole[2], rtol=0, atol=5e-3)
    # A run folder's weights are scored by a model of float32 tables: the numbers are the same.
    scoring = CTRModel(
        fields=field_specs(data.card, data.num_embeddings),
        dense=data.card.dense,
        config=experiment().model,
    ).eval()
    assert half[3].state is not None
    scoring.import_state(half[3].state)
    reader = one._read("valid", seed=None)
    with torch.no_grad():
        scores = torch.cat(
            [torch.sigmoid(scoring(step.batch)) for step in reader.steps(Position(0, 0))]
        )
    np.testing.assert_allclose(scores.numpy(), half[3].scored["valid"].score, rtol=0, atol=1e-6)


def test_two_ranks_with_half_tables_train_as_one(
    tmp_path: Path, make_small_data: Callable[..., DataFolder]
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    found = {}
    for name, world_size, sharding in (("one", 1, "table_wise"), ("two", 2, "row_wise")):
        folder = tmp_path / name
        folder.mkdir()
        told = experiment(batch_size=64 // world_size, sharding=sharding, table_precision="fp16")
        (folder / "experiment.json").write_text(told.model_dump_json())
        names = [folder / "experiment.json", data.path, folder / "work", folder / "found.json"]
        launch_forked(Path(__file__).with_name("ranks.py"), *names, world_size=world_size)
        found[name] = json.loads((folder / "found.json").read_text())
    np.testing.assert_allclose(found["two"]["losses"], found["one"]["losses"], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"regime": "published"},
        {"embedding_optimizer": "lazy_adam"},
        {"sharding": "data_parallel"},
        {"sharding": {"tables": {"A": "data_parallel"}}},
    ],
)
def test_half_tables_of_other_optimizers_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="table_precision 'fp16' needs tables that"):
        TrainConfig.model_validate({"table_precision": "fp16", **settings})
