"""On as many GPUs as there are every kind of sharding trains as plain torch does on a CPU."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_had.data.folder import DataFolder
from tests.gpu.cases import WORLD_SIZES, experiment
from tests.training import test_sharding
from tests.training.launch import launch
from tests.training.small_model import OPTIMIZERS, ROWS

KINDS = {
    1: ("table_wise", "row_wise", "data_parallel"),
    2: ("table_wise", "row_wise", "column_wise", "table_row_wise", "data_parallel", "mixed"),
}
CASES = [
    (world_size, kind, optimizer)
    for world_size in WORLD_SIZES
    for kind in KINDS[min(world_size, 2)]
    for optimizer in OPTIMIZERS
    if (kind, optimizer) not in test_sharding.REFUSED
]
pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def found(
    gpu: torch.device,
    tmp_path_factory: pytest.TempPathFactory,
    make_small_data: Callable[..., DataFolder],
) -> Callable[[int], dict[str, Any]]:
    """What so many ranks found of every case, in one go."""
    folder = tmp_path_factory.mktemp("gpu_sharding")
    data = make_small_data(folder / "data", rows=ROWS)
    held: dict[int, dict[str, Any]] = {}

    def of(world_size: int) -> dict[str, Any]:
        if world_size not in held:
            out = folder / f"found-{world_size}.json"
            cases = {
                f"{kind}-{optimizer}": experiment(
                    **OPTIMIZERS[optimizer],
                    batch_size=64 // world_size,
                    sharding=test_sharding.SHARDINGS[kind],
                )
                for ranks, kind, optimizer in CASES
                if ranks == world_size
            }
            note = folder / f"cases-{world_size}.json"
            note.write_text(json.dumps(cases))
            script = Path(test_sharding.__file__).with_name("sharding_ranks.py")
            work = folder / f"work-{world_size}"
            launch(script, note, data.path, work, out, world_size=world_size)
            held[world_size] = json.loads(out.read_text())
        return held[world_size]

    return of


@pytest.mark.parametrize(("world_size", "kind", "optimizer"), CASES)
def test_sharded_tables_train_as_plain_ones_on_a_cpu(
    found: Callable[[int], dict[str, Any]], world_size: int, kind: str, optimizer: str
) -> None:
    told = found(world_size)[f"{kind}-{optimizer}"]
    assert told["start"] == 0, "initial rows depend on seed, table and row alone"
    assert told["unchanged"] == [], "every table changes in a step"
    assert told["loss"] < 1e-5
    assert told["within"] >= 0.95
