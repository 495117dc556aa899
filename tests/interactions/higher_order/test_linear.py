"""The first-order part: a plain sum of weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build, express
from recsys_had.interactions.algebra import Interaction, source

SEEDS = range(5)


def plain_linear(row: list[list[float]]) -> float:
    total = 0.0
    for field in row:
        for weight in field:
            total += weight
    return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(1, 1), (7, 1), (3, 4)])
def test_linear_equals_the_sum_written_with_loops(
    draw: Callable[..., Tensor], num_fields: int, embedding_dim: int, seed: int
) -> None:
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor([[plain_linear(row)] for row in x_BFD.tolist()], dtype=torch.float64)
    # On its own tables a field is one number wide; of another node's it sums all.
    x = source(num_fields, embedding_dim)
    layer = Interaction(express("linear", x), [x])
    torch.testing.assert_close(layer(x_BFD), expected, rtol=0, atol=1e-13)


def test_linear_adds_the_weights_of_three_ids() -> None:
    layer = build("linear", num_fields=3, embedding_dim=1)
    # 0.5 - 2 + 4 = 2.5; 1 + 1 - 3 = -1
    rows = torch.tensor([[[0.5], [-2.0], [4.0]], [[1.0], [1.0], [-3.0]]])
    assert layer(rows).tolist() == [[2.5], [-1.0]]


def test_linear_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], check_gradients: Callable[[nn.Module, Tensor], bool]
) -> None:
    layer = build("linear", num_fields=4, embedding_dim=1)
    assert check_gradients(layer, draw(3, 4, 1, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_linear_of_a_mix_is_the_mix_of_linears(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("linear", num_fields=6, embedding_dim=1)
    first, second = draw(2, 3, 6, 1, seed=seed)
    mix = 2.5 * layer(first) - 0.75 * layer(second)
    torch.testing.assert_close(layer(2.5 * first - 0.75 * second), mix, rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_linear_ignores_the_order_of_fields(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("linear", num_fields=6, embedding_dim=1)
    x_BFD = draw(3, 6, 1, seed=seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(layer(x_BFD[:, order]), layer(x_BFD), rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_linear_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = build("linear", num_fields=5, embedding_dim=1)
    assert measure_degree(layer, draw(2, 5, 1, seed=seed)) == layer.degree == 1


def test_linear_counts_its_additions_and_holds_no_parameter(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("linear", num_fields=5, embedding_dim=1)
    # Torch's counter sees no additions, so the count is by hand: five numbers, four additions.
    assert count_matmul_flops(layer, 5, 1) == layer.flops.matmul == 0
    assert layer.flops_per_row == layer.flops.other == 4
    assert count_parameters(layer) == 0
