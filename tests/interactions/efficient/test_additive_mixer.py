"""CAS-ViT's additive token mixing, carried over to fields."""

import math
import operator
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
LOG3 = math.log(3)
Randomise = Callable[[nn.Module, int], Interaction]
Row = list[list[float]]


class Weights:
    """Weights of one mixer, in the order in which the equation uses them.

    Q, its mix and two gates; K, its mix and two gates; the mix of their sum; V; the last map.
    """

    def __init__(self, layer: Interaction, number: int, rank: int | None) -> None:
        per_mix = 1 if rank is None else 2
        count = 8 + 3 * per_mix
        lins = iter([layer.ops[f"lin_{count * number + k}"] for k in range(count)])
        shared, *own = (layer.ops[f"layernorm_{3 * number + k}"] for k in range(3))
        norms = iter(own)

        def mixing() -> list[nn.Module]:
            return [next(lins) for _ in range(per_mix)]

        self.norm, self.map, self.mix = {}, {}, {}
        self.gate_norm, self.field_gate, self.channel_gate = {}, {}, {}
        for name in "qk":
            self.norm[name], self.map[name] = shared, next(lins)
            self.mix[name], self.gate_norm[name] = mixing(), next(norms)
            self.field_gate[name], self.channel_gate[name] = next(lins), next(lins)
        self.mix["sum"] = mixing()
        self.norm["v"], self.map["v"], self.map["out"] = shared, next(lins), next(lins)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def layer_norm(op: nn.Module, row: list[float]) -> list[float]:
    mean = sum(row) / len(row)
    variance = sum((number - mean) ** 2 for number in row) / len(row)
    scaled = [(number - mean) / math.sqrt(variance + 1e-5) for number in row]
    return [z * a + b for z, a, b in zip(scaled, op.weight.tolist(), op.bias.tolist(), strict=True)]


def apply(op: nn.Module, row: list[float]) -> list[float]:
    lines = op.weight.tolist()
    shifts = op.bias.tolist() if op.bias is not None else [0.0] * len(lines)
    return [
        sum(w * number for w, number in zip(line, row, strict=True)) + shift
        for line, shift in zip(lines, shifts, strict=True)
    ]


def combine(function: Callable[[float, float], float], first: Row, second: Row) -> Row:
    return [list(map(function, *fields)) for fields in zip(first, second, strict=True)]


def mix(maps: list[nn.Module], row: Row) -> Row:
    """A matrix over the fields for each channel, or two one after the other."""
    for op in maps:
        columns = [
            [
                sum(w * number for w, number in zip(line, column, strict=True))
                for line in op.weight[channel].tolist()
            ]
            for channel, column in enumerate(zip(*row, strict=True))
        ]
        row = [list(field) for field in zip(*columns, strict=True)]
    return row


def phi(weights: Weights, name: str, z: Row) -> Row:
    """The field gate, then the channel gate."""
    by_field = []
    for field, mixed in zip(z, mix(weights.mix[name], z), strict=True):
        rectified = [max(n, 0.0) for n in layer_norm(weights.gate_norm[name], mixed)]
        (logit,) = apply(weights.field_gate[name], rectified)
        by_field.append([number * sigmoid(logit) for number in field])
    means = [sum(column) / len(column) for column in zip(*by_field, strict=True)]
    logits = apply(weights.channel_gate[name], means)
    return [
        [number * sigmoid(logit) for number, logit in zip(field, logits, strict=True)]
        for field in by_field
    ]


def plain_additive_mixer(row: Row, layer: Interaction, num_layers: int, rank: int | None) -> Row:
    """Zhang et al. 2024, the additive token mixer, over fields."""
    for number in range(num_layers):
        weights = Weights(layer, number, rank)
        q, k, v = (
            [apply(weights.map[name], layer_norm(weights.norm[name], field)) for field in row]
            for name in "qkv"
        )
        left = phi(weights, "q", q)
        right = phi(weights, "k", k)
        sums = combine(operator.add, left, right)
        mixed = mix(weights.mix["sum"], sums)
        products = combine(operator.mul, mixed, v)
        added = [apply(weights.map["out"], field) for field in products]
        row = combine(operator.add, row, added)
    return row


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("num_fields", "embedding_dim", "num_layers"), [(1, 3, 1), (2, 1, 1), (4, 3, 2), (3, 2, 3)]
)
@pytest.mark.parametrize("rank", [None, 1, 3])
def test_additive_mixer_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    rank: int | None,
    num_fields: int,
    embedding_dim: int,
    num_layers: int,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "additive_mixer",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
            rank=rank,
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_additive_mixer(row, layer, num_layers, rank) for row in x_BFD.tolist()],
        dtype=torch.float64,
    )
    # A single token is flat.
    expected = expected.flatten(1) if num_fields == 1 else expected
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-10, atol=1e-10)


