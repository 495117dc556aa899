"""Gated linear units: a linear map times another one, activated."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Activation, Interaction

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
Randomise = Callable[[nn.Module, int], Interaction]


def affine(layer: nn.Module, op: str, numbers: list[float]) -> list[float]:
    weight = layer.get_parameter(f"ops.{op}.weight").tolist()
    bias = layer.get_parameter(f"ops.{op}.bias").tolist()
    return [
        sum(w * number for w, number in zip(line, numbers, strict=True)) + shift
        for line, shift in zip(weight, bias, strict=True)
    ]


def plain_glu(row: list[list[float]], layer: nn.Module, activation: Activation) -> list[float]:
    """Shazeer 2020, eq. 5, without the map back."""
    numbers = [number for field in row for number in field]
    gates = [ACTIVATIONS[activation](z) for z in affine(layer, "lin_1", numbers)]
    return [a * b for a, b in zip(affine(layer, "lin_0", numbers), gates, strict=True)]


def set_parameters(layer: nn.Module, values: list[Any]) -> None:
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            assert parameter.shape == torch.tensor(value).shape
            parameter.copy_(torch.tensor(value))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("num_fields", "embedding_dim", "hidden_units"), [(1, 3, 2), (2, 1, 1), (3, 4, 5), (4, 2, 8)]
)
def test_glu_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    hidden_units: int,
    seed: int,
) -> None:
    layer = randomise(
        build("glu", num_fields=num_fields, embedding_dim=embedding_dim, hidden_units=hidden_units),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_glu(row, layer, "silu") for row in x_BFD.tolist()], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_glu_gates_with_the_activation_it_is_given(
    draw: Callable[..., Tensor], randomise: Randomise, activation: Activation, seed: int
) -> None:
    layer = randomise(
        build("glu", num_fields=3, embedding_dim=2, hidden_units=4, activation=activation), seed
    )
    x_BFD = draw(4, 3, 2, seed=seed)
    expected = torch.tensor(
        [plain_glu(row, layer, activation) for row in x_BFD.tolist()], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        # x = (3, 1): W1 x + b1 = (3 + 2, 1 + 1) = (5, 2); W2 x + b2 = (3 - 1 - 3, 6 - 1) = (-1, 5)
        # (5 * -1, 2 * 5) = (-5, 10)
        ("identity", [-5.0, 10.0]),
        # relu (-1, 5) = (0, 5): (5 * 0, 2 * 5) = (0, 10)
        ("relu", [0.0, 10.0]),
    ],
)
def test_glu_of_one_field_of_two_numbers(activation: Activation, expected: list[float]) -> None:
    layer = build("glu", num_fields=1, embedding_dim=2, hidden_units=2, activation=activation)
    set_parameters(
        layer, [[[1.0, 2.0], [0.0, 1.0]], [0.0, 1.0], [[1.0, -1.0], [2.0, 0.0]], [-3.0, -1.0]]
    )
    assert layer(torch.tensor([[[3.0, 1.0]]])).tolist() == [expected]


def test_glu_of_a_single_number_is_swiglu_by_default() -> None:
    layer = build("glu", num_fields=1, embedding_dim=1, hidden_units=1).double()
    set_parameters(layer, [[[0.0]], [4.0], [[1.0]], [0.0]])
    # x = ln 3: silu(ln 3) = ln 3 * 3 / (3 + 1) = 3/4 ln 3;  (0 * ln 3 + 4) * 3/4 ln 3 = 3 ln 3
    x = torch.tensor([[[math.log(3)]]], dtype=torch.float64)
    expected = torch.tensor([[3 * math.log(3)]], dtype=torch.float64)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("activation", ["silu", "sigmoid", "gelu", "identity"])
def test_glu_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    activation: Activation,
) -> None:
    layer = randomise(
        build("glu", num_fields=3, embedding_dim=2, hidden_units=3, activation=activation), 0
    )
    assert check_gradients(layer, draw(3, 3, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_glu_without_activation_is_a_polynomial_of_degree_two(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = randomise(
        build("glu", num_fields=3, embedding_dim=2, hidden_units=4, activation="identity"), seed
    )
    assert measure_degree(layer, draw(2, 3, 2, seed=seed)) == layer.degree == 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_glu_whose_gates_do_not_read_the_row_is_affine(
    draw: Callable[..., Tensor], randomise: Randomise, activation: Activation, seed: int
) -> None:
    layer = randomise(
        build("glu", num_fields=3, embedding_dim=2, hidden_units=4, activation=activation), seed
    )
    with torch.no_grad():
        layer.get_parameter("ops.lin_1.weight").zero_()
    first, second = draw(4, 3, 2, seed=seed), draw(4, 3, 2, seed=100 + seed)
    between = 0.25 * layer(first) + 0.75 * layer(second)
    torch.testing.assert_close(layer(0.25 * first + 0.75 * second), between, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_glu_with_relu_is_zero_exactly_where_its_second_map_is_not_positive(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(
        build("glu", num_fields=3, embedding_dim=2, hidden_units=8, activation="relu"), seed
    )
    x_BFD = draw(20, 3, 2, seed=seed)
    weight, bias = layer.get_parameter("ops.lin_1.weight"), layer.get_parameter("ops.lin_1.bias")
    closed = x_BFD.flatten(1) @ weight.T + bias <= 0
    assert closed.any() and not closed.all()
    assert torch.equal(layer(x_BFD) == 0, closed)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"hidden_units": 0}, "hidden_units must be at least 1; got 0."),
        (
            {"activation": "swish"},
            "activation must be one of relu, relu6, sigmoid, tanh, gelu, silu, exp, identity; "
            "got 'swish'.",
        ),
    ],
)
def test_glu_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('glu: ' + line)}$"):
        build("glu", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(("activation", "act_flops"), [("silu", 1), ("identity", 0)])
def test_glu_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    activation: Activation,
    act_flops: int,
) -> None:
    layer = build("glu", num_fields=6, embedding_dim=8, hidden_units=5, activation=activation)
    # Two maps of 48 numbers to 5, 2 operations a weight, the bias among them. Beside these an
    # activation and a product for each of 5 numbers.
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8) == 2 * 2 * 48 * 5
    assert layer.flops.other == (act_flops + 1) * 5
    assert layer.flops_per_row == 2 * 2 * 48 * 5 + (act_flops + 1) * 5
    assert count_parameters(layer) == 2 * (48 * 5 + 5)
