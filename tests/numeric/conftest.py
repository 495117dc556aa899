"""What the kinds' tests share: seeded numbers and random weights in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys_had import numeric
from recsys_had.numeric._encoder import Encoder
from recsys_had.numeric.piecewise_linear import PiecewiseLinear

EDGES = torch.tensor([[-1.0, -0.5, 0.75, 2.0], [0.0, 3.0, 3.0, 3.0]])


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    """Gives standard normal float64 numbers of a shape, the same for the same seed."""

    def draw(*shape: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return draw


@pytest.fixture
def make(draw: Callable[..., Tensor]) -> Callable[..., Encoder]:
    """Builds a kind for two columns with random weights, and bins where it has any."""

    def make(kind: str, *, num_columns: int = 2, embedding_dim: int = 3, **options: Any) -> Encoder:
        if kind == "piecewise_linear":
            options = {"num_bins": 3, **options}
        encoder = numeric.build(
            kind, num_columns=num_columns, embedding_dim=embedding_dim, **options
        ).double()
        with torch.no_grad():
            for number, weight in enumerate(encoder.parameters()):
                weight.copy_(draw(*weight.shape, seed=100 + number))
        if isinstance(encoder, PiecewiseLinear):
            encoder.set_edges(0, EDGES[0])
            encoder.set_edges(1, EDGES[1, :2])
        return encoder

    return make
