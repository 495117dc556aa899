"""BatchPredictor: raw rows in, scores out, in input order, with the run's own encoder."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from recsys_had.batch import EncodedRows
from recsys_had.columns import source_columns
from recsys_had.data.encode import Encoder
from recsys_had.data.folder import DataFolder, layout_of
from recsys_had.data.parquet import Position, SplitReader, rows_from_table
from recsys_had.data.raw import RawBlock, RawSource
from recsys_had.data.sampling import in_words
from recsys_had.errors import CheckpointError, DataError, SchemaError
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_specs
from recsys_had.output import OutputFolder
from recsys_had.run_folder import RunFolder
from recsys_had.storage import AnyPath
from recsys_had.suggest import nearest
from recsys_had.whole_files import file_digest

_OWN_COLUMNS = ("row_id", "score")

Scores = NDArray[np.float32]

_log = logging.getLogger("recsys_had")


@dataclass(frozen=True)
class PredictReport:
    """What a prediction wrote.

    Args:
        rows: rows scored.
        oov: per field, values that training never saw, or left without a row of their own
            (missing ones not counted).
        parts: names of the files written, in row order.
    """

    rows: int
    oov: dict[str, int]
    parts: list[str]


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

    def score_rows(self, rows: EncodedRows) -> Scores:
        """Scores encoded rows: the probability of a click, ``(B,)`` float32."""
        scores = [np.empty(0, np.float32)]
        with torch.inference_mode():
            for first in range(0, len(rows), self.batch_size):
                index = np.arange(first, min(first + self.batch_size, len(rows)))
                logit = self.model(rows.take(index).to_batch())
                scores.append(torch.sigmoid(logit).numpy())
        return np.concatenate(scores)

    def score_frame(self, frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame | pa.Table) -> Scores:
        """Scores a frame of raw rows; columns by name, the label not needed.

        Raises:
            TypeError: it is no frame.
            DataError: a column is missing or holds what its kind does not allow.
        """
        frame = _as_polars(frame)
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
        labels, scores = [], []
        with torch.inference_mode():
            for step in reader.steps(Position(0, 0)):
                labels.append(step.batch.label.numpy())
                scores.append(torch.sigmoid(self.model(step.batch)).numpy())
        return np.concatenate(labels), np.concatenate(scores)

    def predict_files(
        self,
        inputs: Sequence[str | AnyPath],
        out: AnyPath,
        *,
        keep: Sequence[str] = (),
        resume: bool = False,
        overwrite: bool = False,
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> PredictReport:
        """Streams raw files into ``part-*.parquet`` of row_id, kept columns and score.

        Args:
            inputs: files, URLs or globs; row ids count through them in this order.
            out: folder to write.
            keep: raw columns to copy beside the score.
            resume: go on after a kill; parts already written are not scored again.
            overwrite: replace what ``out`` holds.
            on_rows: told the number of rows of each part.

        Raises:
            DataError: a raw row, a file or the output folder is not usable.
        """
        taken = [name for name in keep if name in _OWN_COLUMNS]
        if taken:
            raise DataError(
                f"--keep {taken[0]}: scores have a column {taken[0]} of their own. "
                "Rename it in the raw rows, or join by row_id."
            )
        self._refuse_side_columns(keep)
        source = RawSource(inputs, self.run.card, label="optional", keep=keep)
        fingerprint = {
            "run": self.run.manifest["digest"],
            "inputs": source.fingerprint,
            "keep": list(keep),
        }
        with OutputFolder(
            out,
            marker="_SUCCESS",
            overwrite=overwrite,
            resume=resume,
            fingerprint=fingerprint,
            keep_unfinished=True,
        ) as folder:
            done = [
                self._write_part(folder, number, block, keep, on_rows)
                for number, block in enumerate(_at_least_one(source))
            ]
            report = PredictReport(
                rows=sum(part["rows"] for part in done),
                oov={
                    field.name: sum(part["oov"].get(field.name, 0) for part in done)
                    for field in self.run.card.fields
                },
                parts=[part["name"] for part in done],
            )
            manifest = {
                "kind": "scores",
                "run_digest": self.run.manifest["digest"],
                "weights_digest": self.run.manifest["weights_digest"],
                "rows": report.rows,
                "oov": report.oov,
                "keep": list(keep),
                "parts": done,
            }
            (folder.stage / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
            (folder.stage / "_SUCCESS").touch()
            folder.publish()
        return report

    def _refuse_side_columns(self, keep: Sequence[str]) -> None:
        card = self.run.card
        raw = source_columns(card.columns)
        problems = [
            f"--keep {name}: comes from the side table {lookup.file}, not from the raw rows, and "
            f"cannot be kept. Keep {lookup.key} and join by it."
            for name in keep
            for lookup in card.lookups.values()
            if name not in raw and name in {*lookup.columns, *source_columns(lookup.columns)}
        ]
        if problems:
            raise DataError(problems)

    def _encode(self, frame: pl.DataFrame, place: str) -> EncodedRows:
        return self._rows(self.encoder.encode(frame, place=place))

    def _rows(self, encoded: pl.DataFrame) -> EncodedRows:
        table = encoded.to_arrow()
        row_id = pa.array(np.arange(len(encoded), dtype=np.int64))
        return rows_from_table(table.append_column("row_id", row_id), self._layout)

    def _without_row(self, rows: EncodedRows) -> dict[str, int]:
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

    def _write_part(
        self,
        folder: OutputFolder,
        number: int,
        block: RawBlock,
        keep: Sequence[str],
        on_rows: Callable[[int], None],
    ) -> dict[str, Any]:
        """Scores one block, unless a part of an earlier try is there whole."""
        name = f"part-{number:05d}.parquet"
        path, note = folder.stage / name, folder.work / f"{name}.json"
        if note.is_file():
            found: dict[str, Any] = json.loads(note.read_text())
            if path.is_file() and file_digest(path) == found["sha256"]:
                on_rows(found["rows"])
                return found
        encoded = self.encoder.encode(block.frame, place=block.place)
        rows = self._rows(encoded)
        score = self.score_rows(rows)
        last = block.first_row_id + len(score)
        columns: dict[str, Any] = {
            "row_id": pa.array(np.arange(block.first_row_id, last, dtype=np.int64))
        }
        columns |= {name: block.frame[name].to_arrow() for name in keep}
        columns["score"] = pa.array(score)
        fresh = path.with_suffix(".tmp")
        pq.write_table(pa.table(columns), fresh, compression="zstd")
        digest = file_digest(fresh)
        fresh.rename(path)
        entry = {
            "name": name,
            "rows": len(score),
            "sha256": digest,
            "oov": {**self.encoder.unseen(block.frame, encoded), **self._without_row(rows)},
        }
        note.with_suffix(".tmp").write_text(json.dumps(entry))
        note.with_suffix(".tmp").rename(note)
        on_rows(len(score))
        return entry


def _at_least_one(source: RawSource) -> Iterator[RawBlock]:
    """The source's blocks, or an empty one: a folder without a part is hard to read."""
    found = False
    for block in source.blocks():
        found = True
        yield block
    if not found:
        yield source.empty_block()


def _as_polars(frame: object) -> pl.DataFrame:
    match frame:
        case pl.DataFrame():
            return frame
        case pl.LazyFrame():
            return frame.collect()
        case pd.DataFrame():
            return _from_pandas(frame)
        case pa.Table() | pa.RecordBatch():
            return pl.DataFrame(frame)
        case _:
            raise TypeError(
                "score_frame: must be a pandas DataFrame, a polars DataFrame or LazyFrame, or an "
                f"Arrow Table; got {type(frame).__name__}. Make it a frame, for example "
                "with polars.DataFrame(rows)."
            )


def _from_pandas(frame: pd.DataFrame) -> pl.DataFrame:
    """Column by column: a pandas column of mixed kinds becomes text, as the raw file had it."""
    columns = {}
    for name in frame.columns:
        column = frame[name]
        try:
            columns[str(name)] = pl.from_pandas(column, nan_to_null=True)
        except (TypeError, pa.ArrowException, pl.exceptions.PolarsError):
            values = [
                None if pd.api.types.is_scalar(value) and pd.isna(value) else str(value)
                for value in column
            ]
            columns[str(name)] = pl.Series(values, dtype=pl.String)
    return pl.DataFrame(columns)
