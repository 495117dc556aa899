"""Encoder: the one definition of what id a raw value has.

Ingestion, batch prediction, evaluation and the MLflow model all encode here.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys_had.columns import Field, FloatColumn, IntegerColumn
from recsys_had.data.lookups import SideTable
from recsys_had.data.normalise import normalise
from recsys_had.data.prepare import prepare
from recsys_had.data.problems import Place, Problems
from recsys_had.data.quantiles import QuantileBins, with_bins
from recsys_had.data.ranges import Range
from recsys_had.data.statistics import Fitted, Scale, Statistics, rows_per_value
from recsys_had.data.values import required_columns
from recsys_had.data.vocabulary import (
    HashedIds,
    ManagedHashes,
    Vocabulary,
    VocabularyFile,
    texts_of,
)
from recsys_had.errors import DataError
from recsys_had.schema import DatasetCard
from recsys_had.suggest import nearest

_FLOAT32_MAX = float(np.finfo(np.float32).max)
Ids = Vocabulary | VocabularyFile | HashedIds | ManagedHashes


class Encoder:
    """Turns raw rows into ids and numbers, as a card says and training rows have shown.

    In every field 0 is a missing or an unseen value. Ids of a vocabulary count from 1 by falling
    number of training rows, those of bins from the lowest one on; hashed ids are
    ``1 + XXH64(value) % hash_buckets``. A managed field has 63 bits of the hash in place of an id:
    the model knows which row that is. A vocabulary that went on from an earlier one begins with
    that one's ids.

    Args:
        card: what the columns are.
        ids: per field, what gives a value its id.
        scales: mean and deviation of each standardised column.
        lookups: the card's side tables.
        ranges: least and greatest number of each column scaled by them.
        bins: edges of each binned column.

    >>> from recsys_had.schema import parse_card
    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns: {click: {kind: label}, C1: {kind: categorical}, I1: {kind: integer}}
    ... split: {by: given}
    ... ''')
    >>> rows = pl.DataFrame({"click": [1, 0, 0], "C1": ["b", "a", "b"], "I1": [5, 6, None]})
    >>> encoder = Encoder.fit_frame(card, rows)
    >>> encoder.encode(pl.DataFrame({"C1": ["a", "b", "?", None], "I1": [1, 2, 3, None]})).rows()
    [(2, 1.0), (1, 2.0), (0, 3.0), (0, 0.0)]
    >>> encoder.num_embeddings
    {'C1': 3}
    """

    def __init__(
        self,
        card: DatasetCard,
        *,
        ids: Mapping[str, Ids],
        scales: Mapping[str, Scale],
        lookups: Mapping[str, SideTable],
        ranges: Mapping[str, Range],
        bins: Mapping[str, QuantileBins],
    ) -> None:
        self.card = card
        self._ids = dict(ids)
        self._scales = dict(scales)
        self._lookups = dict(lookups)
        self._ranges = dict(ranges)
        self._bins = dict(bins)

    @classmethod
    def fit_frame(
        cls,
        card: DatasetCard,
        frame: pl.DataFrame,
        lookups: Mapping[str, SideTable] | None = None,
    ) -> "Encoder":
        """Makes an encoder of a frame of raw training rows."""
        values = prepare(
            normalise(frame, card), card, lookups or {}, place=lambda row: f"row {row}"
        )
        rows = np.ones(len(frame), np.bool_)
        statistics = Statistics(card)
        statistics.add(values, rows)
        bins = {name: edges for name, (edges, _) in statistics.bins.items()}
        values = with_bins(values, card, bins)
        ids = {
            field.name: ids_without_counts(field, statistics)
            or _vocabulary(field, values.column(field.name), rows)
            for field in card.fields
        }
        return cls.of_training(card, statistics, ids=ids, lookups=lookups or {})

    @classmethod
    def of_training(
        cls,
        card: DatasetCard,
        statistics: Fitted,
        *,
        ids: Mapping[str, Ids],
        lookups: Mapping[str, SideTable],
    ) -> "Encoder":
        """Makes an encoder of what the training rows have shown."""
        return cls(
            card,
            ids=ids,
            scales=statistics.scales,
            lookups=lookups,
            ranges=statistics.ranges,
            bins={name: edges for name, (edges, _) in statistics.bins.items()},
        )

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Raw columns a frame must have."""
        return required_columns(self.card)

    @property
    def num_embeddings(self) -> dict[str, int]:
        """Number of ids of each field, id 0 included."""
        return {name: ids.num_embeddings for name, ids in self._ids.items()}

    @property
    def ids(self) -> dict[str, Ids]:
        """Per field, what gives a value its id."""
        return dict(self._ids)

    @property
    def lookups(self) -> dict[str, SideTable]:
        """The card's side tables."""
        return dict(self._lookups)

    @property
    def scales(self) -> dict[str, Scale]:
        """Mean and deviation of each standardised column."""
        return dict(self._scales)

    @property
    def ranges(self) -> dict[str, Range]:
        """Least and greatest number of each column scaled by them."""
        return dict(self._ranges)

    @property
    def bins(self) -> dict[str, QuantileBins]:
        """Edges of each binned column."""
        return dict(self._bins)

    @property
    def vocabulary_files(self) -> dict[str, VocabularyFile]:
        """The vocabularies that lie in files and were not read."""
        return {name: ids for name, ids in self._ids.items() if isinstance(ids, VocabularyFile)}

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides the encoding of a row."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()

    def encode(self, frame: pl.DataFrame, *, place: str | Place = "row") -> pl.DataFrame:
        """Encodes raw rows.

        Args:
            frame: raw columns by name, text or typed; further columns do not matter.
            place: names a row in an error, or the word before its number.

        Returns:
            ``label`` (float32) if the frame has the label column, each field (int32, or a list
            of them, never empty; int64 of a managed field), each dense input (float32), each vector
            (array of float32).

        Raises:
            DataError: a column is missing, or one line per value that is not what its column
                asks.
        """
        return pl.DataFrame(pl.from_arrow(self.encode_values(self.prepare(frame, place=place))))

    def encode_values(
        self, values: pa.RecordBatch, *, known: Mapping[str, NDArray[np.int32]] | None = None
    ) -> pa.Table:
        """The same, of values that :func:`recsys_had.data.prepare.prepare` has read.

        Args:
            values: fields as dictionary arrays.
            known: for some fields the id of each distinct value, so that none is looked up.

        Returns:
            Also ``weight`` (float32) if the values have it.
        """
        values = with_bins(values, self.card, self._bins)
        columns: dict[str, Any] = {}
        if "label" in values.schema.names:
            columns["label"] = values.column("label")
        if "weight" in values.schema.names:
            columns["weight"] = values.column("weight")
        for field in self.card.fields:
            held = values.column(field.name)
            distinct = (known or {}).get(field.name)
            if distinct is None:
                distinct = self._looked_up(field.name, held)
            encode = _encode_lists if field.is_multi else _encode_single
            columns[field.name] = encode(held, distinct)
        for name in self.card.dense:
            columns[name] = pa.array(self._transform(name, values.column(name)))
        for name in self.card.vectors:
            columns[name] = values.column(name)
        return pa.table(columns)

    def unseen(self, values: pa.RecordBatch, encoded: pa.Table) -> dict[str, int]:
        """Per field, the number of values that are there and got id 0 nevertheless.

        Args:
            values: of raw rows; see :func:`recsys_had.data.prepare.prepare`.
            encoded: what :meth:`encode_values` made of them.
        """
        counts = self.unseen_by_row(values, encoded).sum(axis=0, dtype=np.int64).tolist()
        return dict(zip((field.name for field in self.card.fields), counts, strict=True))

    def unseen_by_row(self, values: pa.RecordBatch, encoded: pa.Table) -> NDArray[np.int32]:
        """Of each row and field, the number of values that are there and got id 0 nevertheless.

        Args:
            values: of raw rows.
            encoded: what :meth:`encode_values` made of them.

        Returns:
            ``(B, F)``, the fields in the card's order.
        """
        values = with_bins(values, self.card, self._bins)
        # Field by field in memory, as it is filled.
        counts = np.zeros((len(self.card.fields), len(encoded)), np.int32)
        for place, field in enumerate(self.card.fields):
            value, ids = values.column(field.name), encoded[field.name].combine_chunks()
            if field.is_multi:
                # An empty list is encoded as [0].
                is_missing = np.diff(value.offsets.to_numpy()) == 0
                zeros = pl.Series(pl.from_arrow(ids)).list.count_matches(0).to_numpy()
                counts[place] = zeros.astype(np.int32) - is_missing
                continue
            unseen = ids.to_numpy() == 0
            if value.null_count:
                unseen &= value.is_valid().to_numpy(zero_copy_only=False)
            counts[place] = unseen
        return counts.T

    def value_of(self, field: str, ids: pl.Series) -> pl.Series:
        """The raw value of each id of a field, the interval of a bin; null for id 0.

        Raises:
            ValueError: the field is unknown, or hashed: a hash has no way back.
        """
        found = self._ids.get(field)
        if found is None:
            raise ValueError(f"value_of: no field '{field}'.{nearest(field, self._ids)}")
        if not isinstance(found, Vocabulary):
            raise ValueError(f"value_of: {field} is hashed, and a hash has no way back.")
        return found.value_of(ids)

    def id_of(self, field: str, values: pl.Series) -> NDArray[np.int32]:
        """The id of each raw value, as text, of a field that has a vocabulary.

        It is 0 where the value is null or unseen.
        """
        found = self._ids[field]
        assert isinstance(found, Vocabulary), f"{field} has no vocabulary"
        return found.ids(values)

    def carried_ids(self, field: str, older: "Encoder") -> NDArray[np.int64]:
        """For each id of a field, the id its value had in an older encoder; -1 where it had none.

        Id 0, missing or unseen, stays what it is. Hashed ids are carried where both hash into as
        many buckets, managed ones where both have as many rows; else, and where the older one has
        no such field, nothing is.
        """
        own, before = self._ids[field], older._ids.get(field)
        found = np.full(own.num_embeddings, -1, np.int64)
        if isinstance(own, Vocabulary) and isinstance(before, Vocabulary):
            ids = before.ids(own.values)
            found[1:] = np.where(ids > 0, ids, -1)
            found[0] = 0
        elif isinstance(own, HashedIds) and isinstance(before, HashedIds):
            same = own.num_buckets == before.num_buckets
            found[:] = np.arange(own.num_embeddings) if same else -1
        elif isinstance(own, ManagedHashes) and isinstance(before, ManagedHashes):
            same = own.num_rows == before.num_rows
            found[:] = np.arange(own.num_embeddings) if same else -1
        return found

    def counts_of(self, field: str) -> pl.DataFrame:
        """``value``, ``count`` and ``id`` of a field's vocabulary, empty where it is hashed."""
        found = self._ids[field]
        if not isinstance(found, Vocabulary):
            return pl.DataFrame(schema={"value": pl.String, "count": pl.Int64, "id": pl.Int32})
        return found.frame

    def without_lookups(self) -> "Encoder":
        """The same for values that are joined already; its digest is another."""
        return Encoder(
            self.card,
            ids=self._ids,
            scales=self._scales,
            lookups={},
            ranges=self._ranges,
            bins=self._bins,
        )

    def _looked_up(self, field: str, values: Any) -> NDArray[np.signedinteger[Any]]:
        """The id of each distinct value of a column."""
        ids = self._ids[field]
        assert not isinstance(ids, VocabularyFile), f"{field}: its vocabulary was not read"
        column = values.values if isinstance(values, pa.LargeListArray) else values
        return ids.ids(texts_of(column.dictionary))

    @property
    def content(self) -> dict[str, Any]:
        """What decides the encoding of a row, the large parts by their digest."""
        parts = {"card.json": self.card.digest}
        for name, ids in self._ids.items():
            if isinstance(ids, Vocabulary | VocabularyFile):
                parts[f"vocab/{name}.parquet"] = ids.digest
        for name, table in self._lookups.items():
            parts[f"lookups/{name}.parquet"] = table.digest
        scales = {
            name: {"mean": scale.mean, "std": scale.std} for name, scale in self._scales.items()
        }
        # Encoders that have none of these keep the digest they had before there were any.
        later = {
            "ranges": {name: [range.low, range.high] for name, range in self._ranges.items()},
            "bins": {name: bins.edges.tolist() for name, bins in self._bins.items()},
        }
        told = {name: content for name, content in later.items() if content}
        return {"parts": parts, "scales": scales, **told}

    def prepare(
        self, frame: pl.DataFrame, *, place: str | Place = "row", problems: Problems | None = None
    ) -> pa.RecordBatch:
        """Reads the values of raw rows, as :meth:`encode_values` takes them.

        Args:
            frame: raw columns by name; see :meth:`encode`.
            place: names a row in an error, or the word before its number.
            problems: takes what is wrong with a value, in place of an error.

        Raises:
            DataError: a column is missing, or one line per value that is not what its column
                asks.
        """
        missing = [name for name in self.required_columns if name not in frame.columns]
        if missing:
            raise DataError(
                [f"column {name}: is missing.{nearest(name, frame.columns)}" for name in missing]
            )

        def named(row: int) -> str:
            return f"{place} {row}" if isinstance(place, str) else place(row)

        frame = normalise(frame, self.card)
        return prepare(frame, self.card, self._lookups, place=named, problems=problems)

    def _transform(self, name: str, values: pa.Array) -> NDArray[np.float32]:
        """A dense input as the model reads it, always finite; 0 where it is missing."""
        numbers: NDArray[np.float64] = values.to_numpy(zero_copy_only=False)
        column = self.card.all_columns[name]
        assert isinstance(column, IntegerColumn | FloatColumn)
        if column.transform == "log1p":
            numbers = np.sign(numbers) * np.log1p(np.abs(numbers))
        elif column.transform == "standardise":
            numbers = self._scales[name].apply(numbers)
        elif column.transform == "min_max":
            numbers = self._ranges[name].apply(numbers)
        # A small deviation may lift a finite number beyond float32.
        return np.nan_to_num(numbers, nan=0.0).clip(-_FLOAT32_MAX, _FLOAT32_MAX).astype(np.float32)


def _vocabulary(field: Field, values: Any, rows: NDArray[np.bool_]) -> Vocabulary:
    """The vocabulary of one column's values."""
    distinct = values.values if isinstance(values, pa.LargeListArray) else values
    counts = pl.DataFrame(
        {"value": texts_of(distinct.dictionary), "count": rows_per_value(values, rows)}
    )
    return Vocabulary.from_counts(counts, min_count=field.min_count, top_k=field.top_k)


def ids_without_counts(
    field: Field, statistics: Fitted
) -> Vocabulary | HashedIds | ManagedHashes | None:
    """What gives a field's values their ids, where that is no vocabulary of counted values."""
    if field.source == "quantile":
        return statistics.bins[field.name][1]
    return ids_without_vocabulary(field)


def ids_without_vocabulary(field: Field) -> HashedIds | ManagedHashes | None:
    """What gives a field's values their ids, where that is no vocabulary."""
    if field.managed is not None:
        return ManagedHashes(field.managed.rows)
    return None if field.hash_buckets is None else HashedIds(field.hash_buckets)


def _encode_single(values: Any, distinct: NDArray[np.signedinteger[Any]]) -> pa.Array:
    codes = values.indices.fill_null(len(distinct)).to_numpy()
    return pa.array(np.append(distinct, distinct.dtype.type(0))[codes])


def _encode_lists(values: Any, distinct: NDArray[np.signedinteger[Any]]) -> pa.Array:
    lengths = np.diff(values.offsets.to_numpy())
    offsets = np.concatenate([[0], np.cumsum(np.maximum(lengths, 1))]).astype(np.int32)
    is_value = np.ones(offsets[-1], np.bool_)
    is_value[offsets[:-1][lengths == 0]] = False
    found = _encode_single(values.flatten(), distinct).to_numpy()
    encoded = np.zeros(offsets[-1], found.dtype)
    encoded[is_value] = found
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(encoded))
