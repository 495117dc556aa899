"""MlflowTracker: one run in MLflow.

Metrics are buffered: one ``log_metric`` costs as much as a few hundred in a batch.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recsys_had.errors import ConfigError
from recsys_had.schema import DatasetCard
from recsys_had.storage import AnyPath
from recsys_had.tracking.logged_model import log_scoring_model
from recsys_had.tracking.store import database_beside, given_store, mlflow_reason, store_client
from recsys_had.tracking.tracker import NullTracker, Tracker

log = logging.getLogger("recsys_had")

_FLUSH_AT = 500
_FLUSH_EVERY_S = 5.0
_PARAM_LIMIT = 6000
_PARAMS_A_CALL = 100


class MlflowTracker:
    """Tracks one run in MLflow.

    Args:
        uri: the store.
        artifact_location: where a new experiment keeps its files; None for the server's choice.
        experiment_name: experiment the run belongs to.
        run_name: name shown for a new run.
        resume_run_id: run to go on with, which needs nothing but the store, instead of a new one.
    """

    def __init__(
        self,
        *,
        uri: str,
        artifact_location: str | None = None,
        experiment_name: str = "",
        run_name: str = "",
        resume_run_id: str | None = None,
    ) -> None:
        self.error: str | None = None
        self.uri: str | None = uri
        self._client = store_client(uri)
        if resume_run_id is None:
            experiment = self._client.get_experiment_by_name(experiment_name)
            experiment_id = (
                self._client.create_experiment(experiment_name, artifact_location)
                if experiment is None
                else experiment.experiment_id
            )
            run_id = self._client.create_run(experiment_id, run_name=run_name).info.run_id
        else:
            run_id = resume_run_id
            self._client.update_run(run_id, status="RUNNING")
        self.run_id: str | None = run_id
        self._id: str = run_id
        self._waiting: list[Any] = []
        self._flushed_at = time.monotonic()

    def log_params(self, params: Mapping[str, str]) -> None:
        """Records settings, cut to the length MLflow takes."""
        from mlflow.entities import Param

        entries = [Param(key, value[:_PARAM_LIMIT]) for key, value in params.items()]

        def write() -> None:
            for first in range(0, len(entries), _PARAMS_A_CALL):
                self._client.log_batch(self._id, params=entries[first : first + _PARAMS_A_CALL])

        self._try(write)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Records facts a run is found by."""
        from mlflow.entities import RunTag

        entries = [RunTag(key, value) for key, value in tags.items()]
        self._try(lambda: self._client.log_batch(self._id, tags=entries))

    def log_dataset(self, card: DatasetCard, manifest: Mapping[str, Any], source: AnyPath) -> None:
        """Records the data folder as an input: card digest, schema and numbers of rows."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=card.name,
            # MLflow keeps 36 characters of a digest; the tags hold both whole.
            digest=manifest["vocabulary_digest"][:36],
            source_type="local" if isinstance(source, Path) else source.scheme,
            source=json.dumps({"uri": str(source.resolve())}),
            schema=json.dumps(
                {
                    "fields": [field.name for field in card.fields],
                    "dense": list(card.dense),
                    "vectors": card.vectors,
                }
            ),
            profile=json.dumps({"rows": manifest["rows"]}),
        )
        tags = [InputTag("mlflow.data.context", "training")]
        tags += [
            InputTag(key, manifest[key])
            for key in ("card_digest", "vocabulary_digest")
            if key in manifest
        ]
        inputs = [DatasetInput(dataset, tags)]
        self._try(lambda: self._client.log_inputs(self._id, datasets=inputs))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Records numbers at a step; written in batches."""
        from mlflow.entities import Metric

        if self.error is not None:
            return
        now_ms = time.time_ns() // 1_000_000
        self._waiting += [Metric(key, value, now_ms, step) for key, value in metrics.items()]
        late = time.monotonic() - self._flushed_at > _FLUSH_EVERY_S
        if late or len(self._waiting) >= _FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Writes the metrics that wait."""
        self._try(self._write_waiting)

    def log_run_folder(self, folder: Path, card: DatasetCard) -> None:
        """Stores experiment, manifest, metrics and plots, and the run as a pyfunc model."""
        self.flush()
        self._try(lambda: self._write_run_folder(folder, card))

    def log_picture(self, path: Path) -> None:
        """Stores a picture among the run's plots."""
        self._try(lambda: self._client.log_artifact(self._id, str(path), "plots"))

    def close(self, status: str, ended_ms: int | None = None) -> None:
        """Writes what waits and ends the run: now, or when it had ended before."""
        self.flush()
        self._try(lambda: self._client.set_terminated(self._id, status=status, end_time=ended_ms))

    def _try(self, work: Callable[[], None]) -> None:
        if self.error is not None:
            return
        try:
            work()
        except Exception as cause:
            self.error = mlflow_reason(cause)
            log.warning(
                "MLflow at %s: %s Nothing more is recorded; the run folder is not affected.",
                self.uri,
                self.error,
            )

    def _write_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), 1000):
            self._client.log_batch(self._id, metrics=waiting[first : first + 1000])
        self._flushed_at = time.monotonic()

    def _write_run_folder(self, folder: Path, card: DatasetCard) -> None:
        for name in ("experiment.yaml", "manifest.json", "metrics.json"):
            self._client.log_artifact(self._id, str(folder / name))
        if (folder / "plots").is_dir():
            self._client.log_artifacts(self._id, str(folder / "plots"), "plots")
        log_scoring_model(self.uri or "", self._id, folder, card)


def start_tracker(
    *,
    enabled: bool,
    out: Path,
    experiment_name: str,
    run_name: str,
    resume_run_id: str | None = None,
) -> Tracker:
    """Starts, or takes up, the tracking of a run.

    Args:
        enabled: whether anything is tracked.
        out: the run folder; the default store lies beside it.
        experiment_name: experiment the run belongs to.
        run_name: name shown for the run.
        resume_run_id: run to go on with.

    Raises:
        ConfigError: the store cannot be used.
    """
    if not enabled:
        return NullTracker()
    given, database = given_store(), database_beside(out)
    uri = given or f"sqlite:///{database}"
    try:
        return MlflowTracker(
            uri=uri,
            artifact_location=None if given else database.with_name("mlartifacts").as_uri(),
            experiment_name=experiment_name,
            run_name=run_name,
            resume_run_id=resume_run_id,
        )
    except Exception as cause:
        raise ConfigError(
            f"MLflow at {uri}: cannot be used. {mlflow_reason(cause)} Set MLFLOW_TRACKING_URI to "
            "another store, or add --no-tracking."
        ) from cause
