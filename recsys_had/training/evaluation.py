"""Scores of a split, over all ranks, and their metrics."""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from recsys_had.data.parquet import Position, SplitReader
from recsys_had.errors import DivergenceError
from recsys_had.metrics import evaluate_rows

Metrics = dict[str, float | int | None]
Numbers = np.ndarray[Any, np.dtype[np.float32]]


class Scored(NamedTuple):
    """Label and score of each row of a split, and its weight where rows have one."""

    label: Numbers
    score: Numbers
    weight: Numbers | None


def score(model: nn.Module, reader: SplitReader, *, device: torch.device) -> Scored:
    """Scores this rank's rows of a split; rank 0 gets those of all.

    Args:
        model: batch in, logits out; left in training mode.
        reader: of the split.
        device: this rank's device.
    """
    model.eval()
    labels, scores, weights = [], [], []
    # Not inference_mode: FBGEMM registers its CPU lookup for autograd's dispatch alone.
    with torch.no_grad():
        for step in reader.steps(Position(0, 0)):
            logit = model(step.batch.to(device))
            scores.append(torch.sigmoid(logit).cpu().numpy())
            labels.append(step.batch.label.numpy())
            if step.batch.weight is not None:
                weights.append(step.batch.weight.numpy())
    model.train()
    mine = (labels, scores, weights)
    found: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    if dist.get_world_size() > 1:
        dist.gather_object(mine, found, dst=0)
    else:
        found = [mine]
    label, scored, weight = (
        np.concatenate([piece for part in found or [mine] for piece in part[column]] or [[]])
        for column in range(3)
    )
    return Scored(label, scored, weight if reader.layout.has_weight else None)


def measured(split: str, scored: Scored) -> Metrics:
    """Metrics of scores that are numbers.

    Raises:
        DivergenceError: some are not.
    """
    wrong = int((~np.isfinite(scored.score)).sum())
    if wrong:
        raise DivergenceError(
            f"{split}: {wrong} of {len(scored.score)} scores are not finite numbers. "
            "Lower train.learning_rate or set train.gradient_clip_norm."
        )
    return evaluate_rows(*scored)
