"""Scoring: a finished run, raw rows in, scores out."""

from recsys_had.scoring.files import PredictReport, RowColumns, predict_files
from recsys_had.scoring.novelty import NoveltyColumn, fit_novelty, load_novelty
from recsys_had.scoring.predictor import BatchPredictor

__all__ = [
    "BatchPredictor",
    "NoveltyColumn",
    "PredictReport",
    "RowColumns",
    "fit_novelty",
    "load_novelty",
    "predict_files",
]
