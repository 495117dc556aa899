"""Adam on embedding tables that touches a step's own rows alone.

Dense Adam reads and writes every row of every table at every step; TorchRec has no fused Adam on a
CPU. Here TorchRec's dense lookups are kept, for any sharding they know, but their gradient never
becomes a whole table's: what flows back into a bag is kept as it is, summed by row, and each row is
updated once with its two moments.

Letters: B bags of a feature, F features of a lookup, R rows, C columns, I ids, U rows that differ.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from torch import Tensor, nn
from torch.nn import functional
from torchrec.distributed.batched_embedding_kernel import BatchedDenseEmbeddingBag
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection

from recsys_had.batch import Bags
from recsys_had.model.embeddings import field_of_weight
from recsys_had.training.pieces import Piece

_BETAS = (0.9, 0.999)
# Rows updated together on a CPU: they and their moments fit into its cache.
_ROWS = 8192


@dataclass
class _Rows:
    """Rows of one width with their moments.

    Args:
        weight: the rows, ``(R, C)``.
        moments: their first and second moments, ``(R, 2, C)``: both are read at once.
    """

    weight: Tensor
    moments: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> "_Rows":
        rows, columns = weight.shape
        return cls(weight, weight.new_zeros(rows, 2, columns))

    def update(
        self, rows_U: Tensor, grad_UC: Tensor, *, rate: float, eps: float, step: int
    ) -> None:
        """One update of Adam (Kingma and Ba 2015, algorithm 1) of the given rows.

        Args:
            rows_U: none twice.
            grad_UC: their gradients.
            rate: learning rate.
            eps: added to the root of the second moment.
            step: 1-based, of the whole training: a row not seen for long is corrected like others.
        """
        first, second = _BETAS
        root = math.sqrt(1 - second**step)
        size = len(rows_U) if rows_U.is_cuda else _ROWS
        for rows, grad in zip(torch.split(rows_U, size), torch.split(grad_UC, size), strict=True):
            moments = self.moments.index_select(0, rows)
            mean, square = moments.unbind(1)
            mean.lerp_(grad, 1 - first)
            square.mul_(second).addcmul_(grad, grad, value=1 - second)
            self.moments.index_copy_(0, rows, moments)
            weight = self.weight.index_select(0, rows)
            weight.addcdiv_(
                mean, square.sqrt().div_(root).add_(eps), value=-rate / (1 - first**step)
            )
            self.weight.index_copy_(0, rows, weight)


@dataclass
class _Part:
    """Features of a lookup whose tables can be seen as the rows of one.

    Args:
        features: which, as a range of the lookup's.
        columns: where their vectors stand in what the lookup gives.
        first_rows: the row each feature's table begins with.
        rows: of all of them.
    """

    features: slice
    columns: slice
    first_rows: Tensor
    rows: _Rows


@dataclass
class _Lookup:
    """One of TorchRec's lookups, and what flowed back into it since the last update."""

    kernel: BatchedDenseEmbeddingBag
    parts: list[_Part]
    flown: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    @classmethod
    def of(cls, kernel: BatchedDenseEmbeddingBag) -> "_Lookup":
        """Puts itself between a lookup and whoever calls it."""
        found = cls(kernel, list(_parts(kernel)))
        look_up = kernel.emb_module.forward

        def forward(
            indices: Tensor, offsets: Tensor, weights: Tensor | None = None, *rest: Any, **more: Any
        ) -> Tensor:
            assert weights is None and not any(rest) and not any(more.values()), "plain bags"
            out: Tensor = _KeepGradient.apply(
                kernel.emb_module.weights, look_up, found.flown, indices, offsets
            )  # type: ignore[no-untyped-call]
            return out

        kernel.emb_module.forward = forward
        return found

    def gradients(self) -> Iterator[tuple[_Rows, Tensor, Tensor]]:
        """For each part its rows, those that got a gradient, ``(U,)``, and the sums, ``(U, C)``."""
        is_mean = self.kernel.emb_module.pooling_mode == PoolingMode.MEAN
        for part in self.parts:
            found = [_of_bags(part, *one, is_mean=is_mean) for one in self.flown]
            ids_I, vectors_IC = (torch.cat(each) for each in zip(*found, strict=True))
            if len(ids_I):
                yield part.rows, *_summed(ids_I, vectors_IC)


