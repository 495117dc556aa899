"""Trains, stops at a step, goes on under another plan; tells what each rank's optimizers hold.

Started once a rank: ``python checkpoint_ranks.py CASES.json DATA OUT``. A case holds an
experiment, its work folder, the step to go to and whether to resume first. Rank 0 writes the losses
of a case's steps, and whole weights and optimizer state as they were when it began and ended.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position
from recsys_had.training.checkpoint import state_pieces
from recsys_had.training.distributed import process_group
from recsys_had.training.loop import Trainer
from recsys_had.training.pieces import Piece, paste


def whole(pieces: Iterable[Piece]) -> dict[str, Tensor]:
    """Tensors put together from all ranks' pieces, on every rank."""
    mine = [piece.taken(piece.tensor.detach().to("cpu", copy=True)) for piece in pieces]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    tensors: dict[str, Tensor] = {}
    for piece in (piece for part in found for piece in part):
        if piece.name not in tensors:
            tensors[piece.name] = torch.empty(piece.shape, dtype=piece.tensor.dtype)
            if piece.tensor.is_floating_point():
                tensors[piece.name].fill_(torch.nan)
        paste(piece, tensors[piece.name])
    return tensors


def run(case: dict[str, Any], data: DataFolder, device: torch.device, out: Path) -> list[float]:
    """One case: to its step, from its checkpoint if it resumes; the losses."""
    trainer = Trainer(
        experiment=Experiment.model_validate(case["experiment"]),
        data=data,
        device=device,
        work=Path(case["work"]),
    )
    if case["resume"]:
        assert trainer.resume()
    begin = whole(state_pieces(trainer.sharded, trainer.optimizers))
    progress = trainer.progress
    losses = []
    while progress.step < case["until"]:
        for step in trainer._reader.steps(Position(progress.epoch, progress.row)):
            loss_sum, _ = trainer._agree(trainer.step(step), None)
            losses.append(loss_sum / step.global_rows)
            progress.step, progress.row = progress.step + 1, step.after.row
            if progress.step == case["until"]:
                break
        else:
            progress.epoch, progress.row = progress.epoch + 1, 0
    trainer._save(wait=True)
    end = whole(state_pieces(trainer.sharded, trainer.optimizers))
    if dist.get_rank() == 0:
        save_file({name: tensor.clone() for name, tensor in begin.items()}, out / "begin")
        save_file({name: tensor.clone() for name, tensor in end.items()}, out / "end")
    return losses


def main(cases: Path, data: Path, out: Path) -> None:
    """Runs every case."""
    folder = DataFolder.open(data)
    with process_group() as device:
        for name, case in json.loads(cases.read_text()).items():
            place = out / name
            if dist.get_rank() == 0:
                place.mkdir(parents=True)
            losses = run(case, folder, device, place)
            if dist.get_rank() == 0:
                (place / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
