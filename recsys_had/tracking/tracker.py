"""What a training reports to, whether or not anything is tracked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from recsys_had.schema import DatasetCard
from recsys_had.storage import AnyPath


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
