"""Runs in MLflow: the only file that imports mlflow, and only when a run is tracked.

The store is ``MLFLOW_TRACKING_URI`` when that is set, else ``mlflow.db`` (SQLite) beside the run
folders. Metrics are buffered: one ``log_metric`` costs as much as a few hundred in a batch.

A store that cannot be used is the user's to mend before anything is trained. One that fails
later costs the record, never the training: it is told once and not tried again.
"""

import atexit
import json
import logging
import os
import shutil
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from recsys_had.columns import source_columns
from recsys_had.errors import ConfigError
from recsys_had.schema import DatasetCard
from recsys_had.storage import AnyPath
from recsys_had.versions import library_versions

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

log = logging.getLogger("recsys_had")

_FLUSH_AT = 500
_FLUSH_EVERY_S = 5.0
_PARAM_LIMIT = 6000
_PARAMS_A_CALL = 100
# What the logged model's environment needs beside recsys_had itself.
_SERVING_LIBRARIES = ("torch", "polars", "pyarrow", "pandas", "numpy", "pydantic")


class Tracker(Protocol):
    """Where a training reports to."""

    @property
    def run_id(self) -> str | None:
        """The run's id, or None where nothing is tracked."""

    @property
    def uri(self) -> str | None:
        """The store, or None where nothing is tracked."""

    @property
    def error(self) -> str | None:
        """Why the record is incomplete, or None."""

    def log_params(self, params: Mapping[str, str]) -> None:
        """Records settings."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Records facts a run is found by."""

    def log_dataset(self, card: DatasetCard, manifest: Mapping[str, Any], source: AnyPath) -> None:
        """Records the data as an input of the run."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Records numbers at a step."""

    def log_run_folder(self, folder: Path, card: DatasetCard) -> None:
        """Stores a run folder's small files, and a model that scores raw rows."""

    def log_picture(self, path: Path) -> None:
        """Stores a picture among the run's plots."""

    def close(self, status: str) -> None:
        """Ends the run: FINISHED, FAILED or KILLED."""


class NullTracker:
    """Tracks nothing.

    >>> NullTracker().run_id is None
    True
    """

    run_id: str | None = None
    uri: str | None = None
    error: str | None = None

    def log_params(self, params: Mapping[str, str]) -> None:
        """Does nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Does nothing."""

    def log_dataset(self, card: DatasetCard, manifest: Mapping[str, Any], source: AnyPath) -> None:
        """Does nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Does nothing."""

    def log_run_folder(self, folder: Path, card: DatasetCard) -> None:
        """Does nothing."""

    def log_picture(self, path: Path) -> None:
        """Does nothing."""

    def close(self, status: str) -> None:
        """Does nothing."""


class MlflowTracker:
    """Tracks one run in MLflow.

    Args:
        uri: the store.
        artifact_location: where a new experiment keeps its files; None for the server's choice.
        experiment_name: experiment the run belongs to.
        run_name: name shown for a new run.
        resume_run_id: run to go on with, instead of a new one.
    """

    def __init__(
        self,
        *,
        uri: str,
        artifact_location: str | None,
        experiment_name: str,
        run_name: str,
        resume_run_id: str | None = None,
    ) -> None:
        _silence()
        from mlflow import MlflowClient

        self.error: str | None = None
        self.uri: str | None = uri
        self._client = MlflowClient(tracking_uri=uri)
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

    def close(self, status: str) -> None:
        """Writes what waits and ends the run."""
        self.flush()
        self._try(lambda: self._client.set_terminated(self._id, status=status))

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
        import mlflow

        # It asks for an example and for type hints; the signature says it all. Recorded, because
        # it sets filters of its own.
        with _as_active(self.uri or "", self._id), warnings.catch_warnings(record=True):
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("scoring_model.py")),
                artifacts={"run": str(folder)},
                signature=model_signature(card),
                pip_requirements=_requirements(),
            )


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
    given = os.environ.get("MLFLOW_TRACKING_URI")
    folder = out.resolve().parent
    uri = given or f"sqlite:///{folder / 'mlflow.db'}"
    try:
        return MlflowTracker(
            uri=uri,
            artifact_location=None if given else (folder / "mlartifacts").as_uri(),
            experiment_name=experiment_name,
            run_name=run_name,
            resume_run_id=resume_run_id,
        )
    except Exception as cause:
        raise ConfigError(
            f"MLflow at {uri}: cannot be used. {mlflow_reason(cause)} Set MLFLOW_TRACKING_URI to "
            "another store, or add --no-tracking."
        ) from cause


def store_client(uri: str) -> Any:
    """A client of a store's runs and registered models."""
    _silence()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def download_logged(location: str, uri: str) -> Path:
    """The folder of files that a store keeps somewhere, as they lie or as a temporary copy.

    Args:
        location: where.
        uri: the store.
    """
    _silence()
    from mlflow.artifacts import download_artifacts

    if location.startswith("file:"):
        return Path(download_artifacts(artifact_uri=location, tracking_uri=uri))
    copy = tempfile.mkdtemp(prefix="recsys_had-")
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    return Path(download_artifacts(artifact_uri=location, dst_path=copy, tracking_uri=uri))


