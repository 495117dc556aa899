"""The polynomial interaction network of xDeepInt."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
Randomise = Callable[[nn.Module, int], Interaction]


def plain_polynomial(
    row: list[list[float]], layer: Interaction, num_layers: int
) -> list[list[float]]:
    """Yan and Li 2020: ``X[l+1] = X[l] * (W[l] X[0]) + X[l]``."""
    fields, width = len(row), len(row[0])
    x = row
    for number in range(num_layers):
        weight = layer.get_parameter(f"ops.lin_{number}.weight").tolist()
        after = []
        for i in range(fields):
            line = []
            for d in range(width):
                mixed = 0.0
                for j in range(fields):
                    mixed += weight[i][j] * row[j][d]
                line.append(x[i][d] * mixed + x[i][d])
            after.append(line)
        x = after
    return x


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (3, 4), (6, 3)])
def test_polynomial_interaction_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    num_layers: int,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "polynomial_interaction",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_polynomial(row, layer, num_layers) for row in x_BFD.tolist()], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


def test_two_polynomial_layers_of_two_fields() -> None:
    layer = build("polynomial_interaction", num_fields=2, embedding_dim=2, num_layers=2)
    with torch.no_grad():
        layer.get_parameter("ops.lin_0.weight").copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        layer.get_parameter("ops.lin_1.weight").copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    # X0 = (1, 2), (3, -2); W0 X0 = (1 + 6, 2 - 4), (3, -2) = (7, -2), (3, -2)
    # X1 = (1 * 7 + 1, 2 * -2 + 2), (3 * 3 + 3, -2 * -2 - 2) = (8, -2), (12, 2)
    # W1 X0 = (3, -2), (1, 2)
    # X2 = (8 * 3 + 8, -2 * -2 - 2), (12 * 1 + 12, 2 * 2 + 2) = (32, 2), (24, 6)
    row = torch.tensor([[[1.0, 2.0], [3.0, -2.0]]])
    assert layer(row).tolist() == [[[32.0, 2.0], [24.0, 6.0]]]


def test_polynomial_interaction_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = randomise(build("polynomial_interaction", num_fields=3, embedding_dim=2), 0)
    assert check_gradients(layer, draw(2, 3, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_polynomial_interaction_without_mixes_is_its_input(
    draw: Callable[..., Tensor], seed: int
) -> None:
    layer = build("polynomial_interaction", num_fields=4, embedding_dim=3).double()
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    x_BFD = draw(4, 4, 3, seed=seed)
    assert torch.equal(layer(x_BFD), x_BFD)


@pytest.mark.parametrize("seed", SEEDS)
def test_polynomial_interaction_keeps_coordinates_apart(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("polynomial_interaction", num_fields=4, embedding_dim=3), seed)
    x_BFD = draw(4, 4, 3, seed=seed)
    changed = x_BFD.clone()
    changed[:, :, 1] = draw(4, 4, seed=100 + seed)
    before, after = layer(x_BFD), layer(changed)
    assert not torch.equal(after[:, :, 1], before[:, :, 1])
    torch.testing.assert_close(after[:, :, [0, 2]], before[:, :, [0, 2]], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("seed", SEEDS)
def test_polynomial_interaction_keeps_a_field_of_zeros_zero(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("polynomial_interaction", num_fields=4, embedding_dim=3), seed)
    x_BFD = draw(4, 4, 3, seed=seed)
    x_BFD[:, 2] = 0
    out = layer(x_BFD)
    assert not out[:, 2].any()
    assert out[:, [0, 1, 3]].all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_layers", [1, 2, 3, 5])
def test_polynomial_interaction_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    num_layers: int,
    seed: int,
) -> None:
    layer = randomise(
        build("polynomial_interaction", num_fields=3, embedding_dim=2, num_layers=num_layers), seed
    )
    assert measure_degree(layer, draw(2, 3, 2, seed=seed)) == layer.degree == num_layers + 1


def test_polynomial_interaction_refuses_no_layer() -> None:
    line = "polynomial_interaction: num_layers must be at least 1; got 0."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("polynomial_interaction", num_fields=3, embedding_dim=4, num_layers=0)


def test_polynomial_interaction_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("polynomial_interaction", num_fields=5, embedding_dim=8, num_layers=2)
    # Each of 2 layers mixes 5 fields into 5, 2 operations a weight for each of 8 coordinates, and
    # adds to each of 40 numbers a product and a sum.
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 8) == 2 * 2 * 5 * 5 * 8
    assert layer.flops.other == 2 * 2 * 40
    assert layer.flops_per_row == 960
    assert count_parameters(layer) == 2 * 5 * 5
