"""MUTAN: a sum of Hadamard products of maps of two inputs."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from recsys_had.interactions import build, express
from recsys_had.interactions.algebra import Interaction, source

SEEDS = range(5)
Shape = tuple[int, int]
Randomise = Callable[[nn.Module, int], Interaction]


def mutan_of(first: Shape, second: Shape, **options: Any) -> Interaction:
    x, y = source(*first), source(*second)
    return Interaction(express("mutan", x, y, **options), [x, y])


def linear(layer: nn.Module, op: str, numbers: list[float]) -> list[float]:
    weight = layer.get_parameter(f"ops.{op}.weight").tolist()
    return [sum(w * number for w, number in zip(line, numbers, strict=True)) for line in weight]


def plain_mutan(
    x: list[list[float]], y: list[list[float]], layer: nn.Module, rank: int, out: int
) -> list[float]:
    """Ben-younes et al. 2017, the rank constraint on the core tensor."""
    first = [number for field in x for number in field]
    second = [number for field in y for number in field]
    total = [0.0] * out
    for r in range(rank):
        left, right = (
            linear(layer, f"lin_{2 * r}", first),
            linear(layer, f"lin_{2 * r + 1}", second),
        )
        for o in range(out):
            total[o] += left[o] * right[o]
    return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("first", "second", "rank", "out"),
    [
        ((1, 1), (1, 1), 1, 1),
        ((3, 4), (3, 4), 5, 2),
        ((5, 2), (1, 7), 2, 6),
        ((1, 6), (4, 3), 1, 3),
        ((2, 3), (3, 1), 8, 1),
    ],
)
def test_mutan_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    first: Shape,
    second: Shape,
    rank: int,
    out: int,
    seed: int,
) -> None:
    layer = randomise(mutan_of(first, second, rank=rank, out=out), seed)
    x, y = draw(4, *first, seed=seed), draw(4, *second, seed=100 + seed)
    rows = zip(x.tolist(), y.tolist(), strict=True)
    expected = torch.tensor(
        [plain_mutan(*row, layer, rank, out) for row in rows], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x, y), expected, rtol=1e-12, atol=1e-11)


def test_mutan_of_two_inputs_of_two_numbers_and_two_products() -> None:
    layer = build("mutan", num_fields=1, embedding_dim=2, rank=2, out=2)
    values = [
        [[1.0, 0.0], [0.0, 1.0]],
        [[2.0, 0.0], [0.0, 3.0]],
        [[1.0, 1.0], [1.0, -1.0]],
        [[0.0, 1.0], [1.0, 0.0]],
    ]
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            assert parameter.shape == torch.tensor(value).shape
            parameter.copy_(torch.tensor(value))
    # x = (1, 2), y = (3, -1)
    # first product: (1, 2) * (2*3, 3*-1) = (1, 2) * (6, -3) = (6, -6)
    # second: (1 + 2, 1 - 2) * (-1, 3) = (3, -1) * (-1, 3) = (-3, -3)
    # their sum (3, -9)
    out = layer(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, -1.0]]]))
    assert out.tolist() == [[3.0, -9.0]]


def test_mutan_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], randomise: Randomise
) -> None:
    layer = randomise(mutan_of((3, 2), (2, 4), rank=3, out=2), 0)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def apply(x: Tensor, y: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = functional_call(layer, dict(zip(names, values, strict=True)), (x, y))
        return out

    inputs = (draw(2, 3, 2, seed=0), draw(2, 2, 4, seed=1), *parameters)
    assert torch.autograd.gradcheck(apply, [v.detach().clone().requires_grad_() for v in inputs])


@pytest.mark.parametrize("seed", SEEDS)
def test_mutan_of_a_sum_is_the_sum_in_either_input(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(mutan_of((3, 2), (2, 4), rank=3, out=5), seed)
    x, more_x = draw(4, 3, 2, seed=seed), draw(4, 3, 2, seed=100 + seed)
    y, more_y = draw(4, 2, 4, seed=200 + seed), draw(4, 2, 4, seed=300 + seed)
    added_x = layer(x, y) + layer(more_x, y)
    added_y = layer(x, y) + layer(x, more_y)
    torch.testing.assert_close(layer(x + more_x, y), added_x, rtol=0, atol=1e-11)
    torch.testing.assert_close(layer(x, y + more_y), added_y, rtol=0, atol=1e-11)
    assert not layer(0 * x, y).any()
    assert not layer(x, 0 * y).any()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rank", [1, 4])
def test_mutan_is_a_sum_of_mlb_without_activation(
    draw: Callable[..., Tensor], randomise: Randomise, rank: int, seed: int
) -> None:
    layer = randomise(mutan_of((3, 2), (2, 4), rank=rank, out=5), seed)
    x, y = source(3, 2), source(2, 4)
    pooled = express("mlb", x, y, rank=5, out=5, activation="identity")
    single = Interaction(pooled, [x, y]).double()
    x_BFD, y_BFD = draw(4, 3, 2, seed=seed), draw(4, 2, 4, seed=100 + seed)
    total = torch.zeros(4, 5, dtype=torch.float64)
    with torch.no_grad():
        single.get_parameter("ops.lin_2.weight").copy_(torch.eye(5))
        for r in range(rank):
            for side in range(2):
                weight = layer.get_parameter(f"ops.lin_{2 * r + side}.weight")
                single.get_parameter(f"ops.lin_{side}.weight").copy_(weight)
            total += single(x_BFD, y_BFD)
    torch.testing.assert_close(layer(x_BFD, y_BFD), total, rtol=0, atol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
def test_mutan_of_an_input_with_itself_does_not_know_its_sign(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    x = source(3, 2)
    layer = randomise(Interaction(express("mutan", x, x, rank=3, out=5), [x]), seed)
    x_BFD = draw(4, 3, 2, seed=seed)
    assert layer.degree == 2
    torch.testing.assert_close(layer(-x_BFD), layer(x_BFD), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"rank": 0}, "rank must be at least 1; got 0."),
        ({"out": -2}, "out must be at least 1; got -2."),
    ],
)
def test_mutan_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('mutan: ' + line)}$"):
        build("mutan", num_fields=3, embedding_dim=4, **options)


def test_mutan_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("mutan", num_fields=6, embedding_dim=8, rank=3, out=7)
    # Three times two maps of 48 numbers to 7, 2 operations a weight. Beside these three products
    # of 7 numbers, and two sums of them.
    weights = 3 * 2 * 48 * 7
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8, 2) == 2 * weights
    assert layer.flops.other == 3 * 7 + 2 * 7
    assert layer.flops_per_row == 2 * weights + 5 * 7
    assert count_parameters(layer) == weights


def test_mutan_counts_the_widths_of_both_inputs(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = mutan_of((6, 8), (2, 5), rank=3, out=4)
    weights = 3 * (48 + 10) * 4
    assert layer.flops.matmul == 2 * weights
    assert count_parameters(layer) == weights
