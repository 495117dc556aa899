"""Which of two values of a metric is the better one."""

import math

import pytest

from recsys_had import metrics
from tests.metrics.scored_rows import message


class TestImproves:
    @pytest.mark.parametrize(
        ("metric", "value", "best", "min_delta", "expected"),
        [
            ("auc", 0.7, None, 0.0, True),
            ("auc", 0.75, 0.5, 0.0, True),
            ("auc", 0.5, 0.5, 0.0, False),
            ("auc", 0.75, 0.5, 0.25, False),  # a gain of exactly min_delta
            ("auc", 0.875, 0.5, 0.25, True),
            ("logloss", 0.25, 0.5, 0.0, True),
            ("logloss", 0.25, 0.5, 0.25, False),
            ("normalized_entropy", 0.75, 0.5, 0.0, False),
            ("logloss", math.nan, None, 0.0, False),
            ("auc_minus_logloss", 0.3, 0.2, 0.0, True),
        ],
    )
    def test_goes_the_way_of_the_metric(
        self, metric: str, value: float, best: float | None, min_delta: float, expected: bool
    ) -> None:
        assert metrics.improves(metric, value, best, min_delta) is expected

    @pytest.mark.parametrize(
        ("metric", "advice"),
        [("log_loss", "Did you mean 'logloss'?"), ("calibration", "Choose one of them.")],
    )
    def test_refuses_a_metric_without_a_direction(self, metric: str, advice: str) -> None:
        line = (
            "improves: metric must be one of auc, logloss, normalized_entropy, "
            f"auc_minus_logloss; got {metric!r}. {advice}"
        )
        with pytest.raises(ValueError, match=message(line)):
            metrics.improves(metric, 0.5, None)

    def test_judges_by_auc_less_logloss_where_both_are_defined(self) -> None:
        block = {"auc": 0.75, "logloss": 0.5, "normalized_entropy": 0.8}
        assert metrics.monitored(block, "auc_minus_logloss") == 0.25
        assert metrics.monitored(block, "normalized_entropy") == 0.8
        assert metrics.monitored({**block, "auc": None}, "auc_minus_logloss") is None
        assert metrics.monitored({**block, "logloss": None}, "auc_minus_logloss") is None

    def test_refuses_a_negative_min_delta(self) -> None:
        line = "improves: min_delta must not be negative; got -0.1. Use 0 to count any gain."
        with pytest.raises(ValueError, match=message(line)):
            metrics.improves("auc", 0.5, None, min_delta=-0.1)
