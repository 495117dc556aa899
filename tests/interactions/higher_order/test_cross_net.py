"""DCN's cross layers."""

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


def plain_cross(row: list[float], layer: Interaction, num_layers: int) -> list[float]:
    """Wang et al. 2017, eq. 3: ``x[l+1] = x[0] (w[l]^T x[l]) + b[l] + x[l]``."""
    x = row
    for number in range(num_layers):
        weights = layer.get_parameter(f"ops.lin_{number}.weight")[0].tolist()
        biases = layer.get_parameter(f"ops.constant_{number}.weight")[0].tolist()
        scale = 0.0
        for weight, value in zip(weights, x, strict=True):
            scale += weight * value
        x = [row[n] * scale + biases[n] + x[n] for n in range(len(row))]
    return x


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), SHAPES)
@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_cross_net_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_layers: int,
    num_fields: int,
    embedding_dim: int,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "cross_net", num_fields=num_fields, embedding_dim=embedding_dim, num_layers=num_layers
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_cross(row, layer, num_layers) for row in x_BFD.flatten(1).tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-11, atol=1e-11)


def test_two_crosses_of_two_numbers() -> None:
    layer = build("cross_net", num_fields=2, embedding_dim=1, num_layers=2)
    with torch.no_grad():
        for number, (weight, bias) in enumerate(
            [([1.0, -1.0], [0.5, 1.0]), ([4.0, 2.0], [0.0, -1.0])]
        ):
            layer.get_parameter(f"ops.lin_{number}.weight").copy_(torch.tensor([weight]))
            layer.get_parameter(f"ops.constant_{number}.weight").copy_(torch.tensor([bias]))
    # x0 = (2, 3); w^T x0 = 2 - 3 = -1; x1 = (-2 + 0.5 + 2, -3 + 1 + 3) = (0.5, 1)
    # w^T x1 = 4 * 0.5 + 2 * 1 = 4; x2 = (8 + 0 + 0.5, 12 - 1 + 1) = (8.5, 12)
    assert layer(torch.tensor([[[2.0], [3.0]]])).tolist() == [[8.5, 12.0]]


def test_cross_net_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = randomise(build("cross_net", num_fields=2, embedding_dim=2, num_layers=3), 0)
    assert check_gradients(layer, draw(3, 2, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_cross_net_without_weights_adds_its_biases_to_the_input(
    draw: Callable[..., Tensor], randomise: Randomise, num_layers: int, seed: int
) -> None:
    layer = randomise(
        build("cross_net", num_fields=3, embedding_dim=4, num_layers=num_layers), seed
    )
    biases = torch.zeros(12, dtype=torch.float64)
    with torch.no_grad():
        for number in range(num_layers):
            layer.get_parameter(f"ops.lin_{number}.weight").zero_()
            biases += layer.get_parameter(f"ops.constant_{number}.weight")[0]
    x_BFD = draw(5, 3, 4, seed=seed)
    torch.testing.assert_close(layer(x_BFD), x_BFD.flatten(1) + biases, rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_cross_net_without_biases_only_stretches_its_input(
    draw: Callable[..., Tensor], randomise: Randomise, num_layers: int, seed: int
) -> None:
    layer = randomise(
        build("cross_net", num_fields=3, embedding_dim=4, num_layers=num_layers), seed
    )
    with torch.no_grad():
        for number in range(num_layers):
            layer.get_parameter(f"ops.constant_{number}.weight").zero_()
    x_BFD = draw(5, 3, 4, seed=seed)
    stretch = layer(x_BFD) / x_BFD.flatten(1)
    torch.testing.assert_close(stretch, stretch[:, :1].expand(-1, 12), rtol=1e-10, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_layers", [1, 2, 5])
def test_cross_net_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    num_layers: int,
    seed: int,
) -> None:
    layer = randomise(
        build("cross_net", num_fields=3, embedding_dim=2, num_layers=num_layers), seed
    )
    assert measure_degree(layer, draw(2, 3, 2, seed=seed)) == layer.degree == num_layers + 1


@pytest.mark.parametrize("num_layers", [0, -2])
def test_cross_net_refuses_no_layer(num_layers: int) -> None:
    line = f"cross_net: num_layers must be at least 1; got {num_layers}."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("cross_net", num_fields=3, embedding_dim=4, num_layers=num_layers)


def test_cross_net_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("cross_net", num_fields=5, embedding_dim=8, num_layers=2)
    # Each of 2 layers takes one product of two vectors of 40, 2 operations a weight, and to each
    # of 40 numbers a product with x0 and sums with b and x.
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 8) == 2 * 2 * 40
    assert layer.flops.other == 2 * 3 * 40
    # A weight and a bias for each of 40 numbers, in each of 2 layers.
    assert count_parameters(layer) == 2 * (40 + 40)