class LazyAdam:
    """Adam on all tables of a sharded model, a step's own rows alone.

    A row that a step does not touch keeps weights and moments; a row it does touch is updated as
    dense Adam would, given the same moments. Over a run it is what torch's SparseAdam does, with
    eps where Adam has it.

    Args:
        model: sharded, its tables without optimizers.
        rate: learning rate.
        eps: see :meth:`_Rows.update`.
        copies: tables every rank holds whole, by their weights' names; their gradients come
            averaged over the ranks.
    """

    def __init__(
        self, model: nn.Module, *, rate: float, eps: float, copies: Mapping[str, Tensor]
    ) -> None:
        self.param_groups: list[dict[str, Any]] = [{"lr": rate}]
        self._eps = eps
        copied = {weight.data_ptr() for weight in copies.values()}
        self._lookups = [
            _Lookup.of(kernel)
            for kernel in _kernels(model)
            if kernel.emb_module.weights.numel() and not _holds(kernel.emb_module.weights, copied)
        ]
        self._copies = [
            (field_of_weight(name), weight, _Rows.of(weight.detach()))
            for name, weight in copies.items()
        ]

    def zero_grad(self) -> None:
        """Forgets what flowed back."""
        for lookup in self._lookups:
            lookup.flown.clear()
        for _, weight, _ in self._copies:
            weight.grad = None

    @torch.no_grad()
    def step(self, step: int, ids: Sequence[Bags]) -> None:
        """Updates the rows that got a gradient.

        Args:
            step: 1-based.
            ids: this rank's, for the tables every rank holds whole.
        """
        rate = self.param_groups[0]["lr"]
        for lookup in self._lookups:
            if lookup.flown:
                for rows, at_U, grad_UC in lookup.gradients():
                    rows.update(at_U, grad_UC, rate=rate, eps=self._eps, step=step)
        for name, weight, rows in self._copies:
            assert weight.grad is not None
            at_U = _touched(torch.cat([one[name].values() for one in ids]), len(weight))
            rows.update(at_U, weight.grad[at_U], rate=rate, eps=self._eps, step=step)

    def moments(self, piece: Piece) -> Iterator[tuple[str, Tensor]]:
        """The moments of a table's piece, by name, as references."""
        for rows in self._all_rows():
            first = piece.tensor.data_ptr() - rows.weight.data_ptr()
            if 0 <= first < rows.weight.numel() * rows.weight.element_size():
                row = first // (rows.weight.element_size() * rows.weight.shape[1])
                held = rows.moments[row : row + len(piece.tensor)]
                yield "exp_avg", held[:, 0]
                yield "exp_avg_sq", held[:, 1]

    def _all_rows(self) -> Iterator[_Rows]:
        for lookup in self._lookups:
            for part in lookup.parts:
                yield part.rows
        for _, _, rows in self._copies:
            yield rows


