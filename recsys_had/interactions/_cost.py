"""How the cost of an interaction grows, read off its expression.

Operations a row are a polynomial in F and D for every interaction written in the algebra: it is
found exactly, from as many sizes as it has coefficients, and proven on sizes of its own.

Letters: F fields, D embedding_dim.
"""

from fractions import Fraction
from functools import cache
from itertools import product

import torch

from recsys_had.interactions._catalog import express, num_inputs
from recsys_had.interactions.algebra import source
from recsys_had.interactions.algebra.program import definition

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
    polynomial = operations(name)
    terms = [powers for powers, factor in polynomial.items() if factor]
    leading = [
        (f, d)
        for f, d in terms
        if not any((f, d) != (g, e) and g >= f and e >= d for g, e in terms)
    ]
    text = " + ".join(_monomial(f, d) for f, d in sorted(leading, reverse=True))
    return f"O({text})"


def operations(name: str) -> dict[tuple[int, int], Fraction]:
    """Coefficients of the operations a row by powers of F and D, at the default options.

    Raises:
        ValueError: it is no polynomial of a degree this low.

    >>> {powers: int(factor) for powers, factor in operations("fm").items() if factor}
    {(0, 1): 1, (1, 1): 3}
    """
    values = {(f, d): Fraction(_flops(name, f, d)) for f, d in product(_SIZES, _SIZES)}
    by_d = {d: _interpolate({f: values[f, d] for f in _SIZES}) for d in _SIZES}
    found = {}
    for f in range(_HIGHEST_POWER + 1):
        for d, factor in enumerate(_interpolate({size: by_d[size][f] for size in _SIZES})):
            found[f, d] = factor
    for f, d in _PROOF:
        expected = sum(factor * f**i * d**j for (i, j), factor in found.items())
        if expected != _flops(name, f, d):
            raise ValueError(f"{name}: its operations are no polynomial in F and D.")
    return found


def _flops(name: str, num_fields: int, embedding_dim: int) -> int:
    with torch.device("meta"):
        inputs = [source(num_fields, embedding_dim) for _ in range(num_inputs(name))]
        own = definition(express(name, *inputs), until=inputs)
    return sum(expr.flops.total for expr in own)


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


def _monomial(f: int, d: int) -> str:
    parts = [
        f"{letter}^{power}" if power > 1 else letter
        for letter, power in (("F", f), ("D", d))
        if power
    ]
    return " ".join(parts) or "1"