def test_additive_mixer_makes_q_k_and_v_of_one_normalised_input_as_its_docstring_says() -> None:
    layer = build("additive_mixer", num_fields=4, embedding_dim=3)
    # One of the input, one in each of two field gates.
    assert sum(name.startswith("layernorm") for name in layer.ops) == 3


def test_additive_mixer_of_two_fields_of_two_numbers() -> None:
    layer = build("additive_mixer", num_fields=2, embedding_dim=2).double()
    # x = (2, 0), (0, 4); LN(x) = (1, -1), (-1, 1)
    # Q = (4, -4), (-4, 4). Mixed by [[1, 0], [1, 1]] in channel 0 and [[1, 0], [0, 2]] in
    #   channel 1: (4, -4), (0, 8); LN (1, -1), (-1, 1); relu (1, 0), (0, 1)
    #   w = (0, log 3): sigmoid(0, log 3) = 1/2, 3/4; s(Q) = (2, -2), (-3, 3)
    #   mean (-1/2, 1/2); W of it = (0, log 3); phi(Q) = (2/2, -2*3/4), (-3/2, 3*3/4)
    #     = (1, -1.5), (-1.5, 2.25)
    # K = (-4, 4), (4, -4), not mixed; LN (-1, 1), (1, -1); relu (0, 1), (1, 0)
    #   w = (log 3, -log 3): 1/4, 3/4; s(K) = (-1, 1), (3, -3)
    #   mean (1, -1); W of it = (log 3, -log 3); phi(K) = (-3/4, 1/4), (9/4, -3/4)
    # phi(Q) + phi(K) = (0.25, -1.25), (0.75, 1.5). Mixed by [[2, 2], [0, 4]] in channel 0:
    #   0.5 + 1.5, 3; by [[4, 0], [2, 1]] in channel 1: -5, -2.5 + 1.5: (2, -5), (3, -1)
    # V of LN (a, b) = (a, a + 2b): (1, -1), (-1, 1); product (2, 5), (-3, -1)
    # W of (a, b) = (a + b, 2b): (7, 10), (-4, -2); plus x: (9, 10), (-4, 2)
    weights = Weights(layer, 0, None)
    identity = [[1.0, 0.0], [0.0, 1.0]]
    values = [
        (weights.map["q"], [[4.0, 0.0], [0.0, 4.0]]),
        (weights.mix["q"][0], [[[1.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 2.0]]]),
        (weights.field_gate["q"], [[0.0, LOG3]]),
        (weights.channel_gate["q"], [[1.0, 1.0], [0.0, 2 * LOG3]]),
        (weights.map["k"], [[0.0, 4.0], [4.0, 0.0]]),
        (weights.mix["k"][0], [identity, identity]),
        (weights.field_gate["k"], [[LOG3, -LOG3]]),
        (weights.channel_gate["k"], [[LOG3, 0.0], [0.0, LOG3]]),
        (weights.mix["sum"][0], [[[2.0, 2.0], [0.0, 4.0]], [[4.0, 0.0], [2.0, 1.0]]]),
        (weights.map["v"], [[1.0, 0.0], [1.0, 2.0]]),
        (weights.map["out"], [[1.0, 1.0], [0.0, 2.0]]),
    ]
    with torch.no_grad():
        for op, weight in values:
            assert op.weight.shape == torch.tensor(weight).shape
            op.weight.copy_(torch.tensor(weight, dtype=torch.float64))
    row = torch.tensor([[[2.0, 0.0], [0.0, 4.0]]], dtype=torch.float64)
    # A layer norm adds 1e-5 to the variance, 1 or more here.
    expected = torch.tensor([[[9.0, 10.0], [-4.0, 2.0]]], dtype=torch.float64)
    torch.testing.assert_close(layer(row), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("rank", [None, 2])
def test_additive_mixer_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    rank: int | None,
) -> None:
    layer = randomise(build("additive_mixer", num_fields=3, embedding_dim=3, rank=rank), 0)
    assert check_gradients(layer, draw(2, 3, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rank", [None, 2])
def test_additive_mixer_whose_values_are_zero_gives_its_input(
    draw: Callable[..., Tensor], randomise: Randomise, rank: int | None, seed: int
) -> None:
    layer = randomise(
        build("additive_mixer", num_fields=5, embedding_dim=3, num_layers=2, rank=rank), seed
    )
    with torch.no_grad():
        for number in range(2):
            Weights(layer, number, rank).map["v"].weight.zero_()
    x_BFD = draw(4, 5, 3, seed=seed)
    torch.testing.assert_close(layer(x_BFD), x_BFD, rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_additive_mixer_adds_the_same_whatever_a_field_is_shifted_by(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("additive_mixer", num_fields=5, embedding_dim=3, num_layers=2), seed)
    x_BFD, shift_BF1 = draw(4, 5, 3, seed=seed), draw(4, 5, 1, seed=seed + 100)
    shifted = layer(x_BFD + shift_BF1) - shift_BF1
    torch.testing.assert_close(shifted, layer(x_BFD), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_additive_mixer_ignores_the_order_of_queries_and_keys(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer, swapped = (
        randomise(build("additive_mixer", num_fields=5, embedding_dim=3), seed) for _ in range(2)
    )
    given, taken = Weights(layer, 0, None), Weights(swapped, 0, None)
    for role in ("norm", "map", "gate_norm", "field_gate", "channel_gate"):
        for name, other in ("qk", "kq"):
            getattr(taken, role)[name].load_state_dict(getattr(given, role)[other].state_dict())
    for name, other in ("qk", "kq"):
        taken.mix[name][0].load_state_dict(given.mix[other][0].state_dict())
    x_BFD = draw(4, 5, 3, seed=seed)
    torch.testing.assert_close(swapped(x_BFD), layer(x_BFD), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        ({"num_layers": -2}, "num_layers must be at least 1; got -2."),
        ({"rank": 0}, "rank must be at least 1; got 0. Leave it out for a full matrix."),
    ],
)
def test_additive_mixer_refuses_what_it_cannot_build(options: dict[str, int], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('additive_mixer: ' + line)}$"):
        build("additive_mixer", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(("rank", "mixing"), [(None, 4 * 4), (2, 2 * 2 * 4), (3, 2 * 3 * 4)])
def test_additive_mixer_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    rank: int | None,
    mixing: int,
) -> None:
    layer = build("additive_mixer", num_fields=4, embedding_dim=3, num_layers=2, rank=rank)
    # Q, K, V and the last map of each of 4 fields, three mixes of each of 3 channels, and the two
    # gates: one number of each field, and 3 channels of one mean.
    matmul = 2 * 2 * (4 * 4 * 3 * 3 + 3 * 3 * mixing + 2 * (4 * 3 + 3 * 3))
    # phi of 12 numbers: a norm (7), a relu, a sigmoid of 4 fields, the field gate's product,
    # 9 sums and 3 divisions for the means, 3 sigmoids, the channel gate's product.
    phi = 7 * 12 + 12 + 4 + 12 + 9 + 3 + 3 + 12
    # One norm of the input; two sums and a product of 12 numbers.
    beside = 2 * (7 * 12 + 2 * phi + 3 * 12)
    assert layer.flops.matmul == count_matmul_flops(layer, 4, 3) == matmul
    assert layer.flops.other == beside
    assert layer.flops_per_row == matmul + beside
    # Three norms of 2 numbers a channel; a gate of a field has 3, of the channels 3 * 3.
    mixer = 4 * 3 * 3 + 3 * 3 * mixing + 2 * 3 + 2 * 3 * 3 + 3 * 2 * 3
    assert count_parameters(layer) == 2 * mixer
