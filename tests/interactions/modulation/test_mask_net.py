"""MaskNet's instance-guided masks, serial and parallel."""

import math
import re
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
KINDS = ("serial", "parallel")
Kind = Literal["serial", "parallel"]
Randomise = Callable[[nn.Module, int], Interaction]


def affine(weight: Tensor, bias: Tensor | None, row: list[float]) -> list[float]:
    shifts = [0.0] * len(weight) if bias is None else bias.tolist()
    return [
        sum(w * number for w, number in zip(line, row, strict=True)) + shift
        for line, shift in zip(weight.tolist(), shifts, strict=True)
    ]


def layer_norm(row: list[float], norm: nn.Module) -> list[float]:
    mean = sum(row) / len(row)
    variance = sum((number - mean) ** 2 for number in row) / len(row)
    scaled = [(number - mean) / math.sqrt(variance + 1e-5) for number in row]
    scales, shifts = norm.weight.tolist(), norm.bias.tolist()
    return [z * a + b for z, a, b in zip(scaled, scales, shifts, strict=True)]


def block_ops(
    layer: Interaction,
    kind: Kind,
    num_blocks: int,
    norm_embeddings: bool = True,
    norm_blocks: bool = True,
) -> list[list[nn.Module]]:
    """Of each block: the two maps of its mask, its own map and its norm, if it has one."""
    blocks = []
    for k in range(num_blocks):
        # A serial block's mask is named before the block that it reads.
        mask = 2 * (num_blocks - 1 - k) if kind == "serial" else 3 * k
        own = 2 * num_blocks + k if kind == "serial" else 3 * k + 2
        names = [f"lin_{mask}", f"lin_{mask + 1}", f"lin_{own}"]
        names += [f"layernorm_{k + norm_embeddings}"] * norm_blocks
        blocks.append([layer.ops[name] for name in names])
    return blocks


