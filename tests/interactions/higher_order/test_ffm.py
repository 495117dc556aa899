"""The pairwise part of a field-aware factorization machine."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build, express, own_tables
from recsys_had.interactions.algebra import source

SEEDS = range(5)
NUM_FRAPPE_IDS = 5389


def plain_ffm(row: list[list[float]], embedding_dim: int) -> float:
    """Juan et al. 2016: a field's vectors by the other field's name."""
    num_fields = len(row)
    vectors = {}
    for i, field in enumerate(row):
        others = [j for j in range(num_fields) if j != i]
        for place, j in enumerate(others):
            vectors[i, j] = field[place * embedding_dim : (place + 1) * embedding_dim]
    total = 0.0
    for i in range(num_fields):
        for j in range(i + 1, num_fields):
            for a, b in zip(vectors[i, j], vectors[j, i], strict=True):
                total += a * b
    return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (2, 3), (4, 1), (7, 3)])
def test_ffm_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor], num_fields: int, embedding_dim: int, seed: int
) -> None:
    layer = build("ffm", num_fields=num_fields, embedding_dim=embedding_dim)
    x = draw(4, num_fields, (num_fields - 1) * embedding_dim, seed=seed)
    expected = [[plain_ffm(row, embedding_dim)] for row in x.tolist()]
    torch.testing.assert_close(
        layer(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


def test_ffm_of_three_fields_of_one_number() -> None:
    layer = build("ffm", num_fields=3, embedding_dim=1)
    # e0 for 1: 2, for 2: 3; e1 for 0: 5, for 2: 7; e2 for 0: 11, for 1: 13
    # 2 * 5 + 3 * 11 + 7 * 13 = 10 + 33 + 91 = 134
    row = torch.tensor([[[2.0, 3.0], [5.0, 7.0], [11.0, 13.0]]])
    assert layer(row).tolist() == [[134.0]]


def test_ffm_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], check_gradients: Callable[[nn.Module, Tensor], bool]
) -> None:
    layer = build("ffm", num_fields=4, embedding_dim=2)
    assert check_gradients(layer, draw(3, 4, 6, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_ffm_of_one_vector_for_all_fields_is_fm(draw: Callable[..., Tensor], seed: int) -> None:
    x_BFD = draw(4, 6, 3, seed=seed)
    layer = build("ffm", num_fields=6, embedding_dim=3)
    fm = build("fm", num_fields=6, embedding_dim=3)
    torch.testing.assert_close(layer(x_BFD.repeat(1, 1, 5)), fm(x_BFD), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_ffm_ignores_the_order_of_fields_and_their_vectors_alike(
    draw: Callable[..., Tensor], seed: int
) -> None:
    layer = build("ffm", num_fields=5, embedding_dim=3)
    vectors = draw(4, 5, 5, 3, seed=seed)  # of field i for field j

    def laid_out(order: list[int]) -> Tensor:
        fields = [
            torch.cat([vectors[:, i, j] for j in order if j != i], dim=1)  # F - 1 vectors
            for i in order
        ]
        return torch.stack(fields, dim=1)

    expected = layer(laid_out([0, 1, 2, 3, 4]))
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        torch.testing.assert_close(layer(laid_out(order)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_ffm_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = build("ffm", num_fields=5, embedding_dim=3)
    assert measure_degree(layer, draw(2, 5, 12, seed=seed)) == layer.degree == 2


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        (
            (1, 4),
            "needs two fields or more to form a pair; got 1. "
            "Let it read a node of shape (B, F, D).",
        ),
        (
            (4, 10),
            "each of 4 fields needs a vector for every other one, so the width must be a multiple "
            "of 3; got 10. Let it read the fields, for which it has tables of its own.",
        ),
    ],
)
def test_ffm_refuses_what_has_no_vector_for_each_other_field(
    shape: tuple[int, int], line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('ffm: ' + line)}$"):
        express("ffm", source(*shape))


def test_ffm_counts_its_operations_and_has_no_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("ffm", num_fields=5, embedding_dim=8)
    # Each of 10 pairs takes 8 products and 7 sums; 9 sums of 10 pairs.
    assert layer.flops_per_row == layer.flops.other == 10 * (8 + 7) + 9
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 32) == 0
    assert count_parameters(layer) == 0


def test_ffm_with_a_linear_part_has_the_published_number_of_parameters_on_frappe() -> None:
    # 10 fields; 9 vectors of 10 numbers and a weight for each id, and a bias.
    widths = [own_tables("ffm", 10, 10), own_tables("linear", 10, 10)]
    assert widths == [90, 1]
    assert NUM_FRAPPE_IDS * 91 + 1 == 490_400
