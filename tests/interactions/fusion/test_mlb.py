"""MLB: two inputs multiplied in a common low-rank space."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from recsys_had.interactions import build, express
from recsys_had.interactions.algebra import Activation, Interaction, source

SEEDS = range(5)
ACTIVATIONS: dict[Activation, Callable[[float], float]] = {
    "relu": lambda z: max(z, 0.0),
    "relu6": lambda z: min(max(z, 0.0), 6.0),
    "gelu": lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2,
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "silu": lambda z: z / (1 + math.exp(-z)),
    "tanh": math.tanh,
    "exp": math.exp,
    "identity": lambda z: z,
}
Shape = tuple[int, int]
Randomise = Callable[[nn.Module, int], Interaction]


def mlb_of(first: Shape, second: Shape, **options: Any) -> Interaction:
    x, y = source(*first), source(*second)
    return Interaction(express("mlb", x, y, **options), [x, y])


def linear(layer: nn.Module, op: str, numbers: list[float]) -> list[float]:
    weight = layer.get_parameter(f"ops.{op}.weight").tolist()
    return [sum(w * number for w, number in zip(line, numbers, strict=True)) for line in weight]


def plain_mlb(
    x: list[list[float]], y: list[list[float]], layer: nn.Module, activation: Activation
) -> list[float]:
    """Kim et al. 2017, low-rank bilinear pooling with an activation of both maps."""
    act = ACTIVATIONS[activation]
    first = linear(layer, "lin_0", [number for field in x for number in field])
    second = linear(layer, "lin_1", [number for field in y for number in field])
    product = [act(a) * act(b) for a, b in zip(first, second, strict=True)]
    bias = layer.get_parameter("ops.lin_2.bias").tolist()
    return [a + b for a, b in zip(linear(layer, "lin_2", product), bias, strict=True)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("first", "second", "rank", "out"),
    [
        ((1, 1), (1, 1), 1, 1),
        ((3, 4), (3, 4), 5, 2),
        ((5, 2), (1, 7), 3, 6),
        ((1, 6), (4, 3), 1, 3),
        ((2, 3), (3, 1), 8, 1),
    ],
)
def test_mlb_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    first: Shape,
    second: Shape,
    rank: int,
    out: int,
    seed: int,
) -> None:
    layer = randomise(mlb_of(first, second, rank=rank, out=out), seed)
    x, y = draw(4, *first, seed=seed), draw(4, *second, seed=100 + seed)
    rows = zip(x.tolist(), y.tolist(), strict=True)
    expected = torch.tensor([plain_mlb(*row, layer, "tanh") for row in rows], dtype=torch.float64)
    torch.testing.assert_close(layer(x, y), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlb_puts_the_activation_it_is_given_on_both_maps(
    draw: Callable[..., Tensor], randomise: Randomise, activation: Activation, seed: int
) -> None:
    layer = randomise(mlb_of((3, 2), (2, 4), rank=4, out=3, activation=activation), seed)
    x, y = draw(4, 3, 2, seed=seed), draw(4, 2, 4, seed=100 + seed)
    rows = zip(x.tolist(), y.tolist(), strict=True)
    expected = torch.tensor(
        [plain_mlb(*row, layer, activation) for row in rows], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x, y), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        # U x = (1 + 2, 2*2) = (3, 4); V y = (2 - 3, 3*2) = (-1, 6); product (-3, 24)
        # 2 * -3 + 5 * 24 + 7 = 121
        ("identity", 121.0),
        # relu (3, 4) * relu (-1, 6) = (3, 4) * (0, 6) = (0, 24);  2 * 0 + 5 * 24 + 7 = 127
        ("relu", 127.0),
    ],
)
def test_mlb_of_two_inputs_of_two_numbers(activation: Activation, expected: float) -> None:
    layer = build("mlb", num_fields=1, embedding_dim=2, rank=2, out=1, activation=activation)
    values: list[Any] = [[[1.0, 1.0], [0.0, 2.0]], [[1.0, -1.0], [3.0, 0.0]], [[2.0, 5.0]], [7.0]]
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            assert parameter.shape == torch.tensor(value).shape
            parameter.copy_(torch.tensor(value))
    out = layer(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[2.0, 3.0]]]))
    assert out.tolist() == [[expected]]


def test_mlb_of_two_numbers_takes_hyperbolic_tangents_by_default() -> None:
    layer = build("mlb", num_fields=1, embedding_dim=1, rank=2, out=2).double()
    values: list[Any] = [[[1.0], [-1.0]], [[1.0], [1.0]], [[5.0, 0.0], [5.0, 10.0]], [0.0, 1.0]]
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            assert parameter.shape == torch.tensor(value).shape
            parameter.copy_(torch.tensor(value))
    # tanh(ln 2) = (2 - 1/2) / (2 + 1/2) = 0.6; tanh(ln 3) = (3 - 1/3) / (3 + 1/3) = 0.8
    # U x = (ln 2, -ln 2), V y = (ln 3, ln 3): product (0.6, -0.6) * (0.8, 0.8) = (0.48, -0.48)
    # 5 * 0.48 + 0 = 2.4;  5 * 0.48 - 10 * 0.48 + 1 = -1.4
    x = torch.tensor([[[math.log(2)]]], dtype=torch.float64)
    y = torch.tensor([[[math.log(3)]]], dtype=torch.float64)
    expected = torch.tensor([[2.4, -1.4]], dtype=torch.float64)
    torch.testing.assert_close(layer(x, y), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("activation", ["tanh", "identity"])
def test_mlb_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], randomise: Randomise, activation: Activation
) -> None:
    layer = randomise(mlb_of((3, 2), (2, 4), rank=3, out=2, activation=activation), 0)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def apply(x: Tensor, y: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = functional_call(layer, dict(zip(names, values, strict=True)), (x, y))
        return out

    inputs = (draw(2, 3, 2, seed=0), draw(2, 2, 4, seed=1), *parameters)
    assert torch.autograd.gradcheck(apply, [v.detach().clone().requires_grad_() for v in inputs])


@pytest.mark.parametrize("seed", SEEDS)
def test_mlb_without_activation_scales_with_either_input_but_for_its_bias(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(mlb_of((3, 2), (2, 4), rank=5, out=3, activation="identity"), seed)
    x, y = draw(4, 3, 2, seed=seed), draw(4, 2, 4, seed=100 + seed)
    bias = layer.get_parameter("ops.lin_2.bias")
    scaled = -2.5 * (layer(x, y) - bias)
    torch.testing.assert_close(layer(-2.5 * x, y) - bias, scaled, rtol=0, atol=1e-11)
    torch.testing.assert_close(layer(x, -2.5 * y) - bias, scaled, rtol=0, atol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
def test_mlb_without_activation_is_a_polynomial_of_degree_two(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[..., int | None],
    seed: int,
) -> None:
    layer = randomise(mlb_of((3, 2), (2, 4), rank=5, out=3, activation="identity"), seed)
    x, y = draw(2, 3, 2, seed=seed), draw(2, 2, 4, seed=100 + seed)
    assert measure_degree(layer, x, y) == layer.degree == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_mlb_with_tanh_turns_its_sign_with_either_input_but_for_its_bias(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(mlb_of((3, 2), (2, 4), rank=5, out=3), seed)
    x, y = draw(4, 3, 2, seed=seed), draw(4, 2, 4, seed=100 + seed)
    bias = layer.get_parameter("ops.lin_2.bias")
    turned = bias - layer(x, y)
    torch.testing.assert_close(layer(-x, y) - bias, turned, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(x, -y) - bias, turned, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_mlb_with_tanh_is_no_farther_from_its_bias_than_its_last_weights_allow(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(mlb_of((3, 2), (2, 4), rank=5, out=3), seed)
    x, y = 100 * draw(50, 3, 2, seed=seed), 100 * draw(50, 2, 4, seed=100 + seed)
    bound = layer.get_parameter("ops.lin_2.weight").abs().sum(dim=1)
    distance = (layer(x, y) - layer.get_parameter("ops.lin_2.bias")).abs()
    assert (distance <= bound + 1e-12).all()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"rank": 0}, "rank must be at least 1; got 0."),
        ({"out": -2}, "out must be at least 1; got -2."),
        (
            {"activation": "swish"},
            "activation must be one of relu, relu6, sigmoid, tanh, gelu, silu, exp, identity; "
            "got 'swish'.",
        ),
    ],
)
def test_mlb_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('mlb: ' + line)}$"):
        build("mlb", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(("activation", "act_flops"), [("tanh", 1), ("identity", 0)])
def test_mlb_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    activation: Activation,
    act_flops: int,
) -> None:
    layer = build("mlb", num_fields=6, embedding_dim=8, rank=5, out=7, activation=activation)
    # Two maps of 48 numbers to 5 and one of 5 to 7, 2 operations a weight, the bias among them.
    # Beside these 5 products, and an activation of twice 5 numbers.
    weights = 2 * 48 * 5 + 5 * 7
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8, 2) == 2 * weights
    assert layer.flops.other == 5 + act_flops * 2 * 5
    assert layer.flops_per_row == 2 * weights + 5 + act_flops * 2 * 5
    assert count_parameters(layer) == weights + 7


def test_mlb_counts_the_widths_of_both_inputs(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = mlb_of((6, 8), (2, 5), rank=3, out=4)
    weights = (48 + 10) * 3 + 3 * 4
    assert layer.flops.matmul == 2 * weights
    assert count_parameters(layer) == weights + 4
