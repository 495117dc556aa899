"""How operations grow with the number of fields and the width, read off an expression."""

import re
from fractions import Fraction

import pytest

from recsys_had.interactions import _cost, names
from recsys_had.interactions._cost import growth, measured, written

# By powers of (F, D), worked out from each formula.
POLYNOMIALS = {
    # F numbers, of tables one number wide, and an addition fewer
    "linear": {(1, 0): Fraction(1), (0, 0): Fraction(-1)},
    # 2(F - 1)D of two sums, FD + D squares, D differences, D - 1 additions, a halving
    "fm": {(1, 1): Fraction(3), (0, 1): Fraction(1)},
    # 2(F - 1)D of two sums, FD + D squares, D differences, D halvings
    "bi_interaction": {(1, 1): Fraction(3), (0, 1): Fraction(1)},
    # 3 layers of a map, 2(FD)^2 with its bias, a product and a sum
    "hadamard_cross": {(2, 2): Fraction(6), (1, 1): Fraction(6)},
    # 2 * 400 FD; 2 * 400 * 400, twice; 3 * 400 activations
    "mlp": {(1, 1): Fraction(800), (0, 0): Fraction(641200)},
    # F/3 hidden units: two maps of 2F * F/3; a mean and a product, FD each; F/3 + F activations
    "senet": {(2, 0): Fraction(4, 3), (1, 1): Fraction(2), (1, 0): Fraction(4, 3)},
    # (F^2 - F)/2 pairs of 2D^2 + D
    "bilinear": {
        (2, 2): Fraction(1),
        (1, 2): Fraction(-1),
        (2, 1): Fraction(1, 2),
        (1, 1): Fraction(-1, 2),
    },
}


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_operations_are_the_polynomial_of_the_formula(name: str) -> None:
    found = {powers: factor for powers, factor in measured(name, "operations").items() if factor}
    assert found == POLYNOMIALS[name]


@pytest.mark.parametrize("name", names())
def test_growth_of_every_interaction_is_found(name: str) -> None:
    assert re.fullmatch(r"O\(.+\)", growth(name))


def test_operations_that_are_no_polynomial_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cost, "_count", lambda name, what, num_fields, width: 2**num_fields)
    measured.cache_clear()
    line = "fm: its operations are no polynomial in F and D."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        measured("fm", "operations")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fm", "0"),
        # One matrix a pair.
        ("bilinear", "1/2 F^2 D^2 - 1/2 F D^2"),
        # Three matrices over all F D numbers, with a bias each.
        ("hadamard_cross", "3 F^2 D^2 + 3 F D"),
        # F D to 400 and twice 400 to 400, each with a bias.
        ("mlp", "400 F D + 321,200"),
    ],
)
def test_learned_numbers_are_written_as_a_polynomial(name: str, expected: str) -> None:
    assert written(name, "parameters") == expected
