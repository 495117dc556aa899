"""The products of two fields, three and more of a higher-order factorization machine."""

import math
import re
from collections.abc import Callable
from itertools import combinations, permutations

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build, express
from recsys_had.interactions.algebra import source

SEEDS = range(5)


def plain_hofm(row: list[list[float]], order: int) -> float:
    """Blondel et al. 2016: the ANOVA kernels of degree 2 to ``order``, subset by subset."""
    total = 0.0
    for size in range(2, order + 1):
        for subset in combinations(row, size):
            for numbers in zip(*subset, strict=True):
                total += math.prod(numbers)
    return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("order", [2, 3, 4, 5])
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (3, 4), (4, 1), (7, 3)])
def test_hofm_equals_the_sum_over_all_sets_of_fields(
    draw: Callable[..., Tensor], num_fields: int, embedding_dim: int, order: int, seed: int
) -> None:
    layer = build("hofm", num_fields=num_fields, embedding_dim=embedding_dim, order=order)
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [[plain_hofm(row, order)] for row in x_BFD.tolist()], dtype=torch.float64
    )
    # Newton's identities subtract power sums that are larger than the result.
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-10, atol=1e-10)


def plain_kernel(row: list[list[float]], size: int) -> float:
    """Blondel et al. 2016: the ANOVA kernel of one degree, subset by subset."""
    total = 0.0
    for subset in combinations(row, size):
        for numbers in zip(*subset, strict=True):
            total += math.prod(numbers)
    return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 3), (3, 4), (4, 1), (7, 3)])
