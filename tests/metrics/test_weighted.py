"""Metrics of weighted rows: scikit-learn's, whatever the order of the rows."""

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from recsys_had.metrics import evaluate_rows, evaluate_scores

# Few distinct scores: ties matter.
ROWS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from([0.0, 0.125, 0.3, 0.5, 0.9, 1.0]),
        st.sampled_from([0.0, 0.25, 1.0, 3.7, 1e6]),
    ),
    min_size=1,
    max_size=40,
)


def columns(rows: list[tuple[int, float, float]]) -> tuple[Any, Any, Any]:
    label, score, weight = (np.array(column) for column in zip(*rows, strict=True))
    return label, score.astype(np.float32), weight


@settings(deadline=None)
@given(ROWS)
def test_auc_and_logloss_are_scikit_learns(rows: list[tuple[int, float, float]]) -> None:
    label, score, weight = columns(rows)
    found = evaluate_rows(label, score, weight)
    assert found["rows"] == len(rows)
    counts = weight > 0
    if not counts.any():
        assert [found[name] for name in ("auc", "logloss", "calibration")] == [None] * 3
        return
    sure = score.astype(np.float64)
    expected = log_loss(label, sure, sample_weight=weight, labels=[0, 1])
    assert found["logloss"] == pytest.approx(expected, rel=1e-9)
    if len(set(label[counts])) < 2:
        assert found["auc"] is None
        assert found["normalized_entropy"] is None
        return
    expected = roc_auc_score(label, score, sample_weight=weight)
    assert found["auc"] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_bit(
    rows: list[tuple[int, float, float]], random: Any
) -> None:
    found = evaluate_rows(*columns(rows))
    random.shuffle(rows)
    assert evaluate_rows(*columns(rows)) == found


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1), st.integers(0, 3)), min_size=1))
def test_a_row_of_weight_3_is_three_rows(rows: list[tuple[int, float, int]]) -> None:
    label, score, weight = columns(rows)  # type: ignore[arg-type]
    found = evaluate_rows(label, score, weight)
    repeated = evaluate_scores(np.repeat(label, weight), np.repeat(score, weight))
    for name in ("auc", "logloss", "normalized_entropy", "calibration"):
        if repeated[name] is None:
            assert found[name] is None
        else:
            assert found[name] == pytest.approx(repeated[name], rel=1e-9, abs=1e-12)


def test_a_case_worked_out_by_hand() -> None:
    # Clicks: .5 (weight 2), .75 (1); misses: .25 (3), .5 (1), .9 (0, so it is not there).
    found = evaluate_rows([1, 1, 0, 0, 0], [0.5, 0.75, 0.25, 0.5, 0.9], [2, 1, 3, 1, 0])
    # Pairs: 2*3 + 2*1/2 + 1*3 + 1*1 = 11 of 3*4.
    assert found["auc"] == pytest.approx(11 / 12)
    log = math.log
    loss = (2 * log(2) + log(4 / 3) + 3 * log(4 / 3) + log(2)) / 7
    assert found["logloss"] == pytest.approx(loss)
    entropy = -(3 / 7 * log(3 / 7) + 4 / 7 * log(4 / 7))
    assert found["normalized_entropy"] == pytest.approx(loss / entropy)
    # Promised: 2*.5 + .75 + 3*.25 + .5 = 3, and 3 came.
    assert found["calibration"] == pytest.approx(1.0)
    assert found["rows"] == 5


def test_without_weights_or_rows_all_is_as_ever() -> None:
    rows = ([1, 0, 1], [0.3, 0.2, 0.1])
    assert evaluate_rows(*rows) == evaluate_scores(*rows)
    assert evaluate_rows([], [], []) == evaluate_scores([], [])


@pytest.mark.parametrize(
    ("weight", "told"),
    [
        (
            [1.0],
            "must have one entry per row; got shape (1,) for 2 rows. Pass the weight of every row.",
        ),
        (
            [1.0, -2.0],
            "must be a finite number, 0 or more; got -2.0 in row 1. Leave out rows that do not "
            "count, or give them 0.",
        ),
        (
            [math.nan, 1.0],
            "must be a finite number, 0 or more; got nan in row 0. Leave out rows that do not "
            "count, or give them 0.",
        ),
    ],
)
def test_what_is_no_weight_is_told(weight: list[float], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'evaluate_rows: weight {told}')}$"):
        evaluate_rows([0, 1], [0.5, 0.5], weight)
