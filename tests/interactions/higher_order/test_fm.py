"""The pairwise part of a factorization machine."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build

SEEDS = range(5)


def plain_fm(row: list[list[float]]) -> float:
    """Rendle 2010, eq. 1, the pairwise term: every pair's inner product, at quadratic cost."""
    total = 0.0
    for i in range(len(row)):
        for j in range(i + 1, len(row)):
            for d in range(len(row[i])):
                total += row[i][d] * row[j][d]
    return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (3, 4), (9, 5)])
def test_fm_equals_the_pairs_written_with_loops(
    draw: Callable[..., Tensor], num_fields: int, embedding_dim: int, seed: int
) -> None:
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor([[plain_fm(row)] for row in x_BFD.tolist()], dtype=torch.float64)
    layer = build("fm", num_fields=num_fields, embedding_dim=embedding_dim)
    torch.testing.assert_close(layer(x_BFD), expected, rtol=0, atol=1e-12)


def test_fm_adds_the_inner_products_of_three_fields() -> None:
    layer = build("fm", num_fields=3, embedding_dim=2)
    # <(1, 2), (3, 4)> = 11; <(1, 2), (-1, 0.5)> = -1 + 1 = 0; <(3, 4), (-1, 0.5)> = -3 + 2 = -1
    # 11 + 0 - 1 = 10
    row = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [-1.0, 0.5]]])
    assert layer(row).tolist() == [[10.0]]


def test_fm_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], check_gradients: Callable[[nn.Module, Tensor], bool]
) -> None:
    assert check_gradients(build("fm", num_fields=4, embedding_dim=3), draw(3, 4, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_fm_ignores_the_order_of_fields(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("fm", num_fields=7, embedding_dim=3)
    x_BFD = draw(4, 7, 3, seed=seed)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(layer(x_BFD[:, order]), layer(x_BFD), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_fm_never_pairs_a_field_with_itself(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("fm", num_fields=5, embedding_dim=3)
    x_BFD = torch.zeros(2, 5, 3, dtype=torch.float64)
    x_BFD[:, seed] = draw(2, 3, seed=seed)
    torch.testing.assert_close(layer(x_BFD), torch.zeros(2, 1).double(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", SEEDS)
def test_fm_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = build("fm", num_fields=5, embedding_dim=3)
    assert measure_degree(layer, draw(2, 5, 3, seed=seed)) == layer.degree == 2


@pytest.mark.parametrize("num_fields", [0, 1])
def test_fm_refuses_an_input_without_a_pair(num_fields: int) -> None:
    line = (
        f"fm: needs two fields or more to form a pair; got {num_fields}. "
        "Let it read a node of shape (B, F, D)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("fm", num_fields=num_fields, embedding_dim=4)


@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (7, 5), (39, 16)])
def test_fm_costs_three_operations_a_number_and_one_a_coordinate(
    num_fields: int, embedding_dim: int
) -> None:
    layer = build("fm", num_fields=num_fields, embedding_dim=embedding_dim)
    # 2(F - 1)D of the sums over fields, FD + D squares, D differences, D - 1 additions, a halving
    assert layer.flops_per_row == 3 * num_fields * embedding_dim + embedding_dim


def test_fm_counts_its_operations_and_holds_no_parameter(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("fm", num_fields=3, embedding_dim=2)
    # Torch's counter sees matrix products alone, so the count is by hand. Each coordinate: 3
    # squares, 2 + 2 additions, a square, a difference, 9; twice; then 1 addition, 1 halving.
    assert count_matmul_flops(layer, 3, 2) == layer.flops.matmul == 0
    assert layer.flops_per_row == layer.flops.other == 2 * 9 + 1 + 1
    assert count_parameters(layer) == 0
