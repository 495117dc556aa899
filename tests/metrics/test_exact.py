"""Metrics: worked by hand, checked against scikit-learn, and free of the order of rows."""

import json
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import (  # type: ignore[import-untyped, unused-ignore]
    log_loss,
    roc_auc_score,
)

from recsys_had import metrics
from tests.metrics.scored_rows import Rows, message, skewed_rows, tied_rows


class TestAuc:
    def test_counts_a_tie_as_half_a_pair(self) -> None:
        # clicks 0.7, 0.4; misses 0.4, 0.2, 0.7
        # 0.7 against 0.4, 0.2, 0.7: 1 + 1 + 1/2; 0.4 against them: 1/2 + 1 + 0
        # (2.5 + 1.5) / (2 * 3) = 2/3
        assert metrics.auc([1, 1, 0, 0, 0], [0.7, 0.4, 0.4, 0.2, 0.7]) == 2 / 3

    def test_orders_negative_logits_and_signed_zeros(self) -> None:
        # clicks 0.0, 3; misses -5, -2, -0.0
        # 0.0 beats -5 and -2 and ties with -0.0: 2.5; 3 beats all: 3; 5.5 / 6
        assert metrics.auc([1, 1, 0, 0, 0], [0.0, 3.0, -5.0, -2.0, -0.0]) == 5.5 / 6

    def test_orders_infinite_and_huge_scores(self) -> None:
        # 1e300 becomes infinite in float32 and ties with infinity: (1/2 + 1) / 2
        assert metrics.auc([1, 0, 0], [1e300, np.inf, -np.inf]) == 0.75

    @pytest.mark.parametrize("label", [[0, 0], [1, 1]])
    def test_is_none_where_all_rows_are_of_one_class(self, label: list[int]) -> None:
        assert metrics.auc(label, [0.1, 0.2]) is None

    @given(tied_rows(min_size=2))
    def test_equals_scikit_learn_under_heavy_ties(self, rows: Rows) -> None:
        label, score = rows
        if label.min() == label.max():
            assert metrics.auc(label, score) is None
        else:
            assert metrics.auc(label, score) == pytest.approx(
                roc_auc_score(label, score), abs=1e-12
            )

    @pytest.mark.parametrize("digits", [1, 3, 7])
    def test_equals_scikit_learn_on_many_skewed_rows(self, digits: int) -> None:
        label, score = skewed_rows(20_000, seed=1, digits=digits)
        expected = roc_auc_score(label, score.astype(np.float64))
        assert metrics.auc(label, score) == pytest.approx(expected, abs=1e-12)

    @given(tied_rows(min_size=2))
    def test_of_reversed_scores_is_one_minus_auc(self, rows: Rows) -> None:
        label, score = rows
        area, reversed_area = metrics.auc(label, score), metrics.auc(label, -score)
        if area is None:
            assert reversed_area is None
        else:
            assert reversed_area == pytest.approx(1 - area, abs=1e-15)

    @given(st.lists(st.tuples(st.booleans(), st.integers(-500, 500)), min_size=2, max_size=50))
    def test_ignores_a_monotone_transform(self, pairs: list[tuple[bool, int]]) -> None:
        label = [clicked for clicked, _ in pairs]
        score = np.array([value for _, value in pairs])
        # exp(x / 100) keeps these integers distinct in float32: neighbours differ by 1 %
        assert metrics.auc(label, score) == metrics.auc(label, np.exp(score / 100))

    def test_is_exact_where_pairs_outgrow_float64(self) -> None:
        # 200,000 clicks and as many misses: 4e10 pairs. One click lies below one miss, so one
        # pair is lost: 1 - 1 / 4e10.
        label: NDArray[np.bool_] = np.arange(400_000) >= 200_000
        score = np.arange(400_000, dtype=np.float32)
        score[[199_999, 200_000]] = score[[200_000, 199_999]]
        assert metrics.auc(label, score) == (4 * 10**10 - 1) / (4 * 10**10)

    @pytest.mark.parametrize("label_type", [np.bool_, np.int8, np.uint8, np.float32])
    def test_takes_labels_of_any_numeric_type(self, label_type: type[np.generic]) -> None:
        label = np.array([0, 1, 0, 1]).astype(label_type)
        assert metrics.auc(label, [0.1, 0.2, 0.3, 0.4]) == 0.75

    def test_leaves_its_arguments_unchanged(self) -> None:
        label, score = np.array([1.0, 0.0]), np.array([-0.0, 0.5], dtype=np.float32)
        metrics.auc(label, score)
        assert label.tolist() == [1.0, 0.0]
        assert score.tolist() == [0.0, 0.5] and np.signbit(score[0])


