"""What becomes of a run after its training, written into the record MLflow has of it."""

import logging
from collections.abc import Mapping
from pathlib import Path

from recsys_had.errors import ConfigError
from recsys_had.schema import DatasetCard
from recsys_had.tracking.mlflow_tracker import MlflowTracker
from recsys_had.tracking.store import database_beside, given_store, mlflow_reason, store_client

log = logging.getLogger("recsys_had")


def record_later(
    folder: Path,
    card: DatasetCard,
    run_id: str | None,
    *,
    metrics: Mapping[str, float] | None = None,
    picture: Path | None = None,
    logs_model: bool = False,
) -> dict[str, str | None]:
    """Adds to the record of a finished run, which stays finished when it was.

    A store that is not there, or does not know the run, is told in one line and costs nothing: the
    run folder is not affected.

    Args:
        folder: the run folder; the default store lies beside it.
        card: the run's card.
        run_id: MLflow's id of the run, None where its training was not tracked.
        metrics: numbers to record.
        picture: a picture to store among its plots, or None.
        logs_model: log the run folder anew as the run's model, for what was added to it.

    Returns:
        ``mlflow_run_id``, ``mlflow_uri`` and ``mlflow_error``, each None where there is none.
    """
    told: dict[str, str | None] = dict.fromkeys(("mlflow_run_id", "mlflow_uri", "mlflow_error"))
    if run_id is None:
        return told
    database = database_beside(folder)
    uri = given_store() or f"sqlite:///{database}"
    told |= {"mlflow_run_id": run_id, "mlflow_uri": uri}
    try:
        # SQLite would make an empty one.
        if given_store() is None and not database.is_file():
            raise ConfigError(f"MLflow: {database} is not there.")
        tracker, ended = _reopened(uri, run_id)
    except ConfigError as cause:
        log.warning("%s The run folder is not affected.", cause)
        return {**told, "mlflow_error": cause.problems[0]}
    tracker.log_metrics(metrics or {}, 0)
    if picture is not None:
        tracker.log_picture(picture)
    if logs_model:
        tracker.log_run_folder(folder, card)
    tracker.close(*ended)
    return {**told, "mlflow_error": tracker.error}


def _reopened(uri: str, run_id: str) -> tuple[MlflowTracker, tuple[str, int | None]]:
    """A tracker of a finished run, and how and when that ended.

    Raises:
        ConfigError: the store cannot be used or does not know the run.
    """
    try:
        before = store_client(uri).get_run(run_id).info
        return MlflowTracker(uri=uri, resume_run_id=run_id), (before.status, before.end_time)
    except Exception as cause:
        raise ConfigError(f"MLflow at {uri}: {mlflow_reason(cause)}") from cause
