"""Begins with given rows of tables; tells the whole weights, and whether padding stayed 0.

Started once a rank: ``python pretrained_ranks.py EXPERIMENT.json DATA WORK OUT TABLE=FILE...``.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.training.distributed import process_group
from recsys_had.training.loop import Trainer
from recsys_had.training.pieces import gather_state, local_pieces


def main(experiment: Path, data: Path, work: Path, out: Path, *tables: str) -> None:
    """Begins, and tells; rank 0 writes."""
    files = {name: Path(path) for name, _, path in (word.partition("=") for word in tables)}
    with process_group() as device:
        trainer = Trainer(
            experiment=Experiment.model_validate(json.loads(experiment.read_text())),
            data=DataFolder.open(data),
            device=device,
            work=work,
        )
        told = trainer.take_pretrained(files)
        held = []
        for piece in local_pieces(trainer.sharded):
            if ".tables." in piece.name:
                beyond = max(trainer.model.table_width(piece.name) - piece.offset[1], 0)
                assert not torch.any(piece.tensor[:, beyond:]), piece.name
                held.append([piece.name, list(piece.offset), list(piece.tensor.shape)])
        places: list[object] = [None] * dist.get_world_size()
        dist.all_gather_object(places, held)
        state = gather_state(trainer.sharded, trainer.model)
        if state is not None:
            save_file(state, out)
            out.with_suffix(".json").write_text(json.dumps({"told": told, "places": places}))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:5]), *sys.argv[5:])
