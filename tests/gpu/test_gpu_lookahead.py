"""On GPUs, too, ids that were sent ahead change nothing but when they travel."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_had.data.folder import DataFolder
from tests.gpu.cases import WORLD_SIZES, experiment
from tests.training import test_lookahead
from tests.training.launch import launch
from tests.training.small_model import ROWS

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_it_trains_alike(
    gpu: torch.device,
    tmp_path: Path,
    make_small_data: Callable[..., DataFolder],
    world_size: int,
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    cases = {
        name: experiment(batch_size=64 // world_size, **train)
        for name, train in test_lookahead.CASES.items()
    }
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    script = Path(test_lookahead.__file__).with_name("lookahead_ranks.py")
    paths = [tmp_path / name for name in ("cases.json", "data", "work", "found.json")]
    launch(script, *paths, world_size=world_size)
    found = json.loads(paths[-1].read_text())
    assert data.path == paths[1]
    for name in cases:
        # FBGEMM's kernels add up a row's gradients in no fixed order there.
        np.testing.assert_allclose(*found[name]["losses"], rtol=0, atol=1e-6, err_msg=name)
        assert found[name]["events"] != found[name]["apart"]
