"""MFB: sums of products of two inputs in a wide common space."""

import math
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
EPSILON = 1e-6
Shape = tuple[int, int]
Row = list[list[float]]
Randomise = Callable[[nn.Module, int], Interaction]


def mfb_of(first: Shape, second: Shape, **options: Any) -> Interaction:
    x, y = source(*first), source(*second)
    return Interaction(express("mfb", x, y, **options), [x, y])


def linear(layer: nn.Module, op: str, row: Row) -> list[float]:
    numbers = [number for field in row for number in field]
    weight = layer.get_parameter(f"ops.{op}.weight").tolist()
    return [sum(w * number for w, number in zip(line, numbers, strict=True)) for line in weight]


def plain_pooled(x: Row, y: Row, layer: nn.Module, out: int, factor: int) -> list[float]:
    first, second = linear(layer, "lin_0", x), linear(layer, "lin_1", y)
    pooled = []
    for o in range(out):
        total = 0.0
        for j in range(factor):
            total += first[o * factor + j] * second[o * factor + j]
        pooled.append(total)
    return pooled


def plain_mfb(x: Row, y: Row, layer: nn.Module, out: int, factor: int) -> list[float]:
    """Yu et al. 2017: sum pooling, signed roots, length 1; e under both roots."""
    roots = [z / math.sqrt(abs(z) + EPSILON) for z in plain_pooled(x, y, layer, out, factor)]
    length = math.sqrt(sum(root * root for root in roots) + EPSILON)
    return [root / length for root in roots]


SIZES = [
    ((1, 1), (1, 1), 1, 1),
    ((3, 4), (3, 4), 5, 2),
    ((5, 2), (1, 7), 3, 6),
    ((1, 6), (4, 3), 1, 3),
    ((2, 3), (3, 1), 8, 1),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("first", "second", "out", "factor"), SIZES)
