"""Where a loss that is no number comes from: the rows, or one field's vectors."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from recsys_had.batch import Batch
from recsys_had.model.embeddings import FieldEmbeddings


def not_finite(
    batch: Batch, vectors: Mapping[str, Tensor], embeddings: FieldEmbeddings
) -> str | None:
    """A sentence on the first input, or the first field's vectors, that is not finite.

    Args:
        batch: the rows.
        vectors: what was looked up for them, ``(B, F, width)`` a set.
        embeddings: that looked it up.

    Returns:
        None where all are finite.
    """
    for what, values in _held(batch, vectors, embeddings):
        bad = ~torch.isfinite(values.detach()).flatten(1).all(dim=1)
        if bad.any():
            return f"In {int(bad.sum())} of its rows {what} not finite."
    return None


def _held(
    batch: Batch, vectors: Mapping[str, Tensor], embeddings: FieldEmbeddings
) -> Iterator[tuple[str, Tensor]]:
    for place, name in enumerate(embeddings.dense):
        yield f"the dense input '{name}' is", batch.dense[:, place : place + 1]
    for name, values in batch.vectors.items():
        yield f"the vector '{name}' is", values
    if batch.weight is not None:
        yield "the weight is", batch.weight.unsqueeze(1)
    for set_name, rows_BFD in vectors.items():
        for place, name in enumerate(embeddings.names_of(set_name)):
            of = "" if set_name == "fields" else f" in set '{set_name}'"
            yield f"the vectors of field '{name}'{of} are", rows_BFD[:, place]
