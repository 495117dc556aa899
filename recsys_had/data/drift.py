"""Drift: how far the columns of newer rows have moved from those of older ones.

Fields are compared by value: what counts is the id that the older vocabulary gives each of the
newer rows' values, for that is what a model trained on the older rows would read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recsys_had.columns import Field, FloatColumn, IntegerColumn
from recsys_had.data.decode import Decoder
from recsys_had.data.encode import Encoder
from recsys_had.data.folder import DataFolder
from recsys_had.data.psi import Psi, id_classes, number_classes, psi_of
from recsys_had.data.shards import encoder_of, existing_splits
from recsys_had.data.tallies import Counts, Tallies, tally
from recsys_had.schema import DatasetCard


@dataclass(frozen=True)
class Side:
    """One side of a comparison, counted.

    Args:
        data: the folder.
        encoder: of its rows.
        splits: which of its splits.
        tallies: what they hold.
    """

    data: DataFolder
    encoder: Encoder
    splits: tuple[str, ...]
    tallies: Tallies

    @classmethod
    def count(cls, data: DataFolder, splits: Sequence[str] = ()) -> "Side":
        """Counts the rows of some splits, or of all.

        Raises:
            ConfigError: there is no such split.
            CheckpointError: the vocabularies cannot be read.
            DataError: the rows cannot be read.
        """
        chosen = existing_splits(data, splits)
        encoder = encoder_of(data)
        return cls(data, encoder, chosen, tally(data, encoder, chosen))

    @property
    def click_rate(self) -> float:
        """Share of rows that were clicked."""
        return self.tallies.clicks / max(self.tallies.rows, 1)


@dataclass(frozen=True)
class ColumnDrift:
    """How far one column has moved.

    Args:
        name: the field or dense input.
        kind: which of the two.
        psi: population stability index, and what chance alone would make of it.
        old_zero_share: share of id 0, a missing or unseen value; of encoded 0.0 in a dense input.
        new_zero_share: the same of the newer rows.
        new_value_share: share of the newer rows whose value the older vocabulary does not have;
            None where there is no vocabulary. In a multi-valued field shares are of values.
    """

    name: str
    kind: Literal["field", "dense"]
    psi: Psi
    old_zero_share: float
    new_zero_share: float
    new_value_share: float | None


@dataclass(frozen=True)
class Drift:
    """What :func:`compare` found.

    Args:
        columns: the columns that can be compared, by falling index.
        not_compared: why others cannot.
        only_in_old: columns that the newer rows do not have.
        only_in_new: columns that the older rows do not have.
    """

    columns: tuple[ColumnDrift, ...]
    not_compared: dict[str, str]
    only_in_old: tuple[str, ...]
    only_in_new: tuple[str, ...]


def compare(old: Side, new: Side) -> Drift:
    """Compares newer rows with older ones, column by column."""
    before, after = _columns(old.data.card), _columns(new.data.card)
    columns: list[ColumnDrift] = []
    obstacles: dict[str, str] = {}
    for name, kind in before.items():
        if name not in after:
            continue
        if kind != after[name]:
            obstacles[name] = f"was a {kind} and is a {after[name]}"
            continue
        found = _compare_fields if kind == "field" else _compare_numbers
        outcome = "vectors are not compared" if kind == "vector" else found(name, old, new)
        if isinstance(outcome, str):
            obstacles[name] = outcome
        else:
            columns.append(outcome)
    return Drift(
        columns=tuple(sorted(columns, key=lambda column: -column.psi.value)),
        not_compared=obstacles,
        only_in_old=tuple(name for name in before if name not in after),
        only_in_new=tuple(name for name in after if name not in before),
    )


def _columns(card: DatasetCard) -> dict[str, str]:
    return {
        **{field.name: "field" for field in card.fields},
        **dict.fromkeys(card.dense, "dense"),
        **dict.fromkeys(card.vectors, "vector"),
    }


def _compare_fields(name: str, old: Side, new: Side) -> ColumnDrift | str:
    before, after = (_field(side.data.card, name) for side in (old, new))
    p, q = old.tallies.ids[name], new.tallies.ids[name]
    new_value_share: float | None = None
    in_old_ids = q
    if before.has_vocabulary and after.has_vocabulary:
        in_old_ids, unknown = _by_value(q, name, old, new)
        new_value_share = unknown / int(q.sum())
    elif _ids_in_words(before) != _ids_in_words(after):
        return f"was {_ids_in_words(before)} and is {_ids_in_words(after)}"
    return ColumnDrift(
        name=name,
        kind="field",
        psi=psi_of(*id_classes(p, in_old_ids)),
        old_zero_share=float(p[0] / p.sum()),
        new_zero_share=float(q[0] / q.sum()),
        new_value_share=new_value_share,
    )


def _field(card: DatasetCard, name: str) -> Field:
    return next(field for field in card.fields if field.name == name)


def _ids_in_words(field: Field) -> str:
    if field.managed is not None:
        return "managed"
    if field.has_vocabulary:
        return "a vocabulary's"
    return f"hashed into {field.hash_buckets} buckets"


def _by_value(counts: Counts, name: str, old: Side, new: Side) -> tuple[Counts, int]:
    """Counts of the newer ids as counts of the older ones; what has none joins id 0."""
    carried = new.encoder.carried_ids(name, old.encoder)
    known = carried >= 0
    found = np.zeros(old.encoder.num_embeddings[name], np.int64)
    np.add.at(found, carried[known], counts[known])
    unknown = int(counts[~known].sum())
    found[0] += unknown
    return found, unknown


def _compare_numbers(name: str, old: Side, new: Side) -> ColumnDrift | str:
    transforms = [_transform(side.data.card, name) for side in (old, new)]
    if transforms[0] != transforms[1]:
        return f"its transform was {transforms[0]} and is {transforms[1]}"
    for side in (old, new):
        if name not in side.tallies.numbers:
            return f"{side.data.path}: {Decoder(side.encoder).obstacles[name]}"
    p, q = old.tallies.numbers[name], new.tallies.numbers[name]
    return ColumnDrift(
        name=name,
        kind="dense",
        psi=psi_of(*number_classes(p, q)),
        old_zero_share=p.zeros / old.tallies.rows,
        new_zero_share=q.zeros / new.tallies.rows,
        new_value_share=None,
    )


def _transform(card: DatasetCard, name: str) -> str:
    column = card.all_columns[name]
    assert isinstance(column, IntegerColumn | FloatColumn)
    return column.transform
