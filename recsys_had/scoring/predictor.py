"""BatchPredictor: raw rows in, scores out, in input order, with the run's own encoder."""

import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys_had.batch import EncodedRows
from recsys_had.data.encode import Encoder
from recsys_had.data.folder import DataFolder, layout_of
from recsys_had.data.parquet import rows_from_table
from recsys_had.data.sampling import in_words
from recsys_had.data.shards import pieces_of, shards_of
from recsys_had.engines.local import available_cores
from recsys_had.errors import CheckpointError, DataError, SchemaError
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_specs
from recsys_had.model_uri import local_run
from recsys_had.run_folder import RunFolder
from recsys_had.scoring.frames import as_polars
from recsys_had.scoring.lanes import Lanes
from recsys_had.scoring.reading import frame_rows
from recsys_had.suggest import nearest

Logits = NDArray[np.float32]
Scores = NDArray[np.float32]

BATCH_SIZE = 4096

_log = logging.getLogger("recsys_had")


@dataclass(frozen=True)
class Loading:
    """How another process comes by the same predictor; a plain value that can be sent to it.

    Args:
        path: the run folder.
        digest: of the run, which must still be the same.
        batch_size: rows scored together.
    """

    path: Path
    digest: str
    batch_size: int

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
    """

    def __init__(
        self,
        *,
        run: RunFolder,
        encoder: Encoder,
        model: CTRModel,
        batch_size: int = BATCH_SIZE,
        num_lanes: int | None = None,
    ) -> None:
        self.run = run
        self.encoder = encoder
        self.model = model.eval()
        self.batch_size = batch_size
        self._layout = layout_of(run.card)
        self._lanes = Lanes(num_lanes or available_cores())

    @classmethod
    def load(
        cls, path: Path | str, *, batch_size: int = BATCH_SIZE, num_lanes: int | None = None
    ) -> "BatchPredictor":
        """Loads a run folder, or the one a model URI of MLflow names.

        Raises:
            CheckpointError: there is no such model, or a file of the run is missing, changed or
                does not fit.
        """
        path = local_run(path)
        run = RunFolder.open(path)
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
            # They become the file's own pages, of which those are read that rows ask for.
            tables_on="meta",
        )
        try:
            model.import_state(run.weights())
        except ValueError as cause:
            raise CheckpointError(f"{path}/weights.safetensors: {cause}") from cause
        return cls(
            run=run, encoder=encoder, model=model, batch_size=batch_size, num_lanes=num_lanes
        )

    def logits(self, rows: EncodedRows) -> Logits:
        """What the model says of encoded rows, ``(B,)`` float32.

        To the bit the same for a row whatever other rows it comes with; see
        :mod:`recsys_had.scoring.lanes`.
        """
        return self._lanes.run(self.model, rows, batch_size=self.batch_size)

    @property
    def loading(self) -> Loading:
        """How another process comes by the same."""
        return Loading(self.run.path.absolute(), self.run.manifest["digest"], self.batch_size)

    def score_rows(self, rows: EncodedRows) -> Scores:
        """Scores encoded rows: the probability of a click, ``(B,)`` float32."""
        return self.to_scores(self.logits(rows))

    def to_scores(self, logits: Logits) -> Scores:
        """Probabilities of a click, of logits: the one place where they are made."""
        # In float64 and by numpy, whose result does not depend on a number's place among others.
        small = np.exp(-np.abs(logits.astype(np.float64)))
        scores = np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
        return scores.astype(np.float32)

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
        return self.score_rows(frame_rows(frame, self.encoder))

    def score_split(self, data: DataFolder, split: str) -> tuple[Scores, Scores]:
        """Label and score of each row of an encoded split, in row order.

        Raises:
            SchemaError: the data was made with another card.
            DataError: it was encoded with another vocabulary, or has no such split.
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
        layout = replace(self._layout, has_weight=False)
        if not data.rows(split):
            known = [name for name in ("train", "valid", "test") if data.rows(name)]
            raise DataError(f"{data.path}: has no row in split '{split}'.{nearest(split, known)}")
        columns = ["row_id", "label", *layout.fields, *layout.dense, *layout.vectors]
        labels, scores = [], []
        for shard in shards_of(data, split):
            for piece in pieces_of(shard, columns):
                rows = rows_from_table(pa.Table.from_batches([piece]), layout)
                labels.append(piece.column("label").to_numpy().astype(np.float32))
                scores.append(self.score_rows(rows))
        return np.concatenate(labels), np.concatenate(scores)

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


@lru_cache(maxsize=1)
def _loaded(loading: Loading) -> BatchPredictor:
    found = BatchPredictor.load(loading.path, batch_size=loading.batch_size, num_lanes=1)
    if found.run.manifest["digest"] != loading.digest:
        raise CheckpointError(f"{loading.path}: was changed while it was used. Run it again.")
    return found
