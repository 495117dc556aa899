"""FinalMLP's fusion of two streams."""

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


def fusion_of(first: Shape, second: Shape, num_heads: int) -> Interaction:
    x, y = source(*first), source(*second)
    return Interaction(express("bilinear_fusion", x, y, num_heads=num_heads), [x, y])


def plain_fusion(
    x: list[list[float]], y: list[list[float]], layer: nn.Module, num_heads: int
) -> list[float]:
    """Mao et al. 2023, the stream fusion layer, head by head; W_h is held transposed."""
    first = [number for field in x for number in field]
    second = [number for field in y for number in field]
    (total,) = layer.get_parameter("ops.lin_0.bias").tolist()
    for op, numbers in (("lin_0", first), ("lin_1", second)):
        (weight,) = layer.get_parameter(f"ops.{op}.weight").tolist()
        for w, number in zip(weight, numbers, strict=True):
            total += w * number
    width_x, width_y = len(first) // num_heads, len(second) // num_heads
    for h in range(num_heads):
        matrix = layer.get_parameter(f"ops.lin_{2 + h}.weight").tolist()
        for j in range(width_y):
            for i in range(width_x):
                total += first[h * width_x + i] * matrix[j][i] * second[h * width_y + j]
    return [total]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("first", "second", "num_heads"),
    [
        ((1, 1), (1, 1), 1),
        ((3, 4), (3, 4), 1),
        ((3, 4), (3, 4), 2),
        ((3, 4), (3, 4), 12),
        ((5, 2), (1, 6), 2),
        ((1, 6), (4, 3), 3),
        ((2, 3), (5, 1), 1),
    ],
)
def test_bilinear_fusion_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    first: Shape,
    second: Shape,
    num_heads: int,
    seed: int,
) -> None:
    layer = randomise(fusion_of(first, second, num_heads), seed)
    x, y = draw(4, *first, seed=seed), draw(4, *second, seed=100 + seed)
    rows = zip(x.tolist(), y.tolist(), strict=True)
    expected = torch.tensor(
        [plain_fusion(*row, layer, num_heads) for row in rows], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x, y), expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(
    ("num_heads", "across", "expected"),
    [
        # x = (1, 2), y = (3, 4): alone 0.5 + (1 + 2) + (3 - 4) = 2.5 either way
        # W x = (1 + 2*2, 3*2) = (5, 6); times y 5*3 + 6*4 = 39; 2.5 + 39 = 41.5
        (1, [[[1.0, 2.0], [0.0, 3.0]]], 41.5),
        # 2 * 1*3 - 1 * 2*4 = -2;  2.5 - 2 = 0.5
        (2, [[[2.0]], [[-1.0]]], 0.5),
    ],
)
def test_bilinear_fusion_of_two_streams_of_two_numbers(
    num_heads: int, across: list[Any], expected: float
) -> None:
    layer = build("bilinear_fusion", num_fields=1, embedding_dim=2, num_heads=num_heads)
    values = [[[1.0, 1.0]], [0.5], [[1.0, -1.0]], *across]
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            assert parameter.shape == torch.tensor(value).shape
            parameter.copy_(torch.tensor(value))
    out = layer(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0]]]))
    assert out.tolist() == [[expected]]


