"""BatchPredictor: raw rows in, scores out, in input order, with the run's own encoder."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import torch
from numpy.typing import NDArray

from recsys_had.batch import EncodedRows
from recsys_had.data.encode import Encoder
from recsys_had.data.folder import DataFolder, layout_of
from recsys_had.data.parquet import Position, SplitReader, rows_from_table
from recsys_had.data.sampling import in_words
from recsys_had.errors import CheckpointError, DataError, SchemaError
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_specs
from recsys_had.run_folder import RunFolder
from recsys_had.scoring.frames import as_polars
from recsys_had.suggest import nearest

Logits = NDArray[np.float32]
Scores = NDArray[np.float32]

_log = logging.getLogger("recsys_had")


class Watcher(Protocol):
    """Is shown rows while they are scored."""

    needs_terms: bool

    def __call__(self, rows: EncodedRows, logit: Logits, terms: Sequence[torch.Tensor]) -> None:
        """Takes a batch: its rows, their logits and, where it needs them, the logits' terms."""


class BatchPredictor:
    """Scores raw rows with a trained run; needs the run folder and nothing else.

    Args:
        run: the run folder, opened.
        encoder: the run's own encoder.
        model: the model with the run's weights.
        batch_size: rows scored together.
    """

    def __init__(
        self, *, run: RunFolder, encoder: Encoder, model: CTRModel, batch_size: int = 8192
    ) -> None:
        self.run = run
        self.encoder = encoder
        self.model = model.eval()
        self.batch_size = batch_size
        self._layout = layout_of(run.card)

    @classmethod
    def load(cls, path: Path | str, *, batch_size: int = 8192) -> "BatchPredictor":
        """Loads a run folder.

        Raises:
            CheckpointError: a file is missing, changed or does not fit the model.
        """
        run = RunFolder.open(Path(path))
        sampling = run.manifest.get("sampling")
        if sampling is not None and sampling["left_out"]:
            told = "%s: was %s. Its scores are not corrected for it: they are too high."
            _log.warning(told, path, in_words(sampling))
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
        return cls(run=run, encoder=encoder, model=model, batch_size=batch_size)

    def logits(self, rows: EncodedRows, *, watchers: Sequence[Watcher] = ()) -> Logits:
        """What the model says of encoded rows, ``(B,)`` float32.

        Args:
            rows: the rows.
            watchers: shown each batch, in order.
        """
        found = [np.empty(0, np.float32)]
        with_terms = any(watcher.needs_terms for watcher in watchers)
        with torch.inference_mode():
            for first in range(0, len(rows), self.batch_size):
                index = np.arange(first, min(first + self.batch_size, len(rows)))
                part = rows.take(index)
                batch = part.to_batch()
                terms: Sequence[torch.Tensor] = ()
                if with_terms:
                    logit, terms = self.model.with_terms(batch)
                else:
                    logit = self.model(batch)
                found.append(logit.numpy())
                for watcher in watchers:
                    watcher(part, found[-1], terms)
        return np.concatenate(found)

    def score_rows(self, rows: EncodedRows, *, watchers: Sequence[Watcher] = ()) -> Scores:
        """Scores encoded rows: the probability of a click, ``(B,)`` float32."""
        return self.to_scores(self.logits(rows, watchers=watchers))

    def to_scores(self, logits: Logits) -> Scores:
        """Probabilities of a click, of logits: the one place where they are made."""
        scores: Scores = torch.sigmoid(torch.from_numpy(logits)).numpy()
        return scores

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
        return self.score_rows(self.encode(frame))

    def score_split(self, data: DataFolder, split: str) -> tuple[Scores, Scores]:
        """Label and score of each row of an encoded split, in row order.

        Raises:
            SchemaError: the data was made with another card.
            DataError: it was encoded with another vocabulary, or has no such split.
        """
        self.require(data)
        if not data.rows(split):
            known = [name for name in ("train", "valid", "test") if data.rows(name)]
            raise DataError(f"{data.path}: has no row in split '{split}'.{nearest(split, known)}")
        reader = SplitReader(data.path / split, layout=self._layout, batch_size=self.batch_size)
        labels, scores = [], []
        with torch.inference_mode():
            for step in reader.steps(Position(0, 0)):
                labels.append(step.batch.label.numpy())
                scores.append(self.to_scores(self.model(step.batch).numpy()))
        return np.concatenate(labels), np.concatenate(scores)

    def require(self, data: DataFolder) -> None:
        """Refuses encoded rows whose ids are not the run's.

        Raises:
            SchemaError: the data was made with another card.
            DataError: it was encoded with another vocabulary.
        """
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

    def encode(self, frame: pl.DataFrame) -> EncodedRows:
        """Raw rows as the model reads them, numbered from 0."""
        return self.rows(self.encoder.encode(frame))

    def with_unseen(
        self, rows: EncodedRows, frame: pl.DataFrame, encoded: pl.DataFrame
    ) -> EncodedRows:
        """Rows that know which of their values have no id.

        Args:
            rows: what :meth:`rows` made of the encoded ones.
            frame: the raw rows.
            encoded: what the encoder made of them.
        """
        return replace(rows, unseen=self.encoder.unseen_by_row(frame, encoded))

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