def plain_mask_net(
    row: list[list[float]],
    layer: Interaction,
    kind: Kind,
    num_blocks: int,
    norm_embeddings: bool = True,
    norm_blocks: bool = True,
) -> list[float]:
    """Wang et al. 2021: each block multiplies what it reads by a mask made of the embeddings."""
    embeddings = [number for field in row for number in field]
    first = embeddings
    if norm_embeddings:
        first = [number for field in row for number in layer_norm(field, layer.ops["layernorm_0"])]
    hidden, beside = first, []
    blocks = block_ops(layer, kind, num_blocks, norm_embeddings, norm_blocks)
    for squeeze, make, own, *norms in blocks:
        read = hidden if kind == "serial" else first
        made = [max(z, 0.0) for z in affine(squeeze.weight, squeeze.bias, embeddings)]
        mask = affine(make.weight, make.bias, made)
        masked = [m * h for m, h in zip(mask, read, strict=True)]
        mapped = affine(own.weight, own.bias, masked)
        hidden = [max(z, 0.0) for z in (layer_norm(mapped, *norms) if norms else mapped)]
        beside += hidden
    return hidden if kind == "serial" else beside


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize(
    ("num_fields", "embedding_dim", "hidden_units", "mask_units"),
    [(1, 3, (4,), 2), (3, 4, (6, 5), 3), (5, 2, (3, 7, 4), 1)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_mask_net_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    kind: Kind,
    num_fields: int,
    embedding_dim: int,
    hidden_units: tuple[int, ...],
    mask_units: int,
    dropout: float,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "mask_net",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            kind=kind,
            hidden_units=hidden_units,
            mask_units=mask_units,
            dropout=dropout,
        ),
        seed,
    ).eval()
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_mask_net(row, layer, kind, len(hidden_units)) for row in x_BFD.tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("norm_blocks", [False, True])
@pytest.mark.parametrize("norm_embeddings", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_mask_net_with_and_without_its_norms_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    kind: Kind,
    norm_embeddings: bool,
    norm_blocks: bool,
    seed: int,
) -> None:
    norms = {"norm_embeddings": norm_embeddings, "norm_blocks": norm_blocks}
    layer = randomise(
        build(
            "mask_net", num_fields=3, embedding_dim=4, kind=kind, hidden_units=(6, 5, 3), **norms
        ),
        seed,
    )
    x_BFD = draw(4, 3, 4, seed=seed)
    expected = torch.tensor(
        [plain_mask_net(row, layer, kind, 3, **norms) for row in x_BFD.tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_mask_net_of_two_fields_through_two_blocks(kind: Kind) -> None:
    layer = build(
        "mask_net", num_fields=2, embedding_dim=2, kind=kind, hidden_units=(2, 2), mask_units=1
    ).double()
    # E = (3, 1), (-1, -3). Both fields normalised are (1, -1), and after the affine map
    # (2 * 1 + 0, 1 * -1 + 1) = (2, 0): h = (2, 0, 2, 0)
    # First block: relu(3 - 3 + 2) = 2; mask (1, 2, 0, -1) * 2 + (0, -1, 1, 0) = (2, 3, 1, -2)
    #   mask * h = (4, 0, 2, 0); W of it = (4 + 2, 2) = (6, 2), normalised (1, -1)
    #   relu(3 * 1, 1 * -1 + 0.5) = (3, 0)
    # Second block: relu(1 - 1 + 1) = 1
    #   serial: mask (3, 1) - (1, 0) = (2, 1); times (3, 0) = (6, 0); W of it = (0, 3),
    #     normalised (-1, 1); relu(-1, 2 * 1) = (0, 2)
    #   parallel: mask (1, 1, -2, 1) + (0, 0, 1, 0) = (1, 1, -1, 1); times h = (2, 0, -2, 0);
    #     W of it = (2 - 2, 2) = (0, 2), normalised (-1, 1); relu(-1, 2 * 1) = (0, 2)
    second = {
        "serial": ([[3.0], [1.0]], [-1.0, 0.0], [[0.0, 1.0], [0.5, 0.0]]),
        "parallel": (
            [[1.0], [1.0], [-2.0], [1.0]],
            [0.0, 0.0, 1.0, 0.0],
            [[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]],
        ),
    }[kind]
    values = [
        (
            ([[1.0, 0.0, 0.0, 1.0]], [2.0]),
            ([[1.0], [2.0], [0.0], [-1.0]], [0.0, -1.0, 1.0, 0.0]),
            ([[1.0, 5.0, 1.0, 0.0], [0.0, 1.0, 1.0, 7.0]],),
            ([3.0, 1.0], [0.0, 0.5]),
        ),
        (
            ([[0.0, 1.0, 1.0, 0.0]], [1.0]),
            second[:2],
            second[2:],
            ([1.0, 2.0], [0.0, 0.0]),
        ),
    ]
    ops = [layer.ops["layernorm_0"], *(op for block in block_ops(layer, kind, 2) for op in block)]
    chosen = [([2.0, 1.0], [0.0, 1.0]), *(pair for block in values for pair in block)]
    with torch.no_grad():
        for op, numbers in zip(ops, chosen, strict=True):
            for parameter, value in zip(op.parameters(), numbers, strict=True):
                assert parameter.shape == torch.tensor(value).shape
                parameter.copy_(torch.tensor(value))
    row = torch.tensor([[[3.0, 1.0], [-1.0, -3.0]]], dtype=torch.float64)
    expected = {"serial": [0.0, 2.0], "parallel": [3.0, 0.0, 0.0, 2.0]}[kind]
    # A layer norm adds 1e-5 to the variance, 1 or more here.
    assert layer(row)[0].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_mask_net_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    kind: Kind,
) -> None:
    layer = randomise(
        build(
            "mask_net", num_fields=3, embedding_dim=3, kind=kind, hidden_units=(5, 4), mask_units=6
        ),
        1,
    )
    x_BFD = draw(3, 3, 3, seed=1)
    # Silent units have no gradient: the check says something where many are not silent.
    assert (layer(x_BFD) != 0).double().mean() > 0.3
    assert check_gradients(layer, x_BFD)


@pytest.mark.parametrize("seed", SEEDS)
def test_mask_net_in_parallel_is_its_blocks_beside_each_other(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    hidden_units = (6, 3, 5)
    layer = randomise(
        build(
            "mask_net", num_fields=4, embedding_dim=3, kind="parallel", hidden_units=hidden_units
        ),
        seed,
    )
    x_BFD = draw(4, 4, 3, seed=seed)
    together = layer(x_BFD)
    bounds = pairwise(accumulate(hidden_units, initial=0))
    blocks = block_ops(layer, "parallel", len(hidden_units))
    for units, (first, last), block in zip(hidden_units, bounds, blocks, strict=True):
        alone = build("mask_net", num_fields=4, embedding_dim=3, hidden_units=(units,)).double()
        ops = [alone.ops["layernorm_0"], *block_ops(alone, "serial", 1)[0]]
        for op, given in zip(ops, [layer.ops["layernorm_0"], *block], strict=True):
            op.load_state_dict(given.state_dict())
        torch.testing.assert_close(together[:, first:last], alone(x_BFD), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_mask_net_with_masks_of_zeros_is_the_same_for_every_row(
    draw: Callable[..., Tensor], randomise: Randomise, kind: Kind, seed: int
) -> None:
    layer = randomise(
        build("mask_net", num_fields=4, embedding_dim=3, kind=kind, hidden_units=(6, 5)), seed
    )
    blocks = block_ops(layer, kind, 2)
    with torch.no_grad():
        for _, make, _, _ in blocks:
            make.weight.zero_()
            make.bias.zero_()
    shifts = [norm.bias for _, _, _, norm in blocks]
    expected = torch.relu(shifts[-1] if kind == "serial" else torch.cat(shifts))
    out = layer(draw(4, 4, 3, seed=seed))
    torch.testing.assert_close(out, expected.expand_as(out), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_mask_net_without_norms_is_the_larger_the_larger_its_maps(
    draw: Callable[..., Tensor], randomise: Randomise, kind: Kind, seed: int
) -> None:
    layer = randomise(
        build(
            "mask_net",
            num_fields=4,
            embedding_dim=3,
            kind=kind,
            hidden_units=(6, 5),
            norm_embeddings=False,
            norm_blocks=False,
        ),
        seed,
    )
    x_BFD = draw(4, 4, 3, seed=seed)
    once = layer(x_BFD)
    with torch.no_grad():
        for _, _, own in block_ops(layer, kind, 2, False, False):
            own.weight.mul_(3.0)
    # Serial: the second block has both factors.
    times = 9.0 if kind == "serial" else 3.0
    torch.testing.assert_close(layer(x_BFD), times * once, rtol=1e-12, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_mask_net_drops_units_in_training_alone_and_scales_the_rest(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(
        build(
            "mask_net",
            num_fields=3,
            embedding_dim=4,
            kind="parallel",
            hidden_units=(60, 40),
            dropout=0.2,
        ),
        seed,
    )
    x_BFD = draw(20, 3, 4, seed=seed)
    whole = layer.eval()(x_BFD)
    torch.manual_seed(seed)
    dropped = layer.train()(x_BFD)
    live = whole != 0
    kept = dropped != 0
    assert not (kept & ~live).any()
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.8, rtol=1e-12, atol=0)
    # Five standard deviations of the share kept of 500 units or more: 5 * sqrt(0.2 * 0.8 / 500)
    assert live.sum() > 500
    assert kept[live].double().mean().item() == pytest.approx(0.8, abs=0.09)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"hidden_units": ()}, "hidden_units must be one positive width or more; got []."),
        ({"hidden_units": (8, 0)}, "hidden_units must be one positive width or more; got [8, 0]."),
        ({"mask_units": 0}, "mask_units must be at least 1; got 0."),
        ({"mask_units": -3}, "mask_units must be at least 1; got -3."),
        ({"kind": "both"}, "kind must be serial or parallel; got 'both'."),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0."),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1; got -0.1."),
    ],
)
def test_mask_net_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('mask_net: ' + line)}$"):
        build("mask_net", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(
    ("kind", "reads"), [("serial", ((12, 5), (5, 2))), ("parallel", ((12, 5), (12, 2)))]
)
def test_mask_net_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    kind: Kind,
    reads: tuple[tuple[int, int], ...],
) -> None:
    layer = build(
        "mask_net", num_fields=4, embedding_dim=3, kind=kind, hidden_units=(5, 2), mask_units=7
    )
    # The norm of the fields is 7 a number of 12. Each block: 7 hidden units of its mask from 12
    # numbers, a mask as wide as what it reads, its map; beside these the relu of the hidden units,
    # the masking, and a norm and a relu a unit.
    weights = sum(12 * 7 + 7 * read + read * units for read, units in reads)
    beside = 7 * 12 + sum(7 + read + (7 + 1) * units for read, units in reads)
    assert layer.flops.matmul == count_matmul_flops(layer, 4, 3) == 2 * weights
    assert layer.flops.other == beside
    assert layer.flops_per_row == 2 * weights + beside
    # Both maps of a mask have a bias, the block's own none; a norm has two numbers a channel.
    biases = sum(7 + read for read, _ in reads)
    assert count_parameters(layer) == weights + biases + 2 * (3 + 5 + 2)


