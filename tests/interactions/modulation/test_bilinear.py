"""FiBiNET's bilinear interaction, its three kinds."""

import re
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions.bi_interaction import BiInteraction
from recsys_had.interactions.bilinear import Bilinear, Kind

SEEDS = range(5)
KINDS: tuple[Kind, ...] = ("field_all", "field_each", "field_interaction")
Randomise = Callable[[nn.Module, int], Bilinear]
pytestmark = pytest.mark.parametrize("kind", KINDS)


def plain_bilinear(
    row: list[list[float]], weight: list[list[list[float]]], kind: Kind
) -> list[list[float]]:
    """Huang et al. 2019, eq. 7-9."""
    out = []
    for pair, (i, j) in enumerate(combinations(range(len(row)), 2)):
        matrix = weight[{"field_all": 0, "field_each": i, "field_interaction": pair}[kind]]
        products = []
        for d, line in enumerate(matrix):
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
    kind: Kind,
    seed: int,
) -> None:
    layer = randomise(Bilinear(num_fields=num_fields, embedding_dim=embedding_dim, kind=kind), seed)
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    weight = layer.weight.tolist()
    expected = torch.tensor(
        [plain_bilinear(row, weight, kind) for row in x_BFD.tolist()], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=0, atol=1e-12)


def test_bilinear_maps_the_left_field_of_each_pair(kind: Kind) -> None:
    layer = Bilinear(num_fields=3, embedding_dim=2, kind=kind)
    matrices = torch.tensor([[[1.0, 2.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], [[2, 0], [0, 2]]])
    with torch.no_grad():
        layer.weight.copy_(matrices[: len(layer.weight)])
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
    kind: Kind,
) -> None:
    layer = randomise(Bilinear(num_fields=4, embedding_dim=3, kind=kind), 0)
    assert check_gradients(layer, draw(2, 4, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_bilinear_with_identity_maps_sums_to_bi_interaction(
    draw: Callable[..., Tensor], kind: Kind, seed: int
) -> None:
    layer = Bilinear(num_fields=6, embedding_dim=3, kind=kind).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(3).expand_as(layer.weight))
    x_BFD = draw(4, 6, 3, seed=seed)
    sums = BiInteraction(num_fields=6, embedding_dim=3)(x_BFD)
    torch.testing.assert_close(layer(x_BFD).sum(dim=1), sums, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_bilinear_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    kind: Kind,
    seed: int,
) -> None:
    layer = randomise(Bilinear(num_fields=5, embedding_dim=3, kind=kind), seed)
    x_BFD = draw(2, 5, 3, seed=seed)
    assert measure_degree(layer, x_BFD) == layer.degree == 2
    assert not layer(0 * x_BFD).any()


def test_bilinear_refuses_an_input_without_a_pair(kind: Kind) -> None:
    line = (
        "bilinear: num_fields must be at least 2 to form a pair; got 1. "
        "Let it read a node of shape (B, F, D)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        Bilinear(num_fields=1, embedding_dim=4, kind=kind)


def test_bilinear_refuses_an_unknown_kind(kind: Kind) -> None:
    line = (
        "bilinear: kind must be one of field_all, field_each, field_interaction; "
        f"got '{kind.upper()}'."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        Bilinear(num_fields=3, embedding_dim=4, kind=kind.upper())  # type: ignore[arg-type]


def test_bilinear_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    kind: Kind,
) -> None:
    layer = Bilinear(num_fields=6, embedding_dim=8, kind=kind)
    # Exact: beside the maps torch counts there is one product a number of the 15 pairs.
    assert layer.flops_per_row == count_matmul_flops(layer, 6, 8) + 15 * 8
    num_maps = {"field_all": 1, "field_each": 5, "field_interaction": 15}[kind]
    assert count_parameters(layer) == num_maps * 8 * 8
