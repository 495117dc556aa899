"""Expressions: elementwise arithmetic, tokens cut out, and what follows from them."""

import operator
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recsys_had.interactions.algebra import (
    Expr,
    Flops,
    Interaction,
    act,
    add,
    constant,
    had,
    source,
)

Rows = list[list[list[float]]]
Operator = Callable[[Expr, Expr], Expr]
OPERATORS = [operator.mul, operator.add, operator.sub]
SHAPES = [
    ((3, 4), (3, 4)),
    ((3, 4), (1, 4)),
    ((3, 1), (3, 4)),
    ((3, 1), (1, 4)),
    ((1, 1), (3, 4)),
]


def plain_elementwise(combine: Callable[[float, float], float], a: Rows, b: Rows) -> Rows:
    """A single token or channel stands for all."""
    out = []
    for left, right in zip(a, b, strict=True):
        tokens = []
        for t in range(max(len(left), len(right))):
            u, v = left[t % len(left)], right[t % len(right)]
            tokens.append(
                [combine(u[c % len(u)], v[c % len(v)]) for c in range(max(len(u), len(v)))]
            )
        out.append(tokens)
    return out


@pytest.mark.parametrize(("first", "second"), SHAPES)
@pytest.mark.parametrize("combine", OPERATORS)
def test_arithmetic_equals_loops_and_one_token_or_channel_stands_for_all(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    combine: Operator,
    first: tuple[int, int],
    second: tuple[int, int],
) -> None:
    a, b = source(*first), source(*second)
    layer = make(combine(a, b), a, b)
    a_BTC, b_BTC = draw(2, *first, seed=1), draw(2, *second, seed=2)
    expected = torch.tensor(
        plain_elementwise(combine, a_BTC.tolist(), b_BTC.tolist()), dtype=torch.float64
    )
    torch.testing.assert_close(layer(a_BTC, b_BTC), expected, rtol=0, atol=0)
    assert gradients_agree(layer, a_BTC, b_BTC)


@pytest.mark.parametrize(
    ("scale", "factor"),
    [
        (lambda x: 0.5 * x, 0.5),
        (lambda x: x * 3, 3.0),
        (lambda x: -x, -1.0),
    ],
)
def test_a_number_scales_from_either_side(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    scale: Callable[[Expr], Expr],
    factor: float,
) -> None:
    x = source(3, 4)
    layer = make(scale(x), x)
    x_BTC = draw(2, 3, 4, seed=0)
    expected = [[[factor * number for number in token] for token in row] for row in x_BTC.tolist()]
    assert layer(x_BTC).tolist() == expected
    assert gradients_agree(layer, x_BTC)


@pytest.mark.parametrize(
    "tokens", [slice(None, -1), slice(1, 3), slice(-2, None), slice(0, 99), slice(2, 3)]
)
def test_a_slice_takes_a_run_of_tokens(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    tokens: slice,
) -> None:
    x = source(4, 3)
    cut = x[tokens]
    layer = make(cut * cut, x)
    x_BTC = draw(2, 4, 3, seed=0)
    taken = [row[tokens] for row in x_BTC.tolist()]
    assert cut.shape == (len(taken[0]), 3)
    expected = [[[number * number for number in token] for token in row] for row in taken]
    # A single token is flat.
    assert layer(x_BTC).view(2, *cut.shape).tolist() == expected
    assert gradients_agree(layer, x_BTC)


def test_arithmetic_agrees_with_a_case_worked_out_by_hand() -> None:
    x, y = source(2, 2), source(1, 2)
    layer = Interaction(add(x * x, -2 * x, y) - y[:1] * y, [x, y])
    # x = (1, 2), (3, -1); y = (4, 5): x * x - 2 x = (-1, 0), (3, 3); y - y * y = (-12, -20)
    out = layer(torch.tensor([[[1.0, 2.0], [3.0, -1.0]]]), torch.tensor([[[4.0, 5.0]]]))
    assert out.tolist() == [[[-13.0, -20.0], [-9.0, -17.0]]]


def test_a_sum_of_one_term_is_the_term() -> None:
    x = source(3, 4)
    assert add(x) is x


def test_degrees_add_in_products_and_the_highest_stays_in_sums() -> None:
    x, y = source(3, 4), source(3, 4)
    cube = x * y * x
    assert [x.degree, cube.degree, had(cube, cube).degree] == [1, 3, 6]
    assert [add(x, cube, y).degree, (y - cube).degree, (2 * cube).degree] == [3, 3, 3]
    assert cube[:2].degree == 3


def test_what_reads_no_polynomial_is_none_and_what_reads_only_constants_is_a_constant() -> None:
    x, fixed = source(3, 4), constant(3, 4)
    wild, tame = act(x, "exp"), act(fixed, "exp")
    assert [(wild * x).degree, (x - wild).degree, (fixed * wild).degree] == [None, None, None]
    assert [tame.degree, (tame * fixed).degree, (tame + fixed).degree] == [0, 0, 0]
    assert [(tame * x).degree, (x + tame).degree] == [1, 1]


@pytest.mark.parametrize(
    ("combine", "shape", "bytes_moved"),
    [
        # reads 12 and 3 numbers, writes 12, of 4 bytes each
        (lambda x, y: x * y, (3, 4), 4 * 27),
        (lambda x, y: y + x, (3, 4), 4 * 27),
        (lambda x, y: x - y, (3, 4), 4 * 27),
        (lambda x, y: 0.5 * x, (3, 4), 4 * 24),
        # reads 4 and 3, writes 12
        (lambda x, y: x[1:2] * y, (3, 4), 4 * 19),
    ],
)
def test_arithmetic_costs_one_operation_a_number_of_the_result(
    combine: Callable[[Expr, Expr], Expr], shape: tuple[int, int], bytes_moved: int
) -> None:
    found = combine(source(3, 4), source(3, 1))
    assert (found.num_tokens, found.num_channels) == found.shape == shape
    assert found.flops == Flops(matmul=0, other=12)
    assert found.bytes_moved == bytes_moved


def test_sources_and_slices_cost_nothing() -> None:
    x = source(3, 4)
    for free in (x, x[:2]):
        assert (free.flops, free.bytes_moved) == (Flops(), 0)


def test_flops_add_up_kind_by_kind() -> None:
    total = Flops(matmul=8, other=1) + Flops(matmul=2, other=5)
    assert (total.matmul, total.other, total.total) == (10, 6, 16)


@pytest.mark.parametrize(
    ("combine", "name"),
    [
        (operator.mul, "had"),
        pytest.param(
            operator.add,
            "add",
        ),
        pytest.param(
            operator.sub,
            "subtract",
        ),
    ],
)
@pytest.mark.parametrize("shape", [(2, 4), (3, 2), (0, 4)])
def test_shapes_that_do_not_go_together_are_refused(
    combine: Operator, name: str, shape: tuple[int, int]
) -> None:
    line = (
        f"{name}: shapes must be equal, or 1 where they differ; got (3, 4) and {shape} "
        "(tokens, channels)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        combine(source(3, 4), source(*shape))


@pytest.mark.parametrize("tokens", [slice(None, None, 2), slice(2, 2), slice(3, 1), slice(9, 12)])
def test_tokens_that_are_no_run_are_refused(tokens: slice) -> None:
    line = f"tokens {tokens} of 3: must be one run of tokens."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        source(3, 4)[tokens]
