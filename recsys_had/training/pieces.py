"""Tensors in pieces: what of each table a rank holds, whole tables from pieces, and back."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import is_field_table

_ROWS = 1 << 18


@dataclass(frozen=True)
class Piece:
    """Part of a tensor.

    Args:
        name: of the whole tensor.
        shape: of the whole tensor.
        offset: where the part begins, for each axis.
        tensor: the part, as a reference that can be written into.
        is_copy: whether every rank holds the same.
    """

    name: str
    shape: tuple[int, ...]
    offset: tuple[int, ...]
    tensor: Tensor
    is_copy: bool = False

    def taken(self, tensor: Tensor) -> "Piece":
        """The piece with another tensor of its place."""
        return replace(self, tensor=tensor)


def pieces_of(name: str, value: Any) -> Iterator[Piece]:
    """The pieces of a tensor that this rank holds: none, some, or all of it as one.

    >>> [piece.shape for piece in pieces_of("w", torch.zeros(2, 3))]
    [(2, 3)]
    """
    if isinstance(value, ShardedTensor):
        for part in value.local_shards():
            yield Piece(name, tuple(value.size()), tuple(part.metadata.shard_offsets), part.tensor)
    elif isinstance(value, Tensor):
        yield Piece(name, tuple(value.shape), (0,) * value.dim(), value, is_copy=True)


def overlap(mine: Piece, theirs: Piece) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """Where two pieces of one tensor hold the same numbers: in the first, and in the second.

    None where they share none; of tensors without an axis, no slices.

    >>> rows = Piece("w", (4, 2), (2, 0), torch.zeros(2, 2))
    >>> columns = Piece("w", (4, 2), (0, 1), torch.zeros(4, 1))
    >>> overlap(rows, columns)
    ((slice(0, 2, None), slice(1, 2, None)), (slice(2, 4, None), slice(0, 1, None)))
    """
    inside_mine, inside_theirs = [], []
    for axis in range(len(mine.shape)):
        first = max(mine.offset[axis], theirs.offset[axis])
        last = min(
            mine.offset[axis] + mine.tensor.shape[axis],
            theirs.offset[axis] + theirs.tensor.shape[axis],
        )
        if last <= first:
            return None
        inside_mine.append(slice(first - mine.offset[axis], last - mine.offset[axis]))
        inside_theirs.append(slice(first - theirs.offset[axis], last - theirs.offset[axis]))
    return tuple(inside_mine), tuple(inside_theirs)


def local_pieces(sharded: nn.Module) -> Iterator[Piece]:
    """This rank's pieces of all weights and buffers."""
    for name, value in sharded.state_dict().items():
        yield from pieces_of(name, value)


def fill(sharded: nn.Module, model: CTRModel) -> None:
    """Writes the model's own initial rows into the pieces of its tables."""
    with torch.no_grad():
        for piece in local_pieces(sharded):
            if is_field_table(piece.name):
                width = model.table_width(piece.name)
                row, column = piece.offset
                rows = model.initial.rows(piece.name, row, len(piece.tensor), width)
                mine = rows[:, column : column + piece.tensor.shape[1]]
                piece.tensor.zero_()
                piece.tensor[:, : mine.shape[1]] = mine


def carry_rows(piece: Piece, source: Tensor, rows: NDArray[np.int64], width: int) -> None:
    """Writes given rows over a piece's own, some at a time; padding stays as it is.

    Args:
        piece: of a table.
        source: rows of the table's width, in any order.
        rows: for each row of the whole table the one of ``source`` that it becomes, or -1.
        width: the table's, without padding.
    """
    row, column = piece.offset
    last = min(column + piece.tensor.shape[1], width)
    for first in range(0, len(piece.tensor), _ROWS):
        part = piece.tensor[first : first + _ROWS]
        wanted = rows[row + first : row + first + len(part)]
        here = np.flatnonzero(wanted >= 0)
        given = source[torch.from_numpy(wanted[here]), column:last].to(part)
        part[torch.from_numpy(here).to(part.device), : last - column] = given


def gather_state(sharded: nn.Module, model: CTRModel) -> dict[str, Tensor] | None:
    """All weights and buffers as :meth:`CTRModel.export_state` gives them; None off rank 0."""
    first = dist.get_rank() == 0
    mine = [
        piece.taken(piece.tensor.detach().to("cpu", copy=True))
        for piece in local_pieces(sharded)
        if first or not piece.is_copy
    ]
    found: list[Any] | None = [None] * dist.get_world_size() if first else None
    dist.gather_object(mine, found, dst=0)
    if found is None:
        return None
    whole: dict[str, Tensor] = {}
    for piece in (piece for pieces in found for piece in pieces):
        if piece.name not in whole:
            whole[piece.name] = torch.empty(piece.shape, dtype=piece.tensor.dtype)
        paste(piece, whole[piece.name])
    return {name: model.without_padding(name, tensor) for name, tensor in whole.items()}


def paste(piece: Piece, whole: Tensor) -> None:
    """Writes a piece into the whole tensor."""
    at = tuple(
        slice(first, first + size)
        for first, size in zip(piece.offset, piece.tensor.shape, strict=True)
    )
    whole[at] = piece.tensor
