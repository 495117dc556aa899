"""Trains on the rank the environment names; rank 0 writes what it found as JSON.

Started as a program of its own, once a rank: ``python ranks.py EXPERIMENT.json DATA WORK OUT``.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Step
from recsys_had.training.distributed import process_group
from recsys_had.training.loop import Trainer
from recsys_had.training.pieces import gather_state


def main(experiment: Path, data: Path, work: Path, out: Path) -> None:
    """Trains to the end; rank 0 writes losses, metrics and whole weights."""
    with process_group() as device:
        found = train(experiment, data, work, device)
        if dist.get_rank() == 0:
            out.write_text(json.dumps(found))


def watch_first_step(trainer: Trainer) -> dict[str, bool]:
    """By table, whether the first step changed it; filled, on rank 0, when that step is done."""
    changed: dict[str, bool] = {}
    before = gather_state(trainer.sharded, trainer.model)
    step = trainer.step

    def watched(*steps: Step, coming: Sequence[Step]) -> Tensor:
        loss = step(*steps, coming=coming)
        trainer.step = step  # type: ignore[method-assign]
        after = gather_state(trainer.sharded, trainer.model)
        if before is not None and after is not None:
            for name, weights in before.items():
                if ".tables." in name:
                    changed[name] = not torch.equal(weights, after[name])
        return loss

    trainer.step = watched  # type: ignore[method-assign]
    return changed


def train(experiment: Path, data: Path, work: Path, device: torch.device) -> dict[str, Any]:
    """What a training came to, as JSON holds it; weights on rank 0 alone."""
    trainer = Trainer(
        experiment=Experiment.model_validate_json(experiment.read_text()),
        data=DataFolder.open(data),
        device=device,
        work=work,
    )
    changed = watch_first_step(trainer)
    result = trainer.run()
    return {
        "changed_in_one_step": changed,
        "losses": trainer.losses,
        "valid": result.metrics["valid"],
        "weights": {
            name: tensor.double().flatten().tolist()
            for name, tensor in (result.state or {}).items()
        },
    }


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
