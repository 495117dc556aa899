"""FinalMLP's feature selection: every number scaled by a gate that a context alone sets."""

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
Row = list[list[float]]
Randomise = Callable[[nn.Module, int], Interaction]


def selection_of(shape: Shape, context_shape: Shape, hidden_units: tuple[int, ...]) -> Interaction:
    x, context = source(*shape), source(*context_shape)
    found = express("feature_selection", x, context, hidden_units=hidden_units)
    return Interaction(found, [x, context])


def affine(layer: nn.Module, op: str, numbers: list[float]) -> list[float]:
    weight = layer.get_parameter(f"ops.{op}.weight").tolist()
    bias = layer.get_parameter(f"ops.{op}.bias").tolist()
    return [
        sum(w * number for w, number in zip(line, numbers, strict=True)) + shift
        for line, shift in zip(weight, bias, strict=True)
    ]


def plain_selection(row: Row, context: Row, layer: nn.Module, num_hidden: int) -> Row:
    """Mao et al. 2023: twice the sigmoid of a network of the context, times the features."""
    hidden = [number for field in context for number in field]
    for number in range(num_hidden):
        hidden = [max(z, 0.0) for z in affine(layer, f"lin_{number}", hidden)]
    gates = iter(2 / (1 + math.exp(-z)) for z in affine(layer, f"lin_{num_hidden}", hidden))
    return [[next(gates) * number for number in field] for field in row]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("shape", "context_shape", "hidden_units"),
    [
        ((1, 1), (1, 1), (1,)),
        ((3, 4), (3, 4), (5,)),
        ((5, 2), (1, 7), (3, 4)),
        ((1, 6), (4, 3), (8,)),
        ((4, 1), (2, 5), (2, 3, 4)),
    ],
)
def test_feature_selection_equals_its_formula_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    shape: Shape,
    context_shape: Shape,
    hidden_units: tuple[int, ...],
    seed: int,
) -> None:
    layer = randomise(selection_of(shape, context_shape, hidden_units), seed)
    x_BFD, context = draw(4, *shape, seed=seed), draw(4, *context_shape, seed=100 + seed)
    rows = zip(x_BFD.tolist(), context.tolist(), strict=True)
    expected = torch.tensor(
        [plain_selection(*row, layer, len(hidden_units)) for row in rows], dtype=torch.float64
    )
    # A single field is flat.
    expected = expected.flatten(1) if shape[0] == 1 else expected
    torch.testing.assert_close(layer(x_BFD, context), expected, rtol=0, atol=1e-12)


def test_feature_selection_of_two_numbers_and_a_context_of_one() -> None:
    layer = selection_of((2, 1), (1, 1), (2,)).double()
    ln3 = math.log(3)
    values: list[Any] = [
        [[1.0], [-1.0]],
        [1.0, 0.0],
        [[ln3 / 2, 5.0], [-ln3 / 2, 0.0]],
        [0.0, 2 * ln3],
    ]
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            numbers = torch.tensor(value, dtype=torch.float64)
            assert parameter.shape == numbers.shape
            parameter.copy_(numbers)
    # c = 1: (1 + 1, -1), relu (2, 0); W2 of it + b2 = (ln 3, -ln 3 + 2 ln 3) = (ln 3, ln 3),
    #   twice the sigmoid 2 * 3/4 = 3/2, so (3/2 * 1, 3/2 * 8) = (3/2, 12)
    # c = -1: (-1 + 1, 1), relu (0, 1); (5, 2 ln 3): 2 / (1 + e^-5), 2 * 9/10 = 9/5, so (.., 72/5)
    x = torch.tensor([[[1.0], [8.0]]], dtype=torch.float64).expand(2, 2, 1)
    context = torch.tensor([[[1.0]], [[-1.0]]], dtype=torch.float64)
    expected = torch.tensor(
        [[[1.5], [12.0]], [[2 / (1 + math.exp(-5))], [14.4]]], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x, context), expected, rtol=0, atol=1e-13)