class TestLogloss:
    def test_is_the_mean_surprise(self) -> None:
        # a click at 1/4 costs log 4, a miss at 1/2 costs log 2: (2 log 2 + log 2) / 2
        assert metrics.logloss([1, 0], [0.25, 0.5]) == pytest.approx(1.5 * math.log(2), abs=1e-15)

    def test_of_a_sure_miss_is_clipped_at_the_float64_epsilon(self) -> None:
        # -log(2**-52) = 52 log 2 = 36.04
        assert metrics.logloss([1], [0.0]) == pytest.approx(52 * math.log(2), abs=1e-12)
        assert metrics.logloss([0], [1.0]) == pytest.approx(52 * math.log(2), abs=1e-12)
        assert metrics.logloss([1, 0], [1.0, 0.0]) == pytest.approx(0, abs=1e-15)

    @given(tied_rows())
    def test_equals_scikit_learn_on_the_same_scores_in_float64(self, rows: Rows) -> None:
        label, score = rows
        expected = log_loss(label, score.astype(np.float64), labels=[0, 1])
        assert metrics.logloss(label, score) == pytest.approx(expected, abs=1e-9)

    def test_equals_scikit_learn_on_many_skewed_rows(self) -> None:
        label, score = skewed_rows(50_000, seed=2)
        expected = log_loss(label, score.astype(np.float64))
        assert metrics.logloss(label, score) == pytest.approx(expected, abs=1e-12)


class TestNormalizedEntropy:
    def test_divides_by_the_entropy_of_the_click_rate(self) -> None:
        # one click in four, all scored 1/2: logloss log 2 = 0.693147
        # entropy = -(1/4 log 1/4 + 3/4 log 3/4) = 0.346574 + 0.215762 = 0.562335
        # 0.693147 / 0.562335 = 1.232623
        value = metrics.normalized_entropy([1, 0, 0, 0], [0.5] * 4)
        assert value == pytest.approx(1.232623, abs=2e-6)

    @given(st.integers(1, 40), st.integers(1, 40))
    def test_of_the_mean_label_is_one(self, clicks: int, misses: int) -> None:
        label = [1] * clicks + [0] * misses
        score = [clicks / (clicks + misses)] * len(label)
        # float32 holds the click rate to 6e-8, and at the optimum the loss is flat
        assert metrics.normalized_entropy(label, score) == pytest.approx(1, abs=1e-12)

    @pytest.mark.parametrize("label", [0, 1])
    def test_is_none_where_all_rows_are_of_one_class(self, label: int) -> None:
        assert metrics.normalized_entropy([label, label], [0.1, 0.2]) is None


class TestCalibration:
    def test_is_the_ratio_of_promised_to_observed_clicks(self) -> None:
        # 0.25 + 0.5 + 0.5 + 0.5 = 1.75 promised, 2 observed
        assert metrics.calibration([1, 1, 0, 0], [0.25, 0.5, 0.5, 0.5]) == 0.875

    def test_is_none_without_a_click_and_defined_with_nothing_else(self) -> None:
        assert metrics.calibration([0, 0], [0.1, 0.2]) is None
        assert metrics.calibration([1, 1], [0.5, 0.25]) == 0.375

    @given(tied_rows())
    def test_equals_the_ratio_of_numpy_means(self, rows: Rows) -> None:
        label, score = rows
        if label.any():
            expected = score.mean(dtype=np.float64) / label.mean()
            assert metrics.calibration(label, score) == pytest.approx(expected, abs=1e-12)


