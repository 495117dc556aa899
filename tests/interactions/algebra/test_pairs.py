"""Pairs of tokens, and their sums without the pairs."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys_had.interactions.algebra import (
    Expr,
    Flops,
    Interaction,
    constant,
    matmul,
    outer,
    pairs,
    pool,
    source,
)

Rows = list[list[list[float]]]


def plain_outer(a: Rows, b: Rows, keep: str) -> Rows:
    """``a_i * b_j`` for all i and j, or for i < j, row by row."""
    out = []
    for left, right in zip(a, b, strict=True):
        tokens = []
        for i, u in enumerate(left):
            for j, v in enumerate(right):
                if keep == "all" or i < j:
                    tokens.append([p * q for p, q in zip(u, v, strict=True)])
        out.append(tokens)
    return out


CASES = [("all", 3, 4), ("all", 4, 1), ("upper", 4, 4), ("upper", 3, 4), ("upper", 1, 2)]
cases = pytest.mark.parametrize(("keep", "rows", "columns"), CASES)


@cases
def test_the_outer_product_equals_loops(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    keep: Any,
    rows: int,
    columns: int,
) -> None:
    a, b = source(rows, 2), source(columns, 2)
    root = outer(a, b, keep)
    layer = make(root, a, b)
    a_BTC, b_BTC = draw(2, rows, 2, seed=1), draw(2, columns, 2, seed=2)
    expected = torch.tensor(plain_outer(a_BTC.tolist(), b_BTC.tolist(), keep), dtype=torch.float64)
    assert tuple(expected.shape[1:]) == root.shape
    torch.testing.assert_close(
        layer(a_BTC, b_BTC).view(expected.shape), expected, rtol=0, atol=1e-15
    )
    assert gradients_agree(layer, a_BTC, b_BTC)


def test_upper_pairs_agree_with_a_case_worked_out_by_hand() -> None:
    x = source(3, 1)
    row = torch.tensor([[[2.0], [3.0], [5.0]]])
    # 2 * 3, 2 * 5, 3 * 5, and as many where the last token is not given on the left
    assert Interaction(outer(x, x, "upper"), [x])(row).tolist() == [[[6.0], [10.0], [15.0]]]
    assert Interaction(outer(x[:-1], x, "upper"), [x])(row).tolist() == [[[6.0], [10.0], [15.0]]]


@pytest.mark.parametrize("num_tokens", [2, 5])
def test_left_and_right_tokens_of_the_pairs_equal_loops(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    num_tokens: int,
) -> None:
    x = source(num_tokens, 3)
    left, right = pairs(x)
    layer = make(left - 2 * right, x)
    x_BTC = draw(2, num_tokens, 3, seed=0)
    expected = []
    for row in x_BTC.tolist():
        tokens = []
        for i in range(num_tokens):
            for j in range(i + 1, num_tokens):
                tokens.append([p - 2 * q for p, q in zip(row[i], row[j], strict=True)])
        expected.append(tokens)
    assert layer(x_BTC).view(2, *left.shape).tolist() == expected
    assert gradients_agree(layer, x_BTC)


@cases
def test_sums_of_the_pairs_channels_equal_loops_and_hold_no_pair(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    largest_bytes: Callable[[], Any],
    keep: Any,
    rows: int,
    columns: int,
) -> None:
    a, b = source(rows, 30), source(columns, 30)
    products = outer(a, b, keep)
    layer = make(pool(products, "C"), a, b)
    a_BTC, b_BTC = draw(2, rows, 30, seed=1), draw(2, columns, 30, seed=2)
    held = plain_outer(a_BTC.tolist(), b_BTC.tolist(), keep)
    expected = torch.tensor([[[sum(pair)] for pair in row] for row in held], dtype=torch.float64)
    with largest_bytes() as largest:
        found = layer(a_BTC, b_BTC)
    # No more than what is read; the pairs of the larger cases would be.
    assert largest.bytes <= 8 * max(a_BTC.numel(), b_BTC.numel())
    torch.testing.assert_close(found.view(expected.shape), expected, rtol=0, atol=1e-13)
    assert gradients_agree(layer, a_BTC, b_BTC)


def test_sums_of_pairs_that_are_read_otherwise_too_agree_with_them(
    draw: Callable[..., Tensor], make: Callable[..., Interaction], assert_same: Callable[..., None]
) -> None:
    x = source(5, 3)
    products = outer(x, x, "upper")
    layer = make(products * pool(products, "C"), x)

    def formula(x_BTC: Tensor) -> Tensor:
        held = torch.stack([x_BTC[:, i] * x_BTC[:, j] for i in range(5) for j in range(i + 1, 5)])
        return (held * held.sum(2, keepdim=True)).transpose(0, 1)

    assert_same(layer, formula, draw(3, 5, 3, seed=0))


def test_sums_of_pairs_with_a_constant_equal_the_sums_of_the_pairs(
    draw: Callable[..., Tensor], make: Callable[..., Interaction]
) -> None:
    x, fixed = source(4, 3), constant(2, 3)
    products = outer(fixed, x)
    x_BTC = draw(5, 4, 3, seed=0)
    held = make(products, x)(x_BTC)
    # Its weights are those of the first layer.
    found = Interaction(pool(products, "C"), [x])(x_BTC)
    torch.testing.assert_close(found, held.sum(2, keepdim=True))


def test_degrees_of_the_factors_add() -> None:
    x = source(4, 2)
    assert outer(x * x, x, "upper").degree == 3
    assert outer(constant(3, 2), x).degree == 1
    left, right = pairs(x * x)
    assert [left.degree, right.degree, (left * right).degree] == [2, 2, 4]


def test_pairs_cost_one_product_a_number_and_their_tokens_nothing_but_moving() -> None:
    x = source(4, 2)
    products = outer(x[:-1], x, "upper")
    # 6 pairs of 2 channels; reads 3 and 4 tokens of 2, writes 12 numbers
    assert (products.shape, products.flops) == ((6, 2), Flops(other=12))
    assert products.bytes_moved == 4 * (6 + 8 + 12)
    left, _ = pairs(x)
    assert (left.shape, left.flops, left.bytes_moved) == ((6, 2), Flops(), 4 * (8 + 12))
    assert outer(x, source(5, 2)).shape == (20, 2)


def test_sums_of_pairs_are_counted_by_definition_where_torch_sees_the_full_matrix_product(
    count_matmuls: Callable[..., int],
) -> None:
    x = source(4, 5)
    layer = Interaction(pool(outer(x, x, "upper"), "C"), [x])
    # 6 pairs: 5 products and 4 additions each; what runs is 2 * 4 * 4 * 5 of a matrix product
    assert layer.flops == Flops(matmul=0, other=6 * 5 + 6 * 4)
    assert count_matmuls(layer, (4, 5)) == 160
    # reads 20 + 20 and writes 30, reads 30 and writes 6
    assert layer.bytes_per_row == 4 * (20 + 20 + 30 + 30 + 6)


@pytest.mark.parametrize("keep", ["all", "upper"])
def test_tokens_of_different_widths_are_refused(keep: Any) -> None:
    line = "outer: must be of the same width; got 4 and 2 channels."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        outer(source(3, 4), source(3, 2), keep)


@pytest.mark.parametrize(("rows", "columns"), [(2, 4), (4, 3), (5, 3)])
def test_upper_pairs_of_two_lists_are_refused(rows: int, columns: int) -> None:
    line = f"outer: the upper pairs are of one list of tokens; got {rows} and {columns} tokens."
    first: Expr = source(rows, 2)
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        outer(first, source(columns, 2), "upper")


@pytest.mark.parametrize(("tokens", "inside", "channels"), [(3, 4, 2), (1, 5, 3), (4, 1, 1)])
def test_a_matrix_product_equals_loops(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    tokens: int,
    inside: int,
    channels: int,
) -> None:
    a, b = source(tokens, inside), source(inside, channels)
    root = matmul(a, b)
    assert (root.shape, root.degree) == ((tokens, channels), 2)
    layer = make(root, a, b)
    weights, values = draw(2, tokens, inside, seed=1), draw(2, inside, channels, seed=2)
    expected = [
        [
            [sum(w * line[c] for w, line in zip(one, row, strict=True)) for c in range(channels)]
            for one in lists
        ]
        for lists, row in zip(weights.tolist(), values.tolist(), strict=True)
    ]
    found = layer(weights, values).view(2, *root.shape)
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14
    )
    assert gradients_agree(layer, weights, values)


def test_a_matrix_product_with_learned_numbers_serves_all_rows(
    draw: Callable[..., Tensor], make: Callable[..., Interaction]
) -> None:
    x = source(3, 2)
    layer = make(matmul(constant(4, 3), x), x)
    x_BTC = draw(5, 3, 2, seed=0)
    (weight,) = layer.parameters()
    torch.testing.assert_close(layer(x_BTC), weight @ x_BTC, rtol=0, atol=1e-14)
    assert layer(x_BTC[:0]).shape == (0, 4, 2)


def test_a_matrix_product_counts_its_operations() -> None:
    # 3 * 2 sums of 4 products each
    assert matmul(source(3, 4), source(4, 2)).flops == Flops(matmul=2 * 3 * 4 * 2)


def test_a_matrix_product_of_what_does_not_fit_is_refused() -> None:
    line = (
        "matmul: the second must have as many tokens as the first has channels; got (3, 4) and "
        "(3, 4) (tokens, channels)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        matmul(source(3, 4), source(3, 4))
