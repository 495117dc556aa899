"""gMLP's spatial gating, carried over to fields."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
RANKS = (None, 2)
Randomise = Callable[[nn.Module, int], Interaction]


def affine(op: nn.Module, row: list[float]) -> list[float]:
    return [
        sum(w * number for w, number in zip(line, row, strict=True)) + shift
        for line, shift in zip(op.weight.tolist(), op.bias.tolist(), strict=True)
    ]


def layer_norm(op: nn.Module, row: list[float]) -> list[float]:
    mean = sum(row) / len(row)
    variance = sum((number - mean) ** 2 for number in row) / len(row)
    scaled = [(number - mean) / math.sqrt(variance + 1e-5) for number in row]
    return [z * a + b for z, a, b in zip(scaled, op.weight.tolist(), op.bias.tolist(), strict=True)]


def gelu(z: float) -> float:
    return z * (1 + math.erf(z / math.sqrt(2))) / 2


def block_ops(layer: Interaction, number: int, rank: int | None) -> dict[str, Any]:
    """Operations of one block, by what the docstring calls them; ``M`` as one or two maps."""
    maps = 3 if rank is None else 4
    lins = [layer.ops[f"lin_{maps * number + k}"] for k in range(maps)]
    return {
        "LN(x)": layer.ops[f"layernorm_{2 * number}"],
        "LN(v)": layer.ops[f"layernorm_{2 * number + 1}"],
        "W1": lins[0],
        "M": lins[1:-1],
        "W2": lins[-1],
    }


def field_matrix(maps: list[nn.Module]) -> list[list[float]]:
    """``M``, multiplied out where it is the product of two."""
    if len(maps) == 1:
        found: list[list[float]] = maps[0].weight.tolist()
        return found
    narrow, wide = (op.weight.tolist() for op in maps)
    num_fields = len(wide)
    return [
        [sum(wide[f][r] * narrow[r][g] for r in range(len(narrow))) for g in range(num_fields)]
        for f in range(num_fields)
    ]


def plain_gmlp(
    row: list[list[float]], layer: Interaction, num_layers: int, rank: int | None
) -> list[list[float]]:
    """Liu et al. 2021, sec. 2, with the spatial gating unit of eq. 2-4."""
    for number in range(num_layers):
        ops = block_ops(layer, number, rank)
        wide = [[gelu(z) for z in affine(ops["W1"], layer_norm(ops["LN(x)"], f))] for f in row]
        half = len(wide[0]) // 2
        u = [field[:half] for field in wide]
        v = [layer_norm(ops["LN(v)"], field[half:]) for field in wide]
        mixing, shifts = field_matrix(ops["M"]), ops["M"][-1].bias.tolist()
        out = []
        for f, field in enumerate(row):
            gated = []
            for c in range(half):
                mixed = sum(mixing[f][g] * v[g][c] for g in range(len(row)))
                gated.append(u[f][c] * (mixed + shifts[f]))
            out.append([a + b for a, b in zip(field, affine(ops["W2"], gated), strict=True)])
        row = out
    return row


def feed_forward(layer: Interaction, x_BFD: Tensor, rank: int | None) -> Tensor:
    """``x + W2 u + b2``: one block with nothing that gates."""
    ops = block_ops(layer, 0, rank)
    wide = torch.nn.functional.gelu(
        ops["LN(x)"](x_BFD) @ ops["W1"].weight.T + ops["W1"].bias, approximate="none"
    )
    u = wide[:, :, : wide.shape[2] // 2]
    return x_BFD + u @ ops["W2"].weight.T + ops["W2"].bias


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("num_fields", "embedding_dim", "num_layers", "expansion"),
    [(1, 3, 1, 2), (2, 1, 1, 3), (4, 3, 2, 2), (3, 2, 3, 1)],
)
@pytest.mark.parametrize("rank", [None, 1, 3])
def test_gmlp_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    rank: int | None,
    num_fields: int,
    embedding_dim: int,
    num_layers: int,
    expansion: int,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "gmlp",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
            expansion=expansion,
            rank=rank,
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_gmlp(row, layer, num_layers, rank) for row in x_BFD.tolist()], dtype=torch.float64
    )
    # A single token is flat.
    expected = expected.flatten(1) if num_fields == 1 else expected
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-10, atol=1e-10)


def test_gmlp_of_two_fields_gates_each_by_both() -> None:
    layer = build("gmlp", num_fields=2, embedding_dim=2, expansion=1).double()
    # x = (3, 1), (0, 2); LN(x) = (1, -1), (-1, 1)
    # W1 LN(x) + b1 of (a, b) is (10a + 20, 10 | 10a, 10b): (30, 10 | 10, -10), (10, 10 | -10, 10)
    # gelu(z) is z from 10 on and 0 below -10: u = (30, 10), (10, 10); v = (10, 0), (0, 10)
    # v normalised is (1, -1), (-1, 1); times (2, 1) plus (0, 1) = (2, 0), (-2, 2)
    # M over fields: 1 * (2, 0) + 2 * (-2, 2) = (-2, 4); 0 * (2, 0) + 3 * (-2, 2) = (-6, 6)
    # plus b, 1 and -1: (-1, 5), (-7, 5); times u: (-30, 50), (-70, 50)
    # W2 of (a, b) is (a/10, a/10 + b/5) + (1, 0): (-3 + 1, -3 + 10), (-7 + 1, -7 + 10)
    # plus x: (3 - 2, 1 + 7) = (1, 8), (0 - 6, 2 + 3) = (-6, 5)
    ops = block_ops(layer, 0, None)
    values = [
        (ops["LN(x)"], [1.0, 1.0], [0.0, 0.0]),
        (ops["W1"], [[10.0, 0.0], [0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], [20.0, 10.0, 0.0, 0.0]),
        (ops["LN(v)"], [2.0, 1.0], [0.0, 1.0]),
        (ops["M"][0], [[1.0, 2.0], [0.0, 3.0]], [1.0, -1.0]),
        (ops["W2"], [[0.1, 0.0], [0.1, 0.2]], [1.0, 0.0]),
    ]
    with torch.no_grad():
        for op, weight, bias in values:
            assert op.weight.shape == torch.tensor(weight).shape
            op.weight.copy_(torch.tensor(weight))
            op.bias.copy_(torch.tensor(bias))
    row = torch.tensor([[[3.0, 1.0], [0.0, 2.0]]], dtype=torch.float64)
    # A layer norm adds 1e-5 to the variance, 1 of x and 25 of v: half a hundred-thousandth of what
    # is made of x, which is at most 70 here and reaches the output in tenths.
    expected = torch.tensor([[[1.0, 8.0], [-6.0, 5.0]]], dtype=torch.float64)
    torch.testing.assert_close(layer(row), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("rank", RANKS)
def test_gmlp_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    rank: int | None,
) -> None:
    layer = randomise(build("gmlp", num_fields=3, embedding_dim=3, rank=rank), 0)
    assert check_gradients(layer, draw(2, 3, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rank", RANKS)
def test_gmlp_begins_near_a_plain_feed_forward(
    draw: Callable[..., Tensor], rank: int | None, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = build("gmlp", num_fields=8, embedding_dim=4, rank=rank).double()
    x_BFD = draw(16, 8, 4, seed=seed)
    plain = feed_forward(layer, x_BFD, rank)
    added, off = (plain - x_BFD).norm(), (layer(x_BFD) - plain).norm()
    # A gate is 1 and a sum over 8 fields of normalised numbers times 1e-3: 1 +- 0.003 or so.
    assert 0 < off < 0.02 * added
    assert (layer.get_parameter(f"ops.lin_{1 if rank is None else 2}.bias") == 1).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rank", RANKS)
def test_gmlp_with_no_mixing_and_gates_of_one_is_a_plain_feed_forward(
    draw: Callable[..., Tensor], randomise: Randomise, rank: int | None, seed: int
) -> None:
    layer = randomise(build("gmlp", num_fields=5, embedding_dim=3, rank=rank), seed)
    last = block_ops(layer, 0, rank)["M"][-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(1.0)
    x_BFD = draw(4, 5, 3, seed=seed)
    torch.testing.assert_close(
        layer(x_BFD), feed_forward(layer, x_BFD, rank), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_gmlp_adds_the_same_whatever_a_field_is_shifted_by(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("gmlp", num_fields=5, embedding_dim=3, num_layers=2), seed)
    x_BFD, shift_BF1 = draw(4, 5, 3, seed=seed), draw(4, 5, 1, seed=seed + 100)
    shifted = layer(x_BFD + shift_BF1) - shift_BF1
    torch.testing.assert_close(shifted, layer(x_BFD), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        ({"expansion": -1}, "expansion must be at least 1; got -1."),
        ({"rank": 0}, "rank must be at least 1; got 0."),
    ],
)
def test_gmlp_refuses_what_it_cannot_build(options: dict[str, int], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('gmlp: ' + line)}$"):
        build("gmlp", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(("rank", "mixing"), [(None, 4 * 4), (1, 2 * 4), (3, 2 * 3 * 4)])
def test_gmlp_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    rank: int | None,
    mixing: int,
) -> None:
    layer = build("gmlp", num_fields=4, embedding_dim=3, num_layers=2, expansion=5, rank=rank)
    # A block, a half being 15 wide: W1 and W2 see each of 4 fields, M each of 15 channels, 2
    # operations a weight with the biases among them. Beside these a norm (7) of 4 * 3 numbers, a
    # gelu of 4 * 30, a norm and a gate of 4 * 15, and the residual sum.
    matmul = 2 * 2 * (4 * 3 * 30 + 15 * mixing + 4 * 15 * 3)
    beside = 2 * (7 * 12 + 120 + (7 + 1) * 60 + 12)
    assert layer.flops.matmul == count_matmul_flops(layer, 4, 3) == matmul
    assert layer.flops.other == beside
    assert layer.flops_per_row == matmul + beside
    # M adds one number a field; a norm has two a channel.
    block = (3 * 30 + 30) + (mixing + 4) + (15 * 3 + 3) + 2 * 3 + 2 * 15
    assert count_parameters(layer) == 2 * block