@pytest.mark.parametrize(
    ("norm_embeddings", "norm_blocks", "beside", "learned"),
    # 7 operations a number of what is normalised, 12 of the fields and 5 + 2 of the blocks; two
    # numbers a channel: 3 of a field, 5 and 2 of the blocks.
    [(False, True, 7 * 7, 14), (True, False, 7 * 12, 6), (False, False, 0, 0)],
)
def test_mask_net_counts_no_norm_it_does_not_have(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    norm_embeddings: bool,
    norm_blocks: bool,
    beside: int,
    learned: int,
) -> None:
    layer = build(
        "mask_net",
        num_fields=4,
        embedding_dim=3,
        kind="parallel",
        hidden_units=(5, 2),
        mask_units=7,
        norm_embeddings=norm_embeddings,
        norm_blocks=norm_blocks,
    )
    # Each block: 7 hidden units of its mask and 12 numbers of it, which mask the fields, and a relu
    # a unit.
    weights = 2 * (12 * 7 + 7 * 12) + 12 * (5 + 2)
    assert layer.flops.matmul == count_matmul_flops(layer, 4, 3) == 2 * weights
    assert layer.flops.other == 2 * (7 + 12) + (5 + 2) + beside
    assert count_parameters(layer) == weights + 2 * (7 + 12) + learned


def test_mask_net_has_the_parameters_of_the_published_frappe_run(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build(
        "mask_net",
        num_fields=10,
        embedding_dim=10,
        kind="parallel",
        hidden_units=(50, 50, 50),
        mask_units=200,
        norm_embeddings=False,
    )
    # A block: maps of 100 to 200 and of 200 to 100 with biases, one of 100 to 50 without, a norm.
    assert count_parameters(layer) == 3 * (101 * 200 + 201 * 100 + 100 * 50 + 2 * 50)
    # 5389 rows of width 10, and a network of 150 to 400, 400, 400 and 1.
    tables, deep = 53890, 60400 + 320800 + 401
    assert tables + count_parameters(layer) + deep == 571691
