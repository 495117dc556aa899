"""Every kind of sharding under every optimizer trains as plain torch does on whole batches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from recsys_had.config import ShardingConfig, TrainConfig
from recsys_had.data.folder import DataFolder
from recsys_had.errors import ConfigError
from recsys_had.training.sharding import Table, chosen_kinds
from tests.training.launch import launch_forked
from tests.training.small_model import MODEL, OPTIMIZERS, ROWS

MIXED = {
    "default": "table_wise",
    "tables": {"A": "row_wise", "fields.B": "data_parallel", "some.A": "data_parallel"},
}
SHARDINGS: dict[str, Any] = {
    "table_wise": "table_wise",
    "row_wise": "row_wise",
    "column_wise": "column_wise",
    "table_row_wise": "table_row_wise",
    "data_parallel": "data_parallel",
    "auto": "auto",
    "mixed": MIXED,
}
REFUSED = [("column_wise", "rowwise_adagrad")]
CASES = {
    f"{sharding}-{optimizer}": (sharding, optimizer)
    for sharding in SHARDINGS
    for optimizer in OPTIMIZERS
    if (sharding, optimizer) not in REFUSED
}


def case(sharding: str, optimizer: str) -> dict[str, Any]:
    return {
        "dataset": "small",
        "model": MODEL,
        "train": {
            "batch_size": 32,
            "learning_rate": 0.003,
            "seed": 5,
            "sharding": SHARDINGS[sharding],
            **OPTIMIZERS[optimizer],
        },
    }


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory,
    make_small_data: Callable[..., DataFolder],
) -> dict[str, Any]:
    """What two ranks found of every case, in one go."""
    folder = tmp_path_factory.mktemp("sharding")
    data = make_small_data(folder / "data", rows=ROWS)
    cases = {name: case(*two) for name, two in CASES.items()}
    (folder / "cases.json").write_text(json.dumps(cases))
    out = folder / "found.json"
    script = Path(__file__).with_name("sharding_ranks.py")
    launch_forked(script, folder / "cases.json", data.path, folder / "work", out, world_size=2)
    results: dict[str, Any] = json.loads(out.read_text())
    return results


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_train_as_plain_torch_on_whole_batches(found: dict[str, Any], name: str) -> None:
    told = found[name]
    assert told["start"] == 0, "initial rows depend on seed, table and row alone"
    assert told["unchanged"] == [], "every table changes in a step"
    assert told["loss"] < 1e-6
    assert told["within"] >= 0.999


@pytest.mark.parametrize(("sharding", "optimizer"), REFUSED)
def test_what_would_train_otherwise_is_refused(sharding: str, optimizer: str) -> None:
    with pytest.raises(ValidationError, match=f"sharding '{sharding}' cuts rows, and row-wise "):
        TrainConfig.model_validate(case(sharding, optimizer)["train"])
    mixed = {"tables": {"A": sharding}}
    with pytest.raises(ValidationError, match=f"sharding '{sharding}' cuts rows"):
        TrainConfig.model_validate({"sharding": mixed})


def test_a_table_that_is_not_there_is_told() -> None:
    tables = [Table("embeddings.tables.fields", "user", 9, 8)]
    config = ShardingConfig(tables={"usr": "row_wise", "linear.user": "row_wise"})
    with pytest.raises(ConfigError) as told:
        chosen_kinds(tables, config)
    assert list(told.value.problems) == [
        "train.sharding.tables: the model has no table 'usr'. Did you mean 'user'?",
        "train.sharding.tables: the model has no table 'linear.user'. Did you mean 'fields.user'?",
    ]


@pytest.mark.parametrize("settings", [{"default": "grid"}, {"tables": {"user": "grid"}}])
def test_grid_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="'grid' is not offered: TorchRec's lookup of such"):
        ShardingConfig.model_validate(settings)


def test_auto_is_for_all_tables_or_none() -> None:
    with pytest.raises(ValidationError, match="user: 'auto' is for all tables or none"):
        ShardingConfig(tables={"user": "auto"})
