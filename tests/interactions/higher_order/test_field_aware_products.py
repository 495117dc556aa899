"""The products of pairs of fields, each field with a vector for every other."""

import re
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build, express
from recsys_had.interactions.algebra import source

SEEDS = range(5)
SHAPES = [(2, 1), (2, 3), (4, 1), (7, 3)]


def plain_products(row: list[list[float]], embedding_dim: int) -> list[list[float]]:
    """Yang et al. 2020: one table of vectors for each place of another field."""
    num_fields = len(row)
    tables = [
        [field[number * embedding_dim : (number + 1) * embedding_dim] for field in row]
        for number in range(num_fields - 1)
    ]
    out = []
    for i in range(num_fields - 1):
        for j in range(i + 1, num_fields):
            for_j, for_i = tables[j - 1][i], tables[i][j]
            out.append([a * b for a, b in zip(for_j, for_i, strict=True)])
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("how", ["inner", "hadamard"])
@pytest.mark.parametrize(("num_fields", "embedding_dim"), SHAPES)
def test_field_aware_products_equal_the_paper_written_with_loops(
    draw: Callable[..., Tensor], num_fields: int, embedding_dim: int, how: str, seed: int
) -> None:
    layer = build(
        "field_aware_products", num_fields=num_fields, embedding_dim=embedding_dim, how=how
    )
    x = draw(4, num_fields, (num_fields - 1) * embedding_dim, seed=seed)
    products = [plain_products(row, embedding_dim) for row in x.tolist()]
    if how == "inner":
        products = [[[sum(product)] for product in row] for row in products]
    expected = torch.tensor(products, dtype=torch.float64)
    torch.testing.assert_close(layer(x), expected.reshape(layer(x).shape), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("inner", [[[-9.0], [35.0], [22.0]]]),
        ("hadamard", [[[5.0, -14.0], [27.0, 8.0], [10.0, 12.0]]]),
    ],
)
def test_field_aware_products_of_three_fields_of_two_numbers(
    how: str, expected: list[list[list[float]]]
) -> None:
    layer = build("field_aware_products", num_fields=3, embedding_dim=2, how=how)
    # e0 for 1: (1, 2), for 2: (3, 4); e1 for 0: (5, -7), for 2: (2, 3); e2 for 0: (9, 2), for 1:
    # (5, 4)
    # 0 and 1: (1 * 5, 2 * -7) = (5, -14), together -9
    # 0 and 2: (3 * 9, 4 * 2) = (27, 8), together 35
    # 1 and 2: (2 * 5, 3 * 4) = (10, 12), together 22
    row = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [5.0, -7.0, 2.0, 3.0], [9.0, 2.0, 5.0, 4.0]]])
    assert layer(row).tolist() == expected


@pytest.mark.parametrize("how", ["inner", "hadamard"])
def test_field_aware_products_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    check_gradients: Callable[[nn.Module, Tensor], bool],
    how: str,
) -> None:
    layer = build("field_aware_products", num_fields=4, embedding_dim=2, how=how)
    assert check_gradients(layer, draw(3, 4, 6, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_fields_with_one_vector_for_all_give_the_plain_inner_products(
    draw: Callable[..., Tensor], seed: int
) -> None:
    x_BFD = draw(4, 6, 3, seed=seed)
    layer = build("field_aware_products", num_fields=6, embedding_dim=3)
    plain = build("inner_product", num_fields=6, embedding_dim=3)(x_BFD)
    found = layer(x_BFD.repeat(1, 1, 5)).flatten(1)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_vector_for_another_field_moves_their_pair_alone(
    draw: Callable[..., Tensor], seed: int
) -> None:
    layer = build("field_aware_products", num_fields=4, embedding_dim=2)
    x = draw(1, 4, 6, seed=seed)
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    for i, j in permutations(range(4), 2):
        moved = x.clone()
        place = j if j < i else j - 1
        moved[:, i, 2 * place : 2 * place + 2] += 1
        changed = (layer(moved) != layer(x)).flatten().tolist()
        assert changed == [pair == (min(i, j), max(i, j)) for pair in pairs]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("how", ["inner", "hadamard"])
def test_field_aware_products_are_polynomials_of_the_degree_they_claim(
    draw: Callable[..., Tensor],
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    how: str,
    seed: int,
) -> None:
    layer = build("field_aware_products", num_fields=5, embedding_dim=3, how=how)
    assert measure_degree(layer, draw(2, 5, 12, seed=seed)) == layer.degree == 2


@pytest.mark.parametrize(
    ("shape", "options", "line"),
    [
        (
            (1, 4),
            {},
            "needs two fields or more to form a pair; got 1. "
            "Let it read a node of shape (B, F, D).",
        ),
        (
            (4, 8),
            {},
            "each of 4 fields needs a vector for every other one, so the width must be a multiple "
            "of 3; got 8. Let it read the fields, for which it has tables of its own.",
        ),
        ((4, 6), {"how": "outer"}, "how must be inner or hadamard; got 'outer'."),
    ],
)
def test_field_aware_products_refuse_what_they_cannot_form(
    shape: tuple[int, int], options: dict[str, str], line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('field_aware_products: ' + line)}$"):
        express("field_aware_products", source(*shape), **options)


@pytest.mark.parametrize(("how", "sums"), [("inner", 7), ("hadamard", 0)])
def test_field_aware_products_count_their_operations_and_have_no_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    how: str,
    sums: int,
) -> None:
    layer = build("field_aware_products", num_fields=5, embedding_dim=8, how=how)
    # Each of 10 pairs takes 8 products, and 7 sums for an inner one.
    assert layer.flops_per_row == layer.flops.other == 10 * (8 + sums)
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 32) == 0
    assert count_parameters(layer) == 0
