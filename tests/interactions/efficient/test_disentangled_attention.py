"""Self-attention over fields, its pairwise and unary parts apart."""

import math
import re
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

NAME = "disentangled_attention"
SEEDS = range(3)
Row = list[list[float]]
Randomise = Callable[[nn.Module, int], Interaction]


def mapped(row: Row, op: nn.Module) -> Row:
    shifts = [0.0] * len(op.weight) if op.bias is None else op.bias.tolist()
    return [
        [
            sum(w * v for w, v in zip(line, field, strict=True)) + shift
            for line, shift in zip(op.weight.tolist(), shifts, strict=True)
        ]
        for field in row
    ]


def centred(row: Row) -> Row:
    means = [sum(column) / len(row) for column in zip(*row, strict=True)]
    return [[v - mean for v, mean in zip(field, means, strict=True)] for field in row]


def shares(numbers: list[float]) -> list[float]:
    powers = [math.exp(number - max(numbers)) for number in numbers]
    return [power / sum(powers) for power in powers]


def plain_layer(
    row: Row, maps: dict[str, nn.Module], num_heads: int, scaled: bool, relu: bool
) -> Row:
    """Xu et al. 2021: weights of pairs, whitened, and of fields alone, head by head."""
    q, k, v = (mapped(row, maps[name]) for name in "qkv")
    if relu:
        q, k, v = ([[max(0.0, z) for z in field] for field in some] for some in (q, k, v))
    q, k, unary = centred(q), centred(k), mapped(row, maps["u"])
    width = len(q[0]) // num_heads
    out: Row = [[] for _ in row]
    for head in range(num_heads):
        own = slice(head * width, (head + 1) * width)
        alone = shares([field[head] for field in unary])
        for i, asking in enumerate(q):
            products = [
                sum(a * b for a, b in zip(asking[own], asked[own], strict=True))
                / (math.sqrt(width) if scaled else 1.0)
                for asked in k
            ]
            weights = [a + b for a, b in zip(shares(products), alone, strict=True)]
            for c in range(head * width, (head + 1) * width):
                out[i].append(sum(w * field[c] for w, field in zip(weights, v, strict=True)))
    if "r" in maps:
        kept = mapped(row, maps["r"])
        out = [[a + b for a, b in zip(*both, strict=True)] for both in zip(out, kept, strict=True)]
    return out


