"""Batch: what a model reads. EncodedRows: the same rows as flat numpy arrays, cheap to reorder.

Letters: B rows, F single-valued fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_had.layout import Layout

IdArray = NDArray[np.signedinteger[Any]]


class Bags:
    """Ids of every field: a bag a row, the fields one after the other.

    It has the methods of TorchRec's ``KeyedJaggedTensor`` that are needed here, under their names,
    and needs no TorchRec.

    Args:
        keys: the fields.
        values: all ids, ``(V,)`` int64.
        lengths: of the bags, ``(F * rows,)`` int64.
        sizes: number of values of each field.

    >>> bags = Bags(["user", "tags"], torch.tensor([7, 8, 1, 2, 3]), torch.tensor([1, 1, 0, 3]),
    ...             sizes=[2, 3])
    >>> bags["tags"].values().tolist(), bags["tags"].lengths().tolist(), bags.stride()
    ([1, 2, 3], [0, 3], 2)
    """

    def __init__(
        self, keys: Sequence[str], values: Tensor, lengths: Tensor, *, sizes: Sequence[int]
    ) -> None:
        self._keys = list(keys)
        self._values = values
        self._lengths = lengths
        self._ends = [0, *accumulate(sizes)]

    def keys(self) -> list[str]:
        """The fields."""
        return self._keys

    def values(self) -> Tensor:
        """All ids, field after field."""
        return self._values

    def lengths(self) -> Tensor:
        """Lengths of all bags, field after field."""
        return self._lengths

    def offset_per_key(self) -> list[int]:
        """Where each field's values begin, and where the last one's end."""
        return self._ends

    def stride(self) -> int:
        """Number of rows; 0 where there is no field."""
        return self._lengths.shape[0] // max(1, len(self._keys))

    def __getitem__(self, key: str) -> "Bags":
        place = self._keys.index(key)
        first, last = self._ends[place : place + 2]
        rows = self.stride()
        lengths = self._lengths[place * rows : (place + 1) * rows]
        return Bags([key], self._values[first:last], lengths, sizes=[last - first])

    def with_values(self, values: Tensor) -> "Bags":
        """Other ids in the same bags."""
        sizes = [last - first for first, last in pairwise(self._ends)]
        return Bags(self._keys, values, self._lengths, sizes=sizes)

    def to(self, device: torch.device) -> "Bags":
        """The ids on another device."""
        sizes = [last - first for first, last in pairwise(self._ends)]
        return Bags(self._keys, self._values.to(device), self._lengths.to(device), sizes=sizes)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keeps the memory, which another stream filled, for what this one will do with it."""
        self._values.record_stream(stream)
        self._lengths.record_stream(stream)


@dataclass(frozen=True)
class Batch:
    """Rows as a model reads them.

    Args:
        dense: ``(B, num_dense)`` float32.
        sparse: ids of every field, one bag a row and field; it may hold further, empty rows at
            its end, so that all ranks look up equally many.
        label: ``(B,)`` float32; empty when the rows have none.
        row_id: ``(B,)`` int64.
        vectors: ``(B, size)`` float32 for each content vector.
        weight: ``(B,)`` float32, or None where every row counts for 1.
    """

    dense: Tensor
    sparse: Bags
    label: Tensor
    row_id: Tensor
    vectors: dict[str, Tensor] = field(default_factory=dict)
    weight: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return Batch(
            self.dense.to(device),
            self.sparse.to(device),
            self.label.to(device),
            self.row_id.to(device),
            {name: vector.to(device) for name, vector in self.vectors.items()},
            None if self.weight is None else self.weight.to(device),
        )

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keeps the memory, which another stream filled, for what this one will do with it."""
        self.sparse.record_stream(stream)
        tensors = [self.dense, self.label, self.row_id, *self.vectors.values()]
        for tensor in tensors if self.weight is None else [*tensors, self.weight]:
            tensor.record_stream(stream)


@dataclass(frozen=True)
class Ragged:
    """Lists of ids: row ``i`` holds ``values[offsets[i] : offsets[i + 1]]``."""

    offsets: NDArray[np.int64]
    values: IdArray

    def take(self, index: NDArray[np.int64]) -> "Ragged":
        """The rows at ``index``, in that order.

        >>> ragged = Ragged(np.array([0, 2, 3]), np.array([7, 8, 9], np.int32))
        >>> ragged.take(np.array([1, 0])).values.tolist()
        [9, 7, 8]
        """
        lengths = np.diff(self.offsets)[index]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        starts = np.repeat(self.offsets[:-1][index] - offsets[:-1], lengths)
        return Ragged(offsets, self.values[starts + np.arange(offsets[-1])])

    def span(self, first: int, last: int) -> "Ragged":
        """The rows from ``first`` up to ``last``; the values are not copied.

        >>> Ragged(np.array([0, 2, 3]), np.array([7, 8, 9], np.int32)).span(1, 2)
        Ragged(offsets=array([0, 1]), values=array([9], dtype=int32))
        """
        offsets = self.offsets[first : last + 1]
        return Ragged(offsets - offsets[0], self.values[offsets[0] : offsets[-1]])

    @staticmethod
    def concat(parts: Sequence["Ragged"]) -> "Ragged":
        """One after the other."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return Ragged(offsets, np.concatenate([part.values for part in parts]))