@pytest.mark.parametrize("normalise", [True, False])
def test_mfb_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    normalise: bool,
    first: Shape,
    second: Shape,
    out: int,
    factor: int,
    seed: int,
) -> None:
    layer = randomise(
        mfb_of(first, second, out=out, factor=factor, normalise=normalise, dropout=0.3), seed
    ).eval()
    x, y = draw(4, *first, seed=seed), draw(4, *second, seed=100 + seed)
    plain = plain_mfb if normalise else plain_pooled
    rows = zip(x.tolist(), y.tolist(), strict=True)
    expected = torch.tensor([plain(a, b, layer, out, factor) for a, b in rows], dtype=torch.float64)
    torch.testing.assert_close(layer(x, y), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("normalise", "expected"), [(False, [[9.0, -16.0]]), (True, [[0.6, -0.8]])]
)
def test_mfb_of_two_outputs_of_two_products(normalise: bool, expected: list[list[float]]) -> None:
    layer = mfb_of((2, 1), (1, 1), out=2, factor=2, normalise=normalise).double()
    values = [[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]], [[1.0], [4.0], [-5.0], [1.0]]]
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            assert parameter.shape == torch.tensor(value).shape
            parameter.copy_(torch.tensor(value))
    # x = (1, 2), y = 1: U x = (1, 2, 3, -1), V y = (1, 4, -5, 1), products (1, 8, -15, -1)
    # sums (9, -16); signed roots (3, -4); their length 5, so (0.6, -0.8)
    x = torch.tensor([[[1.0], [2.0]]], dtype=torch.float64)
    out = layer(x, torch.ones(1, 1, 1, dtype=torch.float64))
    torch.testing.assert_close(out, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("normalise", [True, False])
def test_mfb_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], randomise: Randomise, normalise: bool
) -> None:
    layer = randomise(mfb_of((3, 2), (2, 4), out=3, factor=2, normalise=normalise), 0)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def apply(x: Tensor, y: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = functional_call(layer, dict(zip(names, values, strict=True)), (x, y))
        return out

    inputs = (draw(2, 3, 2, seed=0), draw(2, 2, 4, seed=1), *parameters)
    assert torch.autograd.gradcheck(apply, [v.detach().clone().requires_grad_() for v in inputs])


@pytest.mark.parametrize("seed", SEEDS)
def test_mfb_gives_signed_roots_of_the_products_at_length_one(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(mfb_of((3, 2), (2, 4), out=6, factor=3), seed)
    pooled = randomise(mfb_of((3, 2), (2, 4), out=6, factor=3, normalise=False), seed)
    x, y = draw(20, 3, 2, seed=seed), draw(20, 2, 4, seed=100 + seed)
    out, z = layer(x, y), pooled(x, y)
    roots = z.sign() * z.abs().sqrt()
    exact = roots / roots.norm(dim=1, keepdim=True)
    # Where |z| is small, e shows: of the root it is at most sqrt(e) / 2, or 5e-4.
    torch.testing.assert_close(out, exact, rtol=0, atol=1e-3)
    assert ((out.norm(dim=1) - 1).abs() < 1e-3).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_mfb_hardly_sees_the_length_of_its_inputs(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(mfb_of((3, 2), (2, 4), out=6, factor=3), seed)
    x, y = draw(20, 3, 2, seed=seed), draw(20, 2, 4, seed=100 + seed)
    torch.testing.assert_close(layer(7 * x, 0.5 * y), layer(x, y), rtol=0, atol=1e-3)
    torch.testing.assert_close(layer(-x, y), -layer(x, y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_mfb_are_finite_where_an_input_is_zero(
    draw: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    layer = mfb_of((3, 2), (2, 4), out=6, factor=3).to(dtype)
    x = torch.zeros(4, 3, 2, dtype=dtype, requires_grad=True)
    y = draw(4, 2, 4, seed=0).to(dtype).requires_grad_()
    out = layer(x, y)
    assert not out.any()
    out.sum().backward()
    for value in (x, y, *layer.parameters()):
        assert value.grad is not None
        assert torch.isfinite(value.grad).all()
    # Both slopes at 0 are 1 / sqrt(1e-6), so that of z is 1e6.
    products = layer.get_parameter("ops.lin_1.weight") @ y[0].flatten()
    weights = layer.get_parameter("ops.lin_0.weight")
    expected = 1e6 * (products.unsqueeze(1) * weights).sum(dim=0)
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0].flatten(), expected.detach(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_mfb_is_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[..., int | None],
    seed: int,
) -> None:
    x, y = draw(2, 3, 2, seed=seed), draw(2, 2, 4, seed=100 + seed)
    bare = randomise(mfb_of((3, 2), (2, 4), out=6, factor=3, normalise=False), seed)
    assert measure_degree(bare, x, y) == bare.degree == 2
    layer = randomise(mfb_of((3, 2), (2, 4), out=6, factor=3), seed)
    assert measure_degree(layer, x, y) is layer.degree is None


@pytest.mark.parametrize("seed", SEEDS)
def test_mfb_of_one_product_each_drops_in_training_alone_and_scales_the_rest(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(mfb_of((3, 2), (2, 4), out=50, factor=1, dropout=0.2, normalise=False), seed)
    x, y = draw(20, 3, 2, seed=seed), draw(20, 2, 4, seed=100 + seed)
    whole = layer.eval()(x, y)
    torch.manual_seed(seed)
    dropped = layer.train()(x, y)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.8, rtol=1e-12, atol=0)
    # Five standard deviations of the share kept of 1000 products: 5 * sqrt(0.2 * 0.8 / 1000)
    assert kept.double().mean().item() == pytest.approx(0.8, abs=0.064)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"out": 0}, "out must be at least 1; got 0."),
        ({"factor": -2}, "factor must be at least 1; got -2."),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0."),
    ],
)
def test_mfb_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('mfb: ' + line)}$"):
        build("mfb", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize("normalise", [True, False])
def test_mfb_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    normalise: bool,
) -> None:
    layer = build("mfb", num_fields=6, embedding_dim=8, out=7, factor=3, normalise=normalise)
    # Two maps of 48 numbers to 7 * 3, 2 operations a weight. Beside these 21 products, 2 sums for
    # each of 7 outputs, and 7 a number for the root (4) and the length (3).
    weights = 2 * 48 * 21
    beside = 21 + 2 * 7 + (7 * 7 if normalise else 0)
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8, 2) == 2 * weights
    assert layer.flops.other == beside
    assert layer.flops_per_row == 2 * weights + beside
    assert count_parameters(layer) == weights


def test_mfb_counts_the_widths_of_both_inputs(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = mfb_of((6, 8), (2, 5), out=4, factor=3)
    weights = (48 + 10) * 12
    assert layer.flops.matmul == 2 * weights
    assert count_parameters(layer) == weights