def plain_attention(
    row: Row,
    layer: Interaction,
    num_layers: int,
    num_heads: int,
    *,
    residual: str = "each",
    scaled: bool = False,
    relu: bool = False,
) -> Row:
    maps = iter([op for name, op in layer.ops.items() if name.startswith("lin")])
    fields = row
    for _ in range(num_layers):
        # The order in which the layer reads them.
        own = {name: next(maps) for name in ("qkvur" if residual == "each" else "qkvu")}
        row = plain_layer(row, own, num_heads, scaled, relu)
    if residual == "last":
        kept = mapped(fields, next(maps))
        row = [[a + b for a, b in zip(*both, strict=True)] for both in zip(row, kept, strict=True)]
    assert next(maps, None) is None
    return row


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"residual": "last"},
        {"residual": "none"},
        {"scaled": True},
        {"relu": True},
        {"relu": True, "residual": "last", "scaled": True},
    ],
)
@pytest.mark.parametrize(("num_layers", "num_heads"), [(1, 1), (1, 2), (3, 2)])
def test_it_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_layers: int,
    num_heads: int,
    options: dict[str, Any],
    seed: int,
) -> None:
    sizes = {"num_layers": num_layers, "num_heads": num_heads, "attention_dim": 4}
    layer = randomise(build(NAME, num_fields=5, embedding_dim=3, **sizes, **options), seed)
    x = draw(3, 5, 3, seed=seed)
    expected = [plain_attention(row, layer, num_layers, num_heads, **options) for row in x.tolist()]
    torch.testing.assert_close(
        layer(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


def test_two_fields_of_one_number_worked_out_by_hand() -> None:
    options: dict[str, Any] = {"num_layers": 1, "num_heads": 1, "attention_dim": 1}
    layer = build(NAME, num_fields=2, embedding_dim=1, **options)
    # q, k, v, unary, kept
    for number, weight in enumerate((1.0, 2 * math.log(2), 3.0, math.log(3), -1.0)):
        layer.get_parameter(f"ops.lin_{number}.weight").data.fill_(weight)
    # e = 1, 3: queries -1, 1 and keys -2 log 2, 2 log 2 once centred; values 3, 9; kept -1, -3.
    # Alone: exp(log 3), exp(3 log 3) = 3, 27: shares .1 and .9, (.3 + 8.1) = 8.4 for both.
    # Field 1: exp(2 log 2), exp(-2 log 2) = 4, 1/4: shares 16/17 and 1/17, (48 + 9) / 17.
    # Field 2: shares 1/17 and 16/17, (3 + 144) / 17.
    expected = [57 / 17 + 8.4 - 1, 147 / 17 + 8.4 - 3]
    found = layer(torch.tensor([[[1.0], [3.0]]])).flatten().tolist()
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_all_fields_share_moves_no_pair_s_weight(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build(NAME, num_fields=4, embedding_dim=3, num_layers=1), seed)
    # Values and what is kept move with the fields: without them, weights alone are seen.
    names = [name for name in layer.ops if name.startswith("lin")]
    for name in (names[2], names[4]):
        layer.ops[name].weight.data.zero_()
        assert layer.ops[name].bias is not None
    x = draw(2, 4, 3, seed=seed)
    shift = draw(2, 1, 3, seed=seed + 50)
    torch.testing.assert_close(layer(x + shift), layer(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("residual", ["each", "last", "none"])
def test_it_turns_the_fields_of_its_output_with_those_it_reads(
    draw: Callable[..., Tensor], randomise: Randomise, residual: str, seed: int
) -> None:
    layer = randomise(build(NAME, num_fields=4, embedding_dim=3, residual=residual), seed)
    x = draw(2, 4, 3, seed=seed)
    expected = layer(x)
    for order in permutations(range(4)):
        turned = expected[:, order]
        torch.testing.assert_close(layer(x[:, order]), turned, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("residual", ["each", "last", "none"])
def test_its_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    residual: str,
) -> None:
    options: dict[str, Any] = {"num_layers": 2, "num_heads": 2, "attention_dim": 4}
    made = build(NAME, num_fields=3, embedding_dim=2, residual=residual, **options)
    assert check_gradients(randomise(made, 0), draw(2, 3, 2, seed=0))


def test_it_is_no_polynomial() -> None:
    assert build(NAME, num_fields=3, embedding_dim=2).degree is None


def test_dropout_is_of_both_weights_and_in_training_alone() -> None:
    # Of a single field both weights are 1: 2 v in all, of which each half is dropped or doubled.
    options: dict[str, Any] = {"num_layers": 1, "num_heads": 1, "attention_dim": 1}
    layer = build(
        NAME, num_fields=1, embedding_dim=1, residual="none", relu=True, dropout=0.5, **options
    )
    with torch.no_grad():
        layer.ops["lin_2"].weight.fill_(1.0)
    x = torch.ones(4000, 1, 1)
    assert layer.eval()(x).eq(2).all()
    layer.train()
    torch.manual_seed(0)
    found, counts = layer(x).flatten().unique(return_counts=True)
    assert found.tolist() == [0.0, 2.0, 4.0]
    # Known to 0.8% of all: a quarter, a half, a quarter.
    shares_found = (counts / 4000).tolist()
    assert shares_found == pytest.approx([0.25, 0.5, 0.25], abs=0.04)


@pytest.mark.parametrize(("relu", "biased"), [(False, [2, 4]), (True, [0, 1, 2, 4])])
def test_maps_have_biases_but_where_they_are_taken_away_again(
    relu: bool, biased: list[int]
) -> None:
    layer = build(NAME, num_fields=3, embedding_dim=2, num_layers=1, relu=relu)
    # q, k, v, the number of a field, and what is kept.
    maps = [op for name, op in layer.ops.items() if name.startswith("lin")]
    assert [number for number, op in enumerate(maps) if op.bias is not None] == biased


def test_it_counts_its_parameters_and_operations(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    options: dict[str, Any] = {"num_layers": 1, "num_heads": 2, "attention_dim": 4}
    layer = build(NAME, num_fields=5, embedding_dim=3, **options)
    # Queries and keys; values and what is kept, with biases; a number of each head.
    assert count_parameters(layer) == 2 * 12 + 2 * (12 + 4) + 6
    # Four maps of 3 to 4, one of 3 to 2; products and sums of 5 with 5 fields, 4 wide.
    assert layer.flops.matmul == 2 * 5 * (4 * 12 + 6) + 2 * 25 * (4 + 4)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        ({"attention_dim": 0}, "attention_dim must be at least 1; got 0."),
        ({"num_heads": 3}, "num_heads must divide 32 and 32; got 3."),
        ({"residual": "all"}, "residual must be each, last or none; got 'all'."),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0."),
    ],
)
def test_it_refuses_what_it_cannot_be(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'{NAME}: {line}')}$"):
        build(NAME, num_fields=3, embedding_dim=4, **options)
