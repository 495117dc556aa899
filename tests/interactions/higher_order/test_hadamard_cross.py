"""DCN-V2's cross layers, full and low-rank."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
RANKS = [None, 1, 3]
Randomise = Callable[[nn.Module, int], Interaction]


def product(matrix: list[list[float]], vector: list[float]) -> list[float]:
    out = []
    for line in matrix:
        total = 0.0
        for entry, number in zip(line, vector, strict=True):
            total += entry * number
        out.append(total)
    return out


def plain_cross(
    row: list[float], layer: Interaction, num_layers: int, rank: int | None
) -> list[float]:
    """Wang et al. 2021, eq. 1, and eq. 2 where a map is ``U (V^T x)``."""
    x = row
    for number in range(num_layers):
        last = number
        mapped = x
        if rank is not None:
            last = 2 * number + 1
            mapped = product(layer.get_parameter(f"ops.lin_{last - 1}.weight").tolist(), mapped)
        mapped = product(layer.get_parameter(f"ops.lin_{last}.weight").tolist(), mapped)
        bias = layer.get_parameter(f"ops.lin_{last}.bias").tolist()
        x = [row[n] * (mapped[n] + bias[n]) + x[n] for n in range(len(row))]
    return x


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_cross_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_layers: int,
    rank: int | None,
    seed: int,
) -> None:
    layer = randomise(
        build("hadamard_cross", num_fields=3, embedding_dim=2, num_layers=num_layers, rank=rank),
        seed,
    )
    x_BFD = draw(4, 3, 2, seed=seed)
    rows = x_BFD.flatten(1).tolist()
    expected = torch.tensor(
        [plain_cross(row, layer, num_layers, rank) for row in rows], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


def test_two_full_crosses_of_two_numbers() -> None:
    layer = build("hadamard_cross", num_fields=2, embedding_dim=1, num_layers=2)
    with torch.no_grad():
        for number, (weight, bias) in enumerate(
            [([[1.0, 2.0], [0.0, -1.0]], [1.0, 0.5]), ([[0.0, 1.0], [1.0, 0.0]], [0.0, 0.0])]
        ):
            layer.get_parameter(f"ops.lin_{number}.weight").copy_(torch.tensor(weight))
            layer.get_parameter(f"ops.lin_{number}.bias").copy_(torch.tensor(bias))
    # x0 = (2, 3); W x0 + b = (2 + 6 + 1, -3 + 0.5) = (9, -2.5)
    # x1 = (2 * 9 + 2, 3 * -2.5 + 3) = (20, -4.5); W x1 + b = (-4.5, 20)
    # x2 = (2 * -4.5 + 20, 3 * 20 - 4.5) = (11, 55.5)
    assert layer(torch.tensor([[[2.0], [3.0]]])).tolist() == [[11.0, 55.5]]


def test_one_cross_of_rank_one() -> None:
    layer = build("hadamard_cross", num_fields=2, embedding_dim=1, num_layers=1, rank=1)
    values = ([[1.0, 2.0]], [[1.0], [-1.0]], [0.0, 1.0])
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            parameter.copy_(torch.tensor(value))
    # x0 = (2, 3); V^T x0 = 2 + 6 = 8; U 8 + b = (8, -8 + 1) = (8, -7)
    # x1 = (2 * 8 + 2, 3 * -7 + 3) = (18, -18)
    assert layer(torch.tensor([[[2.0], [3.0]]])).tolist() == [[18.0, -18.0]]


@pytest.mark.parametrize("rank", RANKS)
def test_cross_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    rank: int | None,
) -> None:
    layer = randomise(
        build("hadamard_cross", num_fields=2, embedding_dim=2, num_layers=2, rank=rank), 0
    )
    assert check_gradients(layer, draw(3, 2, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rank", RANKS)
def test_cross_of_zeros_is_zero_whatever_the_biases(
    randomise: Randomise, rank: int | None, seed: int
) -> None:
    layer = randomise(build("hadamard_cross", num_fields=3, embedding_dim=4, rank=rank), seed)
    assert not layer(torch.zeros(2, 3, 4, dtype=torch.float64)).any()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("num_layers", [1, 2, 3, 5])
def test_cross_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    num_layers: int,
    rank: int | None,
    seed: int,
) -> None:
    layer = randomise(
        build("hadamard_cross", num_fields=3, embedding_dim=2, num_layers=num_layers, rank=rank),
        seed,
    )
    assert measure_degree(layer, draw(2, 3, 2, seed=seed)) == layer.degree == num_layers + 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "hadamard_cross: num_layers must be at least 1; got 0."),
        (
            {"rank": 0},
            "hadamard_cross: rank must be at least 1; got 0. Leave it out for a full matrix.",
        ),
    ],
)
def test_cross_refuses_no_layer_and_no_rank(options: dict[str, int], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("hadamard_cross", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(("rank", "weights"), [(None, 40 * 40), (3, 2 * 40 * 3)])
def test_cross_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    rank: int | None,
    weights: int,
) -> None:
    layer = build("hadamard_cross", num_fields=5, embedding_dim=8, num_layers=2, rank=rank)
    # A product of n numbers is n products and n - 1 sums; the bias is the last: 2 a weight. Each
    # of 2 layers adds to each of 40 numbers a product with x0 and a sum with x.
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 8) == 2 * 2 * weights
    assert layer.flops.other == 2 * 2 * 40
    assert layer.flops_per_row == 2 * 2 * weights + 2 * 2 * 40
    assert count_parameters(layer) == 2 * (weights + 40)
