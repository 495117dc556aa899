"""A rank that fails ends all of them, soon, with one message; nothing hangs."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys_had.data.folder import DataFolder
from tests.conftest import SMALL_CARD
from tests.training.launch import start
from tests.training.test_checkpoint import experiment

LIMIT_S = 60
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


@pytest.mark.parametrize("name", FAULTS)
def test_a_rank_that_fails_ends_all_with_one_message(
    tmp_path: Path, make_small_data: Callable[..., DataFolder], name: str
) -> None:
    data = make_small_data(tmp_path / "data", rows={"train": 451, "valid": 64})
    (tmp_path / "small.yaml").write_text(SMALL_CARD)
    settings = experiment(2, "table_wise", timeout_s=6, checkpoint_every_steps=2)
    settings["dataset"] = str(tmp_path / "small.yaml")
    (tmp_path / "experiment.yaml").write_text(json.dumps(settings))
    fault, rank, told = FAULTS[name]
    words = ["train", tmp_path / "experiment.yaml", "--data", data.path, "--out", tmp_path / "run"]
    script = Path(__file__).with_name("fault_ranks.py")
    begin = time.monotonic()
    ranks = start(
        script, fault, rank, 3, *words, "--no-tracking", world_size=2, TORCH_CPP_LOG_LEVEL="ERROR"
    )
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
    lines = "".join(said).splitlines()
    assert sum(re.fullmatch(told, line) is not None for line in lines) == 1, said
    if fault != "bug":
        assert len([line for line in lines if line and "WARNING" not in line]) == 1, said