@pytest.mark.parametrize("num_heads", [1, 2])
def test_bilinear_fusion_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], randomise: Randomise, num_heads: int
) -> None:
    layer = randomise(fusion_of((3, 2), (2, 4), num_heads), 0)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def apply(x: Tensor, y: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = functional_call(layer, dict(zip(names, values, strict=True)), (x, y))
        return out

    inputs = (draw(2, 3, 2, seed=0), draw(2, 2, 4, seed=1), *parameters)
    assert torch.autograd.gradcheck(apply, [v.detach().clone().requires_grad_() for v in inputs])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_heads", [1, 2])
def test_bilinear_fusion_whose_cross_weights_are_zero_is_linear(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[..., int | None],
    num_heads: int,
    seed: int,
) -> None:
    layer = randomise(fusion_of((3, 2), (2, 4), num_heads), seed)
    x, more_x = draw(4, 3, 2, seed=seed), draw(4, 3, 2, seed=100 + seed)
    y, more_y = draw(4, 2, 4, seed=200 + seed), draw(4, 2, 4, seed=300 + seed)
    assert measure_degree(layer, x, y) == layer.degree == 2
    with torch.no_grad():
        for h in range(num_heads):
            layer.get_parameter(f"ops.lin_{2 + h}.weight").zero_()
    assert measure_degree(layer, x, y) == 1
    bias = layer.get_parameter("ops.lin_0.bias")
    added = layer(x, y) + layer(more_x, more_y) - bias
    torch.testing.assert_close(layer(x + more_x, y + more_y), added, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_bilinear_fusion_is_affine_in_either_stream(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(fusion_of((3, 2), (2, 4), 2), seed)
    x, other_x = draw(4, 3, 2, seed=seed), draw(4, 3, 2, seed=100 + seed)
    y, other_y = draw(4, 2, 4, seed=200 + seed), draw(4, 2, 4, seed=300 + seed)
    between_x = 0.25 * layer(x, y) + 0.75 * layer(other_x, y)
    between_y = 0.25 * layer(x, y) + 0.75 * layer(x, other_y)
    torch.testing.assert_close(layer(0.25 * x + 0.75 * other_x, y), between_x, rtol=0, atol=1e-11)
    torch.testing.assert_close(layer(x, 0.25 * y + 0.75 * other_y), between_y, rtol=0, atol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
def test_heads_of_bilinear_fusion_are_the_blocks_of_one_matrix(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    heads = randomise(fusion_of((3, 2), (3, 4), 3), seed)
    whole = randomise(fusion_of((3, 2), (3, 4), 1), seed)
    blocks = [heads.get_parameter(f"ops.lin_{2 + h}.weight") for h in range(3)]
    with torch.no_grad():
        whole.get_parameter("ops.lin_2.weight").copy_(torch.block_diag(*blocks))
    x, y = draw(4, 3, 2, seed=seed), draw(4, 3, 4, seed=100 + seed)
    torch.testing.assert_close(heads(x, y), whole(x, y), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("second", "num_heads", "line"),
    [
        ((3, 4), 0, "num_heads must be at least 1; got 0."),
        ((3, 4), -1, "num_heads must be at least 1; got -1."),
        ((3, 4), 5, "num_heads must divide both widths, 12 and 12; got 5."),
        # It divides the first width, 12.
        ((2, 5), 3, "num_heads must divide both widths, 12 and 10; got 3."),
    ],
)
def test_bilinear_fusion_refuses_heads_that_cannot_be_cut(
    second: Shape, num_heads: int, line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('bilinear_fusion: ' + line)}$"):
        fusion_of((3, 4), second, num_heads)


@pytest.mark.parametrize("num_heads", [1, 4])
def test_bilinear_fusion_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    num_heads: int,
) -> None:
    layer = build("bilinear_fusion", num_fields=6, embedding_dim=8, num_heads=num_heads)
    # Two maps of 48 numbers to 1, and a square matrix of 48 / heads a head, 2 operations a weight,
    # the bias among them. Beside these each of 48 numbers is multiplied once; the products of a
    # head are added up, 48 - heads sums, and so are the two maps and the heads, 1 + heads sums.
    weights = 2 * 48 + num_heads * (48 // num_heads) ** 2
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8, 2) == 2 * weights
    assert layer.flops.other == 48 + (48 - num_heads) + (1 + num_heads)
    assert layer.flops_per_row == 2 * weights + 97
    assert count_parameters(layer) == weights + 1


def test_bilinear_fusion_counts_the_widths_of_both_streams(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = fusion_of((6, 8), (2, 5), 2)
    # Two heads of 24 by 5; the products are of the 10 numbers of the second stream.
    weights = 48 + 10 + 2 * 24 * 5
    assert layer.flops.matmul == 2 * weights
    assert layer.flops.other == 10 + (10 - 2) + (1 + 2)
    assert count_parameters(layer) == weights + 1
