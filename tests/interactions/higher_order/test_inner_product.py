"""The inner products of all pairs of fields."""

import re
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build

SEEDS = range(5)


def plain_inner_products(row: list[list[float]]) -> list[float]:
    """Qu et al. 2016, sec. III-B: ``<e_i, e_j>`` for ``i < j``."""
    out = []
    for i, j in combinations(range(len(row)), 2):
        total = 0.0
        for left, right in zip(row[i], row[j], strict=True):
            total += left * right
        out.append(total)
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (2, 3), (4, 1), (7, 3)])
def test_inner_product_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor], num_fields: int, embedding_dim: int, seed: int
) -> None:
    layer = build("inner_product", num_fields=num_fields, embedding_dim=embedding_dim)
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_inner_products(row) for row in x_BFD.tolist()], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


def test_inner_products_of_three_fields_of_two_numbers() -> None:
    layer = build("inner_product", num_fields=3, embedding_dim=2)
    # e = (1, 2), (3, 1), (2, 5)
    # <e0, e1> = 3 + 2 = 5; <e0, e2> = 2 + 10 = 12; <e1, e2> = 6 + 5 = 11
    row = torch.tensor([[[1.0, 2.0], [3.0, 1.0], [2.0, 5.0]]])
    assert layer(row).tolist() == [[5.0, 12.0, 11.0]]


def test_inner_product_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], check_gradients: Callable[[nn.Module, Tensor], bool]
) -> None:
    layer = build("inner_product", num_fields=4, embedding_dim=3)
    assert check_gradients(layer, draw(3, 4, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_inner_products_sum_to_fm(draw: Callable[..., Tensor], seed: int) -> None:
    x_BFD = draw(4, 6, 3, seed=seed)
    products = build("inner_product", num_fields=6, embedding_dim=3)(x_BFD)
    fm = build("fm", num_fields=6, embedding_dim=3)(x_BFD)
    torch.testing.assert_close(products.sum(dim=1, keepdim=True), fm, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_inner_products_are_at_most_the_product_of_lengths(
    draw: Callable[..., Tensor], seed: int
) -> None:
    x_BFD = draw(8, 5, 3, seed=seed)
    products = build("inner_product", num_fields=5, embedding_dim=3)(x_BFD)
    lengths = build("inner_product", num_fields=5, embedding_dim=1)(x_BFD.norm(dim=2, keepdim=True))
    assert (products.abs() <= lengths * (1 + 1e-12)).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_inner_product_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = build("inner_product", num_fields=5, embedding_dim=3)
    assert measure_degree(layer, draw(2, 5, 3, seed=seed)) == layer.degree == 2


def test_inner_product_refuses_an_input_without_a_pair() -> None:
    line = (
        "inner_product: needs two fields or more to form a pair; got 1. "
        "Let it read a node of shape (B, F, D)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("inner_product", num_fields=1, embedding_dim=4)


def test_inner_product_counts_its_operations_and_has_no_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("inner_product", num_fields=5, embedding_dim=8)
    # Each of 10 pairs takes 8 products and 7 sums.
    assert layer.flops_per_row == layer.flops.other == 10 * 8 + 10 * 7
    assert layer.flops.matmul == 0
    assert count_parameters(layer) == 0
    # It runs the inner products of 5 fields with 5 fields as one matrix product.
    assert count_matmul_flops(layer, 5, 8) == 2 * 5 * 5 * 8
