"""A rank that fails ends all of them, soon, with one message; nothing hangs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys_had.data.folder import DataFolder
from tests.conftest import SMALL_CARD
from tests.training.launch import launch, start
from tests.training.test_checkpoint import experiment

# Twenty seconds on two cores that are idle; a hang is found anyway.
LIMIT_S = 180
# What comes to pass on a rank, and what is told once, by one of them.
FAULTS: dict[str, tuple[str, int, str]] = {
    "killed": (
        "kill",
        1,
        r"rank 0: another rank ended without a word; it was killed, perhaps for want of memory\. "
        r"Add --resume to go on from the last checkpoint\.",
    ),
    "first-killed": ("kill", 0, r"rank 1: another rank ended without a word; it was killed, .*"),
    "hanging": (
        "hang",
        1,
        r"rank 0: another rank has not answered for 6 s\. Add --resume to go on from the last "
        r"checkpoint\.",
    ),
    "mistaken": (
        "mistake",
        1,
        r"model\.embedding_dim: 9 rows take more than there is\. Lower the width\.",
    ),
    "bug": ("bug", 1, r"AssertionError: no such thing"),
    "nan": (
        "nan",
        0,
        r"step 4: the loss is nan\. In 32 of its rows the vectors of field 'B' are not finite\. "
        r"Lower train\.learning_rate or set train\.gradient_clip_norm\.",
    ),
    "disk": (
        "disk",
        1,
        r".*checkpoint: rank 1 could not write its part: No space left on device\. Free .*",
    ),
}


FAULTS["publishing"] = ("publish", 0, r".*: writing failed\. No space is left on the device\. .*")


@pytest.mark.slow
def test_others_wait_for_rank_0_however_long_it_works() -> None:
    launch(Path(__file__).with_name("slow_rank_zero.py"), 9, 4, world_size=3)


def words_for(folder: Path, make_small_data: Callable[..., DataFolder]) -> list[object]:
    """A training of two ranks on small data."""
    data = make_small_data(folder / "data", rows={"train": 451, "valid": 64})
    (folder / "small.yaml").write_text(SMALL_CARD)
    settings = experiment(2, "table_wise", timeout_s=6, checkpoint_every_steps=2, epochs=2)
    settings["dataset"] = str(folder / "small.yaml")
    (folder / "experiment.yaml").write_text(json.dumps(settings))
    words = ["train", folder / "experiment.yaml", "--data", data.path, "--out", folder / "run"]
    return [*words, "--no-tracking"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_rank_that_fails_ends_all_with_one_message(
    tmp_path: Path, make_small_data: Callable[..., DataFolder], name: str
) -> None:
    words = words_for(tmp_path, make_small_data)
    fault, rank, told = FAULTS[name]
    script = Path(__file__).with_name("fault_ranks.py")
    begin = time.monotonic()
    ranks = start(script, fault, rank, 3, *words, world_size=2, TORCH_CPP_LOG_LEVEL="ERROR")
    stopped = ranks[rank]
    others = [one for one in ranks if one is not stopped]
    try:
        said = [one.communicate(timeout=LIMIT_S)[1] for one in others]
    finally:
        if fault == "hang":
            os.kill(stopped.pid, signal.SIGKILL)
    said.append(stopped.communicate(timeout=LIMIT_S)[1])
    assert time.monotonic() - begin < LIMIT_S
    assert all(one.returncode != 0 for one in ranks), said
    lines = [line for line in "".join(said).splitlines() if "epoch_train_loss" not in line]
    assert sum(re.fullmatch(told, line) is not None for line in lines) == 1, said
    if fault != "bug":
        assert len([line for line in lines if line and "WARNING" not in line]) == 1, said


@pytest.mark.parametrize("fault", ["kill", "mistake"])
def test_a_launcher_that_starts_anew_goes_on(
    tmp_path: Path, make_small_data: Callable[..., DataFolder], fault: str
) -> None:
    """torchrun keeps its store for all attempts: nothing of the first may be read in the second."""
    words = [*words_for(tmp_path, make_small_data), "--resume", "--json"]
    torchrun = Path(sys.executable).with_name("torchrun")
    launcher = [torchrun, "--nproc-per-node", "2", "--max-restarts", "1", "--standalone"]
    script = Path(__file__).with_name("fault_ranks.py")
    done = subprocess.run(
        [str(word) for word in (*launcher, script, fault, 1, 5, *words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["epochs"], found["steps"], found["world_size"]) == (2, 16, 2)
