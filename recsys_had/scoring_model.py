"""The code MLflow logs as a model: it imports recsys_had and holds nothing of its own."""

from recsys_had.scoring import BatchPredictor
from recsys_had.tracking import register_scoring_model

register_scoring_model(lambda run: BatchPredictor.load(run).score_frame)
