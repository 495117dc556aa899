"""Scoring: a finished run, raw rows in, scores out."""

from recsys_had.scoring.files import PredictReport, predict_files
from recsys_had.scoring.parts import MakeColumns, RowColumns
from recsys_had.scoring.predictor import BatchPredictor

__all__ = ["BatchPredictor", "MakeColumns", "PredictReport", "RowColumns", "predict_files"]
