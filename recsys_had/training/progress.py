"""Where a training stands."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """Where a training stands; all of it goes into a checkpoint.

    Args:
        epoch: 0-based epoch the next step belongs to.
        row: rows of that epoch already read, over all ranks.
        step: steps done since the beginning.
        best: best value of the monitored metric so far.
        best_epoch: the 1-based epoch whose weights are kept; 0 before the first.
        epochs_without_gain: in a row, up to now.
        plateau_scale: what the plateau schedule has multiplied the rates by.
        loss_sum: sum of the losses of this epoch's rows so far.
        weight_sum: sum of the weights of those rows; 0 where they have none.
        finished: whether training is over and only the report is missing.
        train_rows: rows trained on in all.
        train_seconds: wall time of the steps alone.
        history: one entry an epoch.
    """

    epoch: int = 0
    row: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    epochs_without_gain: int = 0
    plateau_scale: float = 1.0
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    finished: bool = False
    train_rows: int = 0
    train_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
