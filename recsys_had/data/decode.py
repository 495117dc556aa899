"""Decoding: encoded rows back to raw values, as far as there is a way back.

An id becomes its value, and null where it is 0: the value was missing or unseen, and encoding
kept neither which of the two nor the value. A dense input goes back through the inverse of its
transform, within the rounding of float32; a missing one was encoded as 0.0 and comes back as
whatever number that stands for. Hashes stay what they are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys_had.columns import Field, FloatColumn, IntegerColumn, VectorColumn
from recsys_had.data.encode import Encoder
from recsys_had.data.statistics import Scale
from recsys_had.errors import ConfigError, DataError
from recsys_had.schema import DatasetCard
from recsys_had.suggest import nearest

# The largest float64 below 2^63.
_INT64_LIMIT = float(np.nextafter(2.0**63, 0))

# What undoes each transform of a dense input, in float64.
_INVERSES: Mapping[str, Callable[[NDArray[np.float64], Scale], NDArray[np.float64]]] = {
    "none": lambda numbers, scale: numbers,
    "log1p": lambda numbers, scale: np.sign(numbers) * np.expm1(np.abs(numbers)),
    "standardise": lambda numbers, scale: scale.mean + scale.std * numbers,
}


class Decoder:
    """Turns encoded rows back into raw values.

    Args:
        encoder: what encoded them.
        columns: names of encoded columns, in the order wanted; all where there is none.
            ``row_id`` stands before them in any case.

    Raises:
        ConfigError: one line per name that is no column.

    >>> from recsys_had.schema import parse_card
    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns: {click: {kind: label}, C1: {kind: categorical}, I1: {kind: integer}}
    ... split: {by: given}
    ... ''')
    >>> rows = pl.DataFrame({"click": [1, 0], "C1": ["b", None], "I1": [5, 6]})
    >>> encoder = Encoder.fit_frame(card, rows)
    >>> encoded = pa.table({"row_id": [0, 1], **encoder.encode(rows).to_dict()})
    >>> Decoder(encoder).decode(encoded.to_batches()[0]).to_pylist()[1]
    {'row_id': 1, 'label': 0.0, 'C1': None, 'I1': 6}
    """

    def __init__(self, encoder: Encoder, columns: Sequence[str] = ()) -> None:
        card = encoder.card
        self._encoder = encoder
        self._fields = {field.name: field for field in card.fields}
        own = ["label", *(["weight"] if card.weight is not None else [])]
        known = [*own, *self._fields, *card.dense, *card.vectors]
        problems = [
            f"--columns {name}: the data have no such column.{nearest(name, known)}"
            for name in columns
            if name not in known and name != "row_id"
        ]
        if problems:
            raise ConfigError(problems)
        self.columns = tuple(dict.fromkeys(["row_id", *(columns or known)]))
        ways, obstacles = _ways_and_obstacles(encoder)
        self.ways = {name: ways[name] for name in self.columns if name in ways}
        self.obstacles = {name: obstacles[name] for name in self.columns if name in obstacles}

    @property
    def missing(self) -> dict[str, float | int]:
        """What a missing value comes back as, of each dense input whose card does not fill it."""
        zero = np.zeros(1, np.float32)
        return {
            name: self._number(name, zero)[0].as_py()
            for name in self._encoder.card.dense
            if name in self.ways and self._column(name).missing is None
        }

    def decode(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Decodes rows that have the columns wanted, and drops all others.

        Returns:
            Texts of fields, lists of them of multi-valued ones; Int64 of integers, float64 of
            floats; everything else as it is encoded.

        Raises:
            DataError: an id is beyond its vocabulary.
        """
        found = {name: self._decode(name, rows.column(name)) for name in self.columns}
        return pa.RecordBatch.from_pydict(found)

    def _decode(self, name: str, encoded: Any) -> pa.Array:
        if name not in self.ways:
            return encoded
        if name in self._fields:
            if not self._fields[name].is_multi:
                return self._values(name, encoded)
            offsets = encoded.offsets.to_numpy().astype(np.int64)
            values = self._values(name, encoded.flatten())
            return pa.LargeListArray.from_arrays(pa.array(offsets - offsets[0]), values)
        if name in self._encoder.card.dense:
            return self._number(name, encoded.to_numpy(zero_copy_only=False))
        return encoded

    def _values(self, field: str, ids: pa.Array) -> pa.Array:
        numbers = ids.to_numpy()
        held = self._encoder.num_embeddings[field]
        wrong = numbers[(numbers < 0) | (numbers >= held)]
        if len(wrong):
            raise DataError(
                f"{field}: ids must be from 0 to {held - 1}, those of its vocabulary; got "
                f"{wrong[0]}. Restore the rows or ingest again."
            )
        return self._encoder.value_of(field, pl.Series(numbers)).to_arrow().cast(pa.large_string())

    def numbers(self, name: str, encoded: NDArray[np.float32]) -> NDArray[np.float64]:
        """A decoded dense input as float64; those of an integer column are whole."""
        column = self._column(name)
        scale = self._encoder.scales.get(name, Scale(0.0, 1.0))
        numbers = _INVERSES[column.transform](encoded.astype(np.float64), scale)
        return np.rint(numbers) if isinstance(column, IntegerColumn) else numbers

    def _number(self, name: str, encoded: NDArray[np.float32]) -> pa.Array:
        numbers = self.numbers(name, encoded)
        if isinstance(self._column(name), FloatColumn):
            return pa.array(numbers)
        return pa.array(np.clip(numbers, -_INT64_LIMIT, _INT64_LIMIT).astype(np.int64))

    def _column(self, name: str) -> IntegerColumn | FloatColumn:
        return _dense_column(self._encoder.card, name)


def _dense_column(card: DatasetCard, name: str) -> IntegerColumn | FloatColumn:
    column = card.all_columns[name]
    assert isinstance(column, IntegerColumn | FloatColumn)
    return column


def _ways_and_obstacles(encoder: Encoder) -> tuple[dict[str, str], dict[str, str]]:
    """How each column comes back, and why the others do not."""
    card = encoder.card
    ways, obstacles = {"row_id": "as it is", "label": "as it is", "weight": "as it is"}, {}
    for field in card.fields:
        if field.has_vocabulary:
            ways[field.name] = _way_of(field)
        elif field.hash_buckets is not None:
            told = f"hashed into {field.hash_buckets} buckets, and a hash has no way back"
            obstacles[field.name] = told
        else:
            obstacles[field.name] = "its ids are hashes, and a hash has no way back"
    for name in card.dense:
        column = _dense_column(card, name)
        scale = encoder.scales.get(name)
        if scale is not None and scale.std == 0:
            obstacles[name] = "the training rows hold one number only, so all became 0.0"
        elif column.transform in _INVERSES:
            plain = column.transform == "none"
            ways[name] = "number" if plain else f"number, inverse of {column.transform}"
        else:
            obstacles[name] = f"{column.transform} has no inverse"
    for name in card.vectors:
        vector = card.all_columns[name]
        assert isinstance(vector, VectorColumn)
        if vector.transform == "none":
            ways[name] = "vector"
        else:
            obstacles[name] = "scaled to length 1, and the length was not kept"
    return ways, obstacles


def _way_of(field: Field) -> str:
    names = {
        "value": "value",
        "multi": "list of values",
        "bucket": "bucket of the number: floor(ln(x)^2) above 2, else x",
    }
    return names.get(field.source, f"{field.source} of {field.column}")


def separator_of(card: DatasetCard, name: str) -> str:
    """What stands between the values of a list, or the numbers of a vector, in a text file."""
    fields = {field.name: field.column for field in card.fields}
    column = card.all_columns.get(fields.get(name, name))
    return str(getattr(column, "separator", "|"))
