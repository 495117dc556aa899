"""How the cost of an interaction grows, read off its expression.

Operations a row and learned numbers are polynomials in F and D for every interaction written in
the algebra: each is found exactly, from as many sizes as it has coefficients, and proven on sizes
of its own.

Letters: F fields, D embedding_dim.
"""

from fractions import Fraction
from functools import cache
from itertools import product
from typing import Literal

import torch

from recsys_had.interactions._catalog import express, sources_of
from recsys_had.interactions.algebra.program import definition

Measure = Literal["operations", "parameters"]

_HIGHEST_POWER = 4
# Multiples of many numbers, so that widths given as a share of F come out whole.
_SIZES = (12, 24, 36, 48, 60)
_PROOF = ((72, 24), (84, 60))


@cache
def growth(name: str) -> str:
    """Leading terms of the operations a row at the default options.

    >>> growth("fm"), growth("bilinear")
    ('O(F D)', 'O(F^2 D^2)')
    """
    terms = list(measured(name, "operations"))
    leading = [
        (f, d)
        for f, d in terms
        if not any((f, d) != (g, e) and g >= f and e >= d for g, e in terms)
    ]
    text = " + ".join(_monomial(f, d) for f, d in sorted(leading, reverse=True))
    return f"O({text})"


def written(name: str, what: Measure) -> str:
    """A measured polynomial as text, the highest powers first.

    >>> written("fm", "operations"), written("bilinear", "parameters")
    ('3 F D + D', '1/2 F^2 D^2 - 1/2 F D^2')
    """
    text = ""
    for (f, d), factor in sorted(measured(name, what).items(), reverse=True):
        letters = _monomial(f, d) if f or d else ""
        number = _fraction(abs(factor)) if abs(factor) != 1 or not letters else ""
        sign = (" - " if factor < 0 else " + ") if text else ("-" if factor < 0 else "")
        text += sign + " ".join(part for part in (number, letters) if part)
    return text or "0"


@cache
def measured(name: str, what: Measure) -> dict[tuple[int, int], Fraction]:
    """Coefficients, none of them 0, by powers of F and D, at the default options.

    Raises:
        ValueError: it is no polynomial of a degree this low.

    >>> {powers: int(factor) for powers, factor in measured("fm", "operations").items()}
    {(0, 1): 1, (1, 1): 3}
    """
    values = {(f, d): Fraction(_count(name, what, f, d)) for f, d in product(_SIZES, _SIZES)}
    by_d = {d: _interpolate({f: values[f, d] for f in _SIZES}) for d in _SIZES}
    found = {}
    for f in range(_HIGHEST_POWER + 1):
        for d, factor in enumerate(_interpolate({size: by_d[size][f] for size in _SIZES})):
            found[f, d] = factor
    for f, d in _PROOF:
        expected = sum(factor * f**i * d**j for (i, j), factor in found.items())
        if expected != _count(name, what, f, d):
            raise ValueError(f"{name}: its {what} are no polynomial in F and D.")
    return {powers: factor for powers, factor in found.items() if factor}


def _count(name: str, what: Measure, num_fields: int, embedding_dim: int) -> int:
    with torch.device("meta"):
        inputs = sources_of(name, num_fields, embedding_dim)
        own = definition(express(name, *inputs), until=inputs)
    if what == "operations":
        return sum(expr.flops.total for expr in own)
    ops = [expr.op for expr in own if expr.op is not None]
    return sum(weight.numel() for op in ops for weight in op.parameters())


def _interpolate(points: dict[int, Fraction]) -> list[Fraction]:
    """Coefficients, lowest power first, of the polynomial through the points (Lagrange)."""
    total = [Fraction(0)] * len(points)
    for at, value in points.items():
        basis = [Fraction(1)]
        for other in points:
            if other != at:
                shifted = [Fraction(0), *basis]
                scaled = [*(factor * -other for factor in basis), Fraction(0)]
                basis = [(a + b) / (at - other) for a, b in zip(shifted, scaled, strict=True)]
        total = [a + value * b for a, b in zip(total, basis, strict=True)]
    return total


def _fraction(value: Fraction) -> str:
    whole = f"{value.numerator:,}"
    return whole if value.denominator == 1 else f"{whole}/{value.denominator}"


def _monomial(f: int, d: int) -> str:
    parts = [
        f"{letter}^{power}" if power > 1 else letter
        for letter, power in (("F", f), ("D", d))
        if power
    ]
    return " ".join(parts) or "1"
