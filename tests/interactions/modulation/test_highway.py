"""Highway layers."""

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
    "tanh": math.tanh,
    "identity": lambda z: z,
}
Randomise = Callable[[nn.Module, int], Interaction]


def affine(layer: Interaction, number: int, row: list[float]) -> list[float]:
    weight = layer.get_parameter(f"ops.lin_{number}.weight").tolist()
    bias = layer.get_parameter(f"ops.lin_{number}.bias").tolist()
    return [
        sum(w * value for w, value in zip(line, row, strict=True)) + start
        for line, start in zip(weight, bias, strict=True)
    ]


def plain_highway(
    row: list[float], layer: Interaction, num_layers: int, activation: Activation
) -> list[float]:
    """Srivastava et al. 2015: ``H(x) * T(x) + x * (1 - T(x))``."""
    for number in range(num_layers):
        gates = [1 / (1 + math.exp(-z)) for z in affine(layer, 2 * number, row)]
        made = [ACTIVATIONS[activation](z) for z in affine(layer, 2 * number + 1, row)]
        row = [h * t + x * (1 - t) for h, t, x in zip(made, gates, row, strict=True)]
    return row


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(1, 3), (3, 2), (4, 1)])
def test_highway_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    num_layers: int,
    activation: Activation,
    seed: int,
) -> None:
    layer = build(
        "highway",
        num_fields=num_fields,
        embedding_dim=embedding_dim,
        num_layers=num_layers,
        activation=activation,
    )
    layer = randomise(layer, seed)
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_highway(row, layer, num_layers, activation) for row in x_BFD.flatten(1).tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


def test_two_highway_layers_of_two_numbers() -> None:
    layer = build("highway", num_fields=2, embedding_dim=1, num_layers=2).double()
    ln3 = math.log(3)
    maps = [
        ([[ln3, 0.0], [0.0, 0.0]], [0.0, -ln3]),
        ([[1.0, 2.0], [1.0, -1.0]], [0.0, -1.0]),
        ([[0.0, 0.0], [0.0, 2 * ln3 / 3]], [0.0, 0.0]),
        ([[1.0, 0.0], [0.0, 2.0]], [2.0, 0.0]),
    ]
    with torch.no_grad():
        for number, (weight, bias) in enumerate(maps):
            for name, value in (("weight", weight), ("bias", bias)):
                layer.get_parameter(f"ops.lin_{number}.{name}").copy_(
                    torch.tensor(value, dtype=torch.float64)
                )
    # sigmoid(ln 3) = 3/4, sigmoid(-ln 3) = 1/4, sigmoid(0) = 1/2
    # x = (1, 2): T = (3/4, 1/4); H = relu(1 + 4, 1 - 2 - 1) = (5, 0)
    #   (5 * 3/4 + 1 * 1/4, 0 + 2 * 3/4) = (4, 1.5)
    # x = (4, 1.5): T = (1/2, sigmoid(ln 3) = 3/4); H = relu(4 + 2, 3) = (6, 3)
    #   (6 / 2 + 4 / 2, 3 * 3/4 + 1.5 * 1/4) = (5, 2.625)
    out = layer(torch.tensor([[[1.0], [2.0]]], dtype=torch.float64))
    assert out[0].tolist() == pytest.approx([5.0, 2.625], rel=1e-14)


def test_highway_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = randomise(build("highway", num_fields=2, embedding_dim=2), 0)
    assert check_gradients(layer, draw(3, 2, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_highway_stays_between_its_input_and_what_it_makes(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("highway", num_fields=3, embedding_dim=2, num_layers=1), seed)
    x_BFD = draw(20, 3, 2, seed=seed)
    x_BN = x_BFD.flatten(1)
    made = torch.relu(
        x_BN @ layer.get_parameter("ops.lin_1.weight").T + layer.get_parameter("ops.lin_1.bias")
    )
    share = (layer(x_BFD) - x_BN) / (made - x_BN)
    assert (share > 0).all()
    assert (share < 1).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("gate_bias", "activation"), [(-1e3, "relu"), (1e3, "tanh")])
def test_a_shut_highway_carries_its_input_and_an_open_one_replaces_it(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    gate_bias: float,
    activation: Activation,
    seed: int,
) -> None:
    options = {"num_fields": 3, "embedding_dim": 2, "num_layers": 1, "activation": activation}
    layer = randomise(build("highway", **options), seed)
    nn.init.constant_(layer.get_parameter("ops.lin_0.bias"), gate_bias)
    x_BFD = draw(4, 3, 2, seed=seed)
    x_BN = x_BFD.flatten(1)
    weight, bias = (layer.get_parameter(f"ops.lin_1.{name}") for name in ("weight", "bias"))
    expected = x_BN if gate_bias < 0 else torch.tanh(x_BN @ weight.T + bias)
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("options", "start"), [({}, -1.0), ({"gate_bias": -3}, -3.0)])
def test_the_biases_of_highway_gates_begin_where_they_are_told(
    options: dict[str, float], start: float
) -> None:
    layer = build("highway", num_fields=3, embedding_dim=2, **options)
    biases = {number: layer.get_parameter(f"ops.lin_{number}.bias") for number in range(4)}
    assert (torch.stack([biases[0], biases[2]]) == start).all()
    assert not torch.stack([biases[1], biases[3]]).any()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_highway_is_no_polynomial_as_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    activation: Activation,
    seed: int,
) -> None:
    layer = build("highway", num_fields=3, embedding_dim=4, activation=activation)
    assert layer.degree is None
    assert measure_degree(randomise(layer, seed), draw(4, 3, 4, seed=seed)) is None


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        (
            {"activation": "step"},
            "activation must be one of relu, relu6, sigmoid, tanh, gelu, silu, exp, identity; "
            "got 'step'.",
        ),
    ],
)
def test_highway_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('highway: ' + line)}$"):
        build("highway", num_fields=3, embedding_dim=4, **options)


def test_highway_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("highway", num_fields=5, embedding_dim=8, num_layers=2)
    # Each of 2 layers has two maps of 40 x 40, and to each of 40 numbers a sigmoid, a relu, a
    # difference, a product and a sum.
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 8) == 2 * 2 * 2 * 1600
    assert layer.flops.other == 2 * 5 * 40
    assert layer.flops_per_row == 2 * (2 * 2 * 1600 + 5 * 40)
    assert count_parameters(layer) == 2 * 2 * (1600 + 40)
