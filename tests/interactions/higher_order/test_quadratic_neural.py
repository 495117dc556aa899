"""QNN-alpha's quadratic layers."""

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
Randomise = Callable[[nn.Module, int], Interaction]
Rows = list[list[float]]


def mapped(rows: Rows, layer: Interaction, number: int) -> Rows:
    weight = layer.get_parameter(f"ops.lin_{number}.weight").tolist()
    learned = dict(layer.named_parameters()).get(f"ops.lin_{number}.bias")
    bias = [0.0] * len(weight) if learned is None else learned.tolist()
    return [
        [
            sum(w * value for w, value in zip(line, row, strict=True)) + start
            for line, start in zip(weight, bias, strict=True)
        ]
        for row in rows
    ]


def normalised(rows: Rows, layer: Interaction, number: int) -> Rows:
    """Ioffe and Szegedy 2015, algorithm 1."""
    scales = layer.get_parameter(f"ops.batchnorm_{number}.norm.weight").tolist()
    shifts = layer.get_parameter(f"ops.batchnorm_{number}.norm.bias").tolist()
    columns = []
    for column, scale, shift in zip(zip(*rows, strict=True), scales, shifts, strict=True):
        mean = sum(column) / len(column)
        variance = sum((z - mean) ** 2 for z in column) / len(column)
        columns.append([(z - mean) / math.sqrt(variance + 1e-5) * scale + shift for z in column])
    return [list(row) for row in zip(*columns, strict=True)]


def head_major(row: list[float], num_fields: int, num_heads: int) -> list[float]:
    """The first H-th of every field's numbers, then the second, and so on."""
    width = len(row) // num_fields
    part = width // num_heads
    out = []
    for head in range(num_heads):
        for field in range(num_fields):
            for channel in range(head * part, (head + 1) * part):
                out.append(row[field * width + channel])
    return out


