"""The population stability index: worked out by hand, and over classes that plain loops find."""

import math
from collections import Counter

import numpy as np
import pytest

from recsys_had.data.psi import id_classes, number_classes, psi_of
from recsys_had.data.tallies import NumberTally, codes_of


def tally(numbers: list[float]) -> NumberTally:
    found = NumberTally()
    found.add(np.array(numbers, np.float32), np.array(numbers, np.float64))
    return found


def test_the_index_of_three_classes_by_hand() -> None:
    # p = .2 .3 .5, q = .4 .3 .3:
    # (.4 - .2) ln(.4 / .2) = .2 x .693147 = .138629
    # (.3 - .3) ln 1        = 0
    # (.3 - .5) ln(.3 / .5) = .2 x .510826 = .102165
    found = psi_of(np.array([20, 30, 50]), np.array([80, 60, 60]))
    assert found.value == pytest.approx(0.240794, abs=1e-6)
    # Two degrees of freedom: 2 (1/100 + 1/200).
    assert found.by_chance == pytest.approx(0.03)
    assert found.verdict == "moderate"


def test_a_class_that_one_side_lacks_counts_as_a_share_of_one_in_ten_thousand() -> None:
    # p = 1, 0 -> .0001; q = .5 .5: .5 ln 2 + .4999 ln 5000 = .346574 + 4.257745
    found = psi_of(np.array([10, 0]), np.array([5, 5]))
    assert found.value == pytest.approx(4.604319, abs=1e-6)


def test_the_same_shares_give_exactly_0_whatever_the_number_of_rows() -> None:
    counts = np.array([3, 0, 14, 1, 59])
    assert psi_of(counts, counts).value == 0.0
    assert psi_of(counts, 1000 * counts).value == 0.0


def test_chance_alone_gives_the_index_that_is_told() -> None:
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.full(10, 5.0))
    found = [
        psi_of(generator.multinomial(4000, shares), generator.multinomial(9000, shares))
        for _ in range(400)
    ]
    told = found[0].by_chance
    # A chi-squared number of 9 degrees has a deviation of 4.2: the mean of 400 one of 0.21.
    assert np.mean([psi.value for psi in found]) == pytest.approx(told, rel=0.1)


def test_ids_are_the_20_most_frequent_the_others_and_id_0() -> None:
    generator = np.random.default_rng(1)
    old, new = generator.integers(0, 30, 31), generator.integers(0, 30, 31)
    by_frequency = sorted(range(1, 31), key=lambda number: (-old[number], number))
    want = [
        [counts[number] for number in by_frequency[:20]]
        + [sum(counts[number] for number in by_frequency[20:]), counts[0]]
        for counts in (old, new)
    ]
    assert [classes.tolist() for classes in id_classes(old, new)] == want


def test_deciles_are_those_of_plain_sorting_and_zeros_are_apart() -> None:
    generator = np.random.default_rng(2)
    # Whole numbers below 256 are not rounded, so that sorting finds the same classes.
    old = [float(x) for x in generator.integers(-200, 200, 991)]
    new = [float(x) for x in generator.normal(40, 90, 503).round().clip(-255, 255)]
    known = sorted(x for x in old if x != 0)
    edges = [known[math.ceil(k * len(known) / 10) - 1] for k in range(1, 10)]

    def count(numbers: list[float]) -> list[int]:
        place = Counter(sum(x > edge for edge in edges) for x in numbers if x != 0)
        return [*(place[at] for at in range(10)), numbers.count(0.0)]

    first, second = number_classes(tally(old), tally(new))
    assert first.tolist() == count(old)
    assert second.tolist() == count(new)
    assert max(first[:10]) < 1.2 * min(first[:10])


def test_numbers_beyond_a_constant_are_classes_of_their_own() -> None:
    first, second = number_classes(tally([5.0] * 8 + [0.0]), tally([5.0, 4.0, 4.0, 6.0, 0.0, 0.0]))
    # Below 5, at 5, above it, and zeros.
    assert first.tolist() == [0, 8, 0, 1]
    assert second.tolist() == [2, 1, 1, 2]


def test_a_column_of_zeros_has_one_class() -> None:
    first, second = number_classes(tally([0.0, 0.0]), tally([0.0, 0.0, 0.0]))
    assert psi_of(first, second).value == 0.0
    assert (first.sum(), second.sum()) == (2, 3)


def test_codes_keep_the_order_of_numbers_and_tell_apart_what_differs_by_a_hundredth() -> None:
    generator = np.random.default_rng(3)
    sizes = np.exp(generator.uniform(-80, 80, 5000))
    numbers = np.sort(np.concatenate([sizes, -sizes, [0.0, -0.0, 3e38, -3e38, 1e300]]))
    codes = codes_of(numbers)
    assert (np.diff(codes) >= 0).all()
    assert codes.min() >= 0 and codes.max() < 1 << 16
    assert (codes_of(1.01 * sizes) > codes_of(sizes)).all()
    assert codes_of(np.array([0.0])) == codes_of(np.array([-0.0]))
    whole = np.arange(-256.0, 257.0)
    assert len(set(codes_of(whole).tolist())) == len(whole)
    # Float32's rounding does not move a short number to another code.
    assert (codes_of(whole * (1 + 1e-7)) == codes_of(whole)).all()