@dataclass(frozen=True)
class EncodedRows:
    """Encoded rows, row by row in memory so that a shuffle reads each row once.

    Args:
        layout: names and order of the inputs.
        row_id: ``(B,)`` int64.
        label: ``(B,)`` float32, or None.
        ids: ``(B, F)`` of the layout's ``id_dtype``, the single-valued fields.
        lists: the multi-valued fields.
        dense: ``(B, num_dense)`` float32.
        vectors: ``(B, size)`` float32, the content vectors.
        weight: ``(B,)`` float32, or None.
        unseen: ``(B, F)`` int32 over all fields in the layout's order: how many of a row's values
            are there and have no id; None where nobody looked at the raw values.
    """

    layout: Layout
    row_id: NDArray[np.int64]
    label: NDArray[np.float32] | None
    ids: IdArray
    lists: dict[str, Ragged]
    dense: NDArray[np.float32]
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    weight: NDArray[np.float32] | None = None
    unseen: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.row_id)

    def take(self, index: NDArray[np.int64]) -> "EncodedRows":
        """The rows at ``index``, in that order."""
        lists = {name: ragged.take(index) for name, ragged in self.lists.items()}
        return self._chosen(index, lists)

    def span(self, first: int, last: int) -> "EncodedRows":
        """The rows from ``first`` up to ``last``, not copied."""
        lists = {name: ragged.span(first, last) for name, ragged in self.lists.items()}
        return self._chosen(slice(first, last), lists)

    def _chosen(self, rows: slice | NDArray[np.int64], lists: dict[str, Ragged]) -> "EncodedRows":
        return EncodedRows(
            self.layout,
            self.row_id[rows],
            None if self.label is None else self.label[rows],
            self.ids[rows],
            lists,
            self.dense[rows],
            {name: vector[rows] for name, vector in self.vectors.items()},
            None if self.weight is None else self.weight[rows],
            None if self.unseen is None else self.unseen[rows],
        )

    @staticmethod
    def concat(parts: Sequence["EncodedRows"]) -> "EncodedRows":
        """One after the other; all with labels, or all without; weights alike."""
        labels = [part.label for part in parts if part.label is not None]
        weights = [part.weight for part in parts if part.weight is not None]
        unseen = [part.unseen for part in parts if part.unseen is not None]
        names = parts[0].vectors
        return EncodedRows(
            parts[0].layout,
            np.concatenate([part.row_id for part in parts]),
            np.concatenate(labels) if labels else None,
            np.concatenate([part.ids for part in parts]),
            {name: Ragged.concat([part.lists[name] for part in parts]) for name in parts[0].lists},
            np.concatenate([part.dense for part in parts]),
            {name: np.concatenate([part.vectors[name] for part in parts]) for name in names},
            np.concatenate(weights) if weights else None,
            np.concatenate(unseen) if len(unseen) == len(parts) else None,
        )

    def to_batch(self, *, sparse_rows: int | None = None) -> Batch:
        """The rows as tensors: one bag of length 1 for every single-valued field.

        Args:
            sparse_rows: rows of the sparse part; what exceeds B is empty bags. TorchRec's
                row-wise exchange needs as many on every rank.
        """
        num_rows = len(self)
        padding = 0 if sparse_rows is None else sparse_rows - num_rows
        single = torch.from_numpy(self.ids.T.astype(np.int64, order="C"))
        if self.layout.fields and (self.layout.multi or padding):
            values, lengths, sizes = self._ragged_values(single, padding)
        else:
            values = single.reshape(-1)
            lengths = torch.ones(len(self.layout.fields) * num_rows, dtype=torch.int64)
            sizes = [num_rows] * len(self.layout.fields)
        label = np.empty(0, np.float32) if self.label is None else self.label
        return Batch(
            dense=_tensor(self.dense),
            sparse=Bags(self.layout.fields, values, lengths, sizes=sizes),
            label=_tensor(label),
            row_id=_tensor(self.row_id),
            vectors={name: _tensor(vector) for name, vector in self.vectors.items()},
            weight=None if self.weight is None else _tensor(self.weight),
        )

    def _ragged_values(self, single: Tensor, padding: int) -> tuple[Tensor, Tensor, list[int]]:
        rows = iter(single)
        empty = torch.zeros(padding, dtype=torch.int64)
        values, lengths = [], []
        for name in self.layout.fields:
            if name in self.layout.multi:
                ragged = self.lists[name]
                values.append(torch.from_numpy(ragged.values.astype(np.int64)))
                lengths.append(torch.from_numpy(np.diff(ragged.offsets)))
            else:
                values.append(next(rows))
                lengths.append(torch.ones(len(self), dtype=torch.int64))
            lengths.append(empty)
        return torch.cat(values), torch.cat(lengths), [len(held) for held in values]


def _tensor(array: NDArray[Any]) -> Tensor:
    """The array's own memory as a tensor; a copy of what Arrow lent, which cannot be written to."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