def test_feature_selection_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], randomise: Randomise
) -> None:
    layer = randomise(selection_of((3, 2), (2, 4), (3, 4)), 0)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def apply(x: Tensor, context: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(names, values, strict=True))
        out: Tensor = functional_call(layer, named, (x, context))
        return out

    inputs = (draw(3, 3, 2, seed=0), draw(3, 2, 4, seed=1), *parameters)
    assert torch.autograd.gradcheck(apply, [v.detach().clone().requires_grad_() for v in inputs])


@pytest.mark.parametrize("seed", SEEDS)
def test_gates_of_feature_selection_lie_between_zero_and_two_and_do_not_read_x(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(selection_of((3, 2), (2, 4), (6,)), seed)
    x_BFD, context = draw(50, 3, 2, seed=seed), draw(50, 2, 4, seed=100 + seed)
    with torch.no_grad():
        # Beyond 37 float64's sigmoid is 1.
        for parameter in layer.parameters():
            parameter.mul_(0.5)
    gates = layer(x_BFD, context) / x_BFD
    assert ((gates > 0) & (gates < 2)).all()
    # On both sides of 1.
    assert gates.min() < 0.5
    assert gates.max() > 1.5
    other = draw(50, 3, 2, seed=200 + seed)
    torch.testing.assert_close(layer(other, context) / other, gates, rtol=1e-12, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_feature_selection_whose_last_map_is_zero_gives_its_input(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(selection_of((3, 2), (2, 4), (6,)), seed)
    with torch.no_grad():
        layer.get_parameter("ops.lin_1.weight").zero_()
        layer.get_parameter("ops.lin_1.bias").zero_()
    x_BFD = draw(4, 3, 2, seed=seed)
    out = layer(x_BFD, draw(4, 2, 4, seed=100 + seed))
    torch.testing.assert_close(out, x_BFD, rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_gates_of_a_new_feature_selection_are_near_one_where_embeddings_are_small(
    draw: Callable[..., Tensor], seed: int
) -> None:
    torch.manual_seed(seed)
    layer = build("feature_selection", num_fields=6, embedding_dim=8).double()
    x_BFD, context = draw(50, 6, 8, seed=seed), draw(50, 6, 8, seed=100 + seed)
    gates = layer(x_BFD, 0.01 * context) / x_BFD
    torch.testing.assert_close(gates, torch.ones_like(gates), rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("hidden_units", "told"), [((), "[]"), ((8, 0), "[8, 0]"), ((-1,), "[-1]")]
)
def test_feature_selection_refuses_a_network_without_width(
    hidden_units: tuple[int, ...], told: str
) -> None:
    line = f"feature_selection: hidden_units must be one positive width or more; got {told}."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("feature_selection", num_fields=3, embedding_dim=4, hidden_units=hidden_units)


def test_feature_selection_refuses_to_be_without_a_context() -> None:
    line = "feature_selection: reads 2 inputs; got 1."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        express("feature_selection", source(3, 4))


def test_feature_selection_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("feature_selection", num_fields=6, embedding_dim=8, hidden_units=(5, 7))
    # 48 numbers to 5, those to 7, those to 48, 2 operations a weight, the bias among them. Beside
    # these 5 + 7 relus, and a sigmoid, a doubling and a product for each of 48 numbers.
    weights = 48 * 5 + 5 * 7 + 7 * 48
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8, 2) == 2 * weights
    assert layer.flops.other == 5 + 7 + 3 * 48
    assert layer.flops_per_row == 2 * weights + 5 + 7 + 3 * 48
    assert count_parameters(layer) == weights + 5 + 7 + 48


def test_feature_selection_counts_the_widths_of_both_inputs(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = selection_of((6, 8), (2, 5), (3,))
    weights = 10 * 3 + 3 * 48
    assert layer.flops.matmul == 2 * weights
    assert layer.flops.other == 3 + 3 * 48
    assert count_parameters(layer) == weights + 3 + 48