def test_hofm_with_tables_of_its_own_multiplies_each_order_s_vectors(
    draw: Callable[..., Tensor], num_fields: int, embedding_dim: int, order: int, seed: int
) -> None:
    size = {"num_fields": num_fields, "embedding_dim": embedding_dim}
    layer = build("hofm", **size, order=order, tables="own")
    # No product of more fields than there are, and no vector for one.
    orders = range(2, min(order, num_fields) + 1)
    x = draw(4, num_fields, len(orders) * embedding_dim, seed=seed)
    expected = []
    for row in x.tolist():
        total = 0.0
        for place, m in enumerate(orders):
            cut = slice(place * embedding_dim, (place + 1) * embedding_dim)
            total += plain_kernel([field[cut] for field in row], m)
        expected.append([total])
    torch.testing.assert_close(
        layer(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10
    )


def test_hofm_with_tables_of_its_own_of_three_fields_of_one_number() -> None:
    layer = build("hofm", num_fields=3, embedding_dim=1, tables="own")
    # Pairs of 1, 2, 3: 2 + 3 + 6 = 11; the three of 5, 7, 11: 385
    row = torch.tensor([[[1.0, 5.0], [2.0, 7.0], [3.0, 11.0]]], dtype=torch.float64)
    assert layer(row).item() == pytest.approx(396.0, rel=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_hofm_with_equal_tables_is_that_of_shared_ones(
    draw: Callable[..., Tensor], seed: int
) -> None:
    x_BFD = draw(4, 6, 3, seed=seed)
    shared = build("hofm", num_fields=6, embedding_dim=3, order=4)
    own = build("hofm", num_fields=6, embedding_dim=3, order=4, tables="own")
    torch.testing.assert_close(own(x_BFD.repeat(1, 1, 3)), shared(x_BFD), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("order", "expected"), [(2, 6.0), (3, -2.0), (4, -10.0), (9, -10.0)])
def test_hofm_of_four_fields_of_two_numbers(order: int, expected: float) -> None:
    layer = build("hofm", num_fields=4, embedding_dim=2, order=order)
    # Of 1, 2, 3, -1: the pairs give 2 + 3 - 1 + 6 - 2 - 3 = 5, the threes 6 - 2 - 3 - 6 = -5,
    # all four -6. Of 2, -1, 1, 1: -2 + 2 + 2 - 1 - 1 + 1 = 1, -2 - 2 + 2 - 1 = -3, and -2.
    # Order 2: 5 + 1 = 6; order 3: 6 - 5 - 3 = -2; order 4: -2 - 6 - 2 = -10, and no more beyond.
    row = [[1.0, 2.0], [2.0, -1.0], [3.0, 1.0], [-1.0, 1.0]]
    value = layer(torch.tensor([row], dtype=torch.float64)).item()
    assert value == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
    ("order", "tables", "width"), [(2, "shared", 2), (4, "shared", 2), (4, "own", 6)]
)
def test_hofm_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    check_gradients: Callable[[nn.Module, Tensor], bool],
    order: int,
    tables: str,
    width: int,
) -> None:
    layer = build("hofm", num_fields=4, embedding_dim=2, order=order, tables=tables)
    assert check_gradients(layer, draw(3, 4, width, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_hofm_of_order_two_is_fm(draw: Callable[..., Tensor], seed: int) -> None:
    x_BFD = draw(4, 6, 3, seed=seed)
    layer = build("hofm", num_fields=6, embedding_dim=3, order=2)
    fm = build("fm", num_fields=6, embedding_dim=3)
    torch.testing.assert_close(layer(x_BFD), fm(x_BFD), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_fields", [2, 3, 6])
def test_hofm_of_all_orders_is_what_the_product_of_one_plus_each_field_adds(
    draw: Callable[..., Tensor], num_fields: int, seed: int
) -> None:
    x_BFD = draw(4, num_fields, 3, seed=seed)
    layer = build("hofm", num_fields=num_fields, embedding_dim=3, order=num_fields)
    beyond_linear = (1 + x_BFD).prod(dim=1) - 1 - x_BFD.sum(dim=1)
    expected = beyond_linear.sum(dim=1, keepdim=True)
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_hofm_ignores_the_order_of_fields(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("hofm", num_fields=4, embedding_dim=3)
    x_BFD = draw(4, 4, 3, seed=seed)
    expected = layer(x_BFD)
    for order in permutations(range(4)):
        torch.testing.assert_close(layer(x_BFD[:, order]), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_field_of_zeros_adds_nothing_to_hofm(draw: Callable[..., Tensor], seed: int) -> None:
    x_BFD = draw(4, 4, 3, seed=seed)
    padded = torch.cat([x_BFD, torch.zeros(4, 1, 3, dtype=torch.float64)], dim=1)
    expected = build("hofm", num_fields=4, embedding_dim=3)(x_BFD)
    found = build("hofm", num_fields=5, embedding_dim=3)(padded)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("order", "degree"), [(2, 2), (3, 3), (5, 5), (6, 5)])
def test_hofm_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    order: int,
    degree: int,
    seed: int,
) -> None:
    layer = build("hofm", num_fields=5, embedding_dim=3, order=order)
    assert measure_degree(layer, draw(2, 5, 3, seed=seed)) == layer.degree == degree


@pytest.mark.parametrize(
    ("num_fields", "order", "line"),
    [
        (3, 1, "order must be at least 2; got 1."),
        (3, 0, "order must be at least 2; got 0."),
        (
            1,
            3,
            "needs two fields or more to form a pair; got 1. "
            "Let it read a node of shape (B, F, D).",
        ),
    ],
)
def test_hofm_refuses_an_order_below_two_and_a_single_field(
    num_fields: int, order: int, line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('hofm: ' + line)}$"):
        build("hofm", num_fields=num_fields, embedding_dim=4, order=order)


def test_hofm_refuses_a_width_that_gives_no_vector_for_each_order() -> None:
    line = (
        "hofm: each order from 2 to 4 needs a vector of its own, so the width must be a multiple "
        "of 3; got 8. Let it read the fields, for which it has tables of its own."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        express("hofm", source(5, 8), order=4, tables="own")


def test_hofm_refuses_tables_it_does_not_know() -> None:
    line = "hofm: tables must be shared or own; got 'apart'."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("hofm", num_fields=3, embedding_dim=4, tables="apart")


def test_hofm_with_tables_of_its_own_counts_its_operations(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
) -> None:
    layer = build("hofm", num_fields=4, embedding_dim=2, order=3, tables="own")
    # For pairs: squares of 8 numbers, 2 power sums of 3 sums of 2 numbers; A_2 as below.
    pairs = 8 + 2 * 3 * 2 + 2 * (1 + 2 + 1 + 1)
    # For threes: all of what is below but the sum of the kernels.
    threes = 2 * 8 + 3 * 3 * 2 + 2 * (1 + 2 + 1 + 1) + 2 * (2 + 3 + 2 + 1)
    assert layer.flops_per_row == layer.flops.other == pairs + threes + 2 * 1 + 1 == 93
    assert count_matmul_flops(layer, 4, 4) == 0


def test_hofm_counts_its_operations_and_has_no_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("hofm", num_fields=4, embedding_dim=2, order=3)
    # Squares and cubes of 8 numbers; 3 power sums of 3 sums of 2 numbers each.
    powers = 2 * 8 + 3 * 3 * 2
    # Of 2 numbers each: A_2 is a product, two signs, a sum and a factor; A_3 is two products,
    # three signs, two sums and a factor; A_2 + A_3 is a sum. Last the sum of 2 numbers.
    kernels = 2 * (1 + 2 + 1 + 1) + 2 * (2 + 3 + 2 + 1) + 2 * 1
    assert layer.flops_per_row == layer.flops.other == powers + kernels + 1 == 63
    assert layer.flops.matmul == count_matmul_flops(layer, 4, 2) == 0
    assert count_parameters(layer) == 0


def test_hofm_with_own_tables_refuses_an_order_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"^hofm: order must be at least 2; got 0\.$"):
        build("hofm", num_fields=4, embedding_dim=2, order=0, tables="own")
