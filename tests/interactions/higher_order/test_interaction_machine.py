"""The products of one field, two, three and more, order by order."""

import math
import re
from collections.abc import Callable
from itertools import combinations, permutations

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build

SEEDS = range(5)


def plain_machine(row: list[list[float]], order: int) -> list[list[float]]:
    """Yu et al. 2020: the sums of the products of all sets of fields, size by size."""
    return [
        [
            sum(math.prod(field[d] for field in some) for some in combinations(row, size))
            for d in range(len(row[0]))
        ]
        for size in range(1, order + 1)
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("num_fields", "embedding_dim", "order"), [(2, 1, 1), (3, 4, 2), (4, 1, 3), (7, 3, 5)]
)
def test_the_machine_equals_the_sums_over_all_sets_of_fields(
    draw: Callable[..., Tensor], num_fields: int, embedding_dim: int, order: int, seed: int
) -> None:
    layer = build(
        "interaction_machine", num_fields=num_fields, embedding_dim=embedding_dim, order=order
    )
    x = draw(4, num_fields, embedding_dim, seed=seed)
    expected = [plain_machine(row, order) for row in x.tolist()]
    # Newton's identities subtract power sums that are larger than the result.
    found = layer(x).view(4, order, embedding_dim)
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10
    )


def test_the_machine_of_three_fields_of_two_numbers() -> None:
    layer = build("interaction_machine", num_fields=3, embedding_dim=2)
    # Of 1, 2, 3: 6, then 2 + 3 + 6 = 11, then 6. Of 2, -1, 4: 5, then -2 + 8 - 4 = 2, then -8.
    row = torch.tensor([[[1.0, 2.0], [2.0, -1.0], [3.0, 4.0]]], dtype=torch.float64)
    expected = torch.tensor([[[6.0, 5.0], [11.0, 2.0], [6.0, -8.0]]], dtype=torch.float64)
    torch.testing.assert_close(layer(row), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_orders_above_one_add_up_to_hofm(draw: Callable[..., Tensor], seed: int) -> None:
    x = draw(4, 6, 3, seed=seed)
    apart = build("interaction_machine", num_fields=6, embedding_dim=3, order=4)(x)
    together = build("hofm", num_fields=6, embedding_dim=3, order=4)(x)
    found = apart[:, 1:].sum(dim=(1, 2)).unsqueeze(1)
    torch.testing.assert_close(found, together, rtol=1e-10, atol=1e-10)


def test_no_more_fields_are_multiplied_than_there_are(draw: Callable[..., Tensor]) -> None:
    x = draw(4, 3, 2, seed=0)
    most = build("interaction_machine", num_fields=3, embedding_dim=2, order=9)
    all_three = build("interaction_machine", num_fields=3, embedding_dim=2, order=3)
    assert most.output_shape == (3, 2)
    assert torch.equal(most(x), all_three(x))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_machine_ignores_the_order_of_fields(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("interaction_machine", num_fields=4, embedding_dim=3)
    x = draw(4, 4, 3, seed=seed)
    expected = layer(x)
    for order in permutations(range(4)):
        torch.testing.assert_close(layer(x[:, order]), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_machine_s_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    check_gradients: Callable[[nn.Module, Tensor], bool],
    order: int,
) -> None:
    layer = build("interaction_machine", num_fields=4, embedding_dim=2, order=order)
    assert check_gradients(layer, draw(3, 4, 2, seed=0))


@pytest.mark.parametrize(("order", "degree"), [(1, 1), (2, 2), (5, 5), (6, 5)])
def test_the_machine_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    order: int,
    degree: int,
) -> None:
    layer = build("interaction_machine", num_fields=5, embedding_dim=3, order=order)
    assert measure_degree(layer, draw(2, 5, 3, seed=0)) == layer.degree == degree


def test_the_machine_counts_its_operations_and_has_no_parameters(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("interaction_machine", num_fields=4, embedding_dim=2, order=3)
    # Squares and cubes of 8 numbers; 3 power sums of 3 sums of 2 numbers each.
    powers = 2 * 8 + 3 * 3 * 2
    # Of 2 numbers each: A_2 is a product, two signs, a sum and a factor; A_3 is two products,
    # three signs, two sums and a factor.
    kernels = 2 * (1 + 2 + 1 + 1) + 2 * (2 + 3 + 2 + 1)
    assert layer.flops_per_row == layer.flops.other == powers + kernels
    assert count_parameters(layer) == 0


@pytest.mark.parametrize(
    ("num_fields", "order", "line"),
    [
        (3, 0, "order must be at least 1; got 0."),
        (3, 1001, "order must be at most 1000; got 1001."),
        (
            1,
            3,
            "needs two fields or more to form a pair; got 1. "
            "Let it read a node of shape (B, F, D).",
        ),
    ],
)
def test_the_machine_refuses_no_order_and_a_single_field(
    num_fields: int, order: int, line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('interaction_machine: ' + line)}$"):
        build("interaction_machine", num_fields=num_fields, embedding_dim=4, order=order)
