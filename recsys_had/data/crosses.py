r"""Crosses: fields made of the values of other fields, one value for each combination.

The value is the texts of the parts with ``|`` between them; a ``|`` in a text is written ``\|``
and a ``\`` is written ``\\``, so that no two combinations have one text. Where a part is missing
the cross is. It is a value like any other: counted, hashed and led back to as its UTF-8 bytes.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from recsys_had.columns import Field
from recsys_had.data.vocabulary import texts_of
from recsys_had.schema import DatasetCard


def crosses(card: DatasetCard, *, of_bins: bool) -> list[Field]:
    """The card's crosses of which a part is a quantile bin, or those without one.

    Bins are found in the training rows, so the former are known in a second pass alone.
    """
    bins = {field.name for field in card.fields if field.source == "quantile"}
    return [
        field
        for field in card.fields
        if field.source == "crossed" and of_bins == (not bins.isdisjoint(field.of))
    ]


def crossed(parts: Sequence[pa.DictionaryArray]) -> pa.DictionaryArray:
    r"""The cross of fields: each a dictionary array of texts, a row each.

    >>> user = pa.array(["a|b", "a", None]).dictionary_encode()
    >>> hour = pa.array(["c", "b|c", "7"]).dictionary_encode()
    >>> print(*crossed([user, hour]).to_pylist())
    a\|b|c a|b\|c None
    """
    is_there = np.ones(len(parts[0]), np.bool_)
    for part in parts:
        is_there &= part.is_valid().to_numpy(zero_copy_only=False)
    codes = [part.indices.fill_null(0).to_numpy()[is_there].astype(np.int64) for part in parts]
    found = first = np.zeros(is_there.sum(), np.int64)
    for part, code in zip(parts, codes, strict=True):
        # Numbered anew at each part, so that the product stays small.
        _, first, found = np.unique(
            found * max(len(part.dictionary), 1) + code, return_index=True, return_inverse=True
        )
    texts = [
        _escaped(texts_of(part.dictionary)).gather(code[first]).alias(str(number))
        for number, (part, code) in enumerate(zip(parts, codes, strict=True))
    ]
    joined = pl.DataFrame(texts).select(pl.concat_str(pl.all(), separator="|")).to_series()
    indices = np.zeros(len(is_there), np.int32)
    indices[is_there] = found
    return pa.DictionaryArray.from_arrays(
        pa.array(indices, mask=~is_there), joined.to_arrow().cast(pa.large_string())
    )


def _escaped(texts: pl.Series) -> pl.Series:
    for character in ("\\", "|"):
        texts = texts.str.replace_all(character, f"\\{character}", literal=True)
    return texts
