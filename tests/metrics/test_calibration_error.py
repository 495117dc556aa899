"""Expected calibration error: the definition by a loop, the interval by its coverage."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_had.metrics import (
    bin_starts,
    evaluate_rows,
    evaluate_with_ece,
    expected_calibration_error,
)

Numbers = np.ndarray[Any, Any]


def by_loop(label: Numbers, score: Numbers, weight: Numbers, bins: int) -> float:
    """A bin ends with the rows of the score at which its share of the mass is reached."""
    order = np.argsort(score, kind="stable").tolist()
    total = int(weight.sum())
    ends = set()
    for number in range(1, bins + 1):
        end, done = 0, int(weight[order[0]])
        while done * bins < total * number:
            end += 1
            done += int(weight[order[end]])
        while end + 1 < len(order) and score[order[end + 1]] == score[order[end]]:
            end += 1
        ends.add(end)
    found, first = 0.0, 0
    for end in sorted(ends):
        rows = order[first : end + 1]
        found += abs(sum(float(weight[row]) * (float(score[row]) - label[row]) for row in rows))
        first = end + 1
    return found / total


def test_a_case_by_hand() -> None:
    found = expected_calibration_error([1, 0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.9, 0.9], bins=3)
    # |0.15 - 0.5| / 3 + |0.35 - 0| / 3 + |0.9 - 1| / 3
    assert found.ece == pytest.approx((0.35 + 0.35 + 0.1) / 3, abs=1e-7)
    assert found.bins == 3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 300), st.integers(1, 20), st.sampled_from([1, 2, 9]))
def test_the_error_is_that_of_a_loop(seed: int, rows: int, bins: int, digits: int) -> None:
    generator = np.random.default_rng(seed)
    score = np.round(generator.random(rows), digits).astype(np.float32)
    label = generator.integers(0, 2, rows).astype(np.float64)
    found = expected_calibration_error(label, score, bins=bins)
    assert found.ece == pytest.approx(by_loop(label, score, np.ones(rows), bins), abs=1e-12)
    weight = generator.integers(1, 5, rows).astype(np.float64)
    found = expected_calibration_error(label, score, weight, bins=bins)
    assert found.ece == pytest.approx(by_loop(label, score, weight, bins), abs=1e-12)


def test_weights_are_as_many_rows() -> None:
    generator = np.random.default_rng(2)
    score = generator.random(500).astype(np.float32)
    label = (generator.random(500) < score**2).astype(np.float32)
    weight = generator.integers(0, 4, 500)
    repeated = np.repeat(np.arange(500), weight)
    ours = expected_calibration_error(label, score, weight)
    assert ours.ece == pytest.approx(
        expected_calibration_error(label[repeated], score[repeated]).ece, abs=1e-12
    )
    ones = expected_calibration_error(label, score, np.ones(500))
    assert ones == pytest.approx(expected_calibration_error(label, score), abs=1e-12)
    # Equal weights say nothing of how many rows there are.
    twice = expected_calibration_error(label, score, np.full(500, 2.0))
    assert twice == pytest.approx(ones, abs=1e-12)


def test_the_order_of_rows_changes_no_bit() -> None:
    generator = np.random.default_rng(3)
    score = np.round(generator.random(2000), 2).astype(np.float32)
    label, weight = generator.integers(0, 2, 2000), generator.random(2000)
    order = generator.permutation(2000)
    for w in (None, weight):
        again = expected_calibration_error(
            label[order], score[order], None if w is None else w[order]
        )
        assert again == expected_calibration_error(label, score, w)


def test_scores_that_are_sure_and_right_have_no_error() -> None:
    found = expected_calibration_error([0, 1] * 200, [0.0, 1.0] * 200)
    assert (found.ece, found.debiased, found.low) == (0.0, 0.0, 0.0)
    found = expected_calibration_error([1] * 50, [0.75] * 50)
    assert found.ece == 0.25 and found.bins == 1
    assert found.low > 0


WRONG: dict[str, Callable[[Numbers], Numbers]] = {
    "nowhere": lambda logit: logit,
    "everywhere": lambda logit: 1.4 * logit,
    "somewhere": lambda logit: np.where(logit > -1, logit + 0.5, logit),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_the_interval_holds_the_true_error_in_most_samples(name: str, weighted: bool) -> None:
    """Of 40 samples, 38 are expected; 34 or fewer come once in 70 times."""
    held, debiased, seen, true = 0, [], [], []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        logit = generator.normal(-2, 1.2, 3000)
        rate = 1 / (1 + np.exp(-logit))
        score = (1 / (1 + np.exp(-WRONG[name](logit)))).astype(np.float32)
        label = generator.random(3000) < rate
        weight = generator.choice([1.0, 3.0], 3000) if weighted else np.ones(3000)
        order = np.lexsort((weight, label, score))
        start = bin_starts(score[order], 15, weight[order] if weighted else None)
        gaps = np.add.reduceat((weight * (score - rate))[order], start)
        true.append(np.abs(gaps).sum() / weight.sum())
        found = expected_calibration_error(label, score, weight if weighted else None)
        assert 0 <= found.low <= found.high
        assert found.low - 1e-9 <= found.debiased <= found.high + 1e-9
        held += found.low <= true[-1] <= found.high
        debiased.append(found.debiased)
        seen.append(found.ece)
    assert held > 34
    # What chance adds is mostly gone, where it was much.
    assert abs(np.mean(debiased) - np.mean(true)) < 0.5 * abs(np.mean(seen) - np.mean(true)) + 0.003


def test_the_block_of_metrics_has_the_error_beside_the_others() -> None:
    generator = np.random.default_rng(5)
    score = generator.random(400).astype(np.float32)
    label, weight = generator.integers(0, 2, 400), generator.random(400)
    for w in (None, weight):
        found = evaluate_with_ece(label, score, w)
        error = expected_calibration_error(label, score, w)
        assert found == {
            **evaluate_rows(label, score, w),
            "ece": error.ece,
            "ece_low": error.low,
            "ece_high": error.high,
            "ece_debiased": error.debiased,
        }
    assert evaluate_with_ece([1, 0], [0.5, 0.5], [0, 0])["ece"] is None
    assert evaluate_with_ece([1, 1], [0.5, 0.5])["ece"] == 0.5


@pytest.mark.parametrize(
    "label, score, weight, bins, told",
    [
        ([0, 1], [0.5, 0.5], None, 0, r"bins must be at least 1; got 0\. Leave it out for 15\."),
        ([], [], None, 15, r"label must have at least one row; got 0\."),
        ([0, 1], [0.5, 1.5], None, 15, r"score must lie in \[0, 1\]; got 1\.5 in row 1\."),
        ([0, 1], [0.5, np.nan], None, 15, r"score must not be NaN; got nan in row 1\."),
        ([0, 2], [0.5, 0.5], None, 15, r"label must be 0 or 1; got 2 in row 1\."),
        ([0, 1], [0.5, 0.5], [1], 15, r"weight must have one entry per row; got shape \(1,\)"),
        ([0, 1], [0.5, 0.5], [1, -1], 15, r"weight must be a finite number, 0 or more; got -1\.0"),
        ([0, 1], [0.5, 0.5], [0, 0], 15, r"weight must be above 0 in some row\."),
    ],
)
def test_bad_rows_are_told(label: Any, score: Any, weight: Any, bins: int, told: str) -> None:
    with pytest.raises(ValueError, match=rf"^expected_calibration_error: {told}"):
        expected_calibration_error(label, score, weight, bins=bins)
