"""EDCN's bridge: one stream of two, in four ways."""

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
KINDS = ("hadamard", "add", "concat", "attention")
Shape = tuple[int, int]
Row = list[list[float]]
Randomise = Callable[[nn.Module, int], Interaction]


def affine(layer: nn.Module, op: str, numbers: list[float]) -> list[float]:
    weight = layer.get_parameter(f"ops.{op}.weight").tolist()
    bias = layer.ops[op].bias  # type: ignore[index,union-attr]
    shifts = [0.0] * len(weight) if bias is None else bias.tolist()
    return [
        sum(w * number for w, number in zip(line, numbers, strict=True)) + shift
        for line, shift in zip(weight, shifts, strict=True)
    ]


def plain_attention(layer: nn.Module, first: int, stream: list[float]) -> list[float]:
    hidden = [max(z, 0.0) for z in affine(layer, f"lin_{first}", stream)]
    powers = [math.exp(z) for z in affine(layer, f"lin_{first + 1}", hidden)]
    return [power / sum(powers) for power in powers]


def plain_bridge(
    a: list[float], b: list[float], layer: nn.Module, kind: str, first: int = 0
) -> list[float]:
    """Chen et al. 2021, the bridge module; its maps are named from ``first`` on."""
    if kind == "hadamard":
        return [p * q for p, q in zip(a, b, strict=True)]
    if kind == "add":
        return [p + q for p, q in zip(a, b, strict=True)]
    if kind == "concat":
        return [max(z, 0.0) for z in affine(layer, f"lin_{first}", a + b)]
    own, other = plain_attention(layer, first, a), plain_attention(layer, first + 2, b)
    return [s * p + t * q for s, p, t, q in zip(own, a, other, b, strict=True)]


def flat(row: Row) -> list[float]:
    return [number for field in row for number in field]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 2), (4, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_bridge_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor], randomise: Randomise, kind: str, shape: Shape, seed: int
) -> None:
    layer = randomise(build("bridge", num_fields=shape[0], embedding_dim=shape[1], kind=kind), seed)
    x, y = draw(4, *shape, seed=seed), draw(4, *shape, seed=100 + seed)
    rows = zip(x.tolist(), y.tolist(), strict=True)
    expected = torch.tensor(
        [plain_bridge(flat(a), flat(b), layer, kind) for a, b in rows], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x, y).flatten(1), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "values", "x", "y", "expected"),
    [
        ("hadamard", [], [1.0, 2.0], [3.0, -1.0], [3.0, -2.0]),
        ("add", [], [1.0, 2.0], [3.0, -1.0], [4.0, 1.0]),
        # (1 + 3 + 0.5, 2 - 4 + 1) = (4.5, -1), relu (4.5, 0)
        (
            "concat",
            [[[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 4.0]], [0.5, 1.0]],
            [1.0, 2.0],
            [3.0, -1.0],
            [4.5, 0.0],
        ),
        # x = (2, 3): W x + b = (1, 0), relu the same; P of it = (ln 3, 0), softmax (3/4, 1/4)
        #   so (2 * 3/4, 3 * 1/4) = (1.5, 0.75)
        # y = (8, 4): W y + b = (8, -4), relu (8, 0); P of it = (0, 0), softmax (1/2, 1/2)
        #   so (4, 2); together (5.5, 2.75)
        (
            "attention",
            [
                [[0.0, 0.0], [0.0, 0.0]],
                [1.0, 0.0],
                [[math.log(3), 0.0], [0.0, 5.0]],
                [[1.0, 0.0], [0.0, -1.0]],
                [0.0, 0.0],
                [[0.0, 7.0], [0.0, 9.0]],
            ],
            [2.0, 3.0],
            [8.0, 4.0],
            [5.5, 2.75],
        ),
    ],
)
def test_bridge_of_two_streams_of_two_numbers(
    kind: str, values: list[Any], x: list[float], y: list[float], expected: list[float]
) -> None:
    layer = build("bridge", num_fields=2, embedding_dim=1, kind=kind)
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            assert parameter.shape == torch.tensor(value).shape
            parameter.copy_(torch.tensor(value))
    out = layer(torch.tensor(x).view(1, 2, 1), torch.tensor(y).view(1, 2, 1))
    assert out.flatten().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_bridge_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], randomise: Randomise, kind: str
) -> None:
    layer = randomise(build("bridge", num_fields=2, embedding_dim=3, kind=kind), 0)
    names = [name for name, _ in layer.named_parameters()]

    def apply(x: Tensor, y: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = functional_call(layer, dict(zip(names, values, strict=True)), (x, y))
        return out

    inputs = (draw(3, 2, 3, seed=0), draw(3, 2, 3, seed=1), *layer.parameters())
    assert torch.autograd.gradcheck(apply, [v.detach().clone().requires_grad_() for v in inputs])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("kind", "degree"), [("hadamard", 2), ("add", 1)])
