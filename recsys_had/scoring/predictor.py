"""BatchPredictor: raw rows in, scores out, in input order, with the run's own encoder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import torch
from numpy.typing import NDArray

from recsys_had.batch import Batch, EncodedRows
from recsys_had.calibration import ToScores, log_kept_share, parse_calibrator
from recsys_had.calibration.calibrator import Segments
from recsys_had.data.encode import Encoder
from recsys_had.data.encoder_files import load_encoder
from recsys_had.data.folder import layout_of
from recsys_had.engines.local import available_cores
from recsys_had.errors import CheckpointError, ConfigError
from recsys_had.model.ctr import CTRModel
from recsys_had.model_uri import local_run
from recsys_had.run_folder import RunFolder
from recsys_had.scoring.frames import as_polars
from recsys_had.scoring.lanes import Lanes, filled
from recsys_had.scoring.modes import EXACT, Mode
from recsys_had.scoring.reading import ReadRows, read_frame
from recsys_had.scoring.run_model import model_of_run
from recsys_had.suggest import nearest

Logits = NDArray[np.float32]
Scores = NDArray[np.float32]

BATCH_SIZE = 4096


class Watcher(Protocol):
    """Is shown rows while they are scored."""

    needs_terms: bool

    def __call__(self, rows: EncodedRows, logit: Logits, terms: Sequence[torch.Tensor]) -> None:
        """Takes a batch: its rows, their logits and, where it needs them, the logits' terms."""


@dataclass(frozen=True)
class Loading:
    """How another process comes by the same predictor; a plain value that can be sent to it.

    Args:
        path: the run folder.
        digest: of the run, which must still be the same.
        batch_size: rows scored together.
        calibrate: whether the run's calibrator is applied.
        mode: how the model is run.
    """

    path: Path
    digest: str
    batch_size: int
    calibrate: bool
    mode: Mode = EXACT

    def __call__(self) -> "BatchPredictor":
        """The predictor, loaded once a process, which is given one core.

        Raises:
            CheckpointError: the run is another meanwhile.
        """
        return _loaded(self)


