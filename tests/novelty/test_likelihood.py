"""The likelihood of a row's ids under a tree of fields."""

import math

import numpy as np
import pytest

from recsys_had.batch import EncodedRows, Layout
from recsys_had.errors import DataError
from recsys_had.novelty import Method, Seen, fit
from recsys_had.novelty.count_table import CountTable
from recsys_had.novelty.field_tree import field_tree
from tests.novelty.oracles import fitting_of, log_share, minus_log_likelihood, rows_of

# Counts are kept within half a step of 1/20 of an e-fold.
WITHIN = 0.026


def _novelty(method: Method, rows: EncodedRows) -> np.ndarray:
    return method(Seen(rows, np.zeros(len(rows), np.float32)))


def _related(num_rows: int, seed: int) -> np.ndarray:
    """Three fields: b follows a but for one row in ten, c stands alone."""
    generator = np.random.default_rng(seed)
    a = generator.integers(1, 9, num_rows)
    b = np.where(generator.random(num_rows) < 0.1, generator.integers(1, 9, num_rows), a)
    return np.stack([a, b, generator.integers(0, 5, num_rows)], axis=1)


def test_a_row_by_hand() -> None:
    # a and b are the same in each of four rows, so b given a is known but for the smoothing.
    rows = rows_of([[1, 1], [1, 1], [2, 2], [2, 2]] * 4)
    method = fit("likelihood", fitting_of(rows))
    found = _novelty(method, rows_of([[1, 1], [1, 2], [3, 3]]))
    # p(a = 1) = (8 + .5) / (16 + .5 * 3) = 8.5 / 17.5, and of an unseen value .5 / 17.5;
    # p(b = 1 | a = 1) = (8 + 8.5 / 17.5) / 9, p(b = 2 | a = 1) = (8.5 / 17.5) / 9,
    # p(b = 3 | a = 3) = (.5 / 17.5) / 1.
    known, new = 8.5 / 17.5, 0.5 / 17.5
    expected = [known * (8 + known) / 9, known * known / 9, new * new]
    # 8 is kept as exp(42 / 20) = 8.17, twice in a quotient and once alone.
    np.testing.assert_allclose(found, -np.log(expected), atol=2 * WITHIN)


def test_it_equals_the_formula_in_loops() -> None:
    training, others = _related(300, 1), _related(60, 2)
    others[:20] = np.random.default_rng(3).integers(0, 12, (20, 3))
    method = fit("likelihood", fitting_of(rows_of(training.tolist())))
    parents = field_tree(training)
    assert parents == [-1, 0, -1]
    expected = [minus_log_likelihood(row, training.tolist(), parents) for row in others.tolist()]
    found = _novelty(method, rows_of(others.tolist()))
    # Each of three factors has a rounded count above and below.
    np.testing.assert_allclose(found, expected, atol=5 * WITHIN)


def test_broken_pairs_and_unseen_values_are_more_novel() -> None:
    method = fit("likelihood", fitting_of(rows_of(_related(500, 1).tolist())))
    together, apart, new = _novelty(method, rows_of([[3, 3, 1], [3, 4, 1], [3, 99, 1]]))
    assert together + 1 < apart < new


def test_fields_change_places_with_their_values() -> None:
    training, others = _related(400, 1), _related(50, 2)
    before = _novelty(fit("likelihood", fitting_of(rows_of(training.tolist()))), rows_of(others))
    moved = [2, 0, 1]
    method = fit("likelihood", fitting_of(rows_of(training[:, moved].tolist())))
    # The root may be another field; p(a) p(b | a) is p(b) p(a | b) but for the smoothing.
    np.testing.assert_allclose(_novelty(method, rows_of(others[:, moved])), before, atol=0.3)


def test_the_order_of_training_rows_does_not_matter() -> None:
    training, others = _related(400, 1), rows_of(_related(50, 2).tolist())
    backwards = training[::-1].tolist()
    one = fit("likelihood", fitting_of(rows_of(training.tolist())))
    other = fit("likelihood", fitting_of(rows_of(backwards)))
    np.testing.assert_array_equal(_novelty(one, others), _novelty(other, others))


def test_an_unseen_value_is_told_from_a_missing_one() -> None:
    # Half of the rows lack b: a missing value is nothing new.
    training = [[1, 0], [2, 1]] * 20
    method = fit("likelihood", fitting_of(rows_of(training)))
    missing = _novelty(method, rows_of([[1, 0]], unseen=[[0, 0]]))
    unseen = _novelty(method, rows_of([[1, 0]], unseen=[[0, 1]]))
    unknown = _novelty(method, rows_of([[1, 0]]))
    assert missing == unknown
    expected = minus_log_likelihood([1, -1], training, [-1, 0])
    np.testing.assert_allclose(unseen, expected, atol=3 * WITHIN)
    assert unseen > missing + 3


