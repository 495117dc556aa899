"""Novelty at the end of a training: which method, whether the model has what it needs, the fit."""

import logging
from pathlib import Path

from recsys_had.config import TrainConfig
from recsys_had.data.folder import DataFolder
from recsys_had.model.graph import InteractionGraph
from recsys_had.novelty import DEFAULT, METHODS
from recsys_had.schema import DatasetCard
from recsys_had.scoring import BatchPredictor, fit_novelty
from recsys_had.scoring.novelty import ADDITION

log = logging.getLogger("recsys_had")


def novelty_method(config: TrainConfig, card: DatasetCard) -> str | None:
    """The method to fit, None for none: the default one needs fields whose values it can count."""
    if config.novelty is None:
        return DEFAULT if card.fields else None
    return None if config.novelty == "none" else config.novelty


def require_novelty(graph: InteractionGraph, config: TrainConfig, card: DatasetCard) -> None:
    """Refuses a model without what the method needs before it is trained, not after.

    Raises:
        ConfigError: the method needs terms that the model's logit has none of.
    """
    method = novelty_method(config, card)
    if method is not None and METHODS[method].needs_terms:
        graph.require_terms()


def add_novelty(run: Path, data: DataFolder, method: str) -> None:
    """Fits a method on the training rows and adds it to a run folder that is being made."""
    log.info("novelty: fitting %s on the training rows.", method)
    predictor = BatchPredictor.load(run)
    predictor.run.add(ADDITION, fit_novelty(predictor, data, method).text)
