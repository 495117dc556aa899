"""FINAL's factorized interaction layers."""

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
    "identity": lambda z: z,
    "relu": lambda z: max(z, 0.0),
    "relu6": lambda z: min(max(z, 0.0), 6.0),
    "gelu": lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2,
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "silu": lambda z: z / (1 + math.exp(-z)),
    "tanh": math.tanh,
    "exp": math.exp,
}
# Every gate, every activation, and both together.
CHOICES: list[tuple[Activation, Activation]] = [
    *((gate, "identity") for gate in ACTIVATIONS),
    *(("identity", activation) for activation in ACTIVATIONS if activation != "identity"),
    ("sigmoid", "relu"),
    ("relu", "tanh"),
]
Randomise = Callable[[nn.Module, int], Interaction]


def smaller(layer: Interaction) -> Interaction:
    """Brings standard normal weights down, lest an exponential of an exponential overflows."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(0.2)
    return layer


def mapped(rows: list[list[float]], layer: Interaction, number: int) -> list[list[float]]:
    weight = layer.get_parameter(f"ops.lin_{number}.weight").tolist()
    bias = layer.get_parameter(f"ops.lin_{number}.bias").tolist()
    out = []
    for row in rows:
        line = []
        for entries, start in zip(weight, bias, strict=True):
            total = start
            for entry, value in zip(entries, row, strict=True):
                total += entry * value
            line.append(total)
        out.append(line)
    return out


def normalised(rows: list[list[float]], layer: Interaction, number: int) -> list[list[float]]:
    """Ioffe and Szegedy 2015, algorithm 1."""
    scales = layer.get_parameter(f"ops.batchnorm_{number}.norm.weight").tolist()
    shifts = layer.get_parameter(f"ops.batchnorm_{number}.norm.bias").tolist()
    columns = []
    for column, scale, shift in zip(zip(*rows, strict=True), scales, shifts, strict=True):
        mean = sum(column) / len(column)
        variance = sum((z - mean) ** 2 for z in column) / len(column)
        deviation = math.sqrt(variance + 1e-5)
        columns.append([(z - mean) / deviation * scale + shift for z in column])
    return [list(row) for row in zip(*columns, strict=True)]


def plain_factorized_interaction(
    rows: list[list[float]],
    layer: Interaction,
    num_layers: int,
    gate: Activation,
    activation: Activation,
    batch_norm: bool,
    residual: str = "sum",
) -> list[list[float]]:
    """Zhu et al. 2023: ``a + a * gate(W2 h + b2)`` with ``a = W1 h + b1``; norm; activation.

    With ``concat``, ``a`` and what is gated are the halves of one map; they are not added.
    """
    for number in range(num_layers):
        if residual == "concat":
            joined = []
            for line in mapped(rows, layer, number):
                half = len(line) // 2
                first, second = line[:half], line[half:]
                products = [a * ACTIVATIONS[gate](z) for a, z in zip(first, second, strict=True)]
                joined.append(first + products)
            rows = joined
        else:
            rows = summed(rows, layer, number, gate)
        if batch_norm:
            rows = normalised(rows, layer, number)
        rows = [[ACTIVATIONS[activation](z) for z in row] for row in rows]
    return rows


def summed(
    rows: list[list[float]], layer: Interaction, number: int, gate: Activation
) -> list[list[float]]:
    firsts = mapped(rows, layer, 2 * number)
    seconds = mapped(rows, layer, 2 * number + 1)
    return [
        [a + a * ACTIVATIONS[gate](z) for a, z in zip(first, second, strict=True)]
        for first, second in zip(firsts, seconds, strict=True)
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("gate", "activation"), CHOICES)
@pytest.mark.parametrize(("residual", "units"), [("sum", (5, 4)), ("concat", (6, 4))])
def test_factorized_interaction_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    residual: str,
    units: tuple[int, ...],
    gate: Activation,
    activation: Activation,
    batch_norm: bool,
    seed: int,
) -> None:
    options: dict[str, Any] = {"gate": gate, "activation": activation, "batch_norm": batch_norm}
    options |= {"hidden_units": units, "residual": residual}
    layer = build("factorized_interaction", num_fields=3, embedding_dim=2, **options)
    layer = smaller(randomise(layer, seed))
    x_BFD = draw(6, 3, 2, seed=seed)
    expected = torch.tensor(
        plain_factorized_interaction(
            x_BFD.flatten(1).tolist(), layer, 2, gate, activation, batch_norm, residual
        ),
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(1, 4), (5, 1), (4, 3)])
@pytest.mark.parametrize("hidden_units", [(1,), (3, 6, 2)])
def test_factorized_interaction_of_any_shape_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    hidden_units: tuple[int, ...],
    num_fields: int,
    embedding_dim: int,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "factorized_interaction",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            hidden_units=hidden_units,
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    plain = plain_factorized_interaction(
        x_BFD.flatten(1).tolist(), layer, len(hidden_units), "identity", "identity", False
    )
    expected = torch.tensor(plain, dtype=torch.float64)
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-10, atol=1e-10)


def test_factorized_interaction_of_two_numbers_through_two_layers() -> None:
    layer = build("factorized_interaction", num_fields=2, embedding_dim=1, hidden_units=(2, 1))
    maps = [
        ([[1.0, 1.0], [1.0, -1.0]], [0.0, 2.0]),
        ([[0.0, 1.0], [2.0, 0.0]], [-1.0, 1.0]),
        ([[1.0, -1.0]], [1.0]),
        ([[1.0, -2.0]], [4.0]),
    ]
    with torch.no_grad():
        for number, (weight, bias) in enumerate(maps):
            layer.get_parameter(f"ops.lin_{number}.weight").copy_(torch.tensor(weight))
            layer.get_parameter(f"ops.lin_{number}.bias").copy_(torch.tensor(bias))
    # h = (1, 2): a = (1 + 2, 1 - 2 + 2) = (3, 1); W2 h + b2 = (2 - 1, 2 + 1) = (1, 3)
    # h = a + a * (1, 3) = (3 + 3, 1 + 3) = (6, 4): a = 6 - 4 + 1 = 3; W2 h + b2 = 6 - 8 + 4 = 2
    # h = 3 + 3 * 2 = 9
    assert layer(torch.tensor([[[1.0], [2.0]]])).tolist() == [[9.0]]


def test_factorized_interaction_of_two_numbers_through_two_layers_of_joined_halves() -> None:
    layer = build(
        "factorized_interaction",
        num_fields=2,
        embedding_dim=1,
        hidden_units=(4, 2),
        residual="concat",
    )
    maps = [
        ([[1.0, 1.0], [1.0, -1.0], [0.0, 1.0], [2.0, 0.0]], [0.0, 2.0, -1.0, 1.0]),
        ([[1.0, 1.0, 0.0, -1.0], [0.0, 2.0, 1.0, 0.0]], [0.0, -3.0]),
    ]
    with torch.no_grad():
        for number, (weight, bias) in enumerate(maps):
            layer.get_parameter(f"ops.lin_{number}.weight").copy_(torch.tensor(weight))
            layer.get_parameter(f"ops.lin_{number}.bias").copy_(torch.tensor(bias))
    # h = (1, 2): a = (1 + 2, 1 - 2 + 2) = (3, 1); b = (2 - 1, 2 + 1) = (1, 3)
    # h = [a ; a * b] = (3, 1, 3, 3): a = 3 + 1 - 3 = 1; b = 2 + 3 - 3 = 2; [1 ; 1 * 2]
    assert layer(torch.tensor([[[1.0], [2.0]]])).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("residual", ["sum", "concat"])
@pytest.mark.parametrize(("gate", "activation"), CHOICES)
def test_factorized_interaction_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    gate: Activation,
    activation: Activation,
    residual: str,
    batch_norm: bool,
) -> None:
    options: dict[str, Any] = {"gate": gate, "activation": activation, "batch_norm": batch_norm}
    options |= {"hidden_units": (4, 2), "residual": residual}
    layer = build("factorized_interaction", num_fields=2, embedding_dim=2, **options)
    assert check_gradients(smaller(randomise(layer, 0)), draw(4, 2, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("gate", "times"), [("identity", 1.0), ("relu", 1.0), ("sigmoid", 1.5), ("exp", 2.0)]
)
def test_a_second_map_of_zeros_leaves_the_first_one_times_one_plus_the_gate_of_zero(
    draw: Callable[..., Tensor], randomise: Randomise, gate: Activation, times: float, seed: int
) -> None:
    layer = randomise(
        build(
            "factorized_interaction", num_fields=3, embedding_dim=2, hidden_units=(5,), gate=gate
        ),
        seed,
    )
    weight, bias = (layer.get_parameter(f"ops.lin_0.{kind}") for kind in ("weight", "bias"))
    with torch.no_grad():
        for kind in ("weight", "bias"):
            layer.get_parameter(f"ops.lin_1.{kind}").zero_()
    x_BFD = draw(4, 3, 2, seed=seed)
    expected = times * (x_BFD.flatten(1) @ weight.T + bias)
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("residual", ["sum", "concat"])
def test_factorized_interaction_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    residual: str,
    num_layers: int,
    seed: int,
) -> None:
    options: dict[str, Any] = {"hidden_units": (4,) * num_layers, "residual": residual}
    layer = randomise(
        build("factorized_interaction", num_fields=3, embedding_dim=2, **options), seed
    )
    assert measure_degree(layer, draw(2, 3, 2, seed=seed)) == layer.degree == 2**num_layers


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "options",
    [
        *({"gate": gate} for gate in ACTIVATIONS if gate != "identity"),
        *({"activation": activation} for activation in ACTIVATIONS if activation != "identity"),
        {"batch_norm": True},
    ],
)
def test_factorized_interaction_with_a_function_or_a_norm_is_no_polynomial_as_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    options: dict[str, Any],
    seed: int,
) -> None:
    layer = build(
        "factorized_interaction", num_fields=3, embedding_dim=2, hidden_units=(6,), **options
    )
    layer = smaller(randomise(layer, seed))
    assert measure_degree(layer, draw(3, 3, 2, seed=seed)) is None
    assert layer.degree is None


@pytest.mark.parametrize("seed", SEEDS)
def test_factorized_interaction_drops_units_in_training_alone_and_scales_the_rest(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(
        build(
            "factorized_interaction",
            num_fields=3,
            embedding_dim=2,
            hidden_units=(50,),
            dropout=0.2,
        ),
        seed,
    )
    x_BFD = draw(20, 3, 2, seed=seed)
    whole = layer.eval()(x_BFD)
    assert whole.all()
    torch.manual_seed(seed)
    dropped = layer.train()(x_BFD)
    # Nothing was zero before, so a zero is a dropped unit.
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.8, rtol=1e-12, atol=0)
    # Five standard deviations of the share kept of 1000 units: 5 * sqrt(0.2 * 0.8 / 1000)
    assert kept.double().mean().item() == pytest.approx(0.8, abs=0.064)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"hidden_units": ()}, "hidden_units must be one positive width or more; got []."),
        ({"hidden_units": (8, 0)}, "hidden_units must be one positive width or more; got [8, 0]."),
        ({"residual": "mean"}, "residual must be sum or concat; got 'mean'."),
        (
            {"residual": "concat", "hidden_units": (400, 5)},
            "hidden_units must be even, to be cut into halves; got [400, 5].",
        ),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0."),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1; got -0.1."),
        *(
            (
                {option: "swish"},
                "activation must be one of relu, relu6, sigmoid, tanh, gelu, silu, exp, "
                "identity; got 'swish'.",
            )
            for option in ("gate", "activation")
        ),
    ],
)
def test_factorized_interaction_refuses_what_it_cannot_build(
    options: dict[str, Any], line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('factorized_interaction: ' + line)}$"):
        build("factorized_interaction", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(
    ("options", "beside", "norms"),
    [
        ({}, 2, 0),
        ({"gate": "sigmoid"}, 3, 0),
        ({"activation": "relu"}, 3, 0),
        ({"batch_norm": True}, 4, 2),
        ({"dropout": 0.5}, 2, 0),
    ],
)
def test_factorized_interaction_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    options: dict[str, Any],
    beside: int,
    norms: int,
) -> None:
    layer = build(
        "factorized_interaction", num_fields=5, embedding_dim=8, hidden_units=(30, 20), **options
    )
    # Two maps a layer, 2 operations a weight, the bias among them. A unit's product and sum are 2
    # more; a gate or an activation is 1 more; a norm, folded for serving, 2 more.
    weights = 2 * (40 * 30 + 30 * 20)
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 8) == 2 * weights
    assert layer.flops.other == beside * (30 + 20)
    assert count_parameters(layer) == weights + (2 + norms) * (30 + 20)


@pytest.mark.parametrize(
    ("options", "beside", "norms"),
    [({}, 0, 0), ({"gate": "sigmoid"}, 15 + 10, 0), ({"batch_norm": True}, 2 * (30 + 20), 2)],
)
def test_factorized_interaction_of_joined_halves_counts_half_the_weights(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    options: dict[str, Any],
    beside: int,
    norms: int,
) -> None:
    layer = build(
        "factorized_interaction",
        num_fields=5,
        embedding_dim=8,
        hidden_units=(30, 20),
        residual="concat",
        **options,
    )
    # One map a layer, and a product for each of 15 and then 10 pairs; a gate is 1 a pair more, a
    # norm, folded for serving, 2 a unit.
    weights = 40 * 30 + 30 * 20
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 8) == 2 * weights
    assert layer.flops.other == 15 + 10 + beside
    assert count_parameters(layer) == weights + (1 + norms) * (30 + 20)


def test_factorized_interaction_has_the_parameters_of_the_published_frappe_run(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build(
        "factorized_interaction",
        num_fields=10,
        embedding_dim=10,
        batch_norm=True,
        residual="concat",
    )
    # Maps of 100 to 400 and of 400 to 400, each with a norm.
    assert count_parameters(layer) == 101 * 400 + 401 * 400 + 2 * 800
    # 5399 rows of width 10, one more a field than here, and the map to one with its bias.
    assert 53990 + count_parameters(layer) + 401 == 256791
