"""What must hold for any expression: shape, degree, cost, and running equal to reading it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys_had.interactions.algebra import (
    Expr,
    Interaction,
    act,
    cat,
    chunk,
    constant,
    flatten,
    lin,
    matmul,
    norm,
    outer,
    pairs,
    pool,
    reshape,
    softmax,
    source,
    stop_gradient,
    streaming,
)

HIGHEST = 5
LARGEST = 40
# The fixtures hold nothing from one example to the next.
FIXED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def broadcast(first: Expr, second: Expr) -> bool:
    return all(a == b or 1 in (a, b) for a, b in zip(first.shape, second.shape, strict=True))


def two(draw: Any, made: list[Expr], fit: Callable[[Expr, Expr], bool]) -> tuple[Expr, Expr]:
    first = draw(st.sampled_from(made))
    fitting = [x for x in made if fit(first, x)]
    assume(fitting)
    return first, draw(st.sampled_from(fitting))


def grow(draw: Any, made: list[Expr], *, polynomial: bool) -> Expr:
    """One more operation, on values made before."""
    kinds = ["had", "add", "subtract", "scale", "slice", "lin", "outer", "pairs", "pool", "cat"]
    kinds += ["chunk", "flatten", "reshape", "constant", "stop_gradient", "matmul"]
    kinds += [] if polynomial else ["act", "softmax", "norm", "max", "mean"]
    kind = draw(st.sampled_from(kinds))
    x = draw(st.sampled_from(made))
    match kind:
        case "had" | "add" | "subtract":
            first, second = two(draw, made, broadcast)
            if kind == "had":
                return first * second
            return first + second if kind == "add" else first - second
        case "scale":
            return draw(st.integers(-2, 2)) * x
        case "slice":
            first = draw(st.integers(0, x.num_tokens - 1))
            return x[first : draw(st.integers(first + 1, x.num_tokens))]
        case "lin":
            on = draw(st.sampled_from(["C", "T", "TC"]))
            # A matrix for the one token that a streamed map reads is refused (test_streaming).
            own = {"C": ["T"] if x.num_tokens > 1 else [], "T": ["C"], "TC": []}[on]
            return lin(
                x,
                on,
                out=draw(st.none() | st.integers(1, 4)),
                rank=draw(st.none() | st.integers(1, 2)),
                per=draw(st.sampled_from([None, *own])),
                bias=draw(st.booleans()),
            )
        case "matmul":
            return matmul(*two(draw, made, lambda a, b: a.num_channels == b.num_tokens))
        case "outer":
            # Sums of pairs with a constant fail (test_pairs).
            learned = [x for x in made if x.degree != 0]
            first, second = two(draw, learned, lambda a, b: a.num_channels == b.num_channels)
            same = first.num_tokens in (second.num_tokens, second.num_tokens - 1)
            upper = same and second.num_tokens > 1 and draw(st.booleans())
            return outer(first, second, "upper" if upper else "all")
        case "pairs":
            assume(x.num_tokens > 1)
            left, right = pairs(x)
            return left * right if draw(st.booleans()) else left - right
        case "pool":
            return pool(x, draw(st.sampled_from(["T", "C"])))
        case "cat":
            axis = draw(st.sampled_from([0, 1]))
            first, second = two(draw, made, lambda a, b: a.shape[1 - axis] == b.shape[1 - axis])
            return cat(first, second, on="TC"[axis])  # type: ignore[arg-type]
        case "chunk":
            axis = draw(st.sampled_from([0, 1]))
            parts = draw(st.sampled_from([n for n in (1, 2, 3) if x.shape[axis] % n == 0]))
            return draw(st.sampled_from(chunk(x, parts, "TC"[axis])))  # type: ignore[arg-type]
        case "flatten":
            return flatten(x)
        case "reshape":
            size = x.num_tokens * x.num_channels
            return reshape(x, draw(st.sampled_from([n for n in (1, 2, 3, 4) if size % n == 0])))
        case "constant":
            return constant(x.num_tokens, draw(st.sampled_from([1, x.num_channels])), std=1.0)
        case "stop_gradient":
            return stop_gradient(x)
        case "act":
            return act(x, draw(st.sampled_from(["relu", "tanh", "sigmoid", "gelu"])))
        case "softmax":
            return softmax(x, draw(st.sampled_from(["T", "C"])))
        case "norm":
            return norm(x, draw(st.sampled_from(["layer", "l2"])))
        case _:
            return pool(x, draw(st.sampled_from(["T", "C"])), kind)


@st.composite
def expressions(draw: Any, *, polynomial: bool) -> tuple[Expr, Expr]:
    """A source, and an expression that reads it."""
    x = source(draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    made = [x]
    for _ in range(draw(st.integers(1, 7))):
        more = grow(draw, made, polynomial=polynomial)
        small = more.num_tokens * more.num_channels <= LARGEST
        if small and (more.degree or 0) <= HIGHEST:
            made.append(more)
    return x, next(expr for expr in reversed(made) if expr.degree != 0)


def read_plainly(root: Expr, x: Expr, x_BTC: Tensor) -> Tensor:
    """The operations as they are defined, one inside the other, none by a shorter way."""
    known = {x: x_BTC}

    def value(expr: Expr) -> Tensor:
        if expr not in known:
            known[expr] = expr.op(*[value(arg) for arg in expr.args])  # type: ignore[misc]
        return known[expr]

    return value(root)


def is_own_map(expr: Expr) -> bool:
    weight = getattr(expr.op, "weight", None)
    return bool(expr.flops.matmul) and weight is not None and weight.dim() == 3


def graph(root: Expr) -> set[Expr]:
    found = {root}
    for arg in root.args:
        found |= graph(arg)
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=FIXED)
@given(made=expressions(polynomial=False), num_rows=st.integers(0, 3))
def test_a_module_gives_the_shape_of_its_expression(made: tuple[Expr, Expr], num_rows: int) -> None:
    x, root = made
    layer = Interaction(root, [x])
    out = layer(torch.ones(num_rows, *x.shape))
    assert tuple(out.shape) == (num_rows, *layer.output_shape)
    assert out.numel() == num_rows * root.num_tokens * root.num_channels


@settings(max_examples=150, deadline=None, suppress_health_check=FIXED)
@given(made=expressions(polynomial=True), seed=st.integers(0, 99))
def test_no_polynomial_is_of_a_higher_degree_than_it_says(
    exact_degree: Callable[..., int | None], made: tuple[Expr, Expr], seed: int
) -> None:
    x, root = made
    layer = Interaction(root, [x])
    assert root.degree is not None
    try:
        measured = exact_degree(layer, x.shape, seed=seed, highest=HIGHEST + 1)
    except OverflowError:
        assume(False)
    assert measured is not None and measured <= root.degree


@settings(max_examples=150, deadline=None, suppress_health_check=FIXED)
@given(made=expressions(polynomial=False))
def test_costs_are_never_negative_and_matrix_products_are_those_torch_counts(
    count_matmuls: Callable[..., int], made: tuple[Expr, Expr]
) -> None:
    x, root = made
    for expr in graph(root):
        assert min(expr.flops.matmul, expr.flops.other, expr.bytes_moved) >= 0
    # Sums of pairs run another matrix product than they are defined by (test_pairs).
    assume(not any(expr.shortcut and not expr.flops.matmul for expr in graph(root)))
    # Where a map with matrices of its own reads one number, torch multiplies and counts nothing.
    unseen = sum(
        expr.flops.matmul
        for expr in graph(root)
        if is_own_map(expr) and expr.op.weight.shape[2] == 1
    )
    layer = Interaction(root, [x])
    assert layer.flops.matmul - unseen == count_matmuls(layer, x.shape)


@pytest.mark.parametrize("tokens_a_part", [1, 2, 3, 1000])
@settings(max_examples=100, deadline=None, suppress_health_check=FIXED)
@given(made=expressions(polynomial=False), num_rows=st.integers(0, 3), seed=st.integers(0, 99))
def test_running_by_any_shorter_way_equals_reading_the_definition(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    assert_same: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tokens_a_part: int,
    made: tuple[Expr, Expr],
    num_rows: int,
    seed: int,
) -> None:
    x, root = made
    # A single pair that stands for more fails in parts (test_streaming).
    single = [expr for expr in graph(root) if expr.num_tokens == 1]
    assume(not any(expr.holds_pairs for expr in single))
    monkeypatch.setattr(streaming, "_PART_BYTES", {"cpu": 1})
    monkeypatch.setattr(streaming, "_FEWEST_TOKENS", tokens_a_part)
    layer = make(root, x, seed=seed)

    def formula(x_BTC: Tensor) -> Tensor:
        return read_plainly(root, x, x_BTC).view(len(x_BTC), *layer.output_shape)

    x_BTC = draw(num_rows, *x.shape, seed=seed)
    scale = 1 + (formula(x_BTC).abs().max().item() if num_rows else 0)
    assert_same(layer, formula, x_BTC, atol=1e-10 * scale)
