"""Activations, normalisations, dropout, learned constants."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions.algebra import (
    Flops,
    Interaction,
    act,
    constant,
    dropout,
    norm,
    softmax,
    source,
    stop_gradient,
)
from recsys_had.interactions.algebra.pointwise import log_abs

FUNCTIONS: dict[str, Callable[[float], float]] = {
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "exp": math.exp,
    "identity": lambda x: x,
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_activation_equals_its_function_number_by_number(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    function: Any,
) -> None:
    x = source(3, 4)
    layer = make(act(x, function), x)
    # Far enough from 0 for relu6 to be cut on both sides.
    x_BTC = 5 * draw(2, 3, 4, seed=0)
    assert x_BTC.max() > 6
    apply = FUNCTIONS[function]
    expected = [[[apply(number) for number in token] for token in row] for row in x_BTC.tolist()]
    torch.testing.assert_close(
        layer(x_BTC), torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-14
    )
    assert gradients_agree(layer, x_BTC)


def test_identity_is_what_it_reads() -> None:
    x = source(3, 4)
    assert act(x, "identity") is x


@pytest.mark.parametrize("on", ["T", "C"])
def test_softmax_equals_loops(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    on: Any,
) -> None:
    x = source(3, 4)
    layer = make(softmax(x, on), x)
    x_BTC = draw(2, 3, 4, seed=0)
    expected = []
    for row in x_BTC.tolist():
        powers = [[math.exp(number) for number in token] for token in row]
        if on == "T":
            sums = [sum(column) for column in zip(*powers, strict=True)]
            expected.append([[p / s for p, s in zip(token, sums, strict=True)] for token in powers])
        else:
            expected.append([[p / sum(token) for p in token] for token in powers])
    torch.testing.assert_close(
        layer(x_BTC), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14
    )
    assert gradients_agree(layer, x_BTC)


@pytest.mark.parametrize("num_channels", [1, 4])
def test_a_layer_norm_equals_loops(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    num_channels: int,
) -> None:
    x = source(3, num_channels)
    layer = make(norm(x, "layer"), x)
    x_BTC = draw(2, 3, num_channels, seed=0)
    weight, bias = (value.tolist() for value in layer.parameters())
    expected = []
    for row in x_BTC.tolist():
        tokens = []
        for token in row:
            mean = sum(token) / len(token)
            variance = sum((number - mean) ** 2 for number in token) / len(token)
            scaled = [(number - mean) / math.sqrt(variance + 1e-5) for number in token]
            tokens.append([w * s + b for w, s, b in zip(weight, scaled, bias, strict=True)])
        expected.append(tokens)
    torch.testing.assert_close(
        layer(x_BTC), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert gradients_agree(layer, x_BTC)


def test_a_batch_norm_in_training_equals_loops_over_the_rows(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
) -> None:
    x = source(2, 3)
    layer = make(norm(x, "batch"), x)
    x_BTC = draw(5, 2, 3, seed=0)
    weight, bias = (value.view(2, 3).tolist() for value in layer.parameters())
    rows = x_BTC.tolist()
    expected = [[[0.0] * 3 for _ in range(2)] for _ in rows]
    for t in range(2):
        for c in range(3):
            column = [row[t][c] for row in rows]
            mean = sum(column) / 5
            variance = sum((number - mean) ** 2 for number in column) / 5
            for b, number in enumerate(column):
                scaled = (number - mean) / math.sqrt(variance + 1e-5)
                expected[b][t][c] = weight[t][c] * scaled + bias[t][c]
    torch.testing.assert_close(
        layer(x_BTC), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert gradients_agree(layer, x_BTC)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_a_token_batch_norm_in_training_equals_loops_over_the_rows_and_channels(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    num_channels: int,
) -> None:
    x = source(2, num_channels)
    layer = make(norm(x, "token_batch"), x)
    x_BTC = draw(5, 2, num_channels, seed=0)
    weight, bias = (value.tolist() for value in layer.parameters())
    assert len(weight) == len(bias) == 2
    rows = x_BTC.tolist()
    expected = [[[0.0] * num_channels for _ in range(2)] for _ in rows]
    for t in range(2):
        numbers = [number for row in rows for number in row[t]]
        mean = sum(numbers) / len(numbers)
        variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
        for b, row in enumerate(rows):
            for c, number in enumerate(row[t]):
                scaled = (number - mean) / math.sqrt(variance + 1e-5)
                expected[b][t][c] = weight[t] * scaled + bias[t]
    torch.testing.assert_close(
        layer(x_BTC), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert gradients_agree(layer, x_BTC)


def test_a_token_batch_norm_is_that_of_torch_in_training_and_scoring(
    draw: Callable[..., Tensor], make: Callable[..., Interaction]
) -> None:
    x = source(4, 3)
    layer = make(norm(x, "token_batch"), x)
    theirs = nn.BatchNorm1d(4).double()
    with torch.no_grad():
        for ours, parameter in zip(layer.parameters(), theirs.parameters(), strict=True):
            parameter.copy_(ours)
    for seed in range(3):
        x_BTC = draw(5, 4, 3, seed=seed)
        assert torch.equal(layer(x_BTC), theirs(x_BTC))
    assert torch.equal(layer.eval()(x_BTC), theirs.eval()(x_BTC))


def test_a_log_of_sizes_equals_loops_and_stays_finite_at_zero(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
) -> None:
    x = source(3, 4)
    layer = make(log_abs(x, floor=0.25), x)
    x_BTC = draw(2, 3, 4, seed=0)
    assert x_BTC.abs().min() < 0.25
    expected = [
        [[math.log(max(abs(number), 0.25)) for number in token] for token in row]
        for row in x_BTC.tolist()
    ]
    torch.testing.assert_close(
        layer(x_BTC), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14
    )
    assert gradients_agree(layer, x_BTC)
    zeros = torch.zeros(2, 3, 4, requires_grad=True)
    out = Interaction(log_abs(x), [x])(zeros)
    out.sum().backward()
    assert out.eq(math.log(1e-5)).all()
    assert zeros.grad.eq(0).all()


def test_a_floor_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^log_abs: floor must be positive; got 0\.0\.$"):
        log_abs(source(3, 4), floor=0.0)


def test_an_l2_norm_makes_each_token_one_long_and_leaves_a_zero(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
) -> None:
    x = source(3, 4)
    layer = make(norm(x, "l2"), x)
    x_BTC = draw(2, 3, 4, seed=0)
    expected = []
    for row in x_BTC.tolist():
        tokens = []
        for token in row:
            length = math.sqrt(sum(number * number for number in token))
            tokens.append([number / length for number in token])
        expected.append(tokens)
    torch.testing.assert_close(
        layer(x_BTC), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14
    )
    assert gradients_agree(layer, x_BTC)
    assert not layer(0 * x_BTC).any()
    # 3-4-5
    out = layer(torch.tensor([[[3.0, 4.0, 0.0, 0.0]] * 3]).double())
    torch.testing.assert_close(out[0, 0].tolist(), [0.6, 0.8, 0.0, 0.0])


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_dropout_zeroes_its_share_and_scales_up_the_others(share: float) -> None:
    torch.manual_seed(0)
    x = source(100, 50)
    out = Interaction(dropout(x, share), [x])(torch.full((4, 100, 50), 3.0))
    kept = out[out != 0]
    # 20000 numbers: the share is known to 0.4 percent points.
    assert 1 - kept.numel() / out.numel() == pytest.approx(share, abs=0.02)
    torch.testing.assert_close(kept, torch.full_like(kept, 3 / (1 - share)))


def test_dropout_in_scoring_and_dropout_of_nothing_change_nothing() -> None:
    x = source(3, 4)
    layer = Interaction(dropout(x, 0.5), [x]).eval()
    x_BTC = torch.arange(24.0).view(2, 3, 4)
    assert layer(x_BTC).equal(x_BTC)
    assert dropout(x, 0.0) is x


def test_dropout_passes_gradients_back_where_it_passed_values() -> None:
    torch.manual_seed(0)
    x = source(3, 4)
    x_BTC = torch.ones(2, 3, 4, requires_grad=True)
    out = Interaction(dropout(x, 0.5), [x])(x_BTC)
    out.sum().backward()
    assert x_BTC.grad.equal(out.detach())
    assert {0.0, 2.0} == set(out.flatten().tolist())


def test_a_constant_is_the_same_for_every_row_and_learned_from_all(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
) -> None:
    x = source(3, 2)
    layer = make(constant(3, 2) * x, x)
    x_BTC = draw(4, 3, 2, seed=0)
    (weight,) = layer.parameters()
    expected = [
        [
            [w * number for w, number in zip(learned, token, strict=True)]
            for learned, token in zip(weight.tolist(), row, strict=True)
        ]
        for row in x_BTC.tolist()
    ]
    assert layer(x_BTC).tolist() == expected
    layer(x_BTC).sum().backward()
    torch.testing.assert_close(weight.grad, x_BTC.sum(0))
    assert gradients_agree(layer, x_BTC)


def test_a_constant_begins_with_the_mean_and_spread_asked_for() -> None:
    torch.manual_seed(0)
    zero = constant(3, 4).op.weight
    assert not zero.any()
    one = constant(3, 4, mean=1.0).op.weight
    assert one.eq(1).all()
    spread = constant(100, 100, std=0.2, mean=3.0).op.weight
    # 10000 numbers: mean known to 0.002, standard deviation to 0.0014.
    assert spread.mean().item() == pytest.approx(3, abs=0.01)
    assert spread.std().item() == pytest.approx(0.2, abs=0.007)


def test_nothing_is_learned_through_a_stopped_gradient(draw: Callable[..., Tensor]) -> None:
    x = source(3, 4)
    layer = Interaction(x * stop_gradient(x), [x])
    x_BTC = draw(2, 3, 4, seed=0).requires_grad_()
    out = layer(x_BTC)
    assert out.equal(x_BTC * x_BTC)
    out.sum().backward()
    # Of x * x it would be 2 x.
    assert x_BTC.grad.equal(x_BTC.detach())


def test_what_keeps_a_shape_is_no_polynomial_unless_it_only_selects() -> None:
    x, fixed = source(3, 4), constant(3, 4)
    functions: list[Callable[[Any], Any]] = [
        lambda e: act(e, "relu"),
        lambda e: softmax(e, "T"),
        lambda e: norm(e, "layer"),
        lambda e: norm(e, "batch"),
        lambda e: norm(e, "token_batch"),
        lambda e: norm(e, "l2"),
        log_abs,
    ]
    for function in functions:
        assert (function(x).degree, function(fixed).degree) == (None, 0)
    assert (dropout(x * x, 0.1).degree, stop_gradient(x * x).degree, fixed.degree) == (2, 2, 0)
    assert {function(x).shape for function in functions} == {(3, 4)}


@pytest.mark.parametrize(
    ("make_expr", "operations"),
    [
        (lambda x: act(x, "relu"), 1),
        # greatest, difference, exp, sum, quotient
        (lambda x: softmax(x, "C"), 5),
        # mean, centring, square, mean, scaling, weight, bias
        (lambda x: norm(x, "layer"), 7),
        (lambda x: norm(x, "batch"), 2),
        (lambda x: norm(x, "token_batch"), 2),
        # size, clip, logarithm
        (log_abs, 3),
        # square, sum, scaling
        (lambda x: norm(x, "l2"), 3),
    ],
)
def test_what_keeps_a_shape_costs_some_operations_a_number(
    make_expr: Callable[[Any], Any], operations: int
) -> None:
    found = make_expr(source(3, 4))
    assert found.flops == Flops(matmul=0, other=operations * 12)
    assert found.bytes_moved == 4 * 24


def test_what_passes_values_on_costs_nothing() -> None:
    x = source(3, 4)
    for free in (dropout(x, 0.1), stop_gradient(x)):
        assert (free.flops, free.bytes_moved) == (Flops(), 0)
    assert constant(3, 4).flops == Flops()


def test_an_unknown_activation_is_refused() -> None:
    line = (
        "activation must be one of relu, relu6, sigmoid, tanh, gelu, silu, exp, identity; "
        "got 'swish'."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        act(source(3, 4), "swish")  # type: ignore[arg-type]


def test_an_unknown_norm_is_refused() -> None:
    line = "norm must be one of layer, batch, token_batch, l2; got 'group'."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        norm(source(3, 4), "group")  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [1.0, -0.1, 1.5])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    line = f"dropout must be at least 0 and below 1; got {share}."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        dropout(source(3, 4), share)
