"""The attention free transformer's gathering, over fields."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build

SEEDS = range(3)
Randomise = Callable[[nn.Module, int], nn.Module]
PLACE = "ops.gather_0.place"


def maps_of(layer: nn.Module) -> dict[str, str]:
    """Names of the maps: the gate's, the key's and the value's, in the order they are read."""
    return dict(zip(("q", "k", "v"), ("ops.lin_0", "ops.lin_1", "ops.lin_2"), strict=True))


def plain_aft(row: list[list[float]], layer: nn.Module) -> list[list[float]]:
    """Zhai et al. 2021, eq. 2."""
    names = maps_of(layer)

    def mapped(name: str) -> list[list[float]]:
        matrix = layer.get_parameter(f"{names[name]}.weight").tolist()
        return [[sum(w * v for w, v in zip(m, e, strict=True)) for m in matrix] for e in row]

    q, k, v = (mapped(name) for name in "qkv")
    place = layer.get_parameter(PLACE).tolist()
    out = []
    for i in range(len(row)):
        line = []
        for c in range(len(row[0])):
            powers = [math.exp(k[j][c] + place[i][j]) for j in range(len(row))]
            mean = sum(p * v[j][c] for j, p in enumerate(powers)) / sum(powers)
            line.append(mean / (1 + math.exp(-q[i][c])))
        out.append(line)
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(1, 2), (3, 4), (6, 3)])
def test_aft_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    seed: int,
) -> None:
    layer = randomise(build("aft", num_fields=num_fields, embedding_dim=embedding_dim), seed)
    x = draw(3, num_fields, embedding_dim, seed=seed)
    found = layer(x).view(3, num_fields, embedding_dim)
    expected = torch.tensor([plain_aft(row, layer) for row in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_aft_of_two_fields_of_one_number() -> None:
    layer = build("aft", num_fields=2, embedding_dim=1)
    names = maps_of(layer)
    with torch.no_grad():
        for name, weight in (("q", 0.0), ("k", math.log(2)), ("v", 3.0)):
            layer.get_parameter(f"{names[name]}.weight").fill_(weight)
        layer.get_parameter(PLACE).copy_(torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]))
    # e = 1, 2: exp(k) = 2, 4; v = 3, 6; the gate is 1/2
    # field 1: weights 2, 4*3 = 12: (2*3 + 12*6) / 14 = 78/14; field 2: (2*3 + 4*6) / 6 = 5
    expected = torch.tensor([[[78 / 28], [2.5]]])
    torch.testing.assert_close(layer(torch.tensor([[[1.0], [2.0]]])), expected)


def test_aft_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = randomise(build("aft", num_fields=3, embedding_dim=2), 0)
    assert check_gradients(layer, draw(2, 3, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_aft_begins_by_treating_all_fields_alike(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("aft", num_fields=5, embedding_dim=3).double()
    x = draw(3, 5, 3, seed=seed)
    order = [3, 0, 4, 1, 2]
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])


def test_aft_of_huge_keys_is_finite() -> None:
    layer = build("aft", num_fields=3, embedding_dim=2)
    out = layer(torch.tensor([[[1e4, -1e4], [2e4, 0.0], [-3e4, 5e3]]]))
    assert torch.isfinite(out).all()


def test_aft_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("aft", num_fields=5, embedding_dim=3)
    # Three maps of 5 fields of 3 numbers; two sums over 5 fields for each of 5 x 3 numbers.
    matmul = 2 * 3 * 5 * 9 + 2 * 2 * 25 * 3
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 3) == matmul
    # Four operations of the gathering, the gate's sigmoid and its product, each of 5 x 3 numbers.
    assert layer.flops.other == 4 * 15 + 15 + 15
    assert count_parameters(layer) == 3 * 9 + 25
