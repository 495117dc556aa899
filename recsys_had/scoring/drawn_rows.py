"""Encoded rows drawn at random that a model can score, to try a program on."""

import numpy as np
from numpy.typing import NDArray

from recsys_had.batch import EncodedRows, Ragged
from recsys_had.layout import Layout
from recsys_had.model.ctr import CTRModel
from recsys_had.model.tables import FieldSpec

_LONGEST_LIST = 5


def drawn_rows(model: CTRModel, layout: Layout, *, size: int, seed: int) -> EncodedRows:
    """Rows of ids that the tables have, lists of 0 to 5 values and normal numbers.

    Of managed fields half of the ids are values that have a row, and half are not.

    Args:
        model: what is to score them.
        layout: of its rows.
        size: number of rows.
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    lists = {}
    single = []
    for field in model.embeddings.fields:
        if field.is_multi:
            lengths = generator.integers(0, _LONGEST_LIST + 1, size)
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
            lists[field.name] = Ragged(offsets, _ids(model, field, int(offsets[-1]), generator))
        else:
            single.append(_ids(model, field, size, generator))
    return EncodedRows(
        layout,
        np.arange(size, dtype=np.int64),
        None,
        np.stack(single, axis=1) if single else np.empty((size, 0), np.int64),
        lists,
        generator.standard_normal((size, len(layout.dense)), dtype=np.float32),
        {
            name: generator.standard_normal((size, width), dtype=np.float32)
            for name, width in layout.vectors.items()
        },
    )


def _ids(
    model: CTRModel, field: FieldSpec, size: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    rows = model.embeddings.managed_fields.get(field.name)
    if rows is None:
        return generator.integers(0, field.num_embeddings, size)
    strange = generator.integers(1, 1 << 62, size)
    return np.where(
        generator.random(size) < 0.5, generator.choice(rows.keys.numpy(), size), strange
    )
