"""What regime ``published`` does as the public boards' runs did, and today's defaults do not.

Most of those runs ran on torch 1.0. Beside dense Adam on whole tables with an L2 penalty, which are
settings, three things decide what comes out, the first two unless ``train.legacy_defaults`` is
false, as it is where the published run's torch was a later one:

- Adam divides by ``(sqrt(v) + eps) / sqrt(1 - beta2^t)``, the form at the end of section 2 of
  Kingma and Ba 2015 (arXiv:1412.6980), where today's divides by ``sqrt(v / (1 - beta2^t)) + eps``.
  Its eps weighs 32 times as much at the first step, 4.5 times at the 50th and 1.3 times at the
  1000th, so vectors of rare ids, whose gradients are as small as eps, begin more slowly.
- The scales of batch normalisation begin uniform in [0, 1), where today's begin at 1.
- The plateau lowers no learning rate below 1e-6.
"""

import math

import torch
from torch import nn

from recsys_had.seeds import derived_seed

LEAST_RATE = 1e-6


def adam_eps(eps: float, *, beta2: float, step: int) -> float:
    """The eps today's Adam needs to do what the boards' did with ``eps``, at a 0-based step.

    >>> round(adam_eps(1e-8, beta2=0.999, step=0) / 1e-8, 1)
    31.6
    """
    return eps / math.sqrt(1 - beta2 ** (step + 1))


def draw_scales(network: nn.Module, *, seed: int) -> None:
    """Draws the scales of every batch normalisation anew, uniform in [0, 1).

    Args:
        network: changed in place. A module's draws depend on the seed and its name alone.
        seed: of the run.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm1d):
            luck = torch.Generator().manual_seed(derived_seed(seed, name) >> 1)
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.weight.shape, generator=luck))