def record_calibration(
    folder: Path,
    card: DatasetCard,
    *,
    enabled: bool,
    run_id: str | None,
    metrics: Mapping[str, float],
    plot: Path | None,
) -> dict[str, str | None]:
    """Records what a finished run's calibration came to, and logs its model anew, calibrated.

    A store that is not there, or does not know the run, is told in one line and costs nothing:
    the run folder holds the calibrator.

    Args:
        folder: the run folder, with its calibrator.
        card: the card of the run.
        enabled: whether anything is tracked.
        run_id: MLflow's id of the run, None where its training was not tracked.
        metrics: numbers to record.
        plot: a picture to store, or None.

    Returns:
        ``mlflow_run_id``, ``mlflow_uri`` and ``mlflow_error``, each None where there is none.
    """
    told: dict[str, str | None] = dict.fromkeys(("mlflow_run_id", "mlflow_uri", "mlflow_error"))
    if not enabled or run_id is None:
        return told
    default = folder.resolve().parent / "mlflow.db"
    told |= {"mlflow_run_id": run_id, "mlflow_uri": os.environ.get("MLFLOW_TRACKING_URI")}
    if told["mlflow_uri"] is None:
        told["mlflow_uri"] = f"sqlite:///{default}"
        if not default.is_file():
            told["mlflow_error"] = f"{default} is not there."
    if told["mlflow_error"] is None:
        try:
            tracker = start_tracker(
                enabled=True,
                out=folder,
                experiment_name=card.name,
                run_name="",
                resume_run_id=run_id,
            )
        except ConfigError as cause:
            told["mlflow_error"] = cause.problems[0]
        else:
            tracker.log_metrics(metrics, 0)
            if plot is not None:
                tracker.log_picture(plot)
            tracker.log_run_folder(folder, card)
            tracker.close("FINISHED")
            return {**told, "mlflow_error": tracker.error}
    log.warning("MLflow: %s Only the run folder holds the calibrator.", told["mlflow_error"])
    return told


def record_picture(run_folder: Path, run_id: str | None, picture: Path) -> str | None:
    """Stores a picture of a finished run beside its others, where the run has a record.

    Args:
        run_folder: the run; the default store lies beside it.
        run_id: of its record, or None.
        picture: the file.

    Returns:
        The store, or None where there is no record or it cannot be written, which is told.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    store = run_folder.resolve().parent / "mlflow.db"
    if run_id is None or not (given or store.is_file()):
        return None
    uri = given or f"sqlite:///{store}"
    _silence()
    from mlflow import MlflowClient

    try:
        MlflowClient(tracking_uri=uri).log_artifact(run_id, str(picture), "plots")
    except Exception as cause:
        log.warning("MLflow at %s: %s %s is not recorded.", uri, mlflow_reason(cause), picture)
        return None
    return uri


def model_signature(card: DatasetCard) -> "ModelSignature":
    """Inputs and output of the logged model.

    Every raw column may be of any type and may be absent: MLflow's typed columns refuse the ints,
    floats with gaps, texts and nulls that frames read from the same raw file come with. What a
    column must hold is checked by the card when a frame is scored.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, Schema

    names = [name for name in source_columns(card.columns) if name not in (card.label, card.weight)]
    inputs = Schema([ColSpec(AnyType(), name, required=False) for name in names])
    return ModelSignature(inputs=inputs, outputs=Schema([ColSpec(DataType.float, "score")]))


def register_scoring_model(load: Callable[[str], Callable[[Any], Any]]) -> None:
    """Hands MLflow the model that the script it logs defines.

    Args:
        load: makes, of a run folder's path, a function from a frame of raw rows to scores.
    """
    import mlflow
    import pandas as pd

    class ScoringModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        """Scores raw rows with the run folder it was logged with."""

        def load_context(self, context: Any) -> None:
            """Loads the run folder."""
            self._score = load(context.artifacts["run"])

        # MLflow warns of any hint but this one, and of none.
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
            """Scores a frame of raw rows; returns a frame with the column ``score``."""
            return pd.DataFrame({"score": self._score(model_input)}, index=model_input.index)

    mlflow.models.set_model(ScoringModel())


@contextmanager
def _as_active(uri: str, run_id: str) -> Iterator[None]:
    """Makes a run MLflow's active one for a while, as logging a model needs."""
    import mlflow

    before, given = mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run(run_id=run_id):
            yield
    finally:
        mlflow.set_tracking_uri(before)
        # It sets the variable too, by which a later training would take the store for a given one.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if given is not None:
            os.environ["MLFLOW_TRACKING_URI"] = given


def mlflow_reason(cause: Exception) -> str:
    """The first line of what went wrong, as a sentence."""
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return textwrap.shorten(lines[0], 300, placeholder=" ...").rstrip(" .") + "."


def _requirements() -> list[str]:
    """Pinned, so that MLflow asks no index what to write down."""
    found = library_versions()
    names = ["recsys_had", *_SERVING_LIBRARIES]
    return [f"{name}=={found[name].split('+')[0]}" for name in names if name in found]


def _silence() -> None:
    """No network traffic, no progress bars, no messages among a command's own."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # stdout is the command's result.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # Seconds, not minutes, until a server that does not answer is told.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    for name in ("mlflow", "mlflow.store.db.utils", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
