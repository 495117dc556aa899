"""Runs in MLflow: the only package that imports mlflow, and only when a run is tracked.

The store is ``MLFLOW_TRACKING_URI`` when that is set, else ``mlflow.db`` (SQLite) beside the run
folders.

A store that cannot be used is the user's to mend before anything is trained. One that fails
later costs the record, never the training: it is told once and not tried again.
"""

from recsys_had.tracking.finished_run import record_later
from recsys_had.tracking.logged_model import model_signature, register_scoring_model
from recsys_had.tracking.mlflow_tracker import MlflowTracker, start_tracker
from recsys_had.tracking.store import download_logged, given_store, mlflow_reason, store_client
from recsys_had.tracking.tracker import NullTracker, Tracker

__all__ = [
    "MlflowTracker",
    "NullTracker",
    "Tracker",
    "download_logged",
    "given_store",
    "mlflow_reason",
    "model_signature",
    "record_later",
    "register_scoring_model",
    "start_tracker",
    "store_client",
]
