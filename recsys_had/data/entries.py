"""Entries of a vocabulary: the most frequent ones, or those of given values and ids."""

from collections.abc import Sequence

import polars as pl

from recsys_had.data.encode import Encoder
from recsys_had.errors import ConfigError
from recsys_had.suggest import nearest

_TOP = 20


def entries_of(
    encoder: Encoder,
    field: str,
    *,
    top: int | None = None,
    values: Sequence[str] = (),
    ids: Sequence[int] = (),
) -> pl.DataFrame:
    """Looks into the vocabulary of a field.

    Args:
        encoder: what holds it.
        field: the field's name.
        top: the most frequent so many; 20 where neither this nor values nor ids are given.
        values: values to find, as text; one that is unseen has id 0.
        ids: ids to find; 0 has no value.

    Returns:
        ``id``, ``value`` and ``count`` of training rows, null where there is none: first the most
        frequent, then the values, then the ids.

    Raises:
        ConfigError: there is no such field, it has no vocabulary, or one line per id that it has
            not.

    >>> from recsys_had.schema import parse_card
    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns: {click: {kind: label}, C1: {kind: categorical}}
    ... split: {by: given}
    ... ''')
    >>> encoder = Encoder.fit_frame(card, pl.DataFrame({"click": [1, 0, 0], "C1": ["b", "a", "b"]}))
    >>> entries_of(encoder, "C1", top=1, values=["a", "z"], ids=[0]).rows()
    [(1, 'b', 2), (2, 'a', 1), (0, 'z', None), (0, None, None)]
    """
    fields = {known.name: known for known in encoder.card.fields}
    if field not in fields:
        raise ConfigError(f"{field}: the data have no such field.{nearest(field, fields)}")
    if not fields[field].has_vocabulary:
        raise ConfigError(
            f"{field}: must have a vocabulary. Its ids are hashes of the values, which were not "
            "kept."
        )
    num_embeddings = encoder.num_embeddings[field]
    problems = [
        f"--id {number}: {field} has ids from 0 to {num_embeddings - 1}."
        for number in ids
        if not 0 <= number < num_embeddings
    ]
    if problems:
        raise ConfigError(problems)
    table = encoder.counts_of(field).select("id", "value", "count")
    if top is None and not (values or ids):
        top = _TOP
    wanted = pl.Series("value", list(values), dtype=pl.String)
    found = pl.DataFrame([pl.Series("id", encoder.id_of(field, wanted)), wanted])
    named = found.join(table.select("id", "count"), on="id", how="left", maintain_order="left")
    numbers = pl.DataFrame({"id": pl.Series(list(ids), dtype=pl.Int32)})
    numbered = numbers.join(table, on="id", how="left", maintain_order="left")
    # Their order is that of the ids, but for a vocabulary that went on from an earlier one.
    frequent = table.sort("count", descending=True, maintain_order=True).head(top or 0)
    return pl.concat([frequent, named, numbered])
