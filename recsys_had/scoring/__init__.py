"""Scoring: a finished run, raw rows in, scores out."""

from recsys_had.scoring.columns import MakeColumns, RowColumns, score_columns, score_table
from recsys_had.scoring.files import PredictReport, predict_files
from recsys_had.scoring.novelty import MakeNovelty, NoveltyColumn, fit_novelty, load_novelty
from recsys_had.scoring.predictor import BatchPredictor

__all__ = [
    "BatchPredictor",
    "MakeColumns",
    "MakeNovelty",
    "NoveltyColumn",
    "PredictReport",
    "RowColumns",
    "fit_novelty",
    "load_novelty",
    "predict_files",
    "score_columns",
    "score_table",
]
