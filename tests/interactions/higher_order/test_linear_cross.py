"""FCN's linear cross layers."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
# An even row, an odd one, one of a single half.
SHAPES = [(3, 2), (3, 3), (1, 4), (2, 1)]
Randomise = Callable[[nn.Module, int], Interaction]


def product(matrix: list[list[float]], vector: list[float]) -> list[float]:
    return [sum(w * v for w, v in zip(line, vector, strict=True)) for line in matrix]


def layer_norm(row: list[float], norm: nn.Module) -> list[float]:
    mean = sum(row) / len(row)
    variance = sum((number - mean) ** 2 for number in row) / len(row)
    scaled = [(number - mean) / math.sqrt(variance + 1e-5) for number in row]
    scales, shifts = norm.weight.tolist(), norm.bias.tolist()
    return [z * a + b for z, a, b in zip(scaled, scales, shifts, strict=True)]


def plain_linear_cross(row: list[float], layer: Interaction, num_layers: int) -> list[float]:
    """Li et al. 2024: ``x[l+1] = x[0] * ([h ; h * relu(LN(h))] + b[l]) + x[l]``."""
    x = row
    for number in range(num_layers):
        halves = product(layer.get_parameter(f"ops.lin_{number}.weight").tolist(), x)
        normed = layer_norm(halves, layer.ops[f"layernorm_{number}"])
        (bias,) = layer.get_parameter(f"ops.constant_{number}.weight").tolist()
        # An h and its masked copy take turns.
        factor = []
        for h, z in zip(halves, normed, strict=True):
            factor += [h, h * max(z, 0.0)]
        x = [row[n] * (factor[n] + bias[n]) + x[n] for n in range(len(row))]
    return x


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), SHAPES)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_linear_cross_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_layers: int,
    num_fields: int,
    embedding_dim: int,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "linear_cross",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_linear_cross(row, layer, num_layers) for row in x_BFD.flatten(1).tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-10, atol=1e-10)


def test_two_masked_linear_crosses_of_four_numbers() -> None:
    layer = build("linear_cross", num_fields=2, embedding_dim=2, num_layers=2).double()
    values = {
        "ops.lin_0.weight": [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]],
        "ops.layernorm_0.weight": [2.0, 1.0],
        "ops.layernorm_0.bias": [1.0, 0.5],
        "ops.constant_0.weight": [[0.0, 1.0, 0.0, -1.0]],
        "ops.lin_1.weight": [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
        "ops.layernorm_1.weight": [1.0, 1.0],
        "ops.layernorm_1.bias": [0.0, 2.0],
        "ops.constant_1.weight": [[0.0, 0.0, 1.0, 0.0]],
    }
    with torch.no_grad():
        for name, value in values.items():
            layer.get_parameter(name).copy_(torch.tensor(value, dtype=torch.float64))
    # x0 = (1, 2, -1, 2); h = (1 + 2, -1) = (3, -1), normalised (1, -1); after the affine map
    # (2 + 1, -1 + 0.5) = (3, -0.5), so the mask is (3, 0)
    # h and its masked copy in turns (3, 9, -1, 0); with the bias (3, 10, -1, -1)
    # x1 = (1*3 + 1, 2*10 + 2, -1*-1 - 1, 2*-1 + 2) = (4, 22, 0, 0)
    # h = (22, 0), normalised (1, -1); after the affine map (1, 1): in turns (22, 22, 0, 0)
    # with the bias (22, 22, 1, 0): x2 = (1*22 + 4, 2*22 + 22, -1*1 + 0, 0) = (26, 66, -1, 0)
    row = torch.tensor([[[1.0, 2.0], [-1.0, 2.0]]], dtype=torch.float64)
    # A layer norm adds 1e-5 to the variance, 4 or more here.
    assert layer(row)[0].tolist() == pytest.approx([26.0, 66.0, -1.0, 0.0], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("embedding_dim", [2, 3])
def test_linear_cross_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    embedding_dim: int,
) -> None:
    layer = build("linear_cross", num_fields=3, embedding_dim=embedding_dim, num_layers=2)
    assert check_gradients(randomise(layer, 0), draw(3, 3, embedding_dim, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_linear_cross_without_a_mask_is_the_hadamard_cross(
    draw: Callable[..., Tensor], randomise: Randomise, num_layers: int, seed: int
) -> None:
    shape = {"num_fields": 3, "embedding_dim": 2, "num_layers": num_layers}
    layer = randomise(build("linear_cross", **shape, masked=False), seed)
    other = build("hadamard_cross", **shape).double()
    other.load_state_dict(layer.state_dict())
    x_BFD = draw(4, 3, 2, seed=seed)
    torch.testing.assert_close(layer(x_BFD), other(x_BFD), rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("masked", [True, False])
def test_one_linear_cross_is_one_exponential_cross(
    draw: Callable[..., Tensor], randomise: Randomise, masked: bool, seed: int
) -> None:
    options = {"num_fields": 3, "embedding_dim": 3, "num_layers": 1, "masked": masked}
    layer = randomise(build("linear_cross", **options), seed)
    other = build("exponential_cross", **options).double()
    other.load_state_dict(layer.state_dict())
    x_BFD = draw(4, 3, 3, seed=seed)
    torch.testing.assert_close(layer(x_BFD), other(x_BFD), rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("masked", [True, False])
def test_linear_cross_of_zeros_is_zero_whatever_the_biases(
    randomise: Randomise, masked: bool, seed: int
) -> None:
    layer = randomise(build("linear_cross", num_fields=3, embedding_dim=4, masked=masked), seed)
    assert not layer(torch.zeros(2, 3, 4, dtype=torch.float64)).any()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_layers", [1, 3, 5])
def test_linear_cross_without_a_mask_is_a_polynomial_of_one_degree_more_every_layer(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    num_layers: int,
    seed: int,
) -> None:
    layer = randomise(
        build("linear_cross", num_fields=3, embedding_dim=2, num_layers=num_layers, masked=False),
        seed,
    )
    assert measure_degree(layer, draw(2, 3, 2, seed=seed)) == layer.degree == num_layers + 1


@pytest.mark.parametrize("seed", SEEDS)
def test_linear_cross_with_a_mask_is_no_polynomial_as_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = randomise(build("linear_cross", num_fields=3, embedding_dim=4, num_layers=1), seed)
    assert layer.degree is None
    assert measure_degree(layer, draw(4, 3, 4, seed=seed)) is None


def test_linear_cross_drops_numbers_in_training_alone_and_scales_the_rest(
    draw: Callable[..., Tensor], randomise: Randomise
) -> None:
    layer = build("linear_cross", num_fields=5, embedding_dim=8, num_layers=1, dropout=0.2)
    x_BFD = draw(50, 5, 8, seed=0)
    whole = randomise(layer, 0).eval()(x_BFD)
    torch.manual_seed(0)
    dropped = layer.train()(x_BFD)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.8, rtol=1e-12, atol=0)
    # Five standard deviations of the share kept of 2000 numbers: 5 * sqrt(0.2 * 0.8 / 2000)
    assert kept.double().mean().item() == pytest.approx(0.8, abs=0.045)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1; got -0.1."),
    ],
)
def test_linear_cross_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('linear_cross: ' + line)}$"):
        build("linear_cross", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(
    ("embedding_dim", "masked", "weights", "beside", "others"),
    [
        # 20 halves: a norm (7), a relu and a masking each; of 40 numbers the bias, the product and
        # the sum. Two numbers a half in the norm, and the bias.
        (8, True, 40 * 20, 9 * 20 + 3 * 40, 2 * 20 + 40),
        # 15 numbers: 8 halves.
        (3, True, 15 * 8, 9 * 8 + 3 * 15, 2 * 8 + 15),
        # The bias is among the map's operations.
        (8, False, 40 * 40, 2 * 40, 40),
    ],
)
def test_linear_cross_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    embedding_dim: int,
    masked: bool,
    weights: int,
    beside: int,
    others: int,
) -> None:
    layer = build(
        "linear_cross", num_fields=5, embedding_dim=embedding_dim, num_layers=2, masked=masked
    )
    matmul = 2 * 2 * weights
    assert layer.flops.matmul == count_matmul_flops(layer, 5, embedding_dim) == matmul
    assert layer.flops.other == 2 * beside
    assert layer.flops_per_row == matmul + 2 * beside
    assert count_parameters(layer) == 2 * (weights + others)