def test_bridge_without_weights_is_a_symmetric_polynomial(
    draw: Callable[..., Tensor],
    measure_degree: Callable[..., int | None],
    kind: str,
    degree: int,
    seed: int,
) -> None:
    layer = build("bridge", num_fields=3, embedding_dim=4, kind=kind)
    x, y = draw(4, 3, 4, seed=seed), draw(4, 3, 4, seed=100 + seed)
    assert measure_degree(layer, x, y) == layer.degree == degree
    torch.testing.assert_close(layer(x, y), layer(y, x), rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_attention_of_the_bridge_that_says_nothing_is_the_mean_over_the_width(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("bridge", num_fields=3, embedding_dim=4, kind="attention"), seed)
    with torch.no_grad():
        layer.get_parameter("ops.lin_1.weight").zero_()
        layer.get_parameter("ops.lin_3.weight").zero_()
    x, y = draw(4, 3, 4, seed=seed), draw(4, 3, 4, seed=100 + seed)
    torch.testing.assert_close(layer(x, y), (x + y) / 12, rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_attention_of_the_bridge_gives_a_weighted_mean_of_equal_numbers(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    # Weights sum to 1 over a stream: of a stream of equal numbers the parts sum to that number.
    layer = randomise(build("bridge", num_fields=3, embedding_dim=4, kind="attention"), seed)
    x, y = (
        draw(4, 1, 1, seed=seed).expand(4, 3, 4),
        draw(4, 1, 1, seed=50 + seed).expand(4, 3, 4),
    )
    total = layer(x, y).sum(dim=(1, 2))
    torch.testing.assert_close(total, x[:, 0, 0] + y[:, 0, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_bridge_reads_a_stream_as_one_vector_however_it_is_cut(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    for kind in KINDS:
        cut = randomise(build("bridge", num_fields=3, embedding_dim=4, kind=kind), seed)
        whole = randomise(build("bridge", num_fields=1, embedding_dim=12, kind=kind), seed)
        x, y = draw(4, 3, 4, seed=seed), draw(4, 3, 4, seed=100 + seed)
        together = whole(x.flatten(1).unsqueeze(1), y.flatten(1).unsqueeze(1))
        torch.testing.assert_close(cut(x, y).flatten(1), together, rtol=0, atol=1e-12)


def test_bridge_refuses_an_unknown_kind() -> None:
    line = "bridge: kind must be one of hadamard, add, concat, attention; got 'mean'."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("bridge", num_fields=3, embedding_dim=4, kind="mean")


def test_bridge_refuses_streams_of_two_shapes() -> None:
    line = "bridge: both streams must be of one shape; got (1, 12) and (1, 8) (tokens, channels)."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        express("bridge", source(1, 12), source(1, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_bridge_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    kind: str,
) -> None:
    layer = build("bridge", num_fields=6, embedding_dim=8, kind=kind)
    # 48 numbers. concat: one map of 96 to 48, and a relu a unit. attention: each stream has two
    # maps of 48 to 48, the first with a bias; a relu, a softmax (5) and a product a number; the
    # two are added.
    weights = {"concat": 96 * 48, "attention": 4 * 48 * 48}.get(kind, 0)
    biases = {"concat": 48, "attention": 2 * 48}.get(kind, 0)
    beside = {"attention": 2 * (1 + 5 + 1) * 48 + 48}.get(kind, 48)
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8, 2) == 2 * weights
    assert layer.flops.other == beside
    assert layer.flops_per_row == 2 * weights + beside
    assert count_parameters(layer) == weights + biases
