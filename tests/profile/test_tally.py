"""Tallies against numpy, in any number of blocks; quantiles against a sort."""

from fractions import Fraction

import numpy as np
import pytest

from recsys_had.errors import DataError
from recsys_had.profile.quantiles import Quantiles
from recsys_had.profile.tally import HASH_END, HashTally, IdTally


def hashes(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, HASH_END, size)


@pytest.mark.parametrize("num_ids", [3, 40, 5_000])
def test_ids_are_counted_as_bincount_does_in_any_blocks(num_ids: int) -> None:
    generator = np.random.default_rng(num_ids)
    ids, clicked = generator.integers(0, num_ids, 900), generator.random(900) < 0.3
    tally = IdTally(num_ids, place="a")
    for first in range(0, 900, 70):
        tally.add(ids[first : first + 70], clicked[first : first + 70])
    assert tally.rows.tolist() == np.bincount(ids, minlength=num_ids).tolist()
    assert tally.clicks.tolist() == np.bincount(ids[clicked], minlength=num_ids).tolist()


@pytest.mark.parametrize("wrong", [-1, 4])
def test_an_id_beyond_the_field_s_is_refused(wrong: int) -> None:
    message = (
        rf"data: column A: must hold ids from 0 to 3; got {wrong}\. Re-run `recsys-had ingest`\."
    )
    with pytest.raises(DataError, match=message):
        IdTally(4, place="data: column A").add(np.array([0, wrong]), np.array([True, True]))


def test_hashes_that_fit_are_all_counted() -> None:
    ids = np.concatenate([hashes(50, 0), hashes(50, 0)[:20], np.zeros(7, np.int64)])
    clicked = np.arange(len(ids)) % 3 == 0
    tally = HashTally()
    for first in range(0, len(ids), 11):
        tally.add(ids[first : first + 11], clicked[first : first + 11])
    assert (tally.num_values, tally.sampled_share, tally.rows[0]) == (50, 1.0, 7)
    places = tally.places(ids)
    assert (tally.ids[places] == ids).all()
    for number, place in zip(ids, places, strict=True):
        assert tally.rows[place] == (ids == number).sum()
        assert tally.clicks[place] == clicked[ids == number].sum()
    assert tally.rows[tally.places(np.array([12345]))] == [0]


def test_a_sample_of_hashes_has_exact_counts_and_estimates_their_number() -> None:
    values = hashes(20_000, 1)
    ids = np.random.default_rng(2).permutation(np.concatenate([values, values[:5_000]]))
    clicked = ids % 3 == 0
    tally = HashTally(capacity=900)
    for first in range(0, len(ids), 500):
        tally.add(ids[first : first + 500], clicked[first : first + 500])
    kept = np.sort(values)[:900]
    assert tally.ids[1:-1].tolist() == kept.tolist()
    wanted, counts = np.unique(ids[np.isin(ids, kept)], return_counts=True)
    assert tally.rows[1:-1].tolist() == counts.tolist()
    assert tally.clicks[1:-1].tolist() == np.where(wanted % 3 == 0, counts, 0).tolist()
    # Four standard errors of 1 / sqrt(898) each.
    assert abs(tally.num_values / 20_000 - 1) < 4 / np.sqrt(898)
    beyond = np.sort(values)[900:]
    assert (tally.places(beyond) == -1).all()


@pytest.mark.parametrize("seed", range(8))
def test_quantiles_are_those_of_a_sort(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = int(generator.integers(1, 400))
    scale = np.float32(10.0) ** generator.integers(-40, 38, size).astype(np.float32)
    values = (generator.normal(size=size).astype(np.float32) * scale).astype(np.float32)
    values[generator.random(size) < 0.2] = 0
    values[generator.random(size) < 0.1] = np.inf
    levels = [Fraction(level, 100) for level in (1, 7, 25, 50, 75, 99, 100)]
    quantiles = Quantiles(levels)
    for first in range(0, size, 37):
        quantiles.count(values[first : first + 37])
    for first in range(0, size, 37):
        quantiles.refine(values[first : first + 37])
    ascending = np.sort(values)
    expected = [ascending[-(-level.numerator * size // level.denominator) - 1] for level in levels]
    assert quantiles.values().tolist() == [float(value) for value in expected]


def test_quantiles_of_neighbouring_numbers_are_exact() -> None:
    # All share their upper 16 bits, as times in seconds do.
    values = np.float32(1.6e9) + 128 * np.arange(101, dtype=np.float32)
    quantiles = Quantiles([Fraction(1, 2)])
    quantiles.count(values)
    quantiles.refine(values)
    assert quantiles.values().tolist() == [float(values[50])]
