"""DataFolder: an encoded dataset as training and evaluation see it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_had.errors import DataError, SchemaError
from recsys_had.layout import Layout
from recsys_had.schema import DatasetCard
from recsys_had.storage import AnyPath, for_each, read_parquet, sorted_glob


def layout_of(card: DatasetCard) -> Layout:
    """Names and order of the model's inputs, from a card."""
    return Layout(
        fields=tuple(field.name for field in card.fields),
        multi=frozenset(field.name for field in card.fields if field.is_multi),
        dense=card.dense,
        vectors=card.vectors,
        has_weight=card.weight is not None,
        managed=frozenset(field.name for field in card.fields if field.managed is not None),
    )


@dataclass(frozen=True)
class DataFolder:
    """What ``recsys-had ingest`` wrote.

    Args:
        path: the folder.
        card: the card it was made with.
        manifest: its manifest.json.
    """

    path: AnyPath
    card: DatasetCard
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: AnyPath) -> "DataFolder":
        """Opens a data folder.

        Raises:
            DataError: it holds no manifest or card, or they cannot be read.
        """
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            card = DatasetCard.model_validate_json((path / "card.json").read_text())
        except FileNotFoundError as cause:
            raise DataError(
                f"{path}: is not a data folder: {Path(str(cause.filename)).name} is missing. "
                "Run `recsys-had ingest` first."
            ) from cause
        except (OSError, ValueError) as cause:
            raise DataError(f"{path}: its manifest or card cannot be read: {cause}.") from cause
        if card.digest != manifest.get("card_digest"):
            raise DataError(
                f"{path}/card.json: does not match the manifest; it was changed after ingestion. "
                "Re-run `recsys-had ingest`."
            )
        return cls(path, card, manifest)

    def require(self, card: DatasetCard) -> None:
        """Refuses a card other than the one the folder was made with.

        Raises:
            SchemaError: the digests differ.
        """
        if card.digest != self.card.digest:
            raise SchemaError(
                f"{self.path}: was made with another card ('{self.card.name}', digest "
                f"{self.card.digest[:12]}; '{card.name}' has {card.digest[:12]}). "
                "Re-run `recsys-had ingest` with the card of this experiment."
            )

    @property
    def layout(self) -> Layout:
        """Names and order of the model's inputs."""
        return layout_of(self.card)

    @property
    def num_embeddings(self) -> dict[str, int]:
        """Ids of each field, id 0 included."""
        return dict(self.manifest["num_embeddings"])

    def rows(self, split: str) -> int:
        """Rows of a split; 0 where it does not exist."""
        return int(self.manifest["rows"].get(split, 0))

    @property
    def counted_rows(self) -> int:
        """Training rows its vocabularies count: its own, and those of its lineage."""
        lineage = self.manifest.get("lineage", [])
        return self.rows("train") + sum(int(each["rows"].get("train", 0)) for each in lineage)

    def labels(self, split: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The labels of a split, in row order."""
        return self.column(split, "label")

    def weights(self, split: str) -> np.ndarray[Any, np.dtype[np.float32]] | None:
        """The weights of a split, in row order; None where the card has no weight column."""
        return self.column(split, "weight") if self.layout.has_weight else None

    def column(self, split: str, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A column of one number a row, the label or a dense input, in row order.

        Raises:
            DataError: a part cannot be read, or has no such column.
        """
        parts = sorted_glob(self.path / split, "part-*.parquet")
        try:
            tables = for_each(self.path, lambda part: read_parquet(part, [name]), parts)
        except (OSError, pa.ArrowException) as cause:
            raise DataError(f"{self.path / split}: cannot be read: {cause}.") from cause
        if not tables:
            return np.empty(0, np.float32)
        values: np.ndarray[Any, np.dtype[np.float32]] = (
            pa.concat_tables(tables).column(name).to_numpy().astype(np.float32)
        )
        return values
