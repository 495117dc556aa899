"""Trains each case twice, with ids sent ahead and without; tells whether anything differs.

Started once a rank: ``python lookahead_ranks.py CASES.json DATA WORK OUT``; a case is an
experiment.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.model.ctr import CTRModel
from recsys_had.training.distributed import process_group
from recsys_had.training.loop import Trainer
from recsys_had.training.pieces import gather_state


def trained(
    case: dict[str, Any], data: DataFolder, work: Path, device: torch.device, *, pipeline: bool
) -> tuple[Trainer, list[str], Any]:
    """A trained model, what happened in which order, and the whole weights on rank 0."""
    settings = {**case, "train": {**case["train"], "pipeline": pipeline}}
    trainer = Trainer(
        experiment=Experiment.model_validate(settings),
        data=data,
        device=device,
        work=work / str(pipeline),
    )
    events: list[str] = []
    modules = [
        module
        for module in trainer.sharded.modules()
        if isinstance(module, ShardedEmbeddingBagCollection)
    ]
    first, own = modules[0], modules[0].input_dist

    def told(*arguments: Any) -> Any:
        if first.training:
            events.append("ids")
        return own(*arguments)

    first.input_dist = told  # type: ignore[method-assign]

    def watch(module: CTRModel, inputs: Any, logit: Tensor) -> None:
        if logit.requires_grad:
            logit.register_hook(lambda grad: events.append("backward"))

    trainer.model.register_forward_hook(watch)
    trainer.run()
    return trainer, events, gather_state(trainer.sharded, trainer.model)


def main(cases: Path, data: Path, work: Path, out: Path) -> None:
    """Runs every case; rank 0 writes what it found."""
    folder = DataFolder.open(data)
    found = {}
    with process_group() as device:
        for name, case in json.loads(cases.read_text()).items():
            plain, apart, expected = trained(case, folder, work / name, device, pipeline=False)
            ahead, events, weights = trained(case, folder, work / name, device, pipeline=True)
            if expected is not None and weights is not None:
                found[name] = {
                    "losses": [plain.losses, ahead.losses],
                    "differing": [
                        key for key in expected if not torch.equal(expected[key], weights[key])
                    ],
                    "apart": apart,
                    "events": events,
                    "history": [plain.progress.history, ahead.progress.history],
                }
        if dist.get_rank() == 0:
            out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:5]))
