"""What is judged, or set once for all, before a training begins."""

import logging

import torch
import torch.distributed as dist

from recsys_had.calibration import require_fit_rows
from recsys_had.config import TrainConfig
from recsys_had.data.folder import DataFolder
from recsys_had.errors import ConfigError, DataError
from recsys_had.interactions._batch_norm import DistributedBatchNorm
from recsys_had.model.graph import InteractionGraph
from recsys_had.model.program_runner import require_compiler
from recsys_had.schema import DatasetCard

log = logging.getLogger("recsys_had")


def require_both_classes(data: DataFolder) -> None:
    """Refuses training rows there is nothing to learn from.

    Raises:
        DataError: there is none, or all that count have the same label.
    """
    if not data.rows("train"):
        raise DataError(f"{data.path}: the training split has no row. Ingest some.")
    labels, weights = data.labels("train"), data.weights("train")
    told = "every label"
    if weights is not None:
        labels, told = labels[weights > 0], "every label of a row whose weight is not 0"
        if not len(labels):
            raise DataError(
                f"{data.path}/train: every weight is 0, so there is nothing to learn. "
                "Give rows that count."
            )
    clicks = float(labels.mean())
    if clicks in {0.0, 1.0}:
        raise DataError(
            f"{data.path}/train: {told} is {clicks:.0f}, so there is nothing to learn. "
            "A training split needs both classes."
        )


def require_calibration_rows(data: DataFolder) -> None:
    """Refuses validation rows that no calibrator can be fitted to.

    Raises:
        DataError: there are too few, in all or of one label.
    """
    require_fit_rows(
        data.labels("valid"),
        data.weights("valid"),
        place=f"train.calibration: {data.path}/valid",
    )


def refuse_pipeline_of_managed(card: DatasetCard) -> None:
    """Refuses to look ids up ahead whose rows an update in between may give to others.

    Raises:
        ConfigError: the card has a managed field.
    """
    for field in card.fields:
        if field.managed is not None:
            raise ConfigError(
                f"train.pipeline: the rows of managed field '{field.name}' are only known when the "
                "update before is over. Leave the key out."
            )


def set_pace(graph: InteractionGraph, config: TrainConfig, device: torch.device) -> None:
    """Has the graph's training steps run compiled, or in half precision, as is asked for.

    Raises:
        ConfigError: there is no compiler.
    """
    if config.compile and device.type == "cpu":
        require_compiler("train.compile", told="key")
    if config.compile and dist.get_world_size() > 1 and _has_batch_norm(graph):
        log.warning(
            "train.compile: batch normalisation asks the other ranks, which is no part of a "
            "graph: of several ranks the network is compiled operation by operation."
        )
    passes = max(1, getattr(config.loss, "passes", 1))
    graph.train_with(
        compiled_rows=config.batch_size * passes if config.compile else None,
        half=config.precision == "bf16",
    )


def _has_batch_norm(graph: InteractionGraph) -> bool:
    return any(isinstance(module, DistributedBatchNorm) for module in graph.modules())


def warn_of_warmup(config: TrainConfig, total_steps: int) -> None:
    """Tells of a warm-up that the training ends before."""
    if 0 < total_steps <= config.warmup_steps and dist.get_rank() == 0:
        log.warning(
            "train.warmup_steps: must be below the %d steps of this training, or the learning "
            "rate ends before it is what the experiment says; got %d. Lower it, or train longer.",
            total_steps,
            config.warmup_steps,
        )
