"""A training on a GPU is a CPU's; its checkpoints go on there to the bit, and elsewhere."""

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recsys_had.data.folder import DataFolder
from tests.gpu.cases import WORLD_SIZES, experiment
from tests.training import test_world_size
from tests.training.launch import launch
from tests.training.small_model import OPTIMIZERS, ROWS

pytestmark = pytest.mark.gpu

STOP, END = 10, 20
FAST: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "compiled": {"compile": True},
    "both": {"precision": "bf16", "compile": True},
}
HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}
SCRIPTS = Path(test_world_size.__file__).parent


class Runs:
    """Trainings in processes of their own; each leaves losses, and its state at begin and end."""

    def __init__(self, folder: Path, data: DataFolder) -> None:
        self.folder = folder
        self._data = data

    def start(self, stage: str, cases: dict[str, Any], **variables: str) -> None:
        note = self.folder / f"{stage}.json"
        note.write_text(json.dumps(cases))
        script = SCRIPTS / "checkpoint_ranks.py"
        launch(script, note, self._data.path, self.folder / stage, world_size=1, **variables)

    def case(self, work: str, settings: dict[str, Any], until: int, resume: bool = False) -> Any:
        where = str(self.folder / "work" / work)
        return {"experiment": settings, "work": where, "until": until, "resume": resume}

    def losses(self, stage: str, name: str) -> list[float]:
        found: list[float] = json.loads((self.folder / stage / name / "losses.json").read_text())
        return found

    def state(self, stage: str, name: str, when: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / stage / name / when)


def with_dropout(settings: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(settings)
    changed["model"]["nodes"]["deep"]["dropout"] = 0.2
    return changed


@pytest.fixture(scope="module")
def runs(
    gpu: torch.device,
    tmp_path_factory: pytest.TempPathFactory,
    make_small_data: Callable[..., DataFolder],
) -> Runs:
    """All trainings of one rank: on the GPU, gone on with there, and on the CPU."""
    folder = tmp_path_factory.mktemp("gpu")
    made = Runs(folder, make_small_data(folder / "data", rows=ROWS))
    plain = {name: experiment(**options) for name, options in OPTIMIZERS.items()}
    drop = {name: with_dropout(settings) for name, settings in plain.items()}
    for kind, all_settings in (("plain", plain), ("drop", drop)):
        for stage, until in (("whole", END), ("first", STOP)):
            made.start(
                f"{stage}-{kind}",
                {
                    name: made.case(f"{stage}-{kind}/{name}", settings, until)
                    for name, settings in all_settings.items()
                },
            )
    rest = {n: made.case(f"first-drop/{n}", s, END, resume=True) for n, s in drop.items()}
    made.start("rest-drop", rest)
    shutil.copytree(folder / "work" / "first-plain", folder / "work" / "moved")
    moved = {n: made.case(f"moved/{n}", s, END, resume=True) for n, s in plain.items()}
    made.start("moved", moved, **HIDDEN)
    alone = {n: made.case(f"cpu/{n}", s, END) for n, s in plain.items()}
    made.start("cpu", alone, **HIDDEN)
    return made


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_is_that_of_a_cpu(runs: Runs, optimizer: str) -> None:
    there, here = (runs.state(stage, optimizer, "begin") for stage in ("whole-plain", "cpu"))
    assert there.keys() == here.keys()
    for name, tensor in here.items():
        assert torch.equal(there[name], tensor), name
    losses = runs.losses("whole-plain", optimizer)
    assert len(losses) == END and losses[-1] != losses[0]
    np.testing.assert_allclose(losses, runs.losses("cpu", optimizer), rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_checkpoint_goes_on_there_to_the_bit(runs: Runs, optimizer: str) -> None:
    """Dropout too: the GPU's random state is in it."""
    parts = runs.losses("first-drop", optimizer) + runs.losses("rest-drop", optimizer)
    assert parts == runs.losses("whole-drop", optimizer)
    assert parts != runs.losses("whole-plain", optimizer)
    expected = runs.state("whole-drop", optimizer, "end")
    for name, tensor in runs.state("rest-drop", optimizer, "end").items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_checkpoint_goes_on_on_a_cpu(runs: Runs, optimizer: str) -> None:
    saved = runs.state("first-plain", optimizer, "end")
    loaded = runs.state("moved", optimizer, "begin")
    assert saved.keys() == loaded.keys()
    for name, tensor in saved.items():
        assert torch.equal(loaded[name], tensor), name
    whole = runs.losses("whole-plain", optimizer)
    np.testing.assert_allclose(runs.losses("moved", optimizer), whole[STOP:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("fast", FAST)
def test_fast_steps_are_near_plain_ones(
    gpu: torch.device,
    tmp_path: Path,
    make_small_data: Callable[..., DataFolder],
    fast: str,
) -> None:
    runs = Runs(tmp_path, make_small_data(tmp_path / "data", rows=ROWS))
    cases = {
        "plain": runs.case("plain", experiment(), END),
        "fast": runs.case("fast", experiment(**FAST[fast]), END),
    }
    runs.start("pace", cases)
    plain, quick = (runs.losses("pace", name) for name in ("plain", "fast"))
    atol = 1e-5 if fast == "compiled" else 2e-2
    np.testing.assert_allclose(quick, plain, rtol=0, atol=atol)
    # In half precision it is another number, or it was not half.
    assert fast == "compiled" or quick != plain


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_a_run_with_validation_and_clipping_is_that_of_a_cpu(
    gpu: torch.device,
    tmp_path: Path,
    make_small_data: Callable[..., DataFolder],
    monkeypatch: pytest.MonkeyPatch,
    world_size: int,
) -> None:
    data = make_small_data(tmp_path / "data", rows=test_world_size.ROWS)
    there = test_world_size.train(
        tmp_path / "gpu", data.path, world_size, sharding="row_wise", batch_norm=True
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    here = test_world_size.train(tmp_path / "cpu", data.path, 1, batch_norm=True)
    np.testing.assert_allclose(there["losses"], here["losses"], rtol=0, atol=1e-4)
    assert there["valid"]["logloss"] == pytest.approx(here["valid"]["logloss"], abs=1e-4)
    assert all(there["changed_in_one_step"].values())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
