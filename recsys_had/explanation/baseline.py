"""Baselines: the row that a row is compared with when it is told what moved its score.

Letters: B rows, F fields, D embedding_dim.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_had.batch import Batch, EncodedRows, IdArray, Ragged
from recsys_had.data.encode import Encoder
from recsys_had.layout import Layout
from recsys_had.model.ctr import CTRModel

# Ids looked up together.
_IDS_AT_A_TIME = 1 << 16


@dataclass(frozen=True)
class Baseline:
    """What a model's graph reads of the row that others are compared with.

    Args:
        kind: where it comes from, in a word: rows, vocabularies or unseen.
        sources: of one row, ``(1, F, D)`` or ``(1, N)`` float64.
    """

    kind: str
    sources: dict[str, Tensor]

    def to_json(self) -> str:
        """As text, which loses no digit."""
        return json.dumps({name: x.squeeze(0).tolist() for name, x in self.sources.items()})

    @classmethod
    def from_json(cls, text: str) -> "Baseline":
        """Reads what :meth:`to_json` gave of the mean of rows.

        >>> baseline = Baseline("rows", {"fields": torch.ones(1, 2, 3, dtype=torch.float64)})
        >>> Baseline.from_json(baseline.to_json()).sources["fields"].shape
        torch.Size([1, 2, 3])
        """
        content: dict[str, list[float]] = json.loads(text)
        return cls(
            "rows",
            {name: torch.tensor([x], dtype=torch.float64) for name, x in content.items()},
        )


def mean_of_rows(batches: Iterable[Mapping[str, Tensor]]) -> Baseline:
    """The mean of what a model reads of rows.

    Where the logit is linear in each field, as in LR, FM and all whose pairs are products, a
    field's effect against it is the mean effect over independent values of the others: the parts
    are those of a functional ANOVA.

    Args:
        batches: sources of rows; one row at least.
    """
    totals: dict[str, Tensor] = {}
    count = 0
    for sources in batches:
        count += len(next(iter(sources.values())))
        for name, x in sources.items():
            sum_ = x.double().sum(dim=0, keepdim=True)
            totals[name] = totals[name] + sum_ if name in totals else sum_
    return Baseline("rows", {name: total / count for name, total in totals.items()})


def unseen(model: CTRModel, layout: Layout) -> Baseline:
    """The row all of whose values are missing: id 0, number 0, a vector of zeros."""
    rows = _rows(layout, np.zeros((1, len(layout.fields)), np.int64))
    return Baseline("unseen", _double(_looked_up(model, rows)))


def mean_of_vocabularies(model: CTRModel, encoder: Encoder, layout: Layout) -> Baseline:
    """The mean embedding of each field's values by how often training rows hold them.

    It needs no row. Values of hashed and managed fields were not counted and weigh alike. A
    numeric column is 0, where a missing one is, which is the mean of a standardised one; a content
    vector is one of zeros.
    """
    weights = {name: _shares(model, encoder, name) for name in layout.fields}
    found = unseen(model, layout).sources
    means = {
        name: [torch.zeros(width, dtype=torch.float64) for _ in weights]
        for name, width in model.embeddings.widths.items()
    }
    for first, rows in _all_ids(model, layout, weights):
        looked_up = _looked_up(model, rows)
        for name, fields in _fields_of(model, layout).items():
            for place, field in enumerate(fields):
                share = weights[field][first : first + len(rows)]
                embedded = looked_up[name][: len(share), place].double()
                means[name][layout.fields.index(field)] += torch.from_numpy(share) @ embedded
    for name, fields in _fields_of(model, layout).items():
        for place, field in enumerate(fields):
            found[name][0, place] = means[name][layout.fields.index(field)]
    return Baseline("vocabularies", found)


def _fields_of(model: CTRModel, layout: Layout) -> dict[str, list[str]]:
    """The categorical fields of each set of tables, which stand first."""
    embeddings = model.embeddings
    return {
        name: [field for field in embeddings.names_of(name) if field in layout.fields]
        for name in embeddings.widths
    }


def _shares(model: CTRModel, encoder: Encoder, field: str) -> NDArray[np.float64]:
    """What each row of a field's table counts for; they sum to 1."""
    counts = np.zeros(encoder.num_embeddings[field])
    known = encoder.counts_of(field)
    if len(known):
        counts[known["id"].to_numpy()] = known["count"].to_numpy()
    elif field in model.embeddings.managed_fields:
        counts[1:] = model.embeddings.managed_fields[field].keys.numpy() > 0
    else:
        counts[1:] = 1
    if not counts.any():
        counts[0] = 1
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def _all_ids(
    model: CTRModel, layout: Layout, weights: Mapping[str, NDArray[np.float64]]
) -> Iterator[tuple[int, EncodedRows]]:
    """Rows that go through the ids of all fields at once, and the first one's number."""
    sizes = [len(weights[name]) for name in layout.fields]
    managed = {
        name: np.concatenate([[0], rows.keys.numpy()])
        for name, rows in model.embeddings.managed_fields.items()
    }
    for first in range(0, max(sizes, default=0), _IDS_AT_A_TIME):
        numbers = np.arange(first, min(first + _IDS_AT_A_TIME, max(sizes)))
        ids = np.stack([np.where(numbers < size, numbers, 0) for size in sizes], axis=1)
        for name, values in managed.items():
            place = layout.fields.index(name)
            ids[:, place] = values[ids[:, place]]
        yield first, _rows(layout, ids)


def _rows(layout: Layout, ids: NDArray[np.int64]) -> EncodedRows:
    """Rows of given ids, ``(B, fields)``, with nothing else."""
    count = len(ids)
    of: dict[str, IdArray] = {
        name: ids[:, place].astype(layout.id_dtype) for place, name in enumerate(layout.fields)
    }
    single = [of[name] for name in layout.single]
    return EncodedRows(
        layout,
        np.arange(count),
        None,
        np.stack(single, axis=1) if single else np.empty((count, 0), layout.id_dtype),
        {name: Ragged(np.arange(count + 1), of[name]) for name in layout.multi},
        np.zeros((count, len(layout.dense)), np.float32),
        {name: np.zeros((count, size), np.float32) for name, size in layout.vectors.items()},
    )


def _looked_up(model: CTRModel, rows: EncodedRows) -> dict[str, Tensor]:
    batch: Batch = rows.to_batch()
    with torch.no_grad():
        return model.sources(batch)


def _double(sources: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.double() for name, x in sources.items()}