class TestGroupedAuc:
    def test_weighs_each_group_by_its_rows_and_leaves_out_one_class(self) -> None:
        # group 7: click 0.3, misses 0.1 and 0.5 -> 1/2 over 3 rows
        # group 9: click 0.9, miss 0.2 -> 1 over 2 rows; group 8 has misses only
        # (3 * 1/2 + 2 * 1) / 5 = 0.7
        label = [1, 0, 0, 0, 0, 1]
        score = [0.3, 0.1, 0.4, 0.5, 0.2, 0.9]
        group = [7, 7, 8, 7, 9, 9]
        assert metrics.grouped_auc(label, score, group) == (0.7, 2)

    @given(tied_rows(), st.data())
    def test_equals_a_loop_over_the_groups(self, rows: Rows, data: st.DataObject) -> None:
        label, score = rows
        size = len(label)
        group = np.array(data.draw(st.lists(st.integers(-2, 2), min_size=size, max_size=size)))
        areas, weights = [], []
        for one in set(group.tolist()):
            inside = group == one
            if 0 < label[inside].mean() < 1:
                areas.append(roc_auc_score(label[inside], score[inside]))
                weights.append(inside.sum())
        value, num_groups = metrics.grouped_auc(label, score, group)
        assert num_groups == len(areas)
        if areas:
            assert value == pytest.approx(np.average(areas, weights=weights), abs=1e-12)
        else:
            assert value is None

    @given(tied_rows())
    def test_of_one_group_is_the_auc(self, rows: Rows) -> None:
        label, score = rows
        value = metrics.grouped_auc(label, score, np.zeros(len(label), int)).auc
        assert value == pytest.approx(metrics.auc(label, score), abs=1e-15)

    def test_takes_strings_and_objects_for_groups(self) -> None:
        label, score, names = [1, 0, 1, 0], [0.3, 0.1, 0.2, 0.4], ["u", "u", "v", "v"]
        # group u orders its pair rightly, group v does not
        assert metrics.grouped_auc(label, score, names) == (0.5, 2)
        assert metrics.grouped_auc(label, score, np.array(names, dtype=object)) == (0.5, 2)

    def test_takes_integers_at_both_ends_of_int64(self) -> None:
        ends = np.array([-(2**63), -(2**63), 2**63 - 1, 2**63 - 1])
        assert metrics.grouped_auc([1, 0, 1, 0], [0.3, 0.1, 0.2, 0.4], ends) == (0.5, 2)

    @pytest.mark.parametrize(
        ("group", "dtype"),
        [
            (np.array([1.0, np.nan]), "float64"),
            (np.array(["u", None], dtype=object), "object"),
        ],
    )
    def test_refuses_groups_that_may_be_missing(
        self, group: NDArray[np.generic], dtype: str
    ) -> None:
        line = (
            f"grouped_auc: group must hold integers or strings; got {dtype}. Cast it, and give "
            "missing values a group of their own."
        )
        with pytest.raises(ValueError, match=message(line)):
            metrics.grouped_auc([0, 1], [0.1, 0.2], group)

    def test_refuses_fewer_groups_than_rows(self) -> None:
        line = (
            "grouped_auc: group must have one entry per row; got shape (1,) for 2 rows. Pass the "
            "group of every row."
        )
        with pytest.raises(ValueError, match=message(line)):
            metrics.grouped_auc([0, 1], [0.1, 0.2], [3])


