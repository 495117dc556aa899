"""Rows of a table that values come and go in: a hash table without collisions.

Letters: I ids as they stand in encoded rows, 63 bits of a value's hash; U of them that differ;
R rows.
"""

import torch
from torch import Tensor, nn


class ManagedRows(nn.Module):
    """Which value has which row, of a field whose values are too many or change.

    Training tells it each update's ids (:meth:`admit`). A value gets a row of its own when it has
    been seen ``admit_after`` times; where all rows are taken, that of the value not seen for the
    longest time. Everything else has row 0, as have missing values. What it knows are buffers of
    fixed size, copied to every rank, so it is saved and scored as any other weight is.

    Of updates seen in the same order it comes to the same rows, in whatever order the ids of an
    update are given.

    Shape: ids ``(I,)`` -> rows ``(I,)``, 0 to R.
    Paper: none; TorchRec calls it managed collision, or zero-collision hashing.
    Differs from the paper: a row that changes hands begins anew; see
        :mod:`recsys_had.training.arrivals`.

    Args:
        num_rows: R.
        admit_after: how often a value must be seen. Of values that wait the R last seen are
            remembered; one that is due and finds every row in use waits to be seen again.

    >>> rows = ManagedRows(2, admit_after=1)
    >>> rows.admit(torch.tensor([70, 80, 70]), step=1).tolist(), rows(torch.tensor([80, 70, 5]))
    ([1, 2], tensor([2, 1, 0]))
    >>> rows.admit(torch.tensor([70, 90]), step=2).tolist(), rows(torch.tensor([80, 70, 90]))
    ([2], tensor([0, 1, 2]))
    """

    keys: Tensor
    seen: Tensor
    waiting: Tensor
    waiting_counts: Tensor
    waiting_seen: Tensor

    def __init__(self, num_rows: int, *, admit_after: int = 1) -> None:
        super().__init__()
        self.num_rows = num_rows
        self.admit_after = admit_after
        # The value of each row, 0 where it has none, and the update it was last seen in.
        self.register_buffer("keys", torch.zeros(num_rows, dtype=torch.int64))
        self.register_buffer("seen", torch.zeros(num_rows, dtype=torch.int64))
        if admit_after > 1:
            for name in ("waiting", "waiting_counts", "waiting_seen"):
                self.register_buffer(name, torch.zeros(num_rows, dtype=torch.int64))
        self._sorted: tuple[tuple[int, int], Tensor, Tensor] | None = None

    def forward(self, ids_I: Tensor) -> Tensor:
        """The row of each id, 0 for one that has none."""
        return self._places(ids_I) + 1

    @torch.no_grad()
    def admit(self, ids_I: Tensor, *, step: int) -> Tensor:
        """Takes notice of an update's ids and gives rows to those that are due one.

        Args:
            ids_I: of all ranks; 0 for missing values.
            step: 1-based number of the update.

        Returns:
            The rows that were given to a value.
        """
        ids_U, counts_U = torch.unique(ids_I[ids_I > 0], return_counts=True)
        places = self._places(ids_U)
        is_known = places >= 0
        self.seen[places[is_known]] = step
        ids_U, counts_U = ids_U[~is_known], counts_U[~is_known]
        if self.admit_after > 1 and len(ids_U):
            ids_U, counts_U = self._wait(ids_U, counts_U, step)
        places = self._to_give(len(ids_U), step)
        if len(places):
            # Where there are too few the most frequent come first.
            chosen = ids_U[counts_U.argsort(descending=True, stable=True)[: len(places)]]
            self.keys[places] = chosen
            self.seen[places] = step
            if self.admit_after > 1:
                self.waiting[torch.isin(self.waiting, chosen)] = 0
        return places + 1

    @torch.no_grad()
    def count_anew(self) -> None:
        """Takes everything seen so far as seen before update 1, in the order it was."""
        for buffer in (self.seen, *([self.waiting_seen] if self.admit_after > 1 else [])):
            buffer.sub_(buffer.max().clamp(min=0))

    def _places(self, ids_I: Tensor) -> Tensor:
        """Where each id stands among the keys, -1 for one that does not."""
        ordered, order = self._in_order()
        found = torch.searchsorted(ordered, ids_I).clamp_(max=self.num_rows - 1)
        is_there = (ordered[found] == ids_I) & (ids_I > 0)
        return torch.where(is_there, order[found], -1)

    def _in_order(self) -> tuple[Tensor, Tensor]:
        """The keys sorted, and where each of them stands."""
        if torch.compiler.is_exporting():
            # Values have no address there; what was sorted before becomes part of the program.
            return self.keys.sort() if self._sorted is None else self._sorted[1:]
        state = (self.keys.data_ptr(), self.keys._version)
        if self._sorted is None or self._sorted[0] != state:
            self._sorted = (state, *self.keys.sort())
        return self._sorted[1:]

    def _to_give(self, wanted: int, step: int) -> Tensor:
        """Places for new values: free ones, then those longest not seen, in order of places."""
        free = (self.keys == 0).nonzero().flatten()[:wanted]
        wanted -= len(free)
        if not wanted:
            return free
        idle = ((self.keys > 0) & (self.seen < step)).nonzero().flatten()
        # No two the same: which ones are found first does not depend on the machine.
        age = self.seen[idle] * self.num_rows + idle
        oldest = age.topk(min(wanted, len(idle)), largest=False).indices
        return torch.cat([free, idle[oldest].sort().values])

    def _wait(self, ids_U: Tensor, counts_U: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Counts values without a row; those just seen that are due one, and their counts."""
        held = self.waiting > 0
        ids, where = torch.unique(torch.cat([self.waiting[held], ids_U]), return_inverse=True)
        counts = torch.zeros_like(ids)
        counts.index_add_(0, where, torch.cat([self.waiting_counts[held], counts_U]))
        seen = torch.zeros_like(ids)
        times = torch.cat([self.waiting_seen[held], torch.full_like(ids_U, step)])
        seen.scatter_reduce_(0, where, times, "amax", include_self=False)
        is_due = (counts >= self.admit_after) & (seen == step)
        # The last seen stay; of those seen together, the smaller ids. Those that are due come last,
        # for they are about to leave.
        order = torch.where(is_due, seen.min() - 1, seen).argsort(descending=True, stable=True)
        kept = order[: self.num_rows]
        for buffer, values in (
            (self.waiting, ids),
            (self.waiting_counts, counts),
            (self.waiting_seen, seen),
        ):
            buffer.zero_()
            buffer[: len(kept)] = values[kept]
        return ids[is_due], counts[is_due]
