"""What the algebra's tests share: modules of expressions, their gradients, degrees in integers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from recsys_had.interactions.algebra import Expr, Interaction

Make = Callable[..., Interaction]


class LargestBytes(TorchDispatchMode):
    """Remembers the size of the largest tensor that an operation gives."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor):
                self.bytes = max(self.bytes, value.numel() * value.element_size())
        return out


@pytest.fixture
def largest_bytes() -> type[LargestBytes]:
    """Watches for the largest tensor made, in both passes."""
    return LargestBytes


@pytest.fixture
def make(randomise: Callable[[nn.Module, int], Interaction]) -> Make:
    """Makes an expression a float64 module with random parameters."""

    def make(root: Expr, *sources: Expr, seed: int = 0) -> Interaction:
        return randomise(Interaction(root, sources), seed)

    return make


@pytest.fixture
def gradients_agree() -> Callable[..., bool]:
    """Compares the gradients of all sources and parameters with finite differences."""

    def gradients_agree(layer: nn.Module, *sources: Tensor) -> bool:
        names = [name for name, _ in layer.named_parameters()]
        values = [value.detach().clone() for value in layer.parameters()]

        def apply(*numbers: Tensor) -> Tensor:
            named = dict(zip(names, numbers[len(sources) :], strict=True))
            out: Tensor = functional_call(layer, named, numbers[: len(sources)])
            return out

        numbers = [value.clone().requires_grad_() for value in [*sources, *values]]
        return torch.autograd.gradcheck(apply, numbers)

    return gradients_agree


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """Compares a layer with a formula of its own weights, in value and in all gradients."""

    def results(
        function: Callable[..., Tensor], layer: nn.Module, sources: Sequence[Tensor]
    ) -> list[Tensor]:
        read = [x.detach().clone().requires_grad_() for x in sources]
        out = function(*read)
        if not out.requires_grad:
            return [out]
        # A gradient of its own for every number of the result.
        upstream = torch.sin(torch.arange(out.numel(), dtype=out.dtype)).view(out.shape)
        wanted = [*read, *layer.parameters()]
        grads = torch.autograd.grad(out, wanted, upstream, materialize_grads=True)
        return [out.detach(), *grads]

    def assert_same(
        layer: nn.Module, formula: Callable[..., Tensor], *sources: Tensor, atol: float = 1e-11
    ) -> None:
        found = results(layer, layer, sources)
        expected = results(formula, layer, sources)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=atol)

    return assert_same


@pytest.fixture
def count_matmuls() -> Callable[..., int]:
    """Counts torch's flops of one row; its counter sees matrix products and nothing else."""

    def count_matmuls(layer: nn.Module, *shapes: tuple[int, int]) -> int:
        dtype = next((weight.dtype for weight in layer.parameters()), torch.float32)
        with FlopCounterMode(display=False) as counter:
            layer(*[torch.ones(1, *shape, dtype=dtype) for shape in shapes])
        return int(counter.get_total_flops())

    return count_matmuls


@pytest.fixture
def exact_degree() -> Callable[..., int | None]:
    """Finds the degree of ``f(t*x)`` in t from integers alone, so that nothing is rounded.

    A polynomial is of degree n exactly where its differences of order n + 1 are zero and those of
    order n are not. Weights, inputs and t are small integers held in float64, sums and products of
    which are exact below 2**53; so is a division by a power of two. None if no difference up to
    ``highest`` + 1 is zero.
    """

    def exact_degree(
        layer: nn.Module, *shapes: tuple[int, int], seed: int = 0, highest: int = 6
    ) -> int | None:
        generator = torch.Generator().manual_seed(seed)

        def integers(*shape: int) -> Tensor:
            size = torch.randint(1, 3, shape, generator=generator)
            sign = 2 * torch.randint(0, 2, shape, generator=generator) - 1
            return (size * sign).double()

        layer.double().eval()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(integers(*parameter.shape))
            sources = [integers(2, *shape) for shape in shapes]
            # Two differences of the highest order; both signs, so that a kink at 0 is seen.
            times = [number - highest // 2 - 1 for number in range(highest + 3)]
            values = np.stack([layer(*[t * x for x in sources]).numpy() for t in times])
        if np.abs(values).max() * 2 ** (highest + 1) >= 2**53:
            raise OverflowError("these integers are too large for float64")
        for order in range(highest + 1):
            if not np.diff(values, n=order + 1, axis=0).any():
                return order
        return None

    return exact_degree