class TestEvaluateScores:
    def test_gives_the_whole_block_ready_for_json(self) -> None:
        # clicks 3/4, 1/4; misses 1/4, 1/2
        # auc: 3/4 beats both, 1/4 ties with 1/4 and loses to 1/2: (2 + 1/2) / 4 = 0.625
        # logloss: (log 4/3 + log 4 + log 4/3 + log 2) / 4 = 2.654806 / 4 = 0.663701;
        # entropy log 2 = 0.693147
        # normalized_entropy = 0.663701 / 0.693147 = 0.957518; calibration = 1.75 / 2
        block = metrics.evaluate_scores([1, 1, 0, 0], [0.75, 0.25, 0.25, 0.5])
        assert json.loads(json.dumps(block)) == {
            "auc": 0.625,
            "logloss": pytest.approx(0.663701, abs=1e-6),
            "normalized_entropy": pytest.approx(0.957518, abs=2e-6),
            "calibration": 0.875,
            "rows": 4,
        }
        assert isinstance(block["rows"], int)

    def test_of_no_rows_is_all_none(self) -> None:
        assert metrics.evaluate_scores([], []) == {
            "auc": None,
            "logloss": None,
            "normalized_entropy": None,
            "calibration": None,
            "rows": 0,
        }

    def test_of_one_class_keeps_what_is_defined(self) -> None:
        block = metrics.evaluate_scores([0, 0], [0.5, 0.5])
        assert block == {
            "auc": None,
            "logloss": pytest.approx(math.log(2)),
            "normalized_entropy": None,
            "calibration": None,
            "rows": 2,
        }

    def test_agrees_with_each_metric_by_itself(self) -> None:
        label, score = skewed_rows(5_000, seed=3, digits=3)
        block = metrics.evaluate_scores(label, score)
        for name in ("auc", "logloss", "normalized_entropy", "calibration"):
            assert block[name] == getattr(metrics, name)(label, score)

    @given(tied_rows(), st.randoms(use_true_random=False))
    def test_does_not_depend_on_the_order_of_rows(self, rows: Rows, random: Random) -> None:
        label, score = rows
        order = np.arange(len(label))
        random.shuffle(order)  # type: ignore[arg-type]
        assert metrics.evaluate_scores(label, score) == metrics.evaluate_scores(
            label[order], score[order]
        )

    def test_does_not_depend_on_where_blocks_of_rows_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        label, score = skewed_rows(1_000, seed=4)
        whole = metrics.evaluate_scores(label, score)
        monkeypatch.setattr("recsys_had.metrics.counts.BLOCK_ROWS", 7)
        assert metrics.evaluate_scores(label, score) == whole


class TestErrors:
    @pytest.mark.parametrize("metric", ["auc", "logloss", "normalized_entropy", "calibration"])
    def test_no_rows_are_refused_by_a_single_metric(self, metric: str) -> None:
        line = f"{metric}: label must have at least one row; got 0. Leave out empty splits."
        with pytest.raises(ValueError, match=message(line)):
            getattr(metrics, metric)([], [])

    @pytest.mark.parametrize("metric", ["logloss", "normalized_entropy", "calibration"])
    def test_logits_are_refused_where_a_probability_is_needed(self, metric: str) -> None:
        line = (
            f"{metric}: score must lie in [0, 1]; got -2.0 in row 0, the first of 2 such rows. "
            "Pass probabilities, not logits."
        )
        with pytest.raises(ValueError, match=message(line)):
            getattr(metrics, metric)([0, 1, 1], [-2.0, 0.5, 3.0])

    def test_every_problem_is_told_at_once(self) -> None:
        lines = (
            (
                "auc: label and score must have the same number of rows; got 3 and 2. Pass one "
                "score per label."
            ),
            (
                "auc: label must be 0 or 1; got 2 in row 1, the first of 2 such rows. Map clicks "
                "to 1 and the rest to 0."
            ),
            "auc: score must not be NaN; got nan in row 1. Look for weights that diverged.",
        )
        with pytest.raises(ValueError, match=message(*lines)):
            metrics.auc([1, 2, -1], [0.5, math.nan])

    def test_a_missing_label_is_refused(self) -> None:
        line = "auc: label must be 0 or 1; got nan in row 1. Map clicks to 1 and the rest to 0."
        with pytest.raises(ValueError, match=message(line)):
            metrics.auc([0.0, math.nan, 1.0], [0.1, 0.2, 0.3])

    def test_columns_and_text_are_refused(self) -> None:
        lines = (
            "evaluate_scores: label must hold numbers; got <U1. Cast it first.",
            "evaluate_scores: score must have one axis; got shape (2, 1). Flatten it.",
        )
        with pytest.raises(ValueError, match=message(*lines)):
            metrics.evaluate_scores(["0", "1"], [[0.5], [0.5]])
