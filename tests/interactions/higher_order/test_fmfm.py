"""The mapped pairs of a field-matrixed factorization machine, its two kinds."""

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
KINDS = ("matrix", "vector")
Randomise = Callable[[nn.Module, int], Interaction]


def plain_fmfm(row: list[list[float]], weight: Tensor, kind: str) -> float:
    """Sun et al. 2021: ``sum_{i<j} <W_ij e_i, e_j>``, each ``W_ij`` full or a diagonal."""
    width = len(row[0])
    total = 0.0
    for pair, (i, j) in enumerate(combinations(range(len(row)), 2)):
        for d in range(width):
            if kind == "matrix":
                mapped = 0.0
                for c in range(width):
                    mapped += weight[pair, d, c].item() * row[i][c]
            else:
                mapped = weight[0, pair * width + d].item() * row[i][d]
            total += mapped * row[j][d]
    return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (3, 4), (6, 3)])
def test_fmfm_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    kind: str,
    seed: int,
) -> None:
    layer = randomise(
        build("fmfm", num_fields=num_fields, embedding_dim=embedding_dim, kind=kind), seed
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    weight = layer.get_parameter(WEIGHT).detach()
    expected = torch.tensor(
        [[plain_fmfm(row, weight, kind)] for row in x_BFD.tolist()], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


def test_fmfm_maps_the_left_field_of_each_pair_by_its_matrix() -> None:
    layer = build("fmfm", num_fields=3, embedding_dim=2)
    matrices = [[[1.0, 2.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], [[2.0, 0.0], [0.0, -1.0]]]
    with torch.no_grad():
        layer.get_parameter(WEIGHT).copy_(torch.tensor(matrices))
    # e = (1, 2), (3, 1), (2, 5); W01 (a, b) = (a + 2b, b), W02 (a, b) = (b, a),
    # W12 (a, b) = (2a, -b)
    # <W01 e0, e1> = <(5, 2), (3, 1)> = 17; <W02 e0, e2> = <(2, 1), (2, 5)> = 9
    # <W12 e1, e2> = <(6, -1), (2, 5)> = 7; y = 17 + 9 + 7 = 33
    assert layer(torch.tensor([[[1.0, 2.0], [3.0, 1.0], [2.0, 5.0]]])).tolist() == [[33.0]]


def test_fmfm_weighs_the_products_of_each_pair_by_its_vector() -> None:
    layer = build("fmfm", num_fields=3, embedding_dim=2, kind="vector")
    with torch.no_grad():
        layer.get_parameter(WEIGHT).copy_(torch.tensor([[1.0, 2.0, 0.0, 1.0, -1.0, 2.0]]))
    # e = (1, 2), (3, 1), (2, 5); w01 = (1, 2), w02 = (0, 1), w12 = (-1, 2)
    # e0 * e1 = (3, 2) gives 3 + 4 = 7; e0 * e2 = (2, 10) gives 0 + 10 = 10
    # e1 * e2 = (6, 5) gives -6 + 10 = 4; y = 7 + 10 + 4 = 21
    assert layer(torch.tensor([[[1.0, 2.0], [3.0, 1.0], [2.0, 5.0]]])).tolist() == [[21.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_fmfm_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    kind: str,
) -> None:
    layer = randomise(build("fmfm", num_fields=4, embedding_dim=3, kind=kind), 0)
    assert check_gradients(layer, draw(2, 4, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_fmfm_with_identity_matrices_is_fm(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("fmfm", num_fields=6, embedding_dim=3).double()
    with torch.no_grad():
        layer.get_parameter(WEIGHT).copy_(torch.eye(3).expand(15, 3, 3))
    x_BFD = draw(4, 6, 3, seed=seed)
    fm = build("fm", num_fields=6, embedding_dim=3)
    torch.testing.assert_close(layer(x_BFD), fm(x_BFD), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_fmfm_with_constant_vectors_is_fwfm(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    fwfm = randomise(build("fwfm", num_fields=6, embedding_dim=3), seed)
    layer = build("fmfm", num_fields=6, embedding_dim=3, kind="vector").double()
    with torch.no_grad():
        weights = fwfm.get_parameter(WEIGHT).repeat_interleave(3, dim=1)
        layer.get_parameter(WEIGHT).copy_(weights)
    x_BFD = draw(4, 6, 3, seed=seed)
    torch.testing.assert_close(layer(x_BFD), fwfm(x_BFD), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_fmfm_with_diagonal_matrices_is_its_vector_kind(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    vector = randomise(build("fmfm", num_fields=5, embedding_dim=3, kind="vector"), seed)
    matrix = build("fmfm", num_fields=5, embedding_dim=3).double()
    with torch.no_grad():
        diagonals = vector.get_parameter(WEIGHT).view(10, 3)
        matrix.get_parameter(WEIGHT).copy_(torch.diag_embed(diagonals))
    x_BFD = draw(4, 5, 3, seed=seed)
    torch.testing.assert_close(matrix(x_BFD), vector(x_BFD), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_fmfm_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    kind: str,
    seed: int,
) -> None:
    layer = randomise(build("fmfm", num_fields=5, embedding_dim=3, kind=kind), seed)
    assert measure_degree(layer, draw(2, 5, 3, seed=seed)) == layer.degree == 2


@pytest.mark.parametrize("kind", KINDS)
def test_fmfm_refuses_an_input_without_a_pair(kind: str) -> None:
    line = (
        "fmfm: needs two fields or more to form a pair; got 1. "
        "Let it read a node of shape (B, F, D)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("fmfm", num_fields=1, embedding_dim=4, kind=kind)


def test_fmfm_refuses_an_unknown_kind() -> None:
    line = "fmfm: kind must be matrix or vector; got 'scalar'."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("fmfm", num_fields=3, embedding_dim=4, kind="scalar")


@pytest.mark.parametrize(
    ("kind", "weights", "other"),
    # Beside the maps, 2 operations a weight, there is a product for each of 8 numbers of 6 pairs;
    # the numbers are summed up without a weight of their own where the map was a matrix.
    [("matrix", 6 * 8 * 8, 6 * 8 + 47), ("vector", 6 * 8, 6 * 8)],
)
def test_fmfm_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    kind: str,
    weights: int,
    other: int,
) -> None:
    layer = build("fmfm", num_fields=4, embedding_dim=8, kind=kind)
    assert layer.flops.matmul == count_matmul_flops(layer, 4, 8) == 2 * weights
    assert layer.flops.other == other
    assert layer.flops_per_row == 2 * weights + other
    assert count_parameters(layer) == weights
