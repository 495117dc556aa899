"""TrainingSession: a training with everything around it: output folder, tracking, report."""

import json
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.errors import RecsysHadError
from recsys_had.output import OutputFolder
from recsys_had.plots import calibration_png, roc_curve_png
from recsys_had.run_folder import RunFolder, write_run_folder
from recsys_had.tracking import NullTracker, Tracker, start_tracker
from recsys_had.training.checkpoint import CHECKPOINT
from recsys_had.training.distributed import from_rank_zero
from recsys_had.training.loop import Trainer, TrainResult
from recsys_had.training.novelty import add_novelty, novelty_method
from recsys_had.training.pretrained import pretrained_digests


class TrainingSession:
    """Trains one experiment and publishes its run folder; every rank holds one.

    Args:
        experiment: what to train.
        name: the experiment's name, for tracking.
        data: the encoded rows.
        out: the run folder to make.
        device: this rank's device.
        resume: go on from a checkpoint in ``out``, if there is one.
        overwrite: replace what ``out`` holds.
        tracking: record the run in MLflow.
        warm_start: an earlier run to begin with the weights of.
        pretrained: for tables, SET.FIELD, files of rows to begin with, over those of the run.
        show_progress: draw a progress bar.
    """

    def __init__(
        self,
        *,
        experiment: Experiment,
        name: str,
        data: DataFolder,
        out: Path,
        device: torch.device,
        resume: bool = False,
        overwrite: bool = False,
        tracking: bool = True,
        warm_start: Path | None = None,
        pretrained: Mapping[str, Path] | None = None,
        show_progress: bool = False,
    ) -> None:
        self._experiment = experiment
        self._name = name
        self._data = data
        self._out = out
        self._device = device
        self._resume = resume
        self._overwrite = overwrite
        self._tracking = tracking
        self._earlier = None if warm_start is None else RunFolder.open(warm_start)
        self._pretrained = dict(pretrained or {})
        self._show_progress = show_progress
        self._is_first = dist.get_rank() == 0
        self._begun: dict[str, dict[str, Any]] = {}

    def run(self) -> dict[str, Any]:
        """Trains to the end; returns the report.

        Raises:
            RecsysHadError: what the user can cause; the unfinished work is removed.
        """
        folder = from_rank_zero(self._open_output)
        tracker: Tracker = NullTracker()

        def start_tracking() -> None:
            nonlocal tracker
            tracker = self._start_tracker(folder)

        # The folder's clean-up is rank 0's alone.
        guard: AbstractContextManager[Any] = folder if self._is_first else nullcontext()
        with guard:
            trainer = Trainer(
                experiment=self._experiment,
                data=self._data,
                device=self._device,
                work=folder.work,
                on_metrics=lambda metrics, step: tracker.log_metrics(metrics, step),
                show_progress=self._show_progress,
            )
            resumed = folder.resumed and trainer.resume()
            self._begin(folder.work, trainer, resumed=resumed)
            from_rank_zero(start_tracking)
            try:
                result = trainer.run()
                report = from_rank_zero(lambda: self._publish(folder, trainer, result, tracker))
            except BaseException as error:
                tracker.close(_status(error))
                raise
            tracker.close("FINISHED")
            return {**report, "mlflow_error": tracker.error}

    def _open_output(self) -> OutputFolder:
        fingerprint = {
            "experiment": _what_must_stay(self._experiment),
            "data": self._data.manifest.get("vocabulary_digest"),
            "rows": self._data.manifest.get("rows"),
        }
        if self._earlier is not None:
            fingerprint["warm_start"] = self._earlier.manifest["weights_digest"]
        if self._pretrained:
            fingerprint["pretrained"] = pretrained_digests(self._pretrained)
        return OutputFolder(
            self._out,
            marker="manifest.json",
            overwrite=self._overwrite,
            resume=self._resume,
            fingerprint=fingerprint,
            keep_unfinished=True,
            checkpoint=CHECKPOINT,
        )

    def _begin(self, work: Path, trainer: Trainer, *, resumed: bool) -> None:
        """Begins with the weights that are given, unless they have been trained on already."""
        given: dict[str, Callable[[], dict[str, Any]]] = {}
        if (earlier := self._earlier) is not None:
            given["warm_start"] = lambda: {"run": str(earlier.path), **trainer.warm_start(earlier)}
        if self._pretrained:
            given["pretrained"] = lambda: trainer.take_pretrained(self._pretrained)
        for name, write in given.items():
            note = work / f"{name}.json"
            told = None if resumed else write()
            # Of one rank alone: the others do not report.
            if self._is_first:
                if told is not None:
                    note.write_text(json.dumps(told))
                self._begun[name] = json.loads(note.read_text())

    def _start_tracker(self, folder: OutputFolder) -> Tracker:
        """A resumed training goes on under its own MLflow run."""
        note = folder.work / "mlflow_run_id"
        tracker = start_tracker(
            enabled=self._tracking,
            out=self._out,
            experiment_name=self._data.card.name,
            run_name=self._name,
            resume_run_id=note.read_text() if note.is_file() else None,
        )
        if tracker.run_id is not None and not note.is_file():
            note.write_text(tracker.run_id)
            tracker.log_params(self._experiment.flat())
            tracker.set_tags(
                {
                    "git_commit": _git_commit(),
                    "card_digest": self._data.card.digest,
                    "world_size": str(dist.get_world_size()),
                    "run_folder": str(self._out.resolve()),
                }
            )
            tracker.log_dataset(self._data.card, self._data.manifest, self._data.path)
        return tracker

    def _publish(
        self, folder: OutputFolder, trainer: Trainer, result: TrainResult, tracker: Tracker
    ) -> dict[str, Any]:
        progress = result.progress
        assert result.state is not None, "rank 0 holds the weights"
        metrics = {
            "valid": result.metrics.get("valid"),
            "test": result.metrics.get("test"),
            "history": progress.history,
        }
        facts = {
            "experiment": self._name,
            "steps": progress.step,
            "epochs": progress.epoch,
            "world_size": dist.get_world_size(),
            "mlflow_run_id": tracker.run_id,
        }
        for split, (label, score, weight) in result.scored.items():
            note = "" if weight is None else "each counted once, whatever its weight"
            plots = folder.stage / "plots"
            plots.mkdir(exist_ok=True)
            roc_curve_png(label, score, plots / f"{split}_roc.png", note=note)
            calibration_png(label, score, plots / f"{split}_calibration.png", note=note)
        manifest = write_run_folder(
            folder.stage,
            experiment=self._experiment,
            data=self._data,
            state=result.state,
            metrics=metrics,
            facts=facts,
            additions=({"calibrator": result.calibrator.to_text()} if result.calibrator else None),
        )
        method = novelty_method(self._experiment.train, self._data.card)
        # Rows that no card encoded, a library's own, have nothing to be told by.
        if method is not None and (folder.stage / "encoder" / "dense.json").is_file():
            add_novelty(folder.stage, self._data, method)
        # Rows a second of the training steps alone; validation is not counted.
        rows_per_s = progress.train_rows / max(progress.train_seconds, 1e-9)
        tracker.log_metrics(
            {
                f"final_{split}_{name}": number
                for split, found in result.metrics.items()
                for name, number in found.items()
                if number is not None
            }
            | {"rows_per_s": rows_per_s},
            progress.step,
        )
        tracker.log_run_folder(folder.stage, self._data.card)
        folder.publish()
        return {
            "valid": metrics["valid"],
            **({"test": metrics["test"]} if metrics["test"] else {}),
            "rows_per_s": rows_per_s,
            "steps": progress.step,
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "world_size": dist.get_world_size(),
            "weights_digest": manifest["weights_digest"],
            "warm_start": self._begun.get("warm_start"),
            "pretrained": self._begun.get("pretrained"),
            "mlflow_run_id": tracker.run_id,
            "mlflow_uri": tracker.uri,
            "history": json.loads(json.dumps(progress.history)),
        }


_MAY_CHANGE = (
    "batch_size",
    "accumulate_steps",
    "communication",
    "pipeline",
    "sharding",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "timeout_s",
    "calibration",
    "novelty",
)


def _what_must_stay(experiment: Experiment) -> str:
    """The settings a training cannot be gone on with if they change.

    How its rows and tables are dealt to ranks, and when it is saved, may: another machine may
    take it up.
    """
    train = experiment.train.model_copy(
        update={key: type(experiment.train).model_fields[key].get_default() for key in _MAY_CHANGE}
    )
    return experiment.model_copy(update={"train": train}).to_yaml()


def _status(error: BaseException) -> str:
    stopped = isinstance(error, KeyboardInterrupt | SystemExit)
    return "KILLED" if stopped and not isinstance(error, RecsysHadError) else "FAILED"


def _git_commit() -> str:
    """The commit of the working directory, or ``unknown`` outside a repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
