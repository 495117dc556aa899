"""What the layers' tests share: seeded inputs, random weights, measured degree and cost."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

Draw = Callable[..., Tensor]

_HIGHEST_ORDER = 8


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keeps torch to one thread: on layers this small, waiting for a second takes far longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def draw() -> Draw:
    """Gives standard normal float64 numbers of a shape, the same for the same seed."""

    def draw(*shape: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return draw


@pytest.fixture
def randomise(draw: Draw) -> Callable[[nn.Module, int], nn.Module]:
    """Makes a layer float64 and gives every parameter, zero biases too, a random value."""

    def randomise(layer: nn.Module, seed: int) -> nn.Module:
        layer.double()
        with torch.no_grad():
            for number, parameter in enumerate(layer.parameters()):
                parameter.copy_(draw(*parameter.shape, seed=1000 * seed + number))
        return layer

    return randomise


@pytest.fixture
def measure_degree() -> Callable[..., int | None]:
    """Measures the degree of ``f(t*x)`` as a polynomial in t; None if it is above 7 or none.

    Of several inputs, all are multiplied by t.
    """

    def measure_degree(layer: nn.Module, *inputs: Tensor) -> int | None:
        # Both signs of t: with relu and no bias a layer is a polynomial on either side of zero.
        times = np.arange(_HIGHEST_ORDER + 2) - (_HIGHEST_ORDER + 1) / 2
        with torch.no_grad():
            values = np.stack(
                [layer(*[float(t) * x for x in inputs]).flatten().numpy() for t in times]
            )
        for order in range(_HIGHEST_ORDER, -1, -1):
            # A difference of this order adds up 2**order values; 1e-11 of that is far above
            # float64's rounding and far below the leading coefficient of a random polynomial.
            noise = 1e-11 * 2**order * np.abs(values).max()
            if np.abs(np.diff(values, n=order, axis=0)).max() > noise:
                return None if order == _HIGHEST_ORDER else order
        return 0

    return measure_degree


@pytest.fixture
def count_matmul_flops() -> Callable[..., int]:
    """Counts torch's flops of one row; its counter sees matrix products and nothing else."""

    def count_matmul_flops(
        layer: nn.Module, num_fields: int, embedding_dim: int, num_inputs: int = 1
    ) -> int:
        inputs = [torch.ones(1, num_fields, embedding_dim)] * num_inputs
        with FlopCounterMode(display=False) as counter:
            layer(*inputs)
        return int(counter.get_total_flops())

    return count_matmul_flops


@pytest.fixture
def count_parameters() -> Callable[[nn.Module], int]:
    """Counts the trained numbers of a layer."""
    return lambda layer: sum(parameter.numel() for parameter in layer.parameters())


@pytest.fixture
def check_gradients() -> Callable[[nn.Module, Tensor], bool]:
    """Compares the gradients of input and parameters with finite differences."""

    def check_gradients(layer: nn.Module, x_BFD: Tensor) -> bool:
        names = [name for name, _ in layer.named_parameters()]
        values = [value.detach().clone().requires_grad_() for value in layer.parameters()]

        def apply(x: Tensor, *parameters: Tensor) -> Tensor:
            named = dict(zip(names, parameters, strict=True))
            out: Tensor = functional_call(layer, named, (x,))
            return out

        return torch.autograd.gradcheck(apply, (x_BFD.clone().requires_grad_(), *values))

    return check_gradients
