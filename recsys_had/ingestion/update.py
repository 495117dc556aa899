"""Update: new rows encoded under an earlier data folder's ids, to which new values add theirs.

Of each field with a vocabulary the earlier values keep their ids, whether or not the new rows hold
them; their counts grow by the new training rows. Other values get the ids after those, in the usual
order, by what the new training rows alone say: a value that was below ``min_count`` before left no
count behind. ``top_k`` limits all values together. What else training rows once decided, moments,
ranges and the edges of bins, stays as it was: a model that has learned it reads the new rows alike.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_had.data.encode import Encoder
from recsys_had.data.folder import DataFolder
from recsys_had.data.quantiles import QuantileBins
from recsys_had.data.ranges import Range
from recsys_had.data.shards import encoder_of
from recsys_had.data.split import Splits
from recsys_had.data.statistics import Fitted, Scale, rows_per_value
from recsys_had.data.vocabulary import Vocabulary
from recsys_had.engines.local import Engine
from recsys_had.errors import DataError, SchemaError
from recsys_had.ingestion.shard import Staged, splits_of
from recsys_had.schema import SPLITS, DatasetCard
from recsys_had.storage import AnyPath

# What a manifest tells of the folders it came from.
_TOLD = ("vocabulary_digest", "rows_read", "rows", "inputs", "sampling")


@dataclass(frozen=True)
class Earlier:
    """An earlier data folder, which is read and never written.

    Args:
        data: the folder.
        encoder: its encoder, whose vocabularies are not held.
    """

    data: DataFolder
    encoder: Encoder

    @classmethod
    def open(cls, path: Path, *, card: DatasetCard, out: AnyPath) -> "Earlier":
        """Opens a data folder that new rows may go on from.

        Args:
            path: the folder.
            card: what the new rows are.
            out: where they are to be written.

        Raises:
            DataError: it is no data folder, or ``out`` would take its place.
            SchemaError: it was made with another card.
            CheckpointError: it is damaged.
        """
        if isinstance(out, Path) and path.resolve().is_relative_to(out.resolve()):
            raise DataError(
                f"{out}: --out must not hold the folder of --update, which runs refer to; got "
                f"{path} for that. Choose another folder for --out."
            )
        data = DataFolder.open(path)
        if data.card.digest != card.digest:
            raise SchemaError(
                f"{path}: was made with another card ('{data.card.name}', digest "
                f"{data.card.digest[:12]}; '{card.name}' has {card.digest[:12]}), and ids go on "
                "under one card only. Give the same card, or leave --update out."
            )
        return cls(data, encoder_of(data, in_memory=False))

    @property
    def lineage(self) -> list[dict[str, Any]]:
        """The folders its ids came from, oldest first, itself the last."""
        manifest = self.data.manifest
        told = {name: manifest[name] for name in _TOLD if name in manifest}
        return [*manifest.get("lineage", []), told]

    def fitted(self, engine: Engine, shards: Iterable[tuple[Staged, Splits | None]]) -> Fitted:
        """What its training rows have shown, the rows of each bin counted on.

        Args:
            engine: counts them.
            shards: each, and the split of each of its rows where it was not staged with it.
        """
        files = self.encoder.vocabulary_files
        before = {name: Vocabulary.load(files[name].path) for name in self.encoder.bins}
        counts = {name: found.counts.to_numpy().copy() for name, found in before.items()}
        if counts:
            for found in engine.map(_BinCounter(self.encoder.bins), shards):
                for name, held in found.items():
                    counts[name] += held
        bins = {
            name: (edges, Vocabulary(before[name].values, pl.Series(counts[name])))
            for name, edges in self.encoder.bins.items()
        }
        return _Kept(self.encoder.scales, self.encoder.ranges, bins)

    def growth(self, num_embeddings: Mapping[str, int]) -> dict[str, dict[str, int]]:
        """Per field with a vocabulary, how many values were ``kept`` and are ``new``.

        Args:
            num_embeddings: of each field now.
        """
        before = {name: file.num_embeddings for name, file in self.encoder.vocabulary_files.items()}
        return {
            name: {"kept": number - 1, "new": num_embeddings[name] - number}
            for name, number in before.items()
        }


@dataclass(frozen=True)
class _Kept:
    """See :class:`recsys_had.data.statistics.Fitted`."""

    scales: Mapping[str, Scale]
    ranges: Mapping[str, Range]
    bins: Mapping[str, tuple[QuantileBins, Vocabulary]]


@dataclass(frozen=True)
class _BinCounter:
    """Counts the training rows of each bin in a shard; a plain function, sent to any process.

    Args:
        bins: of each binned column.
    """

    bins: Mapping[str, QuantileBins]

    def __call__(self, task: tuple[Staged, Splits | None]) -> dict[str, NDArray[np.int64]]:
        staged, splits = task
        values = staged.shard.read()
        is_training = splits_of(values, splits) == SPLITS.index("train")
        return {
            name: rows_per_value(bins.texts(values.column(name)), is_training)
            for name, bins in self.bins.items()
        }
