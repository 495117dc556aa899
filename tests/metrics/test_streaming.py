"""Streaming metrics: of batches as of all rows, whatever their order; AUC within its bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_had import metrics
from recsys_had.metrics import StreamingMetrics
from tests.metrics.scored_rows import Rows, message, skewed_rows, tied_rows


class TestStreamingMetrics:
    @settings(deadline=None)
    @given(st.lists(tied_rows(min_size=0), max_size=5))
    def test_of_batches_equals_that_of_all_rows_in_any_order(self, batches: list[Rows]) -> None:
        whole, one_by_one, backwards = (StreamingMetrics() for _ in range(3))
        if batches:
            whole.add(
                np.concatenate([label for label, _ in batches]),
                np.concatenate([score for _, score in batches]),
            )
        for label, score in batches:
            one_by_one.add(label, score)
        for label, score in reversed(batches):
            part = StreamingMetrics()
            part.add(label, score)
            backwards.merge(part)
        assert np.array_equal(whole.state, one_by_one.state)
        assert np.array_equal(whole.state, backwards.state)
        assert whole.result() == backwards.result()

    def test_state_adds_up_in_place_as_an_all_reduce_would(self) -> None:
        label, score = skewed_rows(3_000, seed=5)
        whole, first, second = (StreamingMetrics() for _ in range(3))
        whole.add(label, score)
        first.add(label[:1_000], score[:1_000])
        second.add(label[1_000:], score[1_000:])
        first.state += second.state
        assert first.result() == whole.result()

    @settings(deadline=None)
    @given(tied_rows(min_size=0))
    def test_equals_the_exact_block_but_for_auc(self, rows: Rows) -> None:
        streaming = StreamingMetrics()
        streaming.add(*rows)
        exact, block, bound = (
            metrics.evaluate_scores(*rows),
            streaming.result(),
            streaming.auc_error_bound,
        )
        for name in ("logloss", "normalized_entropy", "calibration", "rows"):
            assert block[name] == exact[name]
        if exact["auc"] is None:
            assert block["auc"] is None and bound is None
        else:
            assert block["auc"] is not None and bound is not None
            assert abs(block["auc"] - exact["auc"]) <= bound + 1e-15

    @pytest.mark.parametrize("shift", [-9.0, -3.0, 0.0, 6.0])
    def test_auc_stays_within_a_small_bound_on_skewed_scores(self, shift: float) -> None:
        rng = np.random.default_rng(6)
        score = (1 / (1 + np.exp(-shift - 1.5 * rng.normal(size=100_000)))).astype(np.float32)
        label = rng.random(len(score)) < score
        streaming = StreamingMetrics()
        streaming.add(label, score)
        area, exact = streaming.result()["auc"], metrics.auc(label, score)
        bound = streaming.auc_error_bound
        assert area is not None and exact is not None and bound is not None
        assert abs(area - exact) <= bound <= 1e-4

    def test_auc_error_bound_is_half_the_share_of_pairs_in_one_bin(self) -> None:
        streaming = StreamingMetrics()
        streaming.add([1, 0, 0], [0.5, 0.5 + 2**-20, 0.25])
        # 0.5 and 0.5 + 2**-20 share a bin, so 1 of 2 pairs is uncertain by a half. The exact
        # area is 1/2, the streaming one (1/2 + 1) / 2.
        assert streaming.auc_error_bound == 0.25
        assert streaming.result()["auc"] == 0.75

    def test_of_no_rows_equals_the_exact_block(self) -> None:
        streaming = StreamingMetrics()
        streaming.add([], [])
        assert streaming.result() == metrics.evaluate_scores([], [])
        assert streaming.auc_error_bound is None

    def test_counts_nothing_of_a_batch_it_refuses(self) -> None:
        streaming = StreamingMetrics()
        line = (
            "StreamingMetrics.add: score must lie in [0, 1]; got 1.5 in row 1. Pass probabilities, "
            "not logits."
        )
        with pytest.raises(ValueError, match=message(line)):
            streaming.add([0, 1], [0.5, 1.5])
        assert not streaming.state.any()