def plain_quadratic_neural(
    rows: Rows,
    layer: Interaction,
    num_fields: int,
    num_layers: int,
    num_heads: int,
    batch_norm: bool,
) -> Rows:
    """Li et al. 2025: ``by_head(x) * sum_r relu(BN(W_r x + b_r)) + x``, row after row of W."""
    for number in range(num_layers):
        maps = mapped(rows, layer, number)
        maps = normalised(maps, layer, number) if batch_norm else maps
        after = []
        for x, made in zip(rows, maps, strict=True):
            y = head_major(x, num_fields, num_heads)
            for n in range(len(x)):
                factor = sum(max(made[r], 0.0) for r in range(n, len(made), len(x)))
                y[n] = y[n] * factor + x[n]
            after.append(y)
        rows = after
    return rows


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(1, 4), (3, 4), (5, 2)])
@pytest.mark.parametrize(
    ("num_layers", "num_row", "num_heads"), [(1, 1, 1), (1, 3, 2), (3, 2, 1), (2, 2, 2)]
)
def test_quadratic_neural_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_layers: int,
    num_row: int,
    num_heads: int,
    num_fields: int,
    embedding_dim: int,
    batch_norm: bool,
    seed: int,
) -> None:
    layer = build(
        "quadratic_neural",
        num_fields=num_fields,
        embedding_dim=embedding_dim,
        num_layers=num_layers,
        num_row=num_row,
        num_heads=num_heads,
        batch_norm=batch_norm,
    )
    layer = randomise(layer, seed)
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    plain = plain_quadratic_neural(
        x_BFD.flatten(1).tolist(), layer, num_fields, num_layers, num_heads, batch_norm
    )
    expected = torch.tensor(plain, dtype=torch.float64)
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("num_heads", "expected"), [(1, [4.0, 6.0, 12.0, -2.0]), (2, [4.0, 8.0, 9.0, -2.0])]
)
def test_quadratic_neural_of_two_fields_of_two_numbers(
    num_heads: int, expected: list[float]
) -> None:
    layer = build(
        "quadratic_neural",
        num_fields=2,
        embedding_dim=2,
        num_layers=1,
        num_row=2,
        num_heads=num_heads,
    )
    # Numbers 0 to 3 are the first map, 4 to 7 the second.
    weight, bias = torch.zeros(8, 4), torch.zeros(8)
    weight[0, 0] = weight[0, 1] = weight[6, 2] = weight[7, 3] = 1.0
    bias[1] = 2.0
    with torch.no_grad():
        layer.get_parameter("ops.lin_0.weight").copy_(weight)
        layer.get_parameter("ops.lin_0.bias").copy_(bias)
    # x = (1, 2), (3, -2)
    # first map: relu(1 + 2, 2, 0, 0) = (3, 2, 0, 0)
    # second map: relu(0, 0, 3, -2) = (0, 0, 3, 0); their sum (3, 2, 3, 0)
    # one head: (1, 2, 3, -2) * (3, 2, 3, 0) + (1, 2, 3, -2) = (4, 6, 12, -2)
    # two heads: first halves (1, 3), second halves (2, -2):
    #   (1, 3, 2, -2) * (3, 2, 3, 0) + (1, 2, 3, -2) = (4, 8, 9, -2)
    assert layer(torch.tensor([[[1.0, 2.0], [3.0, -2.0]]])).tolist() == [expected]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_quadratic_neural_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    batch_norm: bool,
) -> None:
    layer = build(
        "quadratic_neural",
        num_fields=2,
        embedding_dim=2,
        num_layers=2,
        num_heads=2,
        batch_norm=batch_norm,
    )
    assert check_gradients(randomise(layer, 0), draw(3, 2, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_heads", [1, 2])
def test_quadratic_neural_whose_maps_are_silent_gives_its_input(
    draw: Callable[..., Tensor], randomise: Randomise, num_heads: int, seed: int
) -> None:
    layer = randomise(
        build("quadratic_neural", num_fields=3, embedding_dim=4, num_heads=num_heads), seed
    )
    with torch.no_grad():
        for number in range(3):
            layer.get_parameter(f"ops.lin_{number}.bias").fill_(-1e6)
    x_BFD = draw(4, 3, 4, seed=seed)
    torch.testing.assert_close(layer(x_BFD), x_BFD.flatten(1), rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_quadratic_neural_ignores_the_order_of_its_rows(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(
        build("quadratic_neural", num_fields=3, embedding_dim=2, num_layers=1, num_row=3), seed
    )
    x_BFD = draw(4, 3, 2, seed=seed)
    expected = layer(x_BFD).detach()
    with torch.no_grad():
        for name in ("ops.lin_0.weight", "ops.lin_0.bias"):
            maps = layer.get_parameter(name)
            maps.copy_(maps.view(3, 6, -1)[[2, 0, 1]].view(maps.shape))
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_quadratic_neural_is_no_polynomial_as_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = randomise(build("quadratic_neural", num_fields=3, embedding_dim=4, num_layers=1), seed)
    assert layer.degree is None
    assert measure_degree(layer, draw(4, 3, 4, seed=seed)) is None


def test_quadratic_neural_drops_maps_and_outputs_in_training_alone(
    draw: Callable[..., Tensor], randomise: Randomise
) -> None:
    options = {"num_fields": 5, "embedding_dim": 8, "num_layers": 1, "num_row": 1}
    layer = randomise(build("quadratic_neural", **options, dropout=0.2), 0)
    with torch.no_grad():
        layer.get_parameter("ops.lin_0.weight").zero_()
        layer.get_parameter("ops.lin_0.bias").fill_(2.0)
    x_BFD = draw(50, 5, 8, seed=0)
    x_BN = x_BFD.flatten(1)
    torch.testing.assert_close(layer.eval()(x_BFD), 3 * x_BN)
    torch.manual_seed(0)
    times = layer.train()(x_BFD) / x_BN
    # A dropped output is 0; one kept is (1 + 0) / 0.8 or, its map kept, (1 + 2 / 0.8) / 0.8.
    shares = [((times - value).abs() < 1e-9).double().mean().item() for value in (0, 1.25, 4.375)]
    assert sum(shares) == pytest.approx(1.0)
    # Five standard deviations of shares of 2000 numbers: 5 * sqrt(0.25 / 2000) at most
    assert shares == pytest.approx([0.2, 0.8 * 0.2, 0.8 * 0.8], abs=0.056)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        ({"num_row": -1}, "num_row must be at least 1; got -1."),
        ({"num_heads": 0}, "num_heads must be at least 1; got 0."),
        ({"num_heads": 3}, "num_heads must divide 4; got 3."),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0."),
    ],
)
def test_quadratic_neural_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('quadratic_neural: ' + line)}$"):
        build("quadratic_neural", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(("batch_norm", "norms", "numbers"), [(False, 0, 1), (True, 2, 2)])
def test_quadratic_neural_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    batch_norm: bool,
    norms: int,
    numbers: int,
) -> None:
    layer = build(
        "quadratic_neural",
        num_fields=5,
        embedding_dim=8,
        num_layers=2,
        num_row=3,
        num_heads=4,
        batch_norm=batch_norm,
    )
    # Each of 2 layers maps 40 numbers to 3 times 40: a relu (and 2 of a norm) each, 2 sums of 40
    # rows, a product and a sum of 40 with the row. A unit has a bias, or scale and shift of a norm.
    weights = 40 * 3 * 40
    beside = (1 + norms) * 3 * 40 + 2 * 40 + 2 * 40
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 8) == 2 * 2 * weights
    assert layer.flops.other == 2 * beside
    assert layer.flops_per_row == 2 * (2 * weights + beside)
    assert count_parameters(layer) == 2 * (weights + numbers * 3 * 40)
