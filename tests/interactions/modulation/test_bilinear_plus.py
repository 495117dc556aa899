"""FiBiNet++'s bi-linear+: a number for each pair of fields, its three kinds."""

import re
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
WEIGHT, COMPRESSION = "ops.lin_0.weight", "ops.lin_1.weight"
KINDS = ("field_all", "field_each", "field_interaction")
Randomise = Callable[[nn.Module, int], Interaction]


def plain_bilinear_plus(
    row: list[list[float]], weight: Tensor, compression: Tensor | None, kind: str
) -> list[float]:
    """Zhang et al. 2022, bi-linear+."""
    products = []
    for pair, (i, j) in enumerate(combinations(range(len(row)), 2)):
        matrix = weight if kind == "field_all" else weight[i if kind == "field_each" else pair]
        total = 0.0
        for line, right in zip(matrix.tolist(), row[j], strict=True):
            for entry, left in zip(line, row[i], strict=True):
                total += entry * left * right
        products.append(total)
    if compression is None:
        return products
    return [
        sum(c * product for c, product in zip(line, products, strict=True))
        for line in compression.tolist()
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("compressed_dim", [None, 1, 7])
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (3, 4), (6, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_bilinear_plus_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    kind: str,
    num_fields: int,
    embedding_dim: int,
    compressed_dim: int | None,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "bilinear_plus",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            kind=kind,
            compressed_dim=compressed_dim,
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    weight = layer.get_parameter(WEIGHT).detach()
    compression = None if compressed_dim is None else layer.get_parameter(COMPRESSION).detach()
    expected = torch.tensor(
        [plain_bilinear_plus(row, weight, compression, kind) for row in x_BFD.tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_bilinear_plus_of_three_fields_compressed_to_two_numbers(kind: str) -> None:
    layer = build("bilinear_plus", num_fields=3, embedding_dim=2, kind=kind, compressed_dim=2)
    matrices = torch.tensor([[[1.0, 2.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], [[2, 0], [0, 2]]])
    with torch.no_grad():
        chosen = {"field_all": matrices[0], "field_each": matrices[:2]}.get(kind, matrices)
        weight = layer.get_parameter(WEIGHT)
        assert weight.shape == chosen.shape
        weight.copy_(chosen)
        layer.get_parameter(COMPRESSION).copy_(torch.tensor([[1.0, 0.0, 2.0], [-1.0, 2.0, 0.0]]))
    # e = (1, 2), (3, -1), (2, 5); W0 (a, b) = (a + 2b, b), W1 (a, b) = (b, a), W2 doubles
    # p01 = <W0 (1, 2), (3, -1)> = <(5, 2), (3, -1)> = 13 in every kind
    # p02 = <W0 (1, 2), (2, 5)> = <(5, 2), (2, 5)> = 20, or <W1 (1, 2), (2, 5)> = 4 + 5 = 9
    # p12 = <W0 (3, -1), (2, 5)> = <(1, -1), (2, 5)> = -3
    #    or <W1 (3, -1), (2, 5)> = -2 + 15 = 13
    #    or <W2 (3, -1), (2, 5)> = 12 - 10 = 2
    # y = (p01 + 2 p12, -p01 + 2 p02)
    expected = {
        "field_all": [13.0 - 6.0, -13.0 + 40.0],
        "field_each": [13.0 + 26.0, -13.0 + 40.0],
        "field_interaction": [13.0 + 4.0, -13.0 + 18.0],
    }
    row = torch.tensor([[[1.0, 2.0], [3.0, -1.0], [2.0, 5.0]]])
    assert layer(row).tolist() == [expected[kind]]


@pytest.mark.parametrize("compressed_dim", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_bilinear_plus_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    kind: str,
    compressed_dim: int | None,
) -> None:
    layer = randomise(
        build(
            "bilinear_plus",
            num_fields=4,
            embedding_dim=3,
            kind=kind,
            compressed_dim=compressed_dim,
        ),
        0,
    )
    assert check_gradients(layer, draw(2, 4, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_bilinear_plus_uncompressed_is_the_sum_of_bilinear_over_its_channels(
    draw: Callable[..., Tensor], randomise: Randomise, kind: str, seed: int
) -> None:
    layer = randomise(
        build("bilinear_plus", num_fields=6, embedding_dim=3, kind=kind, compressed_dim=None), seed
    )
    bilinear = build("bilinear", num_fields=6, embedding_dim=3, kind=kind).double()
    with torch.no_grad():
        bilinear.get_parameter(WEIGHT).copy_(layer.get_parameter(WEIGHT))
    x_BFD = draw(4, 6, 3, seed=seed)
    torch.testing.assert_close(layer(x_BFD), bilinear(x_BFD).sum(dim=2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("compressed_dim", [None, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_bilinear_plus_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    kind: str,
    compressed_dim: int | None,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "bilinear_plus",
            num_fields=5,
            embedding_dim=3,
            kind=kind,
            compressed_dim=compressed_dim,
        ),
        seed,
    )
    x_BFD = draw(2, 5, 3, seed=seed)
    assert measure_degree(layer, x_BFD) == layer.degree == 2
    assert not layer(0 * x_BFD).any()


@pytest.mark.parametrize(
    ("num_fields", "options", "line"),
    [
        (
            1,
            {},
            "needs two fields or more to form a pair; got 1. "
            "Let it read a node of shape (B, F, D).",
        ),
        (
            3,
            {"kind": "field"},
            "kind must be one of field_all, field_each, field_interaction; got 'field'.",
        ),
        pytest.param(
            3,
            {"compressed_dim": 0},
            "compressed_dim must be at least 1; got 0.",
        ),
    ],
)
def test_bilinear_plus_refuses_what_it_cannot_build(
    num_fields: int, options: dict[str, Any], line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('bilinear_plus: ' + line)}$"):
        build("bilinear_plus", num_fields=num_fields, embedding_dim=4, **options)


@pytest.mark.parametrize(
    ("kind", "num_mapped", "num_maps"),
    [("field_all", 5, 1), ("field_each", 5, 5), ("field_interaction", 15, 15)],
)
@pytest.mark.parametrize("compressed_dim", [None, 10])
def test_bilinear_plus_counts_its_operations_and_parameters(
    count_parameters: Callable[[nn.Module], int],
    kind: str,
    num_mapped: int,
    num_maps: int,
    compressed_dim: int | None,
) -> None:
    layer = build(
        "bilinear_plus", num_fields=6, embedding_dim=8, kind=kind, compressed_dim=compressed_dim
    )
    # Each of 5 left fields, or the left one of each of 15 pairs, is mapped: 2 operations for each
    # of 8 * 8 weights. An inner product is 8 products and 7 sums. Each number of the output takes
    # 2 operations a pair.
    compression = 15 * (compressed_dim or 0)
    matmul = 2 * (num_mapped * 8 * 8 + compression)
    assert layer.flops.matmul == matmul
    assert layer.flops.other == 15 * (8 + 7)
    assert layer.flops_per_row == matmul + 15 * 15
    assert count_parameters(layer) == num_maps * 8 * 8 + compression
