"""Bi-interaction pooling: the pairs of a factorization machine, coordinate by coordinate."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build

SEEDS = range(5)


def plain_bi_interaction(row: list[list[float]]) -> list[float]:
    """He and Chua 2017, eq. 3: the sum over pairs itself, not its linear-time form."""
    total = [0.0] * len(row[0])
    for i in range(len(row)):
        for j in range(i + 1, len(row)):
            for d in range(len(total)):
                total[d] += row[i][d] * row[j][d]
    return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (3, 4), (9, 5)])
def test_bi_interaction_equals_the_pairs_written_with_loops(
    draw: Callable[..., Tensor], num_fields: int, embedding_dim: int, seed: int
) -> None:
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_bi_interaction(row) for row in x_BFD.tolist()], dtype=torch.float64
    )
    layer = build("bi_interaction", num_fields=num_fields, embedding_dim=embedding_dim)
    torch.testing.assert_close(layer(x_BFD), expected, rtol=0, atol=1e-12)


def test_bi_interaction_adds_the_products_of_three_fields() -> None:
    layer = build("bi_interaction", num_fields=3, embedding_dim=2)
    # (1, 2) * (3, 4) = (3, 8); (1, 2) * (-1, 0.5) = (-1, 1); (3, 4) * (-1, 0.5) = (-3, 2)
    # (3 - 1 - 3, 8 + 1 + 2) = (-1, 11)
    row = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [-1.0, 0.5]]])
    assert layer(row).tolist() == [[-1.0, 11.0]]


def test_bi_interaction_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], check_gradients: Callable[[nn.Module, Tensor], bool]
) -> None:
    layer = build("bi_interaction", num_fields=4, embedding_dim=3)
    assert check_gradients(layer, draw(3, 4, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_bi_interaction_ignores_the_order_of_fields(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("bi_interaction", num_fields=7, embedding_dim=3)
    x_BFD = draw(4, 7, 3, seed=seed)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(layer(x_BFD[:, order]), layer(x_BFD), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_bi_interaction_summed_over_coordinates_is_fm(
    draw: Callable[..., Tensor], seed: int
) -> None:
    x_BFD = draw(4, 6, 3, seed=seed)
    summed = build("bi_interaction", num_fields=6, embedding_dim=3)(x_BFD).sum(dim=1, keepdim=True)
    fm = build("fm", num_fields=6, embedding_dim=3)
    torch.testing.assert_close(summed, fm(x_BFD), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_bi_interaction_keeps_coordinates_apart(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("bi_interaction", num_fields=4, embedding_dim=5)
    x_BFD = draw(3, 4, 5, seed=seed)
    changed = x_BFD.clone()
    changed[:, :, seed] += 1
    same = [d for d in range(5) if d != seed]
    assert torch.equal(layer(changed)[:, same], layer(x_BFD)[:, same])
    assert not torch.isclose(layer(changed)[:, seed], layer(x_BFD)[:, seed]).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_bi_interaction_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = build("bi_interaction", num_fields=5, embedding_dim=3)
    assert measure_degree(layer, draw(2, 5, 3, seed=seed)) == layer.degree == 2


@pytest.mark.parametrize("num_fields", [0, 1])
def test_bi_interaction_refuses_an_input_without_a_pair(num_fields: int) -> None:
    line = (
        f"bi_interaction: needs two fields or more to form a pair; got {num_fields}. "
        "Let it read a node of shape (B, F, D)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("bi_interaction", num_fields=num_fields, embedding_dim=4)


def test_bi_interaction_counts_its_operations_and_holds_no_parameter(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("bi_interaction", num_fields=4, embedding_dim=2)
    # Torch's counter sees matrix products alone, so the count is by hand. Each coordinate: 4
    # squares, 3 + 3 additions, a square, a difference, a halving: 13.
    assert count_matmul_flops(layer, 4, 2) == layer.flops.matmul == 0
    assert layer.flops_per_row == layer.flops.other == 2 * 13
    assert count_parameters(layer) == 0
