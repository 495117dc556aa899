"""The code MLflow logs as a model: it imports recsys_had and holds nothing of its own."""

from recsys_had.frame_scorer import FrameScorer
from recsys_had.tracking import register_scoring_model

register_scoring_model(FrameScorer)
