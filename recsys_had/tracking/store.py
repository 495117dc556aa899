"""MLflow's stores: which one is meant, and what speaks to it without messages of its own."""

import atexit
import logging
import os
import shutil
import tempfile
import textwrap
from pathlib import Path
from typing import Any

_VARIABLE = "MLFLOW_TRACKING_URI"


def given_store() -> str | None:
    """The store that the environment names, or None."""
    return os.environ.get(_VARIABLE) or None


def database_beside(run_folder: Path) -> Path:
    """The database that keeps a run where the environment names no store.

    >>> database_beside(Path("/runs/fm")).as_posix()
    '/runs/mlflow.db'
    """
    return run_folder.resolve().parent / "mlflow.db"


def store_client(uri: str) -> Any:
    """A client of a store's runs and registered models."""
    silence_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def download_logged(location: str, uri: str) -> Path:
    """The folder of files that a store keeps somewhere, as they lie or as a temporary copy.

    Args:
        location: where.
        uri: the store.
    """
    silence_mlflow()
    from mlflow.artifacts import download_artifacts

    if location.startswith("file:"):
        return Path(download_artifacts(artifact_uri=location, tracking_uri=uri))
    copy = tempfile.mkdtemp(prefix="recsys_had-")
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    return Path(download_artifacts(artifact_uri=location, dst_path=copy, tracking_uri=uri))


def mlflow_reason(cause: Exception) -> str:
    """The first line of what went wrong, as a sentence."""
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return textwrap.shorten(lines[0], 300, placeholder=" ...").rstrip(" .") + "."


def silence_mlflow() -> None:
    """No network traffic, no progress bars, no messages among a command's own."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # stdout is the command's result.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # Seconds, not minutes, until a server that does not answer is told.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    for name in ("mlflow", "mlflow.store.db.utils", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
