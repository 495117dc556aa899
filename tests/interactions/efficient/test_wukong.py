"""Wukong's stacked factorization machine blocks."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(3)
Randomise = Callable[[nn.Module, int], Interaction]
Row = list[list[float]]
SMALL = {"num_layers": 2, "fm_tokens": 2, "linear_tokens": 1, "rank": 3, "hidden_units": (4, 5)}


def product(op: nn.Module, row: list[float]) -> list[float]:
    lines = op.weight.tolist()
    shifts = [0.0] * len(lines) if op.bias is None else op.bias.tolist()
    return [
        sum(w * number for w, number in zip(line, row, strict=True)) + shift
        for line, shift in zip(lines, shifts, strict=True)
    ]


def over_tokens(op: nn.Module, row: Row) -> Row:
    columns = [product(op, list(column)) for column in zip(*row, strict=True)]
    return [list(token) for token in zip(*columns, strict=True)]


def layer_norm(op: nn.Module, row: list[float]) -> list[float]:
    mean = sum(row) / len(row)
    variance = sum((number - mean) ** 2 for number in row) / len(row)
    scaled = [(number - mean) / math.sqrt(variance + 1e-5) for number in row]
    return [z * a + b for z, a, b in zip(scaled, op.weight.tolist(), op.bias.tolist(), strict=True)]


def plain_wukong(row: Row, layer: Interaction, num_layers: int, num_hidden: int) -> Row:
    """Zhang et al. 2024: ``LN([MLP(LN(flat(X X^T Y))) ; W X] + X)``, layer after layer."""
    lins = iter([op for name, op in layer.ops.items() if name.startswith("lin_")])
    norms = iter([op for name, op in layer.ops.items() if name.startswith("layernorm_")])
    for _ in range(num_layers):
        others = over_tokens(next(lins), row)
        products = [
            sum(a * b for a, b in zip(token, other, strict=True))
            for token in row
            for other in others
        ]
        hidden = layer_norm(next(norms), products)
        for _ in range(num_hidden):
            hidden = [max(z, 0.0) for z in product(next(lins), hidden)]
        made = product(next(lins), hidden)
        width = len(row[0])
        joined = [made[n : n + width] for n in range(0, len(made), width)]
        joined += over_tokens(next(lins), row)
        kept = row if len(row) == len(joined) else over_tokens(next(lins), row)
        norm = next(norms)
        row = [
            layer_norm(norm, [a + b for a, b in zip(new, old, strict=True)])
            for new, old in zip(joined, kept, strict=True)
        ]
    assert next(lins, None) is None and next(norms, None) is None
    return row


@pytest.mark.parametrize("seed", SEEDS)
# The first layer keeps the number of tokens in the second case.
@pytest.mark.parametrize(
    ("num_fields", "fm_tokens", "linear_tokens"), [(5, 2, 1), (4, 3, 1), (1, 1, 2), (6, 2, 5)]
)
@pytest.mark.parametrize(
    ("num_layers", "rank", "hidden_units"), [(1, 1, (3,)), (2, 3, (4, 5)), (3, 2, (3,))]
)
def test_wukong_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_layers: int,
    rank: int,
    hidden_units: tuple[int, ...],
    num_fields: int,
    fm_tokens: int,
    linear_tokens: int,
    seed: int,
) -> None:
    layer = build(
        "wukong",
        num_fields=num_fields,
        embedding_dim=3,
        num_layers=num_layers,
        fm_tokens=fm_tokens,
        linear_tokens=linear_tokens,
        rank=rank,
        hidden_units=hidden_units,
    )
    layer = randomise(layer, seed)
    x_BFD = draw(3, num_fields, 3, seed=seed)
    expected = torch.tensor(
        [plain_wukong(row, layer, num_layers, len(hidden_units)) for row in x_BFD.tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-9, atol=1e-9)


def test_wukong_of_two_fields_of_two_numbers() -> None:
    layer = build(
        "wukong",
        num_fields=2,
        embedding_dim=2,
        num_layers=1,
        fm_tokens=1,
        linear_tokens=1,
        rank=1,
        hidden_units=(2,),
    ).double()
    values = {
        "lin_0.weight": [[1.0, -1.0]],
        "lin_1.weight": [[3.0, 0.0], [0.0, 2.0]],
        "lin_1.bias": [0.0, 1.0],
        "lin_2.weight": [[1.0, 5.0], [2.0, 5.0]],
        "lin_2.bias": [0.0, -3.0],
        "lin_3.weight": [[2.0, 1.0]],
        "layernorm_0.weight": [1.0, 1.0],
        "layernorm_0.bias": [0.0, 0.0],
        "layernorm_1.weight": [1.0, 2.0],
        "layernorm_1.bias": [0.5, 0.0],
    }
    with torch.no_grad():
        for name, value in values.items():
            parameter = layer.get_parameter(f"ops.{name}")
            assert parameter.shape == torch.tensor(value).shape
            parameter.copy_(torch.tensor(value))
    # X = (3, 1), (1, -1). Y^T X = (3, 1) - (1, -1) = (2, 2)
    # inner products with it: 6 + 2 = 8 and 2 - 2 = 0, normalised (1, -1)
    # relu(3 * 1, 2 * -1 + 1) = (3, 0); then (3 + 0, 6 + 0 - 3) = (3, 3): the first token
    # W X = 2 (3, 1) + (1, -1) = (7, 1): the second token
    # two tokens stay two: (3, 3) + (3, 1) = (6, 4); (7, 1) + (1, -1) = (8, 0)
    # LN of both (1, -1), after the affine map (1.5, -2)
    row = torch.tensor([[[3.0, 1.0], [1.0, -1.0]]], dtype=torch.float64)
    # A layer norm adds 1e-5 to the variance, 1 or more here.
    expected = torch.tensor([[[1.5, -2.0], [1.5, -2.0]]], dtype=torch.float64)
    torch.testing.assert_close(layer(row), expected, rtol=0, atol=1e-4)


def test_wukong_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = randomise(build("wukong", num_fields=4, embedding_dim=2, **SMALL), 0)
    assert check_gradients(layer, draw(2, 4, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_wukong_keeps_the_order_of_fields_in_its_weights_alone(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("wukong", num_fields=5, embedding_dim=3, **SMALL), seed)
    x_BFD = draw(3, 5, 3, seed=seed)
    expected = layer(x_BFD).detach()
    order = [3, 0, 4, 1, 2]
    rank = 3
    with torch.no_grad():
        # Y, W and R read the tokens; the first norm and the first hidden layer their products.
        for name in ("lin_0", "lin_4", "lin_5"):
            weight = layer.get_parameter(f"ops.{name}.weight")
            weight.copy_(weight[:, order])
        for name in ("layernorm_0.weight", "layernorm_0.bias", "lin_1.weight"):
            weight = layer.get_parameter(f"ops.{name}")
            moved = weight.view(*weight.shape[:-1], 5, rank)[..., order, :]
            weight.copy_(moved.reshape(weight.shape))
    torch.testing.assert_close(layer(x_BFD[:, order]), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_wukong_without_a_linear_map_or_products_is_a_norm_of_its_input(
    draw: Callable[..., Tensor], seed: int
) -> None:
    layer = build("wukong", num_fields=3, embedding_dim=4, **SMALL | {"num_layers": 1}).double()
    with torch.no_grad():
        for name in ("lin_3.weight", "lin_3.bias", "lin_4.weight"):
            layer.get_parameter(f"ops.{name}").zero_()
    x_BFD = draw(3, 3, 4, seed=seed)
    expected = nn.functional.layer_norm(x_BFD, (4,))
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_wukong_is_no_polynomial_as_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = randomise(build("wukong", num_fields=4, embedding_dim=3, **SMALL), seed)
    assert layer.degree is None
    assert measure_degree(layer, draw(2, 4, 3, seed=seed)) is None


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        ({"fm_tokens": 0}, "fm_tokens must be at least 1; got 0."),
        ({"linear_tokens": -1}, "linear_tokens must be at least 1; got -1."),
        ({"rank": 0}, "rank must be at least 1; got 0."),
        ({"hidden_units": ()}, "hidden_units must be one positive width or more; got []."),
        ({"hidden_units": (8, 0)}, "hidden_units must be one positive width or more; got [8, 0]."),
    ],
)
def test_wukong_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('wukong: ' + line)}$"):
        build("wukong", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(("num_fields", "projected"), [(5, True), (3, False)])
def test_wukong_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    num_fields: int,
    projected: bool,
) -> None:
    layer = build("wukong", num_fields=num_fields, embedding_dim=6, **SMALL)
    matmul = beside = parameters = 0
    for tokens, residual in ((num_fields, projected), (3, False)):
        # Of 6 channels each: Y to 3 tokens, W to 1, the residual's map to 3 where there is one.
        maps = tokens * (3 + 1 + (3 if residual else 0))
        # Inner products with 3 tokens, through 4 and 5 hidden units to 2 tokens of 6 numbers.
        mlp = 3 * tokens * 4 + 4 * 5 + 5 * 12
        matmul += 2 * (6 * maps + 6 * 3 * tokens + mlp)
        # A norm (7) of the products, a relu of 4 + 5; a sum and a norm of 3 tokens of 6.
        beside += 7 * 3 * tokens + 9 + (1 + 7) * 18
        # The MLP's layers have a bias; a norm has two numbers a channel.
        parameters += maps + mlp + (4 + 5 + 12) + 2 * (3 * tokens + 6)
    assert layer.flops.matmul == count_matmul_flops(layer, num_fields, 6) == matmul
    assert layer.flops.other == beside
    assert layer.flops_per_row == matmul + beside
    assert count_parameters(layer) == parameters
