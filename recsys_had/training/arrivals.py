"""New values of managed fields: they get rows before an update, and those rows begin anew.

TorchRec's own managed collision leaves a row that changes hands as its former value trained it, and
keeps what it has counted since the last eviction out of checkpoints. Here both go with the model.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.distributed.model_parallel import DistributedModelParallel

from recsys_had.batch import Bags
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_of_weight, is_field_table
from recsys_had.training.optimizers import Optimizers
from recsys_had.training.pieces import Piece
from recsys_had.training.state import state_pieces


class Arrivals:
    """Gives rows to new values; every rank holds one and calls it in step.

    Args:
        model: for which value has which row, and initial rows.
        sharded: the same model, spread over the ranks.
        optimizers: of the sharded model.
    """

    def __init__(
        self, model: CTRModel, sharded: DistributedModelParallel, optimizers: Optimizers
    ) -> None:
        self._model = model
        self._pieces: Mapping[str, list[Piece]] = {}
        if model.embeddings.managed_fields:
            self._pieces = _by_field(state_pieces(sharded, optimizers))

    def admit(self, ids: Sequence[Bags], *, step: int) -> None:
        """Takes notice of the ids of an update to come.

        Args:
            ids: this rank's batches.
            step: 1-based number of the update.
        """
        for field, rows in self._model.embeddings.managed_fields.items():
            mine = torch.cat([batch[field].values() for batch in ids])
            given = rows.admit(_of_all_ranks(mine), step=step)
            if len(given):
                self._begin_anew(field, given, step)

    @torch.no_grad()
    def _begin_anew(self, field: str, rows: Tensor, step: int) -> None:
        """Fresh vectors and empty optimizer state for rows that were given to values.

        For rows that nobody had, too: an L2 penalty has drawn them to 0 all the while.
        """
        for piece in self._pieces.get(field, []):
            here = rows - piece.offset[0]
            is_here = (here >= 0) & (here < len(piece.tensor))
            at = here[is_here]
            piece.tensor[at] = 0
            if not piece.name.startswith("model/"):
                continue
            name = piece.name.removeprefix("model/")
            width = self._model.table_width(name)
            fresh = self._model.initial.drawn_anew(name, step, len(rows), width)
            column = piece.offset[1]
            mine = fresh[is_here.cpu(), column : column + piece.tensor.shape[1]]
            piece.tensor[at, : mine.shape[1]] = mine.to(piece.tensor)


def _by_field(pieces: Iterator[Piece]) -> dict[str, list[Piece]]:
    """Pieces of tables' rows, and of what optimizers keep of them, by field."""
    found: dict[str, list[Piece]] = {}
    for piece in pieces:
        kind, _, rest = piece.name.partition("/")
        if kind in ("model", "tables", "adam") and is_field_table(rest) and piece.shape:
            field = field_of_weight(rest.partition("/")[0])
            found.setdefault(field, []).append(piece)
    return found


def _of_all_ranks(ids_I: Tensor) -> Tensor:
    """The ids of all ranks, one rank's after another's."""
    if dist.get_world_size() == 1:
        return ids_I
    sizes = [torch.zeros(1, dtype=torch.int64, device=ids_I.device) for _ in _ranks()]
    dist.all_gather(sizes, torch.tensor([len(ids_I)], device=ids_I.device))
    longest = int(torch.cat(sizes).max())
    found = [ids_I.new_zeros(longest) for _ in _ranks()]
    dist.all_gather(found, torch.nn.functional.pad(ids_I, (0, longest - len(ids_I))))
    return torch.cat([ids[: int(size)] for ids, size in zip(found, sizes, strict=True)])


def _ranks() -> range:
    return range(dist.get_world_size())
