"""The outer product of the summed fields."""

from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build

SEEDS = range(5)


def plain_outer_product(row: list[list[float]]) -> list[float]:
    """Qu et al. 2016, sec. III-C: the sum of ``e_i e_j^T`` over all i and j, row by row."""
    out = []
    for c in range(len(row[0])):
        for d in range(len(row[0])):
            total = 0.0
            for left in row:
                for right in row:
                    total += left[c] * right[d]
            out.append(total)
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(1, 3), (2, 1), (3, 4), (7, 2)])
def test_outer_product_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor], num_fields: int, embedding_dim: int, seed: int
) -> None:
    layer = build("outer_product", num_fields=num_fields, embedding_dim=embedding_dim)
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_outer_product(row) for row in x_BFD.tolist()], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


def test_outer_product_of_three_fields_of_two_numbers() -> None:
    layer = build("outer_product", num_fields=3, embedding_dim=2)
    # s = (1, 2) + (3, -5) + (0, 1) = (4, -2)
    # s s^T = ((16, -8), (-8, 4))
    row = torch.tensor([[[1.0, 2.0], [3.0, -5.0], [0.0, 1.0]]])
    assert layer(row).tolist() == [[16.0, -8.0, -8.0, 4.0]]


def test_outer_product_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], check_gradients: Callable[[nn.Module, Tensor], bool]
) -> None:
    layer = build("outer_product", num_fields=3, embedding_dim=3)
    assert check_gradients(layer, draw(3, 3, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_outer_product_is_symmetric(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("outer_product", num_fields=4, embedding_dim=5)
    square = layer(draw(6, 4, 5, seed=seed)).view(6, 5, 5)
    assert torch.equal(square, square.transpose(1, 2))


@pytest.mark.parametrize("seed", SEEDS)
def test_outer_product_ignores_the_order_of_fields(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("outer_product", num_fields=4, embedding_dim=3)
    x_BFD = draw(4, 4, 3, seed=seed)
    expected = layer(x_BFD)
    for order in permutations(range(4)):
        torch.testing.assert_close(layer(x_BFD[:, order]), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_trace_of_the_outer_product_is_twice_fm_and_the_squares(
    draw: Callable[..., Tensor], seed: int
) -> None:
    x_BFD = draw(4, 6, 3, seed=seed)
    square = build("outer_product", num_fields=6, embedding_dim=3)(x_BFD).view(4, 3, 3)
    trace = square.diagonal(dim1=1, dim2=2).sum(dim=1, keepdim=True)
    fm = build("fm", num_fields=6, embedding_dim=3)(x_BFD)
    squares = x_BFD.square().sum(dim=(1, 2)).unsqueeze(1)
    torch.testing.assert_close(trace, 2 * fm + squares, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_outer_product_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = build("outer_product", num_fields=5, embedding_dim=3)
    assert measure_degree(layer, draw(2, 5, 3, seed=seed)) == layer.degree == 2


def test_outer_product_counts_its_operations_and_has_no_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("outer_product", num_fields=5, embedding_dim=8)
    # 4 sums of 8 numbers, and the 8 * 8 products of two of the sum.
    assert layer.flops_per_row == layer.flops.other == 4 * 8 + 8 * 8
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 8) == 0
    assert count_parameters(layer) == 0
