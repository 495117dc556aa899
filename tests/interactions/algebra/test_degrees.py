"""Degrees are exact: differences of integers vanish one order above them and not at them."""

from collections.abc import Callable
from typing import Any

import pytest

from recsys_had import interactions
from recsys_had.interactions.algebra import (
    Expr,
    Interaction,
    act,
    cat,
    chunk,
    constant,
    dropout,
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
)

# Widths are powers of two, so that means of integers are exact.
F, D = 4, 4


def cubes(x: Expr) -> Expr:
    return x * x * x + constant(F, D) * x - x[:1]


POLYNOMIALS: dict[str, tuple[Callable[[Expr], Expr], int]] = {
    "source": (lambda x: x, 1),
    "had": (lambda x: x * x, 2),
    "had of powers": (lambda x: (x * x) * (x * x * x), 5),
    "add": (lambda x: x * x + x, 2),
    "subtract": (lambda x: x - x * x * x, 3),
    "scale": (lambda x: -0.5 * (x * x), 2),
    "slice": (lambda x: (x * x)[1:3], 2),
    "lin C": (lambda x: lin(x * x, out=3, bias=True), 2),
    "lin C per T": (lambda x: lin(cubes(x), per="T", bias=True), 3),
    "lin T": (lambda x: lin(x * x, "T", out=3, bias=True), 2),
    "lin T per C": (lambda x: lin(cubes(x), "T", per="C", bias=True), 3),
    "lin TC rank": (lambda x: lin(x * x, "TC", rank=2, bias=True), 2),
    "lin of lin": (lambda x: lin(x, bias=True) * lin(x, bias=True), 2),
    "outer": (lambda x: outer(x * x, x), 3),
    "outer upper": (lambda x: outer(x, x, "upper"), 2),
    "pairs": (lambda x: pairs(x)[0] * pairs(x * x)[1], 3),
    "matmul": (lambda x: matmul(x * x, x), 3),
    "inner": (lambda x: pool(outer(x, x, "upper"), "C"), 2),
    "pool sum": (lambda x: pool(cubes(x), "T"), 3),
    "pool mean": (lambda x: pool(cubes(x), "C", "mean"), 3),
    "cat": (lambda x: cat(x, x * x, constant(1, D)), 2),
    "chunk": (lambda x: chunk(x, 2)[0] * chunk(x, 2)[1], 2),
    "flatten": (lambda x: flatten(cubes(x)), 3),
    "reshape": (lambda x: reshape(x * x, 2), 2),
    "dropout": (lambda x: dropout(x * x, 0.5), 2),
    "stop_gradient": (lambda x: stop_gradient(x * x) * x, 3),
    "function of a constant": (lambda x: x * act(constant(F, D), "relu6"), 1),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", POLYNOMIALS)
def test_the_degree_of_an_expression_is_the_exact_one(
    exact_degree: Callable[..., int | None], name: str, seed: int
) -> None:
    express, degree = POLYNOMIALS[name]
    x = source(F, D)
    layer = Interaction(express(x), [x])
    assert layer.degree == degree
    assert exact_degree(layer, (F, D), seed=seed) == degree


def test_a_constant_is_of_degree_zero_exactly(exact_degree: Callable[..., int | None]) -> None:
    x = source(F, D)
    layer = Interaction(lin(constant(F, D), bias=True) * constant(F, 1), [x])
    assert layer.degree == 0
    assert exact_degree(layer, (F, D)) == 0


def test_the_degree_of_a_streamed_map_is_the_exact_one(
    exact_degree: Callable[..., int | None],
) -> None:
    x, y = source(16, 2), source(16, 2)
    layer = Interaction(lin(outer(x * x, y, "upper"), "TC", out=3, bias=True), [x, y])
    assert layer.degree == exact_degree(layer, (16, 2), (16, 2)) == 3


FUNCTIONS: list[Callable[[Expr], Expr]] = [
    lambda x: act(x, "relu"),
    lambda x: act(x, "exp"),
    lambda x: softmax(x, "C"),
    lambda x: norm(x, "layer"),
    lambda x: norm(x, "l2"),
    lambda x: pool(x, "T", "max"),
    lambda x: x * act(lin(x), "sigmoid"),
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_has_no_degree_is_no_polynomial_of_a_low_one(
    exact_degree: Callable[..., int | None], function: Callable[[Expr], Expr]
) -> None:
    x = source(F, D)
    layer = Interaction(function(x), [x])
    assert layer.degree is None
    assert exact_degree(layer, (F, D)) is None


def build(name: str) -> Any:
    return interactions.build(name, num_fields=F, embedding_dim=D)


# Seeds whose small integers do not happen to cancel in a sum of a few.
@pytest.mark.parametrize("seed", [0, 2])
# `learned_gate` is exactly linear, but its gate is a sigmoid of learned numbers, which does not let
# integers stay integers.
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in interactions.names()
        if build(name).degree is not None and name != "learned_gate"
    ],
)
def test_the_degree_of_an_interaction_is_the_exact_one(
    exact_degree: Callable[..., int | None], name: str, seed: int
) -> None:
    layer = build(name)
    shapes = [expr.shape for expr in interactions.sources_of(name, F, D)]
    assert exact_degree(layer, *shapes, seed=seed, highest=layer.degree + 2) == layer.degree
