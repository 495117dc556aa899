"""The star operation: two linear maps of the same, multiplied."""

import math
import re
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Activation, Interaction

SEEDS = range(5)
MIXES = ("channels", "fields")
Mix = Literal["channels", "fields"]
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


def affine(op: nn.Module, row: list[float]) -> list[float]:
    return [
        sum(w * number for w, number in zip(line, row, strict=True)) + shift
        for line, shift in zip(op.weight.tolist(), op.bias.tolist(), strict=True)
    ]


def plain_star(
    row: list[list[float]], layer: Interaction, num_layers: int, mix: Mix, activation: Activation
) -> list[list[float]]:
    """Ma et al. 2024, the star operation with a residual."""
    act = ACTIVATIONS[activation]
    tokens = row if mix == "channels" else [[number for field in row for number in field]]
    for number in range(num_layers):
        first, second, back = (layer.ops[f"lin_{3 * number + k}"] for k in range(3))
        mapped = []
        for token in tokens:
            gate = [act(z) for z in affine(second, token)]
            product = [a * b for a, b in zip(affine(first, token), gate, strict=True)]
            mapped.append([a + b for a, b in zip(token, affine(back, product), strict=True)])
        tokens = mapped
    numbers = iter(number for token in tokens for number in token)
    return [[next(numbers) for _ in field] for field in row]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("num_fields", "embedding_dim", "num_layers", "expansion"),
    [(1, 3, 1, 2), (2, 1, 2, 1), (4, 3, 2, 3), (3, 2, 3, 2)],
)
@pytest.mark.parametrize("mix", MIXES)
def test_star_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    mix: Mix,
    num_fields: int,
    embedding_dim: int,
    num_layers: int,
    expansion: int,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "star",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
            expansion=expansion,
            mix=mix,
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_star(row, layer, num_layers, mix, "relu6") for row in x_BFD.tolist()],
        dtype=torch.float64,
    )
    # A single token is flat.
    expected = expected.flatten(1) if num_fields == 1 else expected
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_star_gates_with_the_activation_it_is_given(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    activation: Activation,
    mix: Mix,
    seed: int,
) -> None:
    layer = randomise(
        build("star", num_fields=3, embedding_dim=2, num_layers=1, mix=mix, activation=activation),
        seed,
    )
    x_BFD = draw(4, 3, 2, seed=seed)
    expected = torch.tensor(
        [plain_star(row, layer, 1, mix, activation) for row in x_BFD.tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("mix", "expansion", "values", "expected"),
    [
        # Field by field, x = 1: W1 x + b1 = (1 + 0, -2 + 1) = (1, -1)
        #   relu6(2 + 1, 1 - 3) = (3, 0); product (3, 0); 1 + 1*3 + 3*0 + 0.5 = 4.5
        # x = 4: (4, -8 + 1) = (4, -7); relu6(8 + 1, 4 - 3) = (6, 1); product (24, -7)
        #   4 + 24 - 21 + 0.5 = 7.5
        (
            "channels",
            2,
            [[[1.0], [-2.0]], [0.0, 1.0], [[2.0], [1.0]], [1.0, -3.0], [[1.0, 3.0]], [0.5]],
            [[4.5], [7.5]],
        ),
        # Both fields together, x = (1, 4): W1 x + b1 = (1 + 4, 4 - 1) = (5, 3)
        #   relu6(2, -1 + 4 + 1) = (2, 4); product (10, 12)
        #   (1, 4) + (10, 10 + 24) + (0, 1) = (11, 39)
        (
            "fields",
            1,
            [
                [[1.0, 1.0], [0.0, 1.0]],
                [0.0, -1.0],
                [[2.0, 0.0], [-1.0, 1.0]],
                [0.0, 1.0],
                [[1.0, 0.0], [1.0, 2.0]],
                [0.0, 1.0],
            ],
            [[11.0], [39.0]],
        ),
    ],
)
def test_star_of_two_fields_of_one_number(
    mix: Mix, expansion: int, values: list[Any], expected: list[list[float]]
) -> None:
    layer = build("star", num_fields=2, embedding_dim=1, num_layers=1, expansion=expansion, mix=mix)
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            assert parameter.shape == torch.tensor(value).shape
            parameter.copy_(torch.tensor(value))
    assert layer(torch.tensor([[[1.0], [4.0]]])).tolist() == [expected]


@pytest.mark.parametrize("mix", MIXES)
def test_star_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    mix: Mix,
) -> None:
    layer = randomise(build("star", num_fields=3, embedding_dim=2, num_layers=1, mix=mix), 0)
    assert check_gradients(layer, draw(3, 3, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_star_over_channels_permutes_its_fields_as_the_input_does(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("star", num_fields=6, embedding_dim=3), seed)
    x_BFD = draw(4, 6, 3, seed=seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(layer(x_BFD[:, order]), layer(x_BFD)[:, order], rtol=1e-12, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_star_over_fields_is_that_over_the_channels_of_one_wide_field(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("star", num_fields=4, embedding_dim=3, mix="fields"), seed)
    wide = randomise(build("star", num_fields=1, embedding_dim=12, mix="channels"), seed)
    x_BFD = draw(4, 4, 3, seed=seed)
    expected = wide(x_BFD.reshape(4, 1, 12)).reshape(4, 4, 3)
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mix", MIXES)
def test_star_whose_last_map_is_zero_gives_its_input(
    draw: Callable[..., Tensor], randomise: Randomise, mix: Mix, seed: int
) -> None:
    layer = randomise(build("star", num_fields=4, embedding_dim=3, num_layers=1, mix=mix), seed)
    with torch.no_grad():
        layer.get_parameter("ops.lin_2.weight").zero_()
        layer.get_parameter("ops.lin_2.bias").zero_()
    x_BFD = draw(4, 4, 3, seed=seed)
    torch.testing.assert_close(layer(x_BFD), x_BFD, rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize(("num_layers", "degree"), [(1, 2), (2, 4)])
def test_star_without_activation_doubles_its_degree_with_every_layer(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    num_layers: int,
    degree: int,
    mix: Mix,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "star",
            num_fields=3,
            embedding_dim=2,
            num_layers=num_layers,
            mix=mix,
            activation="identity",
        ),
        seed,
    )
    assert measure_degree(layer, draw(2, 3, 2, seed=seed)) == layer.degree == degree


def test_star_of_three_layers_without_activation_claims_degree_eight() -> None:
    layer = build("star", num_fields=3, embedding_dim=2, num_layers=3, activation="identity")
    assert layer.degree == 8


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        ({"expansion": -1}, "expansion must be at least 1; got -1."),
        ({"mix": "field"}, "mix must be channels or fields; got 'field'."),
        (
            {"activation": "swish"},
            "activation must be one of relu, relu6, sigmoid, tanh, gelu, silu, exp, identity; "
            "got 'swish'.",
        ),
    ],
)
def test_star_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('star: ' + line)}$"):
        build("star", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(("mix", "tokens", "width"), [("channels", 4, 3), ("fields", 1, 12)])
@pytest.mark.parametrize(("activation", "act_flops"), [("relu6", 1), ("identity", 0)])
def test_star_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    activation: Activation,
    act_flops: int,
    mix: Mix,
    tokens: int,
    width: int,
) -> None:
    layer = build(
        "star",
        num_fields=4,
        embedding_dim=3,
        num_layers=2,
        expansion=5,
        mix=mix,
        activation=activation,
    )
    # A layer has three maps between width and 5 * width, 2 operations a weight and token, the bias
    # among them. Beside these an activation and a product for each of 5 * 12 numbers, and the
    # residual sum of 12.
    weights = 2 * 3 * width * 5 * width
    beside = 2 * ((act_flops + 1) * 5 * 12 + 12)
    assert layer.flops.matmul == count_matmul_flops(layer, 4, 3) == 2 * tokens * weights
    assert layer.flops.other == beside
    assert layer.flops_per_row == 2 * tokens * weights + beside
    assert count_parameters(layer) == weights + 2 * (5 + 5 + 1) * width
