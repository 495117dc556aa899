"""LHUC: every number scaled by a gate that a context sets."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from recsys_had.interactions import build, express
from recsys_had.interactions.algebra import Interaction, source

SEEDS = range(5)
Shape = tuple[int, int]
Randomise = Callable[[nn.Module, int], Interaction]


def lhuc_of(shape: Shape, context_shape: Shape, hidden_units: int) -> Interaction:
    x, context = source(*shape), source(*context_shape)
    return Interaction(express("lhuc", x, context, hidden_units=hidden_units), [x, context])


def affine(layer: nn.Module, op: str, numbers: list[float]) -> list[float]:
    weight = layer.get_parameter(f"ops.{op}.weight").tolist()
    bias = layer.get_parameter(f"ops.{op}.bias").tolist()
    return [
        sum(w * number for w, number in zip(line, numbers, strict=True)) + shift
        for line, shift in zip(weight, bias, strict=True)
    ]


def plain_lhuc(
    row: list[list[float]], context: list[list[float]], layer: nn.Module
) -> list[list[float]]:
    """Swietojanski et al. 2016, with a gate network on context and features."""
    read = [number for field in [*context, *row] for number in field]
    hidden = [max(z, 0.0) for z in affine(layer, "lin_0", read)]
    gates = iter(2 / (1 + math.exp(-z)) for z in affine(layer, "lin_1", hidden))
    return [[next(gates) * number for number in field] for field in row]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("shape", "context_shape", "hidden_units"),
    [
        ((1, 1), (1, 1), 1),
        ((3, 4), (3, 4), 5),
        ((5, 2), (1, 7), 3),
        ((1, 6), (4, 3), 8),
        ((4, 1), (2, 5), 2),
    ],
)
def test_lhuc_equals_its_formula_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    shape: Shape,
    context_shape: Shape,
    hidden_units: int,
    seed: int,
) -> None:
    layer = randomise(lhuc_of(shape, context_shape, hidden_units), seed)
    x_BFD, context = draw(4, *shape, seed=seed), draw(4, *context_shape, seed=100 + seed)
    rows = zip(x_BFD.tolist(), context.tolist(), strict=True)
    expected = torch.tensor([plain_lhuc(*row, layer) for row in rows], dtype=torch.float64)
    # A single field is flat.
    expected = expected.flatten(1) if shape[0] == 1 else expected
    torch.testing.assert_close(layer(x_BFD, context), expected, rtol=0, atol=1e-12)


def test_lhuc_of_two_numbers_and_a_context_of_one() -> None:
    layer = lhuc_of((2, 1), (1, 1), 2).double()
    ln3 = math.log(3)
    values: list[Any] = [
        [[1.0, 1.0, 0.0], [0.0, -1.0, -1.0]],
        [0.0, 1.0],
        [[ln3 / 2, 5.0], [-ln3 / 2, 7.0]],
        [0.0, 2 * ln3],
    ]
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            numbers = torch.tensor(value, dtype=torch.float64)
            assert parameter.shape == numbers.shape
            parameter.copy_(numbers)
    # c = 1, x = (1, 8): W1 (1, 1, 8) + b1 = (1 + 1, -1 - 8 + 1) = (2, -8), relu (2, 0)
    # W2 (2, 0) + b2 = (ln 3, -ln 3 + 2 ln 3) = (ln 3, ln 3), twice the sigmoid 2 * 3/4 = 3/2
    # so y = (3/2, 12)
    # c = -3: (-3 + 1, -8), relu (0, 0): W2 0 + b2 = (0, 2 ln 3), 2 * (1/2, 9/10) = (1, 9/5)
    # so y = (1, 72/5)
    x = torch.tensor([[[1.0], [8.0]]], dtype=torch.float64).expand(2, 2, 1)
    context = torch.tensor([[[1.0]], [[-3.0]]], dtype=torch.float64)
    expected = torch.tensor([[[1.5], [12.0]], [[1.0], [14.4]]], dtype=torch.float64)
    torch.testing.assert_close(layer(x, context), expected, rtol=0, atol=1e-13)


def test_lhuc_gradients_of_context_and_parameters_equal_finite_differences(
    draw: Callable[..., Tensor], randomise: Randomise
) -> None:
    # That of x leaves out the gates on purpose; it has tests of its own below.
    layer = randomise(lhuc_of((3, 2), (2, 4), 3), 0)
    x_BFD = draw(3, 3, 2, seed=0)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def apply(context: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(names, values, strict=True))
        out: Tensor = functional_call(layer, named, (x_BFD, context))
        return out

    inputs = (draw(3, 2, 4, seed=1), *parameters)
    assert torch.autograd.gradcheck(apply, [v.detach().clone().requires_grad_() for v in inputs])


def test_lhuc_gradients_of_x_equal_finite_differences_where_the_gates_do_not_read_it(
    draw: Callable[..., Tensor], randomise: Randomise
) -> None:
    layer = randomise(lhuc_of((3, 2), (2, 4), 3), 0)
    with torch.no_grad():
        # The context comes first, 2 * 4 numbers of it.
        layer.get_parameter("ops.lin_0.weight")[:, 8:] = 0.0
    context = draw(3, 2, 4, seed=1)
    x_BFD = draw(3, 3, 2, seed=0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x, context), (x_BFD,))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_gradient_flows_from_the_gates_of_lhuc_into_what_they_scale(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(lhuc_of((3, 2), (2, 4), 6), seed)
    x_BFD = draw(4, 3, 2, seed=seed).requires_grad_()
    context, upstream = draw(4, 2, 4, seed=100 + seed), draw(4, 3, 2, seed=200 + seed)
    out = layer(x_BFD, context)
    (gradient,) = torch.autograd.grad(out, x_BFD, upstream)
    gates = (out / x_BFD).detach()
    torch.testing.assert_close(gradient, upstream * gates, rtol=0, atol=1e-12)
    # Though the gates do read x.
    moved = x_BFD.detach() + 1.0
    assert not torch.allclose(layer(moved, context) / moved, gates, rtol=0, atol=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_gates_of_lhuc_lie_between_zero_and_two(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(lhuc_of((3, 2), (2, 4), 6), seed)
    x_BFD, context = draw(50, 3, 2, seed=seed), draw(50, 2, 4, seed=100 + seed)
    with torch.no_grad():
        # Beyond 37 float64's sigmoid is 1.
        for parameter in layer.parameters():
            parameter *= 0.5
    gates = layer(x_BFD, context) / x_BFD
    assert ((gates > 0) & (gates < 2)).all()
    # On both sides of 1.
    assert gates.min() < 0.5
    assert gates.max() > 1.5


@pytest.mark.parametrize("seed", SEEDS)
def test_lhuc_whose_last_map_is_zero_gives_its_input(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(lhuc_of((3, 2), (2, 4), 6), seed)
    with torch.no_grad():
        layer.get_parameter("ops.lin_1.weight").zero_()
        layer.get_parameter("ops.lin_1.bias").zero_()
    x_BFD = draw(4, 3, 2, seed=seed)
    out = layer(x_BFD, draw(4, 2, 4, seed=100 + seed))
    torch.testing.assert_close(out, x_BFD, rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_gates_of_a_new_lhuc_are_near_one_where_the_embeddings_are_small(
    draw: Callable[..., Tensor], seed: int
) -> None:
    torch.manual_seed(seed)
    layer = build("lhuc", num_fields=6, embedding_dim=8).double()
    x_BFD, context = 0.01 * draw(50, 6, 8, seed=seed), 0.01 * draw(50, 6, 8, seed=100 + seed)
    gates = layer(x_BFD, context) / x_BFD
    torch.testing.assert_close(gates, torch.ones_like(gates), rtol=0, atol=0.1)


@pytest.mark.parametrize("hidden_units", [0, -3])
def test_lhuc_refuses_a_width_below_one(hidden_units: int) -> None:
    line = f"lhuc: hidden_units must be at least 1; got {hidden_units}."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("lhuc", num_fields=3, embedding_dim=4, hidden_units=hidden_units)


def test_lhuc_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("lhuc", num_fields=6, embedding_dim=8, hidden_units=5)
    # A map of 48 + 48 numbers to 5 and one of 5 to 48, 2 operations a weight, the bias among them.
    # Beside these 5 relus, and a sigmoid, a doubling and a product for each of 48 numbers.
    weights = 96 * 5 + 5 * 48
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8, 2) == 2 * weights
    assert layer.flops.other == 5 + 3 * 48
    assert layer.flops_per_row == 2 * weights + 5 + 3 * 48
    assert count_parameters(layer) == weights + 5 + 48


def test_lhuc_counts_the_widths_of_both_inputs(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = lhuc_of((6, 8), (2, 5), 3)
    weights = (10 + 48) * 3 + 3 * 48
    assert layer.flops.matmul == 2 * weights
    assert layer.flops.other == 3 + 3 * 48
    assert count_parameters(layer) == weights + 3 + 48


def test_lhuc_that_reads_its_context_alone_is_one_whose_map_of_x_is_zero(
    draw: Callable[..., Tensor], randomise: Randomise
) -> None:
    x, context = source(3, 2), source(2, 4)
    layer = randomise(Interaction(express("lhuc", x, context, reads_x=False), [x, context]), 0)
    whole = randomise(Interaction(express("lhuc", x, context), [x, context]), 1)
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            other = whole.get_parameter(name)
            other.zero_()
            other[tuple(slice(size) for size in weight.shape)] = weight
    given = draw(4, 3, 2, seed=0), draw(4, 2, 4, seed=1)
    torch.testing.assert_close(layer(*given), whole(*given), rtol=0, atol=1e-12)
    assert layer.get_parameter("ops.lin_0.weight").shape == (64, 8)
