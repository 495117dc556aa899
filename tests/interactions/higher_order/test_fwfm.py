"""The weighted pairs of a field-weighted factorization machine."""

import re
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
WEIGHT = "ops.lin_0.weight"
Randomise = Callable[[nn.Module, int], Interaction]


def plain_fwfm(row: list[list[float]], weights: list[float]) -> float:
    """Pan et al. 2018: ``sum_{i<j} r_ij <e_i, e_j>``."""
    total = 0.0
    for pair, (i, j) in enumerate(combinations(range(len(row)), 2)):
        for left, right in zip(row[i], row[j], strict=True):
            total += weights[pair] * left * right
    return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (3, 4), (7, 3)])
def test_fwfm_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    seed: int,
) -> None:
    layer = randomise(build("fwfm", num_fields=num_fields, embedding_dim=embedding_dim), seed)
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    (weights,) = layer.get_parameter(WEIGHT).tolist()
    expected = torch.tensor(
        [[plain_fwfm(row, weights)] for row in x_BFD.tolist()], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


def test_fwfm_weighs_the_pairs_row_by_row() -> None:
    layer = build("fwfm", num_fields=3, embedding_dim=2)
    with torch.no_grad():
        layer.get_parameter(WEIGHT).copy_(torch.tensor([[2.0, -1.0, 3.0]]))
    # e = (1, 2), (3, 1), (2, 5)
    # <e0, e1> = 3 + 2 = 5; <e0, e2> = 2 + 10 = 12; <e1, e2> = 6 + 5 = 11
    # y = 2 * 5 - 1 * 12 + 3 * 11 = 31
    assert layer(torch.tensor([[[1.0, 2.0], [3.0, 1.0], [2.0, 5.0]]])).tolist() == [[31.0]]


def test_fwfm_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = randomise(build("fwfm", num_fields=4, embedding_dim=3), 0)
    assert check_gradients(layer, draw(3, 4, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_fwfm_with_all_weights_one_is_fm(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("fwfm", num_fields=6, embedding_dim=3).double()
    nn.init.ones_(layer.get_parameter(WEIGHT))
    x_BFD = draw(4, 6, 3, seed=seed)
    fm = build("fm", num_fields=6, embedding_dim=3)
    torch.testing.assert_close(layer(x_BFD), fm(x_BFD), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_fwfm_does_not_see_a_rotation_of_the_embeddings(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("fwfm", num_fields=5, embedding_dim=4), seed)
    x_BFD = draw(4, 5, 4, seed=seed)
    rotation = torch.linalg.qr(draw(4, 4, seed=100 + seed)).Q
    torch.testing.assert_close(layer(x_BFD @ rotation), layer(x_BFD), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
def test_fwfm_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = randomise(build("fwfm", num_fields=5, embedding_dim=3), seed)
    assert measure_degree(layer, draw(2, 5, 3, seed=seed)) == layer.degree == 2


def test_fwfm_refuses_an_input_without_a_pair() -> None:
    line = (
        "fwfm: needs two fields or more to form a pair; got 1. "
        "Let it read a node of shape (B, F, D)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("fwfm", num_fields=1, embedding_dim=4)


def test_fwfm_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("fwfm", num_fields=5, embedding_dim=8)
    # Each of 10 pairs takes 8 products and 7 sums; a weight a pair, 2 operations each.
    assert layer.flops.other == 10 * 8 + 10 * 7
    assert layer.flops.matmul == 2 * 10
    assert layer.flops_per_row == 170
    assert count_parameters(layer) == 10
    # It runs the inner products of 5 fields with 5 fields as one matrix product.
    assert count_matmul_flops(layer, 5, 8) == 2 * 5 * 5 * 8 + 2 * 10
