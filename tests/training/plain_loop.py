"""A small experiment and its trainer, in this process."""

from pathlib import Path
from typing import Any

import torch

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.training.loop import Trainer

NODES: dict[str, dict[str, Any]] = {
    "linear": {"layer": "linear"},
    "fm": {"layer": "fm"},
    "deep": {"layer": "mlp", "hidden_units": (8,), "dropout": 0.1},
}
ROWS = {"train": 500, "valid": 200}


def experiment(*, batch_norm: bool = True, **train: Any) -> Experiment:
    # A width that FBGEMM pads, and a batch size that leaves a tail.
    settings = {"batch_size": 64, "epochs": 2, "learning_rate": 0.01, "seed": 5, **train}
    nodes = {**NODES, "deep": {**NODES["deep"], "batch_norm": batch_norm}}
    return Experiment.model_validate(
        {"dataset": "small", "model": {"embedding_dim": 6, "nodes": nodes}, "train": settings}
    )


def trainer(data: DataFolder, work: Path, device: torch.device, **train: Any) -> Trainer:
    return Trainer(experiment=experiment(**train), data=data, device=device, work=work)


def block(auc: float, logloss: float) -> dict[str, float]:
    return {"auc": auc, "logloss": logloss, "rows": 10}
