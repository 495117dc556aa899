"""Polynomial networks, coupled and nested."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build, express
from recsys_had.interactions.algebra import Interaction, source

SEEDS = range(5)
KINDS = ("ccp", "ncp")
Randomise = Callable[[nn.Module, int], Interaction]


def product(matrix: list[list[float]], vector: list[float]) -> list[float]:
    out = []
    for line in matrix:
        total = 0.0
        for entry, number in zip(line, vector, strict=True):
            total += entry * number
        out.append(total)
    return out


def plain_pi_net(z: list[float], layer: Interaction, kind: str, order: int) -> list[float]:
    """Chrysos et al. 2020, the CCP and NCP recursions.

    The last order's map of z is the first in the program.
    """
    of_input = [
        product(layer.get_parameter(f"ops.lin_{order - n}.weight").tolist(), z)
        for n in range(1, order + 1)
    ]
    if kind == "ccp":
        x = of_input[0]
        for n in range(2, order + 1):
            x = [u * number + number for u, number in zip(of_input[n - 1], x, strict=True)]
        return x
    (first,) = layer.get_parameter("ops.constant_0.weight").tolist()
    x = [a * b for a, b in zip(of_input[0], first, strict=True)]
    for n in range(2, order + 1):
        place = f"ops.lin_{order + n - 2}"
        bias = layer.get_parameter(f"{place}.bias").tolist()
        mapped = product(layer.get_parameter(f"{place}.weight").tolist(), x)
        x = [a * (s + b) for a, s, b in zip(of_input[n - 1], mapped, bias, strict=True)]
    return x


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("order", "rank"), [(1, 3), (2, 1), (4, 5)])
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(1, 3), (3, 2)])
def test_pi_net_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    order: int,
    rank: int,
    kind: str,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "pi_net",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            kind=kind,
            order=order,
            rank=rank,
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_pi_net(row, layer, kind, order) for row in x_BFD.flatten(1).tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


def test_a_coupled_network_of_order_three() -> None:
    layer = build("pi_net", num_fields=2, embedding_dim=1, order=3, rank=2)
    third, second, first = [[0.0, 1.0], [-1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [[1, 1], [1, -1]]
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), (third, second, first), strict=True):
            parameter.copy_(torch.tensor(value))
    # z = (2, 3); x1 = U1 z = (5, -1)
    # U2 z = (2, 3); x2 = (2 * 5 + 5, 3 * -1 - 1) = (15, -4)
    # U3 z = (3, 1); x3 = (3 * 15 + 15, 1 * -4 - 4) = (60, -8)
    assert layer(torch.tensor([[[2.0], [3.0]]])).tolist() == [[60.0, -8.0]]


def test_a_nested_network_of_order_two() -> None:
    layer = build("pi_net", num_fields=2, embedding_dim=1, kind="ncp", order=2, rank=2)
    values = {
        "ops.lin_1.weight": [[1.0, 1.0], [1.0, -1.0]],
        "ops.constant_0.weight": [[2.0, 3.0]],
        "ops.lin_0.weight": [[0.0, 1.0], [-1.0, 1.0]],
        "ops.lin_2.weight": [[1.0, 2.0], [0.0, 1.0]],
        "ops.lin_2.bias": [1.0, -1.0],
    }
    with torch.no_grad():
        for name, value in values.items():
            layer.get_parameter(name).copy_(torch.tensor(value))
    # z = (2, 3); A1 z = (5, -1); x1 = (5, -1) * (2, 3) = (10, -3)
    # S2 x1 + b2 = (10 - 6 + 1, -3 - 1) = (5, -4); A2 z = (3, 1); x2 = (15, -4)
    assert layer(torch.tensor([[[2.0], [3.0]]])).tolist() == [[15.0, -4.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_pi_net_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    kind: str,
) -> None:
    layer = randomise(build("pi_net", num_fields=2, embedding_dim=2, kind=kind, rank=3), 0)
    assert check_gradients(layer, draw(2, 2, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_pi_net_is_a_polynomial_of_its_order(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    order: int,
    kind: str,
    seed: int,
) -> None:
    layer = randomise(
        build("pi_net", num_fields=3, embedding_dim=2, kind=kind, order=order, rank=4), seed
    )
    x_BFD = draw(2, 3, 2, seed=seed)
    assert measure_degree(layer, x_BFD) == layer.degree == order
    assert not layer(0 * x_BFD).any()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pi_net_that_reads_a_pi_net_multiplies_the_orders(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    kind: str,
    seed: int,
) -> None:
    x = source(3, 2)
    inner = express("pi_net", x, kind=kind, order=2, rank=3)
    layer = randomise(Interaction(express("pi_net", inner, kind=kind, rank=3), [x]), seed)
    assert measure_degree(layer, draw(2, 3, 2, seed=seed)) == layer.degree == 2 * 3


@pytest.mark.parametrize("seed", SEEDS)
def test_a_nested_network_without_additions_scales_as_a_power_of_its_order(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("pi_net", num_fields=3, embedding_dim=2, kind="ncp", rank=4), seed)
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    x_BFD = draw(4, 3, 2, seed=seed)
    torch.testing.assert_close(layer(-2 * x_BFD), -8 * layer(x_BFD), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_coupled_network_without_later_maps_is_linear(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("pi_net", num_fields=3, embedding_dim=2, order=3, rank=4), seed)
    for name in ("ops.lin_0.weight", "ops.lin_1.weight"):
        nn.init.zeros_(layer.get_parameter(name))
    x_BFD = draw(4, 3, 2, seed=seed)
    expected = x_BFD.flatten(1) @ layer.get_parameter("ops.lin_2.weight").T
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"order": 0}, "pi_net: order must be at least 1; got 0."),
        ({"rank": 0}, "pi_net: rank must be at least 1; got 0."),
        ({"kind": "cp"}, "pi_net: kind must be ccp or ncp; got 'cp'."),
    ],
)
def test_pi_net_refuses_no_order_no_rank_and_an_unknown_kind(
    options: dict[str, int | str], line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("pi_net", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(
    ("kind", "matmul", "other", "parameters"),
    [
        # 3 maps of 12 numbers to 5, 2 operations a weight; then twice a product and a sum.
        ("ccp", 2 * 3 * 60, 2 * (5 + 5), 3 * 60),
        # Two more maps of 5 to 5, a bias each within their operations; 3 products.
        ("ncp", 2 * (3 * 60 + 2 * 25), 3 * 5, 3 * 60 + 5 + 2 * (25 + 5)),
    ],
)
def test_pi_net_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    kind: str,
    matmul: int,
    other: int,
    parameters: int,
) -> None:
    layer = build("pi_net", num_fields=3, embedding_dim=4, kind=kind, order=3, rank=5)
    assert layer.flops.matmul == count_matmul_flops(layer, 3, 4) == matmul
    assert layer.flops.other == other
    assert layer.flops_per_row == matmul + other
    assert count_parameters(layer) == parameters
