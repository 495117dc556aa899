"""Batch normalisation over the rows of all ranks.

torch's SyncBatchNorm refuses a CPU, and per-rank moments would make a model depend on the number
of processes.

Letters: B rows of this rank, C channels, L numbers of a channel in a row.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class DistributedBatchNorm(nn.BatchNorm1d):
    """``BatchNorm1d`` whose training moments are those of all ranks' rows together.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias`` with mean and biased variance of a channel
    over every row of the step, however many each rank holds, none included, and over its L numbers
    in each. At world size 1 it is ``BatchNorm1d`` to the last bit. A step of a single number a
    channel has no variance: it is normalised by the running moments, which it leaves alone.

    The gradient flows through the reduced moments. Each rank's gradient is the sum over ranks of
    what the moments pass back, which is right when losses are summed over ranks, as they are up
    to the factor that averaging gradients undoes.

    Shape: ``(B, C) -> (B, C)``, or ``(B, C, L) -> (B, C, L)``.
    Paper: Ioffe and Szegedy 2015, algorithm 1 (arXiv:1502.03167).
    Differs from the paper: the mini-batch spans the ranks.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: share of a step's moments in the running ones.

    >>> norm = DistributedBatchNorm(3)
    >>> norm(torch.zeros(4, 3)).shape
    torch.Size([4, 3])
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises over all ranks when training, by the running moments otherwise."""
        if not self.training:
            return super().forward(x)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            # What the other ranks hold is no part of a compiled graph. Said here: above the method
            # it would load torch's compiler wherever a model is loaded.
            uncompiled: Callable[[Tensor], Tensor] = torch.compiler.disable(  # type: ignore[no-untyped-call]
                self._over_ranks
            )
            return uncompiled(x)
        if x.numel() // self.num_features < 2:
            return self._by_running_moments(x)
        return super().forward(x)

    def _by_running_moments(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

    def _over_ranks(self, x: Tensor) -> Tensor:
        # Of a half precision neither count nor sums would be exact enough.
        wide = torch.promote_types(x.dtype, torch.float32)
        count = torch.tensor(float(x.numel() // self.num_features), dtype=wide, device=x.device)
        dist.all_reduce(count)
        if count < 2:
            return self._by_running_moments(x)
        return self._normalise(x.to(wide), count).to(x.dtype)

    def _normalise(self, x: Tensor, count: Tensor) -> Tensor:
        axes, shape = ((0,), (-1,)) if x.dim() == 2 else ((0, 2), (-1, 1))
        mean_C = _sum_over_ranks(x.sum(dim=axes)) / count
        centred = x - mean_C.view(shape)
        # Around the common mean: the difference of two large sums would cancel.
        variance_C = _sum_over_ranks(centred.square().sum(dim=axes)) / count
        self._track(mean_C.detach(), (variance_C * count / (count - 1)).detach())
        scale_C = torch.rsqrt(variance_C + self.eps) * self.weight
        return centred * scale_C.view(shape) + self.bias.view(shape)

    def _track(self, mean_C: Tensor, unbiased_C: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(unbiased_C, self.momentum)


class _SumOverRanks(torch.autograd.Function):
    """The sum over ranks; what flows back is summed over them too."""

    @staticmethod
    def forward(ctx: Any, x_C: Tensor) -> Tensor:
        total = x_C.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _sum_over_ranks(x_C: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(x_C)  # type: ignore[no-untyped-call]
    return total
