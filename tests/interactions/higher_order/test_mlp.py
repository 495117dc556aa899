"""The deep part."""

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
}
Randomise = Callable[[nn.Module, int], Interaction]
HIDDEN_UNITS = (5, 4)


def plain_mlp(
    rows: list[list[float]], layer: Interaction, activation: Activation, batch_norm: bool
) -> list[list[float]]:
    """Guo et al. 2017, sec. 2.1, with Ioffe and Szegedy 2015, algorithm 1, where it is asked."""
    act = ACTIVATIONS[activation]
    for number in range(len(HIDDEN_UNITS)):
        weight = layer.get_parameter(f"ops.lin_{number}.weight").tolist()
        bias = [0.0] * len(weight)
        if not batch_norm:
            bias = layer.get_parameter(f"ops.lin_{number}.bias").tolist()
        rows = [
            [
                sum(w * number for w, number in zip(line, row, strict=True)) + b
                for line, b in zip(weight, bias, strict=True)
            ]
            for row in rows
        ]
        if batch_norm:
            scales = layer.get_parameter(f"ops.batchnorm_{number}.norm.weight").tolist()
            shifts = layer.get_parameter(f"ops.batchnorm_{number}.norm.bias").tolist()
            columns = []
            for column, scale, shift in zip(zip(*rows, strict=True), scales, shifts, strict=True):
                mean = sum(column) / len(column)
                variance = sum((z - mean) ** 2 for z in column) / len(column)
                deviation = math.sqrt(variance + 1e-5)
                columns.append([(z - mean) / deviation * scale + shift for z in column])
            rows = [list(row) for row in zip(*columns, strict=True)]
        rows = [[act(z) for z in row] for row in rows]
    return rows


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    activation: Activation,
    batch_norm: bool,
    seed: int,
) -> None:
    options: dict[str, Any] = {"activation": activation, "batch_norm": batch_norm}
    layer = randomise(
        build("mlp", num_fields=3, embedding_dim=2, hidden_units=HIDDEN_UNITS, **options), seed
    )
    x_BFD = draw(6, 3, 2, seed=seed)
    expected = torch.tensor(
        plain_mlp(x_BFD.flatten(1).tolist(), layer, activation, batch_norm), dtype=torch.float64
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=0, atol=1e-11)


def test_mlp_of_two_numbers_through_two_layers() -> None:
    layer = build("mlp", num_fields=2, embedding_dim=1, hidden_units=(2, 2))
    values = ([[1.0, 1.0], [1.0, -1.0]], [0.0, 0.5], [[2.0, 5.0], [-1.0, 1.0]], [-1.0, 1.0])
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            parameter.copy_(torch.tensor(value))
    # relu(1 + 2, 1 - 2 + 0.5) = relu(3, -0.5) = (3, 0); relu(6 - 1, -3 + 1) = (5, 0)
    assert layer(torch.tensor([[[1.0], [2.0]]])).tolist() == [[5.0, 0.0]]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    activation: Activation,
    batch_norm: bool,
) -> None:
    options: dict[str, Any] = {"activation": activation, "batch_norm": batch_norm}
    layer = randomise(
        build("mlp", num_fields=2, embedding_dim=2, hidden_units=(4, 3), **options), 0
    )
    assert check_gradients(layer, draw(4, 2, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_mlp_drops_units_in_training_alone_and_scales_the_rest(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(
        build(
            "mlp",
            num_fields=3,
            embedding_dim=2,
            hidden_units=(50,),
            activation="sigmoid",
            dropout=0.2,
        ),
        seed,
    )
    x_BFD = draw(20, 3, 2, seed=seed)
    whole = layer.eval()(x_BFD)
    torch.manual_seed(seed)
    dropped = layer.train()(x_BFD)
    # Sigmoid is never zero, so a zero is a dropped unit.
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.8, rtol=1e-12, atol=0)
    # Five standard deviations of the share kept of 1000 units: 5 * sqrt(0.2 * 0.8 / 1000)
    assert kept.double().mean().item() == pytest.approx(0.8, abs=0.064)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_is_no_polynomial_as_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    activation: Activation,
    seed: int,
) -> None:
    layer = randomise(
        build("mlp", num_fields=3, embedding_dim=2, hidden_units=(6, 4), activation=activation),
        seed,
    )
    assert measure_degree(layer, draw(3, 3, 2, seed=seed)) is None
    assert layer.degree is None


@pytest.mark.parametrize("seed", SEEDS)
def test_mlp_of_identities_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = randomise(
        build("mlp", num_fields=3, embedding_dim=2, hidden_units=(6, 4), activation="identity"),
        seed,
    )
    assert measure_degree(layer, draw(3, 3, 2, seed=seed)) == layer.degree == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"hidden_units": ()}, "hidden_units must be one positive width or more; got []."),
        ({"hidden_units": (8, 0)}, "hidden_units must be one positive width or more; got [8, 0]."),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0."),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1; got -0.1."),
        (
            {"activation": "swish"},
            "activation must be one of relu, relu6, sigmoid, tanh, gelu, silu, exp, identity; "
            "got 'swish'.",
        ),
    ],
)
def test_mlp_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('mlp: ' + line)}$"):
        build("mlp", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(("batch_norm", "beside", "numbers"), [(False, 1, 1), (True, 3, 2)])
def test_mlp_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    batch_norm: bool,
    beside: int,
    numbers: int,
) -> None:
    layer = build(
        "mlp", num_fields=5, embedding_dim=8, hidden_units=(30, 20), batch_norm=batch_norm
    )
    # A product of n numbers is n products and n - 1 sums; the bias is the last: 2 a weight. A
    # unit's activation is 1 more; its norm, folded for serving, 2 more. A unit has a bias, or the
    # scale and shift of its norm.
    weights = 40 * 30 + 30 * 20
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 8) == 2 * weights
    assert layer.flops.other == beside * (30 + 20)
    assert layer.flops_per_row == 2 * weights + beside * (30 + 20)
    assert count_parameters(layer) == weights + numbers * (30 + 20)
