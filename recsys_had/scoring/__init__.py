"""Scoring: a finished run, raw rows in, scores out."""

from recsys_had.scoring.columns import MakeColumns, RowColumns, score_columns, score_table
from recsys_had.scoring.files import PredictReport, predict_files
from recsys_had.scoring.modes import Mode
from recsys_had.scoring.novelty import MakeNovelty, NoveltyColumn, fit_novelty, load_novelty
from recsys_had.scoring.predictor import BatchPredictor
from recsys_had.scoring.score_error import error_of_drawn_rows, score_error, told_error
from recsys_had.scoring.splits import score_split, split_logits

__all__ = [
    "BatchPredictor",
    "MakeColumns",
    "MakeNovelty",
    "Mode",
    "NoveltyColumn",
    "PredictReport",
    "RowColumns",
    "error_of_drawn_rows",
    "fit_novelty",
    "load_novelty",
    "predict_files",
    "score_columns",
    "score_error",
    "score_split",
    "score_table",
    "split_logits",
    "told_error",
]
