"""Raw rows to values: every field, dense input and vector of a block, and its label."""

from collections.abc import Mapping

import polars as pl
import pyarrow as pa

from recsys_had.columns import LabelColumn, WeightColumn
from recsys_had.data.crosses import crossed, crosses
from recsys_had.data.lookups import SideTable
from recsys_had.data.numbers import parse_labels, parse_weights
from recsys_had.data.problems import Place, Problems
from recsys_had.data.values import column_values
from recsys_had.schema import DatasetCard


def prepare(
    frame: pl.DataFrame,
    card: DatasetCard,
    lookups: Mapping[str, SideTable],
    *,
    place: Place,
    require_label: bool = False,
    problems: Problems | None = None,
) -> pa.RecordBatch:
    """Reads the values of raw rows: fields as dictionary arrays, dense inputs as float64.

    A content vector is as the model reads it: float32, its size fixed.

    Args:
        frame: raw columns as text; see :func:`recsys_had.data.normalise.normalise`.
        card: what the columns are.
        lookups: the card's side tables.
        place: names a row in an error.
        require_label: whether a missing label is an error; without it, a frame need not even
            have the column. The weight is read with it alone.
        problems: takes what is wrong, in place of an error.

    Raises:
        DataError: one line per value that is not what its column asks.
    """
    found = Problems() if problems is None else problems
    values: dict[str, pa.Array] = {}
    label = card.columns[card.label]
    assert isinstance(label, LabelColumn)
    if require_label or card.label in frame.columns:
        values["label"] = parse_labels(
            label, frame[card.label], required=require_label, place=place, problems=found
        ).to_arrow()
    if require_label and card.weight is not None:
        weight = card.columns[card.weight]
        assert isinstance(weight, WeightColumn)
        values["weight"] = parse_weights(
            weight, frame[card.weight], place=place, problems=found
        ).to_arrow()
    columns = {name: column for name, column in card.columns.items() if column.kind != "label"}
    values |= column_values(columns, frame, place=place, problems=found)
    for name, lookup in card.lookups.items():
        values |= lookups[name].join(frame[lookup.key])
    if problems is None:
        found.raise_any()
    for field in crosses(card, of_bins=False):
        values[field.name] = crossed([values[part] for part in field.of])
    return pa.RecordBatch.from_pydict(values)
