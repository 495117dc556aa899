"""xDeepFM's compressed interaction network."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
SHAPES = [(3, 2), (4, 1), (1, 3)]
BIASES = [False, True]
Randomise = Callable[[nn.Module, int], Interaction]


def plain_cin(
    fields: list[list[float]], layer: Interaction, hidden_units: tuple[int, ...], bias: bool
) -> list[float]:
    """Lian et al. 2018, eq. 6, then the sum over D of every map of every order."""
    num_fields, embedding_dim = len(fields), len(fields[0])
    maps, out = fields, []
    for order, units in enumerate(hidden_units):
        weight = layer.get_parameter(f"ops.lin_{order}.weight").tolist()
        added = [0.0] * units
        if bias:
            added = layer.get_parameter(f"ops.lin_{order}.bias").tolist()
        found = []
        for h in range(units):
            row = []
            for d in range(embedding_dim):
                total = added[h]
                for i in range(len(maps)):
                    for j in range(num_fields):
                        total += weight[h][i * num_fields + j] * maps[i][d] * fields[j][d]
                row.append(total)
            found.append(row)
        maps = found
        out += [sum(row) for row in maps]
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), SHAPES)
@pytest.mark.parametrize("hidden_units", [(2,), (5, 2), (2, 4, 3)])
@pytest.mark.parametrize("bias", BIASES)
def test_cin_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    bias: bool,
    hidden_units: tuple[int, ...],
    num_fields: int,
    embedding_dim: int,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "cin",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            hidden_units=hidden_units,
            bias=bias,
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_cin(fields, layer, hidden_units, bias) for fields in x_BFD.tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-11, atol=1e-11)


def test_two_maps_of_two_fields_and_one_map_of_those() -> None:
    layer = build("cin", num_fields=2, embedding_dim=2, hidden_units=(2, 1), bias=True)
    values = {
        "ops.lin_0.weight": [[1.0, 2.0, 0.0, -1.0], [0.0, 0.0, 1.0, 1.0]],
        "ops.lin_0.bias": [1.0, -1.0],
        "ops.lin_1.weight": [[1.0, 2.0, 3.0, -1.0]],
        "ops.lin_1.bias": [2.0],
    }
    with torch.no_grad():
        for name, value in values.items():
            layer.get_parameter(name).copy_(torch.tensor(value))
    # e1 = (1, 2), e2 = (3, -1); e1 e1 = (1, 4), e1 e2 = e2 e1 = (3, -2), e2 e2 = (9, 1)
    # h1 = e1 e1 + 2 e1 e2 - e2 e2 + 1 = (1 + 6 - 9 + 1, 4 - 4 - 1 + 1) = (-1, 0), which sums to -1
    # h2 = e2 e1 + e2 e2 - 1 = (3 + 9 - 1, -2 + 1 - 1) = (11, -2), which sums to 9
    # h1 e1 = (-1, 0), h1 e2 = (-3, 0), h2 e1 = (11, -4), h2 e2 = (33, 2)
    # h1 e1 + 2 h1 e2 + 3 h2 e1 - h2 e2 + 2 = (-1 - 6 + 33 - 33 + 2, -12 - 2 + 2) = (-5, -12)
    out = layer(torch.tensor([[[1.0, 2.0], [3.0, -1.0]]]))
    assert out.tolist() == [[-1.0, 9.0, -17.0]]


@pytest.mark.parametrize("bias", BIASES)
def test_cin_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    bias: bool,
) -> None:
    layer = randomise(
        build("cin", num_fields=3, embedding_dim=2, hidden_units=(2, 3), bias=bias), 0
    )
    assert check_gradients(layer, draw(3, 3, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_one_order_of_ones_is_the_squared_sum_over_the_fields(
    draw: Callable[..., Tensor], seed: int
) -> None:
    layer = build("cin", num_fields=4, embedding_dim=3, hidden_units=(2,)).double()
    with torch.no_grad():
        layer.get_parameter("ops.lin_0.weight").fill_(1.0)
    x_BFD = draw(5, 4, 3, seed=seed)
    squared = x_BFD.sum(dim=1).square().sum(dim=1, keepdim=True)
    torch.testing.assert_close(layer(x_BFD), squared.expand(-1, 2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_maps_of_order_k_grow_with_the_power_k_plus_1_of_the_input(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("cin", num_fields=3, embedding_dim=2, hidden_units=(3, 1, 2)), seed)
    x_BFD = draw(4, 3, 2, seed=seed)
    times = torch.tensor([4.0] * 3 + [8.0] + [16.0] * 2, dtype=torch.float64)
    torch.testing.assert_close(layer(2 * x_BFD), times * layer(x_BFD), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bias", BIASES)
def test_cin_ignores_the_order_of_the_channels(
    draw: Callable[..., Tensor], randomise: Randomise, bias: bool, seed: int
) -> None:
    layer = randomise(
        build("cin", num_fields=3, embedding_dim=5, hidden_units=(4, 3), bias=bias), seed
    )
    x_BFD = draw(4, 3, 5, seed=seed)
    shuffled = x_BFD[:, :, torch.randperm(5, generator=torch.Generator().manual_seed(seed))]
    torch.testing.assert_close(layer(shuffled), layer(x_BFD), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("num_orders", [1, 2, 3, 5])
def test_cin_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    num_orders: int,
    bias: bool,
    seed: int,
) -> None:
    layer = randomise(
        build("cin", num_fields=3, embedding_dim=2, hidden_units=(2,) * num_orders, bias=bias),
        seed,
    )
    assert measure_degree(layer, draw(2, 3, 2, seed=seed)) == layer.degree == num_orders + 1


@pytest.mark.parametrize(("hidden_units", "got"), [((), "[]"), ((8, 0), "[8, 0]"), ((-1,), "[-1]")])
def test_cin_refuses_no_order_and_no_map(hidden_units: tuple[int, ...], got: str) -> None:
    line = f"cin: hidden_units must be one positive width or more; got {got}."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("cin", num_fields=3, embedding_dim=4, hidden_units=hidden_units)


@pytest.mark.parametrize(("bias", "biases"), [(False, 0), (True, 6 + 4)])
def test_cin_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    bias: bool,
    biases: int,
) -> None:
    layer = build("cin", num_fields=5, embedding_dim=8, hidden_units=(6, 4), bias=bias)
    # 5 * 5 = 25 pairs make 6 maps, 6 * 5 = 30 pairs make 4: 2 operations a weight and channel,
    # the bias among them.
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 8) == 2 * 8 * (6 * 25 + 4 * 30)
    # A product for each of 8 channels of a pair; 7 sums for the 8 channels of a map.
    assert layer.flops.other == 8 * (25 + 30) + 7 * (6 + 4)
    assert count_parameters(layer) == 6 * 25 + 4 * 30 + biases
