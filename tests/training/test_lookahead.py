"""Sending the next update's ids ahead changes when they travel, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys_had.batch import Batch, EncodedRows
from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.errors import ConfigError
from recsys_had.layout import Layout
from recsys_had.training.loop import Trainer
from tests.training.launch import launch_forked
from tests.training.small_model import MODEL, OPTIMIZERS, ROWS

CASES: dict[str, dict[str, Any]] = {
    **{name: {"sharding": "row_wise", **train} for name, train in OPTIMIZERS.items()},
    "table_wise": {"sharding": "table_wise"},
    "data_parallel": {"sharding": "data_parallel"},
    "mixed": {"sharding": {"default": "row_wise", "tables": {"A": "table_wise"}}},
    "accumulated": {"embedding_optimizer": "lazy_adam", "accumulate_steps": 3},
    "half": {"communication": "fp16", "sharding": "row_wise"},
    "heads": {"loss": "tri_bce"},
}


def case(**train: Any) -> dict[str, Any]:
    settings = {"batch_size": 32, "learning_rate": 0.003, "seed": 5, "epochs": 2, **train}
    return {"dataset": "small", "model": MODEL, "train": settings}


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory, make_small_data: Callable[..., DataFolder]
) -> dict[str, Any]:
    """What two ranks found of every case, in one go."""
    folder = tmp_path_factory.mktemp("lookahead")
    data = make_small_data(folder / "data", rows=ROWS)
    (folder / "cases.json").write_text(
        json.dumps({name: case(**train) for name, train in CASES.items()})
    )
    out = folder / "found.json"
    script = Path(__file__).with_name("lookahead_ranks.py")
    launch_forked(script, folder / "cases.json", data.path, folder / "work", out, world_size=2)
    results: dict[str, Any] = json.loads(out.read_text())
    return results


@pytest.mark.parametrize("name", CASES)
def test_it_trains_the_same_to_the_bit(found: dict[str, Any], name: str) -> None:
    told = found[name]
    assert told["differing"] == []
    assert told["losses"][0] == told["losses"][1]
    assert told["history"][0] == told["history"][1]


@pytest.mark.parametrize("name", sorted(set(CASES) - {"accumulated"}))
def test_ids_leave_before_the_backward_pass_of_the_update_before(
    found: dict[str, Any], name: str
) -> None:
    steps = -(-ROWS["train"] // 64)
    assert found[name]["apart"] == ["ids", "backward"] * steps * 2
    # Once an epoch, its first update waits for its own.
    epoch = ["ids", *["ids", "backward"] * (steps - 1), "backward"]
    assert found[name]["events"] == epoch * 2


def test_all_batches_of_an_update_are_sent_ahead(found: dict[str, Any]) -> None:
    # 8 batches by three; those of the first update ask for their own rows.
    epoch = [
        *["ids"] * 3,
        *["ids", "backward"] * 3,
        *["ids"] * 2,
        *["backward"] * 3,
        *["backward"] * 2,
    ]
    assert found["accumulated"]["events"] == epoch * 2


def rows(first: int) -> Batch:
    layout = Layout(fields=("A", "B", "tags"), dense=("price",))
    ids = np.full((4, 3), first, np.int32)
    label = np.array([0, 1, 0, 1], np.float32)
    encoded = EncodedRows(layout, np.arange(4), label, ids, {}, np.zeros((4, 1), np.float32))
    return encoded.to_batch()


def test_the_ids_of_one_batch_are_never_taken_for_another_s(
    tmp_path: Path, alone: torch.device, make_small_data: Callable[..., DataFolder]
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    trainer = Trainer(
        experiment=Experiment.model_validate(case(pipeline=True)),
        data=data,
        device=alone,
        work=tmp_path / "work",
    )
    ahead = trainer._lookahead
    assert ahead is not None
    begun, other = rows(1), rows(2)
    ahead.begin([begun])
    with pytest.raises(ValueError, match="batches: must be those whose ids were sent ahead"):
        ahead.take([other])


def test_managed_fields_are_refused(
    tmp_path: Path,
    alone: torch.device,
    make_small_data: Callable[..., DataFolder],
    manage: Callable[..., DataFolder],
) -> None:
    data = manage(make_small_data(tmp_path / "data", rows=ROWS), rows=4)
    experiment = Experiment.model_validate(case(pipeline=True))
    with pytest.raises(ConfigError, match=r"train\.pipeline: the rows of managed field '\w+' are"):
        Trainer(experiment=experiment, data=data, device=alone, work=tmp_path / "work")