class _KeepGradient(torch.autograd.Function):
    """A lookup whose gradient is kept with its ids, and never becomes a whole table's."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        look_up: Any,
        flown: list[tuple[Tensor, Tensor, Tensor]],
        indices: Tensor,
        offsets: Tensor,
    ) -> Tensor:
        ctx.flown = flown
        ctx.save_for_backward(indices, offsets)
        pooled: Tensor = look_up(indices, offsets)
        return pooled

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        ctx.flown.append((*ctx.saved_tensors, grads[0]))
        return (None,) * 5


def _kernels(model: nn.Module) -> Iterator[BatchedDenseEmbeddingBag]:
    """Every dense lookup of a sharded model; TorchRec does not count them among its modules."""
    for module in model.modules():
        if isinstance(module, ShardedEmbeddingBagCollection):
            for lookup in module._lookups:
                for kernel in lookup.modules():
                    if isinstance(kernel, BatchedDenseEmbeddingBag):
                        yield kernel


def _parts(kernel: BatchedDenseEmbeddingBag) -> Iterator[_Part]:
    """A lookup's tables as one where all have the same width, else one by one."""
    tables, module = kernel._feature_table_map, kernel.emb_module
    ends = module.D_offsets.tolist()
    widths = [last - first for first, last in pairwise(ends)]
    begins = module.weights_offsets.tolist()
    flat = module.weights.detach()
    if len(set(widths)) == 1:
        first_rows = torch.tensor([begin // widths[0] for begin in begins], device=flat.device)
        whole = _Rows.of(flat.view(-1, widths[0]))
        yield _Part(slice(0, len(tables)), slice(0, ends[-1]), first_rows, whole)
        return
    assert len(set(tables)) == len(tables), "a table of several features has others of its width"
    sizes = dict(zip(sorted(begins), [*sorted(begins)[1:], flat.numel()], strict=True))
    for number, (begin, width) in enumerate(zip(begins, widths, strict=True)):
        rows = _Rows.of(flat[begin : sizes[begin]].view(-1, width))
        columns = slice(ends[number], ends[number + 1])
        first_rows = torch.zeros(1, dtype=torch.int64, device=flat.device)
        yield _Part(slice(number, number + 1), columns, first_rows, rows)


def _of_bags(
    part: _Part, indices: Tensor, offsets: Tensor, grad: Tensor, *, is_mean: bool
) -> tuple[Tensor, Tensor]:
    """Row and gradient of every id of a part, ``(I,)`` and ``(I, C)``."""
    num_bags = len(grad)
    num_features = part.features.stop - part.features.start
    held = offsets[part.features.start * num_bags : part.features.stop * num_bags + 1].long()
    lengths = held.diff()
    ids = indices[int(held[0]) : int(held[-1])].long()
    bags = torch.arange(num_features * num_bags, device=ids.device)
    if len(ids) != len(bags) or not bool((lengths == 1).all()):
        bags = bags.repeat_interleave(lengths)
    feature, bag = bags // num_bags, bags % num_bags
    vectors = grad[:, part.columns].reshape(num_bags * num_features, -1)
    vectors_IC = vectors.index_select(0, bag * num_features + feature)
    if is_mean:
        vectors_IC = vectors_IC / lengths.repeat_interleave(lengths).unsqueeze(1)
    return ids + part.first_rows[feature], vectors_IC


def _summed(ids_I: Tensor, vectors_IC: Tensor) -> tuple[Tensor, Tensor]:
    """The ids that differ, rising, and the sum of each one's vectors, in the order of the batch.

    >>> ids, sums = _summed(torch.tensor([7, 3, 7]), torch.tensor([[1.0], [2.0], [4.0]]))
    >>> ids.tolist(), sums.tolist()
    ([3, 7], [[2.0], [5.0]])
    """
    ordered, order = ids_I.sort(stable=True)
    rows_U, counts = torch.unique_consecutive(ordered, return_counts=True)
    starts = counts.cumsum(0) - counts
    return rows_U, functional.embedding_bag(order, vectors_IC, starts, mode="sum")


def _touched(ids_I: Tensor, num_rows: int) -> Tensor:
    """The ids that any rank has."""
    mask = torch.zeros(num_rows, dtype=torch.uint8, device=ids_I.device)
    mask[ids_I.long()] = 1
    if dist.get_world_size() > 1:
        dist.all_reduce(mask, op=dist.ReduceOp.MAX)
    return mask.nonzero().flatten()


def _holds(weights: Tensor, pointers: set[int]) -> bool:
    """Whether a flat tensor is where one of the pointers points."""
    first = weights.data_ptr()
    return any(first <= at < first + weights.numel() * weights.element_size() for at in pointers)
