"""Trains two ways at once, sharded over the ranks and as plain torch; tells where they differ.

Started once a rank: ``python sharding_ranks.py CASES.json DATA WORK OUT``; a case is an
experiment. The plain model is trained on the whole batches, its tables by optimizers written out by
hand or by torch's Adam.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position, SplitReader
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_of_weight, field_specs, is_table
from recsys_had.model.torchrec_tables import TORCHREC
from recsys_had.training.distributed import process_group
from recsys_had.training.loop import Trainer
from recsys_had.training.pieces import gather_state

STEPS = 40
EARLY = 5


class Plain:
    """The same model unsharded, its tables updated by hand, the rest by torch's Adam.

    Args:
        experiment: what is trained.
        data: on what.
    """

    def __init__(self, experiment: Experiment, data: DataFolder) -> None:
        self._train = experiment.train
        self.model = CTRModel(
            fields=field_specs(data.card, data.num_embeddings),
            dense=data.card.dense,
            config=experiment.model,
            seed=experiment.train.seed,
            backend=TORCHREC,
        )
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm1d):
                # Ours would ask the other rank.
                module.__class__ = nn.BatchNorm1d
        weights = dict(self.model.named_parameters())
        dense_tables = self._train.regime == "published"
        self._tables = (
            {name: weight for name, weight in weights.items() if ".tables." in name}
            if not dense_tables
            else {}
        )
        rest = [weight for name, weight in weights.items() if name not in self._tables]
        self._adam = torch.optim.Adam(rest, lr=self._train.learning_rate, eps=1e-8)
        self._squares: dict[str, Tensor] = {}
        self._sparse_adam = None
        if self._train.table_optimizer == "lazy_adam":
            self._sparse_adam = torch.optim.SparseAdam(
                list(self._tables.values()), lr=self._train.table_learning_rate
            )
            self._steps = 0

    def step(self, batch: Any) -> float:
        """One update; the mean loss before it."""
        self.model.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(self.model(batch), batch.label)
        loss.backward()
        self._adam.step()
        if self._sparse_adam is not None:
            self._step_sparsely(self._sparse_adam, batch)
            return float(loss)
        with torch.no_grad():
            for name, weight in self._tables.items():
                assert weight.grad is not None
                width = self.model.table_width(name)
                grad = weight.grad[:, :width]
                weight[:, :width] -= self._train.table_learning_rate * self._scaled(name, grad)
        return float(loss)

    def _step_sparsely(self, optimizer: torch.optim.SparseAdam, batch: Any) -> None:
        """Of each table the batch's rows alone."""
        for name, weight in self._tables.items():
            assert weight.grad is not None
            rows = batch.sparse[field_of_weight(name)].values().long().unique()
            weight.grad = torch.sparse_coo_tensor(
                rows.unsqueeze(0), weight.grad[rows], tuple(weight.shape), is_coalesced=True
            )
        self._steps += 1
        # torch adds it before the correction of the second moment, Adam's algorithm after it.
        optimizer.param_groups[0]["eps"] = 1e-8 * math.sqrt(1 - 0.999**self._steps)
        optimizer.step()

    def _scaled(self, name: str, grad: Tensor) -> Tensor:
        kind = self._train.table_optimizer
        if kind == "sgd":
            return grad
        square = grad.square()
        if kind == "rowwise_adagrad":
            square = square.mean(dim=1, keepdim=True)
        self._squares[name] = self._squares.get(name, torch.zeros(())) + square
        return grad / (self._squares[name].sqrt() + 1e-8)


def compare(experiment: Experiment, data: DataFolder, work: Path, device: Any) -> dict[str, Any]:
    """How far sharded and plain training are from each other; on rank 0."""
    sharded = Trainer(experiment=experiment, data=data, device=device, work=work)
    plain = Plain(experiment, data)
    reader = SplitReader(
        data.path / "train",
        layout=data.layout,
        batch_size=experiment.train.batch_size * dist.get_world_size(),
        seed=experiment.train.seed,
    )
    found: dict[str, Any] = {"start": differences(sharded, plain), "losses": []}
    before = gather_state(sharded.sharded, sharded.model)
    for epoch in range(100):
        pairs = zip(
            sharded._read("train", seed=experiment.train.seed).steps(Position(epoch, 0)),
            reader.steps(Position(epoch, 0)),
            strict=True,
        )
        for mine, whole in pairs:
            loss_sum = sharded.step(mine)
            dist.all_reduce(loss_sum)
            sharded.progress.step += 1
            expected = plain.step(whole.batch)
            found["losses"].append(float(loss_sum) / mine.global_rows - expected)
            if sharded.progress.step == 1:
                found["unchanged"] = unchanged(before, sharded)
            if sharded.progress.step == EARLY:
                found["early"] = differences(sharded, plain)
            if sharded.progress.step == STEPS:
                return found
    raise AssertionError("too few rows")


def differences(sharded: Trainer, plain: Plain) -> list[float]:
    """Of every weight, tables first, how far the two are apart; empty off rank 0."""
    state = gather_state(sharded.sharded, sharded.model)
    if state is None:
        return []
    theirs = plain.model.export_state()
    assert state.keys() == theirs.keys()
    apart = [(state[name] - theirs[name]).abs().flatten() for name in sorted(state)]
    return [round(number, 12) for number in torch.cat(apart).tolist()]


def unchanged(before: dict[str, Tensor] | None, sharded: Trainer) -> list[str]:
    """Tables that a step left as they were."""
    after = gather_state(sharded.sharded, sharded.model)
    if before is None or after is None:
        return []
    return [name for name in before if is_table(name) and torch.equal(before[name], after[name])]


def main(cases: Path, data: Path, work: Path, out: Path) -> None:
    """Runs every case; rank 0 writes what it found."""
    folder = DataFolder.open(data)
    found = {}
    with process_group() as device:
        for name, case in json.loads(cases.read_text()).items():
            experiment = Experiment.model_validate(case)
            result = compare(experiment, folder, work / name, device)
            early = np.asarray(result.pop("early"))
            found[name] = {
                "start": max(result["start"], default=0.0),
                "loss": max(np.abs(result["losses"])),
                "within": float(np.mean(early < 4e-6)) if len(early) else 1.0,
                "furthest": float(early.max()) if len(early) else 0.0,
                "unchanged": result["unchanged"],
            }
        if dist.get_rank() == 0:
            out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:5]))
