"""Pooling, joining and cutting."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys_had.interactions.algebra import (
    Flops,
    Interaction,
    act,
    cat,
    chunk,
    constant,
    flatten,
    pool,
    reshape,
    source,
)

POOLS: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "mean": lambda numbers: sum(numbers) / len(numbers),
    "max": max,
}


@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (3, 1)])
@pytest.mark.parametrize("how", POOLS)
@pytest.mark.parametrize("on", ["T", "C"])
def test_pooling_equals_loops(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    on: Any,
    how: Any,
    shape: tuple[int, int],
) -> None:
    x = source(*shape)
    root = pool(x, on, how)
    layer = make(root, x)
    x_BTC = draw(2, *shape, seed=0)
    expected = []
    for row in x_BTC.tolist():
        if on == "T":
            expected.append([[POOLS[how](list(column)) for column in zip(*row, strict=True)]])
        else:
            expected.append([[POOLS[how](token)] for token in row])
    found = layer(x_BTC).view(2, *root.shape)
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14
    )
    assert gradients_agree(layer, x_BTC)


def test_pooling_agrees_with_a_case_worked_out_by_hand() -> None:
    x = source(2, 2)
    row = torch.tensor([[[1.0, 8.0], [5.0, -2.0]]])
    found = {(on, how): Interaction(pool(x, on, how), [x])(row) for on in "TC" for how in POOLS}
    assert {key: out.flatten().tolist() for key, out in found.items()} == {
        ("T", "sum"): [6.0, 6.0],
        ("T", "mean"): [3.0, 3.0],
        ("T", "max"): [5.0, 8.0],
        ("C", "sum"): [9.0, 3.0],
        ("C", "mean"): [4.5, 1.5],
        ("C", "max"): [8.0, 5.0],
    }


@pytest.mark.parametrize("on", ["T", "C"])
def test_joined_parts_equal_loops(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    on: Any,
) -> None:
    shapes = [(3, 4), (2, 4), (1, 4)] if on == "T" else [(3, 4), (3, 2), (3, 1)]
    a, b, c = sources = [source(*shape) for shape in shapes]
    root = cat(a, b * b, c, on=on)
    layer = make(root, *sources)
    drawn = [draw(2, *shape, seed=number) for number, shape in enumerate(shapes)]
    expected = []
    for first, second, third in zip(*[x.tolist() for x in drawn], strict=True):
        squared = [[number * number for number in token] for token in second]
        if on == "T":
            expected.append([*first, *squared, *third])
        else:
            expected.append([u + v + w for u, v, w in zip(first, squared, third, strict=True)])
    assert root.shape == ((6, 4) if on == "T" else (3, 7))
    assert layer(*drawn).tolist() == expected
    assert gradients_agree(layer, *drawn)


@pytest.mark.parametrize("num_rows", [0, 1, 5])
@pytest.mark.parametrize("on", ["T", "C"])
def test_a_constant_is_joined_to_every_row(
    draw: Callable[..., Tensor], make: Callable[..., Interaction], on: Any, num_rows: int
) -> None:
    x, fixed = source(2, 2), constant(2, 2)
    layer = make(cat(fixed, x, on=on), x)
    x_BTC = draw(num_rows, 2, 2, seed=0)
    learned = layer.ops["constant_0"].weight.tolist()
    expected = []
    for row in x_BTC.tolist():
        expected.append(
            [*learned, *row] if on == "T" else [u + v for u, v in zip(learned, row, strict=True)]
        )
    assert layer(x_BTC).tolist() == expected


def test_one_part_joined_is_the_part() -> None:
    x = source(3, 4)
    assert cat(x) is x


@pytest.mark.parametrize(("on", "parts"), [("T", 2), ("T", 4), ("C", 3), ("C", 1)])
def test_a_chunk_is_one_of_equal_cuts(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    on: Any,
    parts: int,
) -> None:
    x = source(4, 6)
    cuts = chunk(x, parts, on)
    x_BTC = draw(2, 4, 6, seed=0)
    assert len(cuts) == parts
    for number, cut in enumerate(cuts):
        width = (4 if on == "T" else 6) // parts
        run = slice(number * width, (number + 1) * width)
        expected = [
            row[run] if on == "T" else [token[run] for token in row] for row in x_BTC.tolist()
        ]
        assert cut.shape == (len(expected[0]), len(expected[0][0]))
        assert make(cut, x)(x_BTC).view(2, *cut.shape).tolist() == expected
    assert gradients_agree(make(cuts[-1] * cuts[-1], x), x_BTC)


def test_chunks_joined_again_are_the_whole(
    draw: Callable[..., Tensor], make: Callable[..., Interaction]
) -> None:
    x = source(4, 6)
    x_BTC = draw(3, 4, 6, seed=0)
    assert make(cat(*chunk(x, 3), on="C"), x)(x_BTC).equal(x_BTC)
    assert make(cat(*chunk(x, 2, "T")), x)(x_BTC).equal(x_BTC)


@pytest.mark.parametrize("num_rows", [0, 1, 3])
@pytest.mark.parametrize("num_tokens", [1, 2, 3, 12])
def test_reshaping_keeps_the_numbers_in_order(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    num_tokens: int,
    num_rows: int,
) -> None:
    x = source(3, 4)
    root = reshape(x, num_tokens)
    x_BTC = draw(num_rows, 3, 4, seed=0)
    width = 12 // num_tokens
    expected = []
    for row in x_BTC.tolist():
        numbers = [number for token in row for number in token]
        expected.append([numbers[first : first + width] for first in range(0, 12, width)])
    assert root.shape == (num_tokens, width)
    assert make(root, x)(x_BTC).view(num_rows, num_tokens, width).tolist() == expected


def test_flattening_gives_one_token_of_all_numbers(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
) -> None:
    x = source(3, 4)
    flat = flatten(x)
    layer = make(flat * flat, x)
    x_BTC = draw(2, 3, 4, seed=0)
    assert flat.shape == (1, 12)
    assert flatten(flat) is flat
    assert layer(x_BTC).tolist() == [
        [number * number for token in row for number in token] for row in x_BTC.tolist()
    ]
    assert gradients_agree(layer, x_BTC)


def test_shaping_leaves_the_degree_but_a_maximum_has_none() -> None:
    x, fixed = source(4, 4), constant(4, 4)
    square = x * x
    kept = [pool(square, "T"), pool(square, "C", "mean"), flatten(square), reshape(square, 2)]
    kept += [*chunk(square, 2), cat(x, square, fixed)]
    assert {expr.degree for expr in kept} == {2}
    assert [pool(square, on, "max").degree for on in ("T", "C")] == [None, None]
    assert pool(fixed, "T", "max").degree == 0
    assert cat(fixed, fixed).degree == 0
    assert cat(x, act(x, "relu")).degree is None


@pytest.mark.parametrize(
    ("on", "how", "other", "bytes_moved"),
    [
        # 4 channels: 2 additions each, or comparisons; a mean divides each once
        ("T", "sum", 8, 4 * 16),
        ("T", "max", 8, 4 * 16),
        ("T", "mean", 12, 4 * 16),
        # 3 tokens: 3 additions each
        ("C", "sum", 9, 4 * 15),
        ("C", "mean", 12, 4 * 15),
    ],
)
def test_pooling_costs_an_addition_for_each_number_but_the_first(
    on: Any, how: Any, other: int, bytes_moved: int
) -> None:
    pooled = pool(source(3, 4), on, how)
    assert (pooled.flops, pooled.bytes_moved) == (Flops(other=other), bytes_moved)


def test_joining_moves_bytes_and_cutting_none() -> None:
    x, y = source(3, 4), source(2, 4)
    joined = cat(x, y)
    # reads 12 and 8 numbers, writes 20
    assert (joined.flops, joined.bytes_moved) == (Flops(), 4 * 40)
    for view in (*chunk(x, 2), flatten(x), reshape(x, 6)):
        assert (view.flops, view.bytes_moved) == (Flops(), 0)


@pytest.mark.parametrize(("on", "how"), [("F", "sum"), ("TC", "sum"), ("T", "median")])
def test_an_unknown_pooling_is_refused(on: Any, how: Any) -> None:
    line = f"pool: must be sum, mean or max over T or C; got {how} over {on}."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        pool(source(3, 4), on, how)


@pytest.mark.parametrize(("on", "other"), [("T", (3, 2)), ("C", (2, 4))])
def test_parts_that_differ_over_the_other_axis_are_refused(on: Any, other: Any) -> None:
    line = f"cat: the shapes may differ over {on} alone; got (3, 4), (3, 4), {other}."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        cat(source(3, 4), source(3, 4), source(*other), on=on)


@pytest.mark.parametrize(("parts", "on", "length"), [(3, "C", 4), (2, "T", 3), (0, "C", 4)])
def test_unequal_cuts_are_refused(parts: int, on: Any, length: int) -> None:
    line = f"chunk: {length} over {on} cannot be cut into {parts} equal parts."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        chunk(source(3, 4), parts, on)


@pytest.mark.parametrize("num_tokens", [5, 0, -1])
def test_a_number_of_tokens_that_does_not_divide_is_refused(num_tokens: int) -> None:
    line = f"reshape: (3, 4) cannot be cut into {num_tokens} equal tokens."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        reshape(source(3, 4), num_tokens)
