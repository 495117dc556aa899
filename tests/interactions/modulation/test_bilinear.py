"""FiBiNET's bilinear interaction, its three kinds."""

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
KINDS = ("field_all", "field_each", "field_interaction")
Randomise = Callable[[nn.Module, int], Interaction]
pytestmark = pytest.mark.parametrize("kind", KINDS)


def plain_bilinear(row: list[list[float]], weight: Tensor, kind: str) -> list[list[float]]:
    """Huang et al. 2019, eq. 7-9."""
    out = []
    for pair, (i, j) in enumerate(combinations(range(len(row)), 2)):
        matrix = weight if kind == "field_all" else weight[i if kind == "field_each" else pair]
        products = []
        for d, line in enumerate(matrix.tolist()):
            mapped = 0.0
            for entry, number in zip(line, row[i], strict=True):
                mapped += entry * number
            products.append(mapped * row[j][d])
        out.append(products)
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (3, 4), (6, 3)])
def test_bilinear_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    kind: str,
    seed: int,
) -> None:
    layer = randomise(
        build("bilinear", num_fields=num_fields, embedding_dim=embedding_dim, kind=kind), seed
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    weight = layer.get_parameter(WEIGHT).detach()
    expected = torch.tensor(
        [plain_bilinear(row, weight, kind) for row in x_BFD.tolist()], dtype=torch.float64
    )
    # A single pair is flat.
    expected = expected.flatten(1) if num_fields == 2 else expected
    torch.testing.assert_close(layer(x_BFD), expected, rtol=0, atol=1e-12)


def test_bilinear_maps_the_left_field_of_each_pair(kind: str) -> None:
    layer = build("bilinear", num_fields=3, embedding_dim=2, kind=kind)
    matrices = torch.tensor([[[1.0, 2.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], [[2, 0], [0, 2]]])
    with torch.no_grad():
        chosen = {"field_all": matrices[0], "field_each": matrices[:2]}.get(kind, matrices)
        weight = layer.get_parameter(WEIGHT)
        assert weight.shape == chosen.shape
        weight.copy_(chosen)
    # e = (1, 2), (3, -1), (2, 5); W0 (a, b) = (a + 2b, b), W1 (a, b) = (b, a), W2 doubles
    # p01 = W0 (1, 2) * (3, -1) = (5, 2) * (3, -1) = (15, -2) in every kind
    # p02 = W0 (1, 2) * (2, 5) = (10, 10), or W1 (1, 2) * (2, 5) = (2, 1) * (2, 5) = (4, 5)
    # p12 = W0 (3, -1) * (2, 5) = (1, -1) * (2, 5) = (2, -5)
    #    or W1 (3, -1) * (2, 5) = (-1, 3) * (2, 5) = (-2, 15)
    #    or W2 (3, -1) * (2, 5) = (6, -2) * (2, 5) = (12, -10)
    expected = {
        "field_all": [[15.0, -2.0], [10.0, 10.0], [2.0, -5.0]],
        "field_each": [[15.0, -2.0], [10.0, 10.0], [-2.0, 15.0]],
        "field_interaction": [[15.0, -2.0], [4.0, 5.0], [12.0, -10.0]],
    }
    row = torch.tensor([[[1.0, 2.0], [3.0, -1.0], [2.0, 5.0]]])
    assert layer(row).tolist() == [expected[kind]]


def test_bilinear_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    kind: str,
) -> None:
    layer = randomise(build("bilinear", num_fields=4, embedding_dim=3, kind=kind), 0)
    assert check_gradients(layer, draw(2, 4, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_bilinear_with_identity_maps_sums_to_bi_interaction(
    draw: Callable[..., Tensor], kind: str, seed: int
) -> None:
    layer = build("bilinear", num_fields=6, embedding_dim=3, kind=kind).double()
    with torch.no_grad():
        weight = layer.get_parameter(WEIGHT)
        weight.copy_(torch.eye(3).expand_as(weight))
    x_BFD = draw(4, 6, 3, seed=seed)
    sums = build("bi_interaction", num_fields=6, embedding_dim=3)(x_BFD)
    torch.testing.assert_close(layer(x_BFD).sum(dim=1), sums, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_bilinear_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    kind: str,
    seed: int,
) -> None:
    layer = randomise(build("bilinear", num_fields=5, embedding_dim=3, kind=kind), seed)
    x_BFD = draw(2, 5, 3, seed=seed)
    assert measure_degree(layer, x_BFD) == layer.degree == 2
    assert not layer(0 * x_BFD).any()


def test_bilinear_refuses_an_input_without_a_pair(kind: str) -> None:
    line = (
        "bilinear: needs two fields or more to form a pair; got 1. "
        "Let it read a node of shape (B, F, D)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("bilinear", num_fields=1, embedding_dim=4, kind=kind)


def test_bilinear_refuses_an_unknown_kind(kind: str) -> None:
    line = (
        "bilinear: kind must be one of field_all, field_each, field_interaction; "
        f"got '{kind.upper()}'."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("bilinear", num_fields=3, embedding_dim=4, kind=kind.upper())


def test_bilinear_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    kind: str,
) -> None:
    layer = build("bilinear", num_fields=6, embedding_dim=8, kind=kind)
    # Each of 5 left fields, or the left one of each of 15 pairs, is mapped: 2 operations for each
    # of 8 * 8 weights. Beside that there is one product a number of the 15 pairs.
    num_mapped = {"field_all": 5, "field_each": 5, "field_interaction": 15}[kind]
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8) == num_mapped * 2 * 8 * 8
    assert layer.flops.other == 15 * 8
    assert layer.flops_per_row == num_mapped * 2 * 8 * 8 + 15 * 8
    num_maps = {"field_all": 1, "field_each": 5, "field_interaction": 15}[kind]
    assert count_parameters(layer) == num_maps * 8 * 8
