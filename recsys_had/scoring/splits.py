"""Encoded splits of a data folder, scored by a run whose ids they have."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from recsys_had.calibration.calibrator import Segments
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import SplitReader, rows_from_table
from recsys_had.data.shards import pieces_of, shards_of
from recsys_had.errors import DataError, SchemaError
from recsys_had.scoring.predictor import BatchPredictor, Logits, Scores
from recsys_had.suggest import nearest


def score_split(predictor: BatchPredictor, data: DataFolder, split: str) -> tuple[Scores, Scores]:
    """Label and score of each row of an encoded split, in row order.

    Raises:
        SchemaError: the data was made with another card.
        DataError: it was encoded with another vocabulary, or has no such split.
    """
    labels, logits, segments = split_logits(predictor, data, split, segment=predictor.segment)
    return labels, predictor.to_scores(logits, segments)


def split_logits(
    predictor: BatchPredictor, data: DataFolder, split: str, *, segment: str | None = None
) -> tuple[Scores, Logits, Segments | None]:
    """Label and logit of each row of an encoded split, in row order, and its id in a field.

    Args:
        predictor: what scores.
        data: encoded rows.
        split: train, valid or test.
        segment: a field of one value a row, or None.

    Raises:
        ConfigError: there is no such field, or it holds several values a row.
        SchemaError: the data was made with another card.
        DataError: it was encoded with another vocabulary, or has no such split.
    """
    if segment is not None:
        predictor.require_segment(segment)
    require_split(predictor, data, split)
    layout = replace(predictor.layout, has_weight=False)
    columns = ["row_id", "label", *layout.fields, *layout.dense, *layout.vectors]
    labels, logits, segments = [], [], []
    for shard in shards_of(data, split):
        for piece in pieces_of(shard, columns):
            rows = rows_from_table(pa.Table.from_batches([piece]), layout)
            labels.append(piece.column("label").to_numpy().astype(np.float32))
            logits.append(predictor.logits(rows))
            if segment is not None:
                segments.append(rows.ids[:, layout.single.index(segment)])
    found = np.concatenate(segments) if segments else None
    return np.concatenate(labels), np.concatenate(logits), found


def split_reader(predictor: BatchPredictor, data: DataFolder, split: str) -> SplitReader:
    """Reads an encoded split, in row order, whose ids mean what the run's do.

    Raises:
        SchemaError: the data was made with another card.
        DataError: it was encoded with another vocabulary, or has no such split.
    """
    require_split(predictor, data, split)
    return SplitReader(data.path / split, layout=predictor.layout, batch_size=predictor.batch_size)


def require_split(predictor: BatchPredictor, data: DataFolder, split: str) -> None:
    """Asks of a split to be there, and of its ids to mean what the run's do.

    Raises:
        SchemaError: the data was made with another card.
        DataError: it was encoded with another vocabulary, or has no such split.
    """
    require_same_ids(predictor, data)
    if not data.rows(split):
        known = [name for name in ("train", "valid", "test") if data.rows(name)]
        raise DataError(f"{data.path}: has no row in split '{split}'.{nearest(split, known)}")


def require_same_ids(predictor: BatchPredictor, data: DataFolder) -> None:
    """Refuses encoded rows whose ids are not the run's.

    Raises:
        SchemaError: the data was made with another card.
        DataError: it was encoded with another vocabulary.
    """
    run = predictor.run
    if data.card.digest != run.card.digest:
        raise SchemaError(
            f"{data.path}: was made with another card than {run.path}. "
            "Ingest the rows with the run's card."
        )
    if data.manifest["vocabulary_digest"] != run.manifest["vocabulary_digest"]:
        raise DataError(
            f"{data.path}: was encoded with another vocabulary than {run.path} was trained with, "
            "so its ids mean other values. Score the raw rows with `recsys-had predict`."
        )