class BatchPredictor:
    """Scores raw rows with a trained run; needs the run folder and nothing else.

    Args:
        run: the run folder, opened.
        encoder: the run's own encoder.
        model: the model with the run's weights.
        batch_size: rows scored together.
        num_lanes: batches scored at once, each on one core; None: one a core.
        calibrate: apply the run's calibrator, if it has one; the correction for negatives that
            training left out is applied in any case.
        mode: how the model is run, which may change its tables.

    Attributes:
        layout: names and order of the model's inputs.

    Raises:
        CheckpointError: the run's calibrator is damaged, or does not fit its card.
        ConfigError: the model cannot be run in that mode.
    """

    def __init__(
        self,
        *,
        run: RunFolder,
        encoder: Encoder,
        model: CTRModel,
        batch_size: int = BATCH_SIZE,
        num_lanes: int | None = None,
        calibrate: bool = True,
        mode: Mode = EXACT,
    ) -> None:
        self.run = run
        self.encoder = encoder
        self.model = model.eval()
        self.batch_size = batch_size
        self.mode = mode
        mode.apply(self.model, rows=filled(batch_size))
        self.layout = layout_of(run.card)
        self._lanes = Lanes(num_lanes or available_cores())
        text = run.addition("calibrator") if calibrate else None
        calibrator = None
        if text is not None:
            calibrator = parse_calibrator(text, place=f"{run.path}/calibrator")
            if calibrator.field is not None:
                self.require_segment(calibrator.field)
        self._to_scores = ToScores(
            shift=log_kept_share(run.manifest.get("sampling")), calibrator=calibrator
        )

    @property
    def calibrated(self) -> bool:
        """Whether scores are those of a calibrator."""
        return self._to_scores.calibrator is not None

    @property
    def segment(self) -> str | None:
        """The field that the calibrator is fitted by; None where it is by none."""
        calibrator = self._to_scores.calibrator
        return None if calibrator is None else calibrator.field

    @property
    def shift(self) -> float:
        """What is added to logits for the negatives that training left out."""
        return self._to_scores.shift

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        batch_size: int = BATCH_SIZE,
        num_lanes: int | None = None,
        calibrate: bool = True,
        mode: Mode = EXACT,
    ) -> "BatchPredictor":
        """Loads a run folder, or the one a model URI of MLflow names.

        Raises:
            CheckpointError: there is no such model, or a file of the run is missing, changed or
                does not fit; or the run was replaced meanwhile.
            ConfigError: the model cannot be run in that mode.
        """
        path = local_run(path)
        run = RunFolder.open(path)
        encoder = load_encoder(run.encoder_path)
        model = model_of_run(run, encoder, as_float=mode.tables != "int8")
        run.require_unchanged()
        return cls(
            run=run,
            encoder=encoder,
            model=model,
            batch_size=batch_size,
            num_lanes=num_lanes,
            calibrate=calibrate,
            mode=mode,
        )

    def exact(self) -> "BatchPredictor":
        """What scores with the same run in the exact mode.

        Raises:
            CheckpointError: the run's weights are others meanwhile.
        """
        if self.mode.is_exact:
            return self
        run = self.run
        try:
            now = json.loads((run.path / "manifest.json").read_text())["weights_digest"]
        except (OSError, ValueError, KeyError, TypeError) as cause:
            raise CheckpointError(f"{run.path}/manifest.json: cannot be read: {cause}.") from cause
        if now != run.manifest["weights_digest"]:
            raise _changed(run.path)
        return BatchPredictor(
            run=run,
            encoder=self.encoder,
            model=model_of_run(run, self.encoder),
            batch_size=self.batch_size,
            num_lanes=self._lanes.num_lanes,
            calibrate=self.calibrated,
        )

    def logits(self, rows: EncodedRows, *, watchers: Sequence[Watcher] = ()) -> Logits:
        """What the model says of encoded rows, ``(B,)`` float32.

        To the bit the same for a row whatever other rows it comes with; see
        :mod:`recsys_had.scoring.lanes`, and :class:`recsys_had.scoring.modes.Mode` for modes that
        are not exact.

        Args:
            rows: the rows.
            watchers: shown each batch, in order.
        """
        with_terms = any(watcher.needs_terms for watcher in watchers)

        def forward(batch: Batch) -> list[torch.Tensor]:
            if with_terms:
                logit, terms = self.model.with_terms(batch)
                return [logit, *terms]
            return [self.model(batch)]

        found = [np.empty(0, np.float32)]
        batches = self._lanes.run(
            forward, rows, batch_size=self.batch_size, share=self.mode.keeps_bits_in_any_batch
        )
        for index, (logit, *terms) in batches:
            found.append(logit.numpy())
            for watcher in watchers:
                watcher(rows.take(index), found[-1], terms)
        return np.concatenate(found)

    @property
    def loading(self) -> Loading:
        """How another process comes by the same."""
        return Loading(
            self.run.path.absolute(),
            self.run.manifest["digest"],
            self.batch_size,
            self.calibrated,
            self.mode,
        )

    def score_rows(self, rows: EncodedRows, *, watchers: Sequence[Watcher] = ()) -> Scores:
        """Scores encoded rows: the probability of a click, ``(B,)`` float32."""
        return self.to_scores(self.logits(rows, watchers=watchers), self.segments(rows))

    def to_scores(self, logits: Logits, segments: Segments | None = None) -> Scores:
        """Probabilities of a click, of logits: the one place where they are made.

        Corrected for sampling first, then calibrated; see :mod:`recsys_had.calibration.scores`.

        Args:
            logits: ``(B,)`` float32, as the model gives them.
            segments: what :meth:`segments` says of the same rows.

        Raises:
            ValueError: the calibrator is fitted by segments, and none are given.
        """
        return self._to_scores(logits, segments)

    def segments(self, rows: EncodedRows) -> Segments | None:
        """Each row's id in the field that the calibrator is fitted by; None where it is by none."""
        if self.segment is None:
            return None
        return rows.ids[:, self.layout.single.index(self.segment)]

    def score_frame(self, frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame | pa.Table) -> Scores:
        """Scores a frame of raw rows; columns by name, the label not needed.

        Raises:
            TypeError: it is no frame.
            DataError: a column is missing or holds what its kind does not allow.
        """
        return self.score_rows(self.read_frame(frame).rows)

    def read_frame(self, frame: object) -> ReadRows:
        """A frame of raw rows as the model reads it, as :meth:`score_frame` has it.

        What its other columns hold, the label's among them, does not matter.

        Raises:
            TypeError: it is no frame.
            DataError: a column is missing or holds what its kind does not allow.
        """
        return read_frame(as_polars(frame, self.encoder.required_columns), self.encoder)

    def require_segment(self, name: str) -> None:
        """Asks of a field to be one that rows can be told apart by.

        Raises:
            ConfigError: there is no such field, or it holds several values a row.
        """
        if name not in self.layout.fields:
            raise ConfigError(
                f"segment {name}: is no field of card '{self.run.card.name}'."
                f"{nearest(name, self.layout.single)}"
            )
        if name in self.layout.multi:
            raise ConfigError(
                f"segment {name}: holds several values a row. Name a field of one value: "
                f"{', '.join(self.layout.single)}."
            )

    def without_row(self, rows: EncodedRows) -> dict[str, int]:
        """Per managed field, the number of values that training left without a row."""
        embeddings = self.model.embeddings
        if not embeddings.managed_fields:
            return {}
        ids = rows.to_batch().sparse
        found = embeddings.rows_of(ids)
        return {
            field: int(((ids[field].values() > 0) & (found[field].values() == 0)).sum())
            for field in embeddings.managed_fields
        }


@lru_cache(maxsize=1)
def _loaded(loading: Loading) -> BatchPredictor:
    found = BatchPredictor.load(
        loading.path,
        batch_size=loading.batch_size,
        num_lanes=1,
        calibrate=loading.calibrate,
        mode=loading.mode,
    )
    if found.run.manifest["digest"] != loading.digest:
        raise _changed(loading.path)
    return found


def _changed(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: was changed while it was used. Run it again.")
