"""GDCN's gated cross layers."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
SHAPES = [(3, 2), (1, 4), (5, 1)]
Randomise = Callable[[nn.Module, int], Interaction]


def product(matrix: list[list[float]], vector: list[float]) -> list[float]:
    out = []
    for line in matrix:
        total = 0.0
        for entry, number in zip(line, vector, strict=True):
            total += entry * number
        out.append(total)
    return out


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z))


def cross_of(layer: Interaction, number: int) -> tuple[Tensor, Tensor]:
    """Matrix and bias that the layer of this number crosses with."""
    name = f"ops.lin_{2 * number}"
    return layer.get_parameter(f"{name}.weight"), layer.get_parameter(f"{name}.bias")


def gate_of(layer: Interaction, number: int) -> Tensor:
    """Matrix of the gate of the layer of this number."""
    return layer.get_parameter(f"ops.lin_{2 * number + 1}.weight")


def plain_gated_cross(row: list[float], layer: Interaction, num_layers: int) -> list[float]:
    """Wang et al. 2023: ``x[l+1] = x[0] * (W[l] x[l] + b[l]) * sigmoid(G[l] x[l]) + x[l]``."""
    x = row
    for number in range(num_layers):
        weight, bias = cross_of(layer, number)
        mapped = [m + b for m, b in zip(product(weight.tolist(), x), bias.tolist(), strict=True)]
        gate = [sigmoid(z) for z in product(gate_of(layer, number).tolist(), x)]
        x = [row[n] * mapped[n] * gate[n] + x[n] for n in range(len(row))]
    return x


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), SHAPES)
@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_gated_cross_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_layers: int,
    num_fields: int,
    embedding_dim: int,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "gated_cross",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_gated_cross(row, layer, num_layers) for row in x_BFD.flatten(1).tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-11, atol=1e-11)


def test_two_gated_crosses_of_two_numbers() -> None:
    layer = build("gated_cross", num_fields=2, embedding_dim=1, num_layers=2).double()
    three = math.log(3)
    crosses = [([[1.0, 1.0], [0.0, 2.0]], [1.0, -2.0]), ([[0.0, 1.0], [1.0, 0.0]], [0.0, 0.0])]
    gates = [[[three, 0.0], [three, -three]], [[0.0, 0.0], [0.0, three / 3]]]
    with torch.no_grad():
        for number, ((weight, bias), gate) in enumerate(zip(crosses, gates, strict=True)):
            cross_weight, cross_bias = cross_of(layer, number)
            cross_weight.copy_(torch.tensor(weight))
            cross_bias.copy_(torch.tensor(bias))
            gate_of(layer, number).copy_(torch.tensor(gate, dtype=torch.float64))
    # sigmoid(ln 3) = 1 / (1 + 1/3) = 3/4; sigmoid(-ln 3) = 1/4; sigmoid(0) = 1/2
    # x0 = (1, 2); W x0 + b = (1 + 2 + 1, 4 - 2) = (4, 2); G x0 = (ln 3, ln 3 - 2 ln 3 = -ln 3)
    # x1 = (1 * 4 * 3/4 + 1, 2 * 2 * 1/4 + 2) = (4, 3)
    # W x1 = (3, 4); G x1 = (0, ln 3)
    # x2 = (1 * 3 * 1/2 + 4, 2 * 4 * 3/4 + 3) = (5.5, 9)
    out = layer(torch.tensor([[[1.0], [2.0]]], dtype=torch.float64))
    assert out[0].tolist() == pytest.approx([5.5, 9.0], rel=1e-14)


def test_gated_cross_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = randomise(build("gated_cross", num_fields=2, embedding_dim=2, num_layers=2), 0)
    assert check_gradients(layer, draw(3, 2, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_gates_of_zeros_let_half_of_every_cross_pass(
    draw: Callable[..., Tensor], randomise: Randomise, num_layers: int, seed: int
) -> None:
    layer = randomise(
        build("gated_cross", num_fields=3, embedding_dim=2, num_layers=num_layers), seed
    )
    halved = build("hadamard_cross", num_fields=3, embedding_dim=2, num_layers=num_layers).double()
    with torch.no_grad():
        for number in range(num_layers):
            gate_of(layer, number).zero_()
            weight, bias = cross_of(layer, number)
            halved.get_parameter(f"ops.lin_{number}.weight").copy_(weight / 2)
            halved.get_parameter(f"ops.lin_{number}.bias").copy_(bias / 2)
    x_BFD = draw(4, 3, 2, seed=seed)
    torch.testing.assert_close(layer(x_BFD), halved(x_BFD), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_gate_weakens_a_cross_and_never_turns_it(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("gated_cross", num_fields=3, embedding_dim=2, num_layers=1), seed)
    whole = build("hadamard_cross", num_fields=3, embedding_dim=2, num_layers=1).double()
    with torch.no_grad():
        for parameter, value in zip(whole.parameters(), cross_of(layer, 0), strict=True):
            parameter.copy_(value)
    x_BFD = draw(20, 3, 2, seed=seed)
    x_BN = x_BFD.flatten(1)
    passed = (layer(x_BFD) - x_BN) / (whole(x_BFD) - x_BN)
    assert (passed > 0).all()
    assert (passed < 1).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_gated_cross_of_zeros_is_zero_whatever_the_biases(randomise: Randomise, seed: int) -> None:
    layer = randomise(build("gated_cross", num_fields=3, embedding_dim=4), seed)
    assert not layer(torch.zeros(2, 3, 4, dtype=torch.float64)).any()


@pytest.mark.parametrize("num_layers", [0, -2])
def test_gated_cross_refuses_no_layer(num_layers: int) -> None:
    line = f"gated_cross: num_layers must be at least 1; got {num_layers}."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("gated_cross", num_fields=3, embedding_dim=4, num_layers=num_layers)


def test_gated_cross_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("gated_cross", num_fields=5, embedding_dim=8, num_layers=2)
    # Each of 2 layers has two maps of 40 x 40, 2 operations a weight, and to each of 40 numbers a
    # sigmoid, a product with x0, one with the gate, and a sum with x.
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 8) == 2 * 2 * 2 * 1600
    assert layer.flops.other == 2 * 4 * 40
    # Two matrices, and the bias of the first, in each of 2 layers.
    assert count_parameters(layer) == 2 * (2 * 1600 + 40)
