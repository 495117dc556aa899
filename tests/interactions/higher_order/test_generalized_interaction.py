"""Products of mapped fields in subspaces."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

NAME = "generalized_interaction"
SEEDS = range(3)
Row = list[list[float]]


def plain_interaction(row: Row, layer: Interaction, num_layers: int, num_subspaces: int) -> Row:
    """Lang et al. 2021: every field with every vector of the layer below, pair by pair."""
    learned = {
        kind: iter([op.weight.tolist() for name, op in layer.ops.items() if name.startswith(kind)])
        for kind in ("lin", "constant")
    }

    def vectors(level: int) -> Row:
        # The order in which the module holds them: what is below stands where it is first read.
        if level == 0:
            return row
        below: Row = []
        found = []
        for _ in range(num_subspaces):
            alpha = next(learned["lin"])
            below = below or vectors(level - 1)
            matrix, (diagonal,) = next(learned["lin"]), next(learned["constant"])
            found.append(subspace(alpha, matrix, diagonal, below))
        return found

    def subspace(alpha: Row, matrix: Row, diagonal: list[float], below: Row) -> list[float]:
        out = [0.0] * len(diagonal)
        for i, field in enumerate(row):
            for j, vector in enumerate(below):
                for d, line in enumerate(matrix):
                    mapped = sum(m * v for m, v in zip(line, vector, strict=True))
                    out[d] += alpha[j][i] * field[d] * (mapped + diagonal[d] * vector[d])
        return out

    expected = vectors(num_layers)
    assert all(next(rest, None) is None for rest in learned.values())
    return expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("num_fields", "embedding_dim", "num_layers", "num_subspaces"),
    [(2, 1, 1, 1), (5, 3, 1, 2), (3, 4, 2, 3), (4, 2, 3, 1)],
)
def test_it_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Callable[[nn.Module, int], Interaction],
    num_fields: int,
    embedding_dim: int,
    num_layers: int,
    num_subspaces: int,
    seed: int,
) -> None:
    options = {"num_layers": num_layers, "num_subspaces": num_subspaces}
    made = build(NAME, num_fields=num_fields, embedding_dim=embedding_dim, **options)
    layer = randomise(made, seed)
    x = draw(3, num_fields, embedding_dim, seed=seed)
    expected = [plain_interaction(row, layer, num_layers, num_subspaces) for row in x.tolist()]
    found = layer(x).view(3, num_subspaces, embedding_dim)
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10
    )


def test_two_fields_of_two_numbers_worked_out_by_hand() -> None:
    layer = build(NAME, num_fields=2, embedding_dim=2, num_layers=1, num_subspaces=1)
    with torch.no_grad():
        # The first vector weighs the fields 1 and 2, the second 0 and -1.
        layer.get_parameter("ops.lin_0.weight").copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        layer.get_parameter("ops.lin_1.weight").copy_(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    # Fields (1, 2) and (3, 4). Weighed for the first vector: (1, 2) + 2 (3, 4) = (7, 10); for the
    # second: -(3, 4). Mapped, beside themselves: (1 + 2, 2) = (3, 2) and (3 + 4, 4) = (7, 4).
    # (7, 10) * (3, 2) + (-3, -4) * (7, 4) = (21, 20) - (21, 16)
    found = layer(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 4.0]]))


@pytest.mark.parametrize("num_subspaces", [1, 4])
def test_it_begins_near_products_of_sums(draw: Callable[..., Tensor], num_subspaces: int) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"num_layers": 3, "num_subspaces": num_subspaces}
    layer = build(NAME, num_fields=6, embedding_dim=3, **options).double()
    x = draw(4, 6, 3, seed=0).abs() + 0.5
    expected = x.sum(dim=1, keepdim=True).pow(4).expand(-1, num_subspaces, -1)
    torch.testing.assert_close(layer(x).view(expected.shape), expected, rtol=0.1, atol=0)


def test_subspaces_of_lower_layers_come_to_differ() -> None:
    torch.manual_seed(0)
    layer = build(NAME, num_fields=4, embedding_dim=3, num_layers=2, num_subspaces=2)
    out = layer(torch.randn(8, 4, 3))
    (out[:, 0] - 2 * out[:, 1]).square().sum().backward()
    # The first layer's two: weights and maps.
    first, second = (layer.get_parameter(f"ops.lin_{number}.weight").grad for number in (1, 3))
    assert first is not None and second is not None
    assert not torch.equal(first, second)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_its_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Callable[[nn.Module, int], Interaction],
    check_gradients: Callable[[nn.Module, Tensor], bool],
    num_layers: int,
) -> None:
    made = build(NAME, num_fields=3, embedding_dim=2, num_layers=num_layers, num_subspaces=2)
    assert check_gradients(randomise(made, 0), draw(2, 3, 2, seed=0))


@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_each_layer_adds_one_to_the_degree(
    draw: Callable[..., Tensor],
    randomise: Callable[[nn.Module, int], Interaction],
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    num_layers: int,
) -> None:
    made = build(NAME, num_fields=4, embedding_dim=3, num_layers=num_layers, num_subspaces=2)
    layer = randomise(made, 0)
    assert measure_degree(layer, draw(2, 4, 3, seed=0)) == layer.degree == num_layers + 1


def test_it_counts_its_parameters_and_operations_and_makes_no_pairs(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build(NAME, num_fields=5, embedding_dim=3, num_layers=2, num_subspaces=2)
    # Of a subspace: a weight of each field for each vector, a matrix and its diagonal.
    assert count_parameters(layer) == 2 * (5 * 5 + 9 + 3) + 2 * (5 * 2 + 9 + 3)
    # 2 F F D and 2 F D D, then 2 F S D and 2 S D D, of two subspaces each.
    assert layer.flops.matmul == 2 * (2 * 25 * 3 + 2 * 5 * 9) + 2 * (2 * 10 * 3 + 2 * 2 * 9)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        ({"num_subspaces": 0}, "num_subspaces must be at least 1; got 0."),
    ],
)
def test_it_refuses_no_layer_and_no_subspace(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'{NAME}: {line}')}$"):
        build(NAME, num_fields=3, embedding_dim=4, **options)
