"""Scoring: a finished run, raw rows in, scores out."""

from recsys_had.scoring.files import PredictReport, RowColumns, predict_files
from recsys_had.scoring.predictor import BatchPredictor

__all__ = ["BatchPredictor", "PredictReport", "RowColumns", "predict_files"]
