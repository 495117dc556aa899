"""BatchPredictor: raw rows in, scores out, in input order, with the run's own encoder."""

from pathlib import Path

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
from recsys_had.data.folder import DataFolder, layout_of
from recsys_had.data.parquet import Position, SplitReader, rows_from_table
from recsys_had.errors import CheckpointError, ConfigError, DataError, SchemaError
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_specs
from recsys_had.run_folder import RunFolder
from recsys_had.scoring.frames import as_polars
from recsys_had.suggest import nearest

Logits = NDArray[np.float32]
Scores = NDArray[np.float32]


class BatchPredictor:
    """Scores raw rows with a trained run; needs the run folder and nothing else.

    Args:
        run: the run folder, opened.
        encoder: the run's own encoder.
        model: the model with the run's weights.
        batch_size: rows scored together.
        calibrate: apply the run's calibrator, if it has one; the correction for negatives that
            training left out is applied in any case.

    Raises:
        CheckpointError: the run's calibrator is damaged, or does not fit its card.
    """

    def __init__(
        self,
        *,
        run: RunFolder,
        encoder: Encoder,
        model: CTRModel,
        batch_size: int = 8192,
        calibrate: bool = True,
    ) -> None:
        self.run = run
        self.encoder = encoder
        self.model = model.eval()
        self.batch_size = batch_size
        self._layout = layout_of(run.card)
        text = run.addition("calibrator") if calibrate else None
        calibrator = None
        if text is not None:
            calibrator = parse_calibrator(text, place=f"{run.path}/calibrator")
            if calibrator.field is not None:
                self._require_segment(calibrator.field)
        self._to_scores = ToScores(
            shift=log_kept_share(run.manifest.get("sampling")), calibrator=calibrator
        )

    @property
    def calibrated(self) -> bool:
        """Whether scores are those of a calibrator."""
        return self._to_scores.calibrator is not None

    @property
    def shift(self) -> float:
        """What is added to logits for the negatives that training left out."""
        return self._to_scores.shift

    @classmethod
    def load(
        cls, path: Path | str, *, batch_size: int = 8192, calibrate: bool = True
    ) -> "BatchPredictor":
        """Loads a run folder.

        Raises:
            CheckpointError: a file is missing, changed or does not fit the model.
        """
        run = RunFolder.open(Path(path))
        encoder = Encoder.load(run.encoder_path)
        model = CTRModel(
            fields=field_specs(run.card, encoder.num_embeddings),
            dense=run.card.dense,
            config=run.experiment.model,
            vectors=run.card.vectors,
        )
        try:
            model.import_state(run.weights())
        except ValueError as cause:
            raise CheckpointError(f"{path}/weights.safetensors: {cause}") from cause
        return cls(
            run=run, encoder=encoder, model=model, batch_size=batch_size, calibrate=calibrate
        )

    def logits(self, rows: EncodedRows) -> Logits:
        """What the model says of encoded rows, ``(B,)`` float32."""
        found = [np.empty(0, np.float32)]
        with torch.inference_mode():
            for first in range(0, len(rows), self.batch_size):
                index = np.arange(first, min(first + self.batch_size, len(rows)))
                found.append(self.model(rows.take(index).to_batch()).numpy())
        return np.concatenate(found)

    def score_rows(self, rows: EncodedRows) -> Scores:
        """Scores encoded rows: the probability of a click, ``(B,)`` float32."""
        return self.to_scores(self.logits(rows), self.segments(rows))

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
        calibrator = self._to_scores.calibrator
        if calibrator is None or calibrator.field is None:
            return None
        return rows.ids[:, self._layout.single.index(calibrator.field)]

    def score_frame(self, frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame | pa.Table) -> Scores:
        """Scores a frame of raw rows; columns by name, the label not needed.

        Raises:
            TypeError: it is no frame.
            DataError: a column is missing or holds what its kind does not allow.
        """
        frame = as_polars(frame)
        missing = [name for name in self.encoder.required_columns if name not in frame.columns]
        if missing:
            raise DataError(
                [f"column {name}: is missing.{nearest(name, frame.columns)}" for name in missing]
            )
        return self.score_rows(self._encode(frame, "row"))

    def score_split(self, data: DataFolder, split: str) -> tuple[Scores, Scores]:
        """Label and score of each row of an encoded split, in row order.

        Raises:
            SchemaError: the data was made with another card.
            DataError: it was encoded with another vocabulary, or has no such split.
        """
        calibrator = self._to_scores.calibrator
        segment = None if calibrator is None else calibrator.field
        labels, logits, segments = self.split_logits(data, split, segment=segment)
        return labels, self.to_scores(logits, segments)

    def split_logits(
        self, data: DataFolder, split: str, *, segment: str | None = None
    ) -> tuple[Scores, Logits, Segments | None]:
        """Label and logit of each row of an encoded split, in row order, and its id in a field.

        Args:
            data: encoded rows.
            split: train, valid or test.
            segment: a field of one value a row, or None.

        Raises:
            ConfigError: there is no such field, or it holds several values a row.
            SchemaError: the data was made with another card.
            DataError: it was encoded with another vocabulary, or has no such split.
        """
        if segment is not None:
            self._require_segment(segment)
        if data.card.digest != self.run.card.digest:
            raise SchemaError(
                f"{data.path}: was made with another card than {self.run.path}. "
                "Ingest the rows with the run's card."
            )
        if data.manifest["vocabulary_digest"] != self.run.manifest["vocabulary_digest"]:
            raise DataError(
                f"{data.path}: was encoded with another vocabulary than {self.run.path} was "
                "trained with, so its ids mean other values. Score the raw rows with "
                "`recsys-had predict`."
            )
        if not data.rows(split):
            known = [name for name in ("train", "valid", "test") if data.rows(name)]
            raise DataError(f"{data.path}: has no row in split '{split}'.{nearest(split, known)}")
        reader = SplitReader(data.path / split, layout=self._layout, batch_size=self.batch_size)
        labels, logits, segments = [], [], []
        with torch.inference_mode():
            for step in reader.steps(Position(0, 0)):
                labels.append(step.batch.label.numpy())
                logits.append(self.model(step.batch).numpy())
                if segment is not None:
                    segments.append(_ids_of(step.batch, segment))
        found = np.concatenate(segments) if segments else None
        return np.concatenate(labels), np.concatenate(logits), found

    def _require_segment(self, name: str) -> None:
        if name not in self._layout.fields:
            raise ConfigError(
                f"segment {name}: is no field of card '{self.run.card.name}'."
                f"{nearest(name, self._layout.single)}"
            )
        if name in self._layout.multi:
            raise ConfigError(
                f"segment {name}: holds several values a row. Name a field of one value: "
                f"{', '.join(self._layout.single)}."
            )

    def _encode(self, frame: pl.DataFrame, place: str) -> EncodedRows:
        return self.rows(self.encoder.encode(frame, place=place))

    def rows(self, encoded: pl.DataFrame) -> EncodedRows:
        """Encoded rows as the model reads them, numbered from 0."""
        table = encoded.to_arrow()
        row_id = pa.array(np.arange(len(encoded), dtype=np.int64))
        return rows_from_table(table.append_column("row_id", row_id), self._layout)

    def without_row(self, rows: EncodedRows) -> dict[str, int]:
        """Per managed field, the number of values that training left without a row."""
        embeddings = self.model.embeddings
        if not embeddings.managed_fields:
            return {}
        # What Arrow lent cannot be written to, as torch wants: the rows are copied.
        ids = rows.take(np.arange(len(rows))).to_batch().sparse
        found = embeddings.rows_of(ids)
        return {
            field: int(((ids[field].values() > 0) & (found[field].values() == 0)).sum())
            for field in embeddings.managed_fields
        }


def _ids_of(batch: Batch, field: str) -> Segments:
    """Each row's id in a field of one value a row."""
    ids: Segments = batch.sparse[field].values().numpy()
    return ids
