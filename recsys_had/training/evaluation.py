"""Logits of a split, over all ranks, the scores made of them, and their metrics."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from recsys_had.calibration import ToScores
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


class Answers(NamedTuple):
    """Label and logit of each row of a split, and its weight where rows have one."""

    label: Numbers
    logit: Numbers
    weight: Numbers | None

    def scored(self, to_scores: ToScores) -> Scored:
        """The same with scores, made as whoever predicts makes them."""
        return Scored(self.label, to_scores(self.logit), self.weight)


def answers(model: nn.Module, reader: SplitReader, *, device: torch.device) -> Answers:
    """Asks the model for this rank's rows of a split; rank 0 gets the answers for all.

    Args:
        model: batch in, logits out; left in training mode.
        reader: of the split.
        device: this rank's device.
    """
    model.eval()
    labels, logits, weights = [], [], []
    # Not inference_mode: FBGEMM registers its CPU lookup for autograd's dispatch alone.
    with torch.no_grad():
        for step in reader.steps(Position(0, 0)):
            logits.append(model(step.batch.to(device)).cpu().numpy())
            labels.append(step.batch.label.numpy())
            if step.batch.weight is not None:
                weights.append(step.batch.weight.numpy())
    model.train()
    mine = (labels, logits, weights)
    found: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    if dist.get_world_size() > 1:
        dist.gather_object(mine, found, dst=0)
    else:
        found = [mine]
    label, logit, weight = (
        np.concatenate([piece for part in found or [mine] for piece in part[column]] or [[]])
        for column in range(3)
    )
    return Answers(label, logit, weight if reader.layout.has_weight else None)


def measured(
    split: str, scored: Scored, *, measure: Callable[..., Metrics] = evaluate_rows
) -> Metrics:
    """Metrics of scores that are numbers.

    Args:
        split: its name.
        scored: its rows.
        measure: label, score and weight in, metrics out.

    Raises:
        DivergenceError: some are not.
    """
    wrong = int((~np.isfinite(scored.score)).sum())
    if wrong:
        raise DivergenceError(
            f"{split}: {wrong} of {len(scored.score)} scores are not finite numbers. "
            "Lower train.learning_rate or set train.gradient_clip_norm."
        )
    return measure(*scored)