def test_a_list_adds_the_mean_over_its_values() -> None:
    lists = [[1, 2], [1], [2, 3, 1], [1]] * 5
    column = [value for part in lists for value in part]
    method = fit("likelihood", fitting_of(rows_of([[1]] * 20, lists=lists)))
    alone = -log_share(1, [1] * 20)
    found = _novelty(method, rows_of([[1]] * 3, lists=[[1], [3, 1], [9]]))
    one, three, nine = (-log_share(value, column) for value in (1, 3, 9))
    np.testing.assert_allclose(
        found, [alone + one, alone + (three + one) / 2, alone + nine], atol=2 * WITHIN
    )
    # An empty list is encoded as [0]; a 0 of an unseen value was never counted.
    rows = rows_of([[1]] * 2, lists=[[0], [0, 1]], unseen=[[0, 0], [0, 1]])
    zero, new = -log_share(0, column), -log_share(-1, column)
    np.testing.assert_allclose(
        _novelty(method, rows), [alone + zero, alone + (new + one) / 2], atol=2 * WITHIN
    )


def test_a_row_has_the_same_bits_in_any_batch() -> None:
    method = fit("likelihood", fitting_of(rows_of(_related(400, 1).tolist())))
    others = rows_of(_related(100, 5).tolist())
    whole = _novelty(method, others)
    for size in (1, 7, 33):
        parts = [
            _novelty(method, others.take(np.arange(first, min(first + size, 100))))
            for first in range(0, 100, size)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_pairs_that_never_repeat_are_not_joined() -> None:
    generator = np.random.default_rng(0)
    # Of users and items every pair is another: seen pairs tell nothing of new ones.
    users, items = generator.permutation(400) // 2, generator.permutation(400) // 2
    assert field_tree(np.stack([users, items], axis=1)) == [-1, -1]
    assert field_tree(np.stack([users, users // 10, items], axis=1)) == [-1, 0, -1]


def test_the_tree_is_the_likeliest_of_three_fields() -> None:
    generator = np.random.default_rng(4)
    a = generator.integers(0, 6, 4000)
    b = np.where(generator.random(4000) < 0.2, generator.integers(0, 6, 4000), a)
    c = np.where(generator.random(4000) < 0.2, generator.integers(0, 6, 4000), b)
    # c follows b, which follows a: a and c are joined by b alone.
    assert field_tree(np.stack([a, c, b], axis=1)) == [-1, 2, 0]


def test_counts_are_never_too_small_but_for_rounding() -> None:
    generator = np.random.default_rng(1)
    keys = np.unique(generator.integers(0, 1 << 60, 30_000)).astype(np.uint64)
    counts = generator.integers(1, 1 << 18, len(keys))
    table = CountTable.of(keys, counts)
    found = table.counts(keys)
    assert (found >= counts * math.exp(-0.5 / 20) * 0.999).all()
    assert np.mean(found <= counts * math.exp(0.5 / 20) * 1.001) > 0.98
    others = generator.integers(1 << 61, 1 << 62, 30_000).astype(np.uint64)
    # At most an eighth of the buckets is taken, in each of the two rows.
    assert 0.0005 < np.mean(table.counts(others) > 0) < 0.014


@pytest.mark.parametrize(("ids", "fields"), [(np.empty((0, 2)), 2), (np.empty((3, 0)), 0)])
def test_nothing_to_count_is_refused(ids: np.ndarray, fields: int) -> None:
    rows = EncodedRows(
        Layout(fields=tuple("ab"[:fields])),
        np.arange(len(ids)),
        np.zeros(len(ids), np.float32),
        ids.astype(np.int32),
        {},
        np.empty((len(ids), 0), np.float32),
    )
    with pytest.raises(
        DataError, match=rf"^here: likelihood counts .* got {len(ids)} rows of {fields} fields"
    ):
        fit("likelihood", fitting_of(rows))


def test_one_field_and_a_constant_one_have_defined_values() -> None:
    method = fit("likelihood", fitting_of(rows_of([[4]] * 10)))
    known, new = _novelty(method, rows_of([[4], [5]]))
    # 10.5 / 11 and .5 / 11.
    np.testing.assert_allclose([known, new], [0.0465, 3.091], atol=WITHIN)
