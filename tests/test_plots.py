"""Plots: the numbers behind them by hand and by scikit-learn, then the pictures themselves."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import (  # type: ignore[import-untyped, unused-ignore]
    auc as trapezoid_area,
)
from sklearn.metrics import roc_curve

from recsys_had import metrics, plots

Rows = tuple[NDArray[np.bool_], NDArray[np.float32]]


def calibrated_rows(num_rows: int, mean_logit: float, seed: int = 0) -> Rows:
    """Gives rows whose clicks follow their scores."""
    rng = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(-mean_logit - rng.normal(size=num_rows)))
    return rng.random(num_rows) < score, score.astype(np.float32)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collects the figures that a test saves, to look inside them."""
    figures: list[Figure] = []
    save = plots.save_png

    def keep_and_save(figure: Figure, path: str | Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "save_png", keep_and_save)
    return figures


def texts(axes: Axes) -> str:
    """Gives all that is written on the axes: the title, its subtitle and what lies inside."""
    return "\n".join([axes.get_title(loc="left"), *(text.get_text() for text in axes.texts)])


def message(line: str) -> str:
    """Makes a pattern for ``match`` that holds the whole message."""
    return "^" + re.escape(line) + "$"


class TestRocPoints:
    def test_steps_through_the_thresholds_and_joins_ties_by_a_slope(self) -> None:
        # 0.9: a click (0, 1/2). 0.6: a click and a miss at once (1/2, 1). 0.2: a miss (1, 1).
        false_rate, true_rate = plots.roc_points([0, 1, 0, 1], [0.2, 0.9, 0.6, 0.6])
        assert false_rate.tolist() == [0, 0, 0.5, 1]
        assert true_rate.tolist() == [0, 0.5, 1, 1]

    @given(st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=2, max_size=60))
    def test_equal_scikit_learn_under_heavy_ties(self, pairs: list[tuple[bool, int]]) -> None:
        label = np.array([clicked for clicked, _ in pairs])
        score = np.array([value for _, value in pairs], dtype=np.float32)
        if label.all() or not label.any():
            return
        expected = roc_curve(label, score, drop_intermediate=False)
        false_rate, true_rate = plots.roc_points(label, score)
        np.testing.assert_allclose(false_rate, expected[0])
        np.testing.assert_allclose(true_rate, expected[1])

    def test_of_many_rows_are_few_and_keep_the_area_and_both_ends(self) -> None:
        label, score = calibrated_rows(50_000, mean_logit=-3)
        false_rate, true_rate = plots.roc_points(label, score)
        assert len(false_rate) <= 2_000
        assert (false_rate[0], true_rate[0]) == (0, 0)
        assert (false_rate[-1], true_rate[-1]) == (1, 1)
        area = trapezoid_area(false_rate, true_rate)
        assert area == pytest.approx(metrics.auc(label, score), abs=1e-3)

    def test_of_many_rows_are_corners_of_the_whole_curve(self) -> None:
        label, score = calibrated_rows(5_000, mean_logit=-1)
        whole = set(zip(*plots.roc_points(label, score, max_points=10_000), strict=True))
        few = list(zip(*plots.roc_points(label, score, max_points=50), strict=True))
        assert len(few) <= 50
        assert whole.issuperset(few)

    def test_refuse_one_class(self) -> None:
        line = (
            "roc_points: label must hold both classes; got 2 rows, 100 % clicked. Leave out splits "
            "of one class."
        )
        with pytest.raises(ValueError, match=message(line)):
            plots.roc_points([1, 1], [0.1, 0.2])


class TestCalibrationPoints:
    def test_compare_the_mean_score_of_a_bin_with_its_clicks(self) -> None:
        # sorted: 0.125 0.25 0.375 | 0.5 0.75 1.0, with clicks at 0.25, 0.75 and 1.0
        points = plots.calibration_points(
            [1, 0, 0, 1, 0, 1], [0.75, 0.125, 0.5, 0.25, 0.375, 1.0], bins=2
        )
        assert points.predicted.tolist() == [0.25, 0.75]
        assert points.observed.tolist() == [1 / 3, 2 / 3]
        assert points.rows.tolist() == [3, 3]

    def test_carry_the_wilson_interval(self) -> None:
        # 1 click in 10 rows, z = 1.96: z^2 = 3.8416; middle (1 + 1.9208) / 13.8416 = 0.21102
        # spread 1.96 * sqrt(1 * 9 / 10 + 0.9604) / 13.8416 = 1.96 * 1.36396 / 13.8416 = 0.19314
        points = plots.calibration_points([1] + [0] * 9, [0.1] * 10)
        assert points.lower == pytest.approx([0.01788], abs=2e-5)
        assert points.upper == pytest.approx([0.40416], abs=2e-5)

    def test_never_part_rows_of_one_score(self) -> None:
        # six rows in three bins would cut 0.5 twice: its five rows stay together
        points = plots.calibration_points([0, 1, 0, 1, 0, 1], [0.25] + [0.5] * 5, bins=3)
        assert points.rows.tolist() == [6]
        points = plots.calibration_points([0, 1, 0, 1, 0, 1], [0.25, 0.25] + [0.5] * 4, bins=3)
        assert points.rows.tolist() == [2, 4]

    @given(
        st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32)), min_size=1, max_size=60),
        st.integers(1, 30),
    )
    def test_hold_every_row_once_and_rise(self, pairs: list[tuple[bool, float]], bins: int) -> None:
        label = np.array([clicked for clicked, _ in pairs])
        score = np.array([value for _, value in pairs])
        points = plots.calibration_points(label, score, bins)
        assert len(points.rows) <= bins
        assert points.rows.min() > 0
        assert points.rows.sum() == len(pairs)
        assert (points.rows * points.observed).sum() == pytest.approx(label.sum())
        assert (points.rows * points.predicted).sum() == pytest.approx(score.sum())
        assert (np.diff(points.predicted) > 0).all()
        assert (points.lower <= points.observed + 1e-12).all()
        assert (points.observed <= points.upper + 1e-12).all()

    def test_refuse_less_than_one_bin(self) -> None:
        line = "calibration_points: bins must be at least 1; got 0. Leave it out for 20."
        with pytest.raises(ValueError, match=message(line)):
            plots.calibration_points([0, 1], [0.1, 0.2], bins=0)


class TestRocCurvePng:
    def test_tells_the_exact_auc_and_the_rows(self, tmp_path: Path, drawn: list[Figure]) -> None:
        # the three pairs that a click wins of four: see metrics/test_exact.py
        plots.roc_curve_png([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], tmp_path / "roc.png")
        written = texts(drawn[0].axes[0])
        assert "ROC curve: AUC 0.7500" in written
        assert "4 rows, 50 % clicked" in written

    def test_tells_a_note_after_the_rows(self, tmp_path: Path, drawn: list[Figure]) -> None:
        rows = ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        plots.roc_curve_png(*rows, tmp_path / "roc.png", note="each counted once")
        plots.calibration_png(*rows, tmp_path / "c.png", bins=2, note="each counted once")
        told = "4 rows, 50 % clicked, each counted once"
        assert told in texts(drawn[0].axes[0])
        assert f"{told}; 2 bins of 2 rows" in texts(drawn[1].axes[0])

    def test_stays_small_for_many_rows(self, tmp_path: Path, drawn: list[Figure]) -> None:
        path = tmp_path / "roc.png"
        plots.roc_curve_png(*calibrated_rows(200_000, mean_logit=-3), path)
        assert path.stat().st_size < 150_000
        assert max(len(line.get_xdata()) for line in drawn[0].axes[0].lines) <= 2_000  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("label", "reason"),
        [
            ([], "This split has no rows."),
            ([0, 0], "Every row of this split has label 0 (no click)."),
            ([1, 1], "Every row of this split has label 1 (a click)."),
        ],
    )
    def test_says_why_there_is_no_curve(
        self, tmp_path: Path, drawn: list[Figure], label: list[int], reason: str
    ) -> None:
        plots.roc_curve_png(label, [0.5] * len(label), tmp_path / "roc.png")
        assert f"{reason}\nA ROC curve needs both classes." in texts(drawn[0].axes[0])
        assert (tmp_path / "roc.png").stat().st_size > 0

    def test_refuses_a_score_that_is_not_a_number(self, tmp_path: Path) -> None:
        line = (
            "roc_curve_png: score must not be NaN; got nan in row 0. Look for weights that "
            "diverged."
        )
        with pytest.raises(ValueError, match=message(line)):
            plots.roc_curve_png([0, 1], [np.nan, 0.5], tmp_path / "roc.png")
        assert not (tmp_path / "roc.png").exists()


class TestCalibrationPng:
    def test_tells_the_ratio_the_rows_and_the_bins(
        self, tmp_path: Path, drawn: list[Figure]
    ) -> None:
        # 0.25 + 0.5 + 0.5 + 0.5 = 1.75 promised, 2 clicks seen; 0.5 cannot be cut
        plots.calibration_png([1, 1, 0, 0], [0.25, 0.5, 0.5, 0.5], tmp_path / "c.png")
        written = texts(drawn[0].axes[0])
        assert "Calibration: predicted / observed 0.8750" in written
        assert "4 rows, 50 % clicked; 2 bins of 1 to 3 rows" in written

    @pytest.mark.parametrize(("mean_logit", "scale"), [(-5.0, "log"), (4.0, "linear")])
    def test_takes_log_axes_where_the_predictions_spread_wide(
        self, tmp_path: Path, drawn: list[Figure], mean_logit: float, scale: str
    ) -> None:
        plots.calibration_png(*calibrated_rows(20_000, mean_logit), tmp_path / "c.png")
        axes = drawn[0].axes[0]
        assert (axes.get_xscale(), axes.get_yscale()) == (scale, scale)
        assert axes.get_xlim() == axes.get_ylim()

    def test_marks_bins_without_a_click(self, tmp_path: Path, drawn: list[Figure]) -> None:
        label, score = [0] * 50 + [1] * 50, np.geomspace(0.001, 0.9, 100)
        plots.calibration_png(label, score, tmp_path / "c.png", bins=4)
        legend = drawn[0].axes[0].get_legend()
        assert legend is not None
        assert "bin without a click" in [text.get_text() for text in legend.get_texts()]

    @pytest.mark.parametrize("score", [0.0, 1e-30, 0.5, 1.0])
    @pytest.mark.parametrize("label", [[0], [1], [0, 0, 1]])
    def test_draws_constant_scores_of_any_size(
        self, tmp_path: Path, label: list[int], score: float
    ) -> None:
        plots.calibration_png(label, [score] * len(label), tmp_path / "c.png")
        assert (tmp_path / "c.png").stat().st_size > 0

    def test_draws_scores_over_many_decades(self, tmp_path: Path) -> None:
        score = np.geomspace(1e-30, 1, 200)
        plots.calibration_png(score > 0.1, score, tmp_path / "c.png")
        assert (tmp_path / "c.png").stat().st_size < 150_000

    def test_says_that_there_are_no_clicks_or_no_rows(
        self, tmp_path: Path, drawn: list[Figure]
    ) -> None:
        plots.calibration_png([0, 0], [0.1, 0.2], tmp_path / "c.png")
        plots.calibration_png([], [], tmp_path / "c.png")
        assert "Calibration: no click to compare with" in texts(drawn[0].axes[0])
        assert "This split has no rows.\nCalibration needs scored rows." in texts(drawn[1].axes[0])

    def test_refuses_logits_and_less_than_one_bin(self, tmp_path: Path) -> None:
        line = (
            "calibration_png: score must lie in [0, 1]; got -2.0 in row 0. Pass probabilities, not "
            "logits."
        )
        with pytest.raises(ValueError, match=message(line)):
            plots.calibration_png([0, 1], [-2.0, 0.5], tmp_path / "c.png")
        line = "calibration_png: bins must be at least 1; got 0. Leave it out for 20."
        with pytest.raises(ValueError, match=message(line)):
            plots.calibration_png([], [], tmp_path / "c.png", bins=0)


class TestBothPictures:
    def test_of_the_same_rows_are_the_same_bytes(self, tmp_path: Path) -> None:
        rows = calibrated_rows(2_000, mean_logit=-2)
        for draw in (plots.roc_curve_png, plots.calibration_png):
            for name in ("first.png", "second.png"):
                draw(*rows, tmp_path / name)
            first, second = (tmp_path / name for name in ("first.png", "second.png"))
            assert first.read_bytes() == second.read_bytes()

    def test_leave_pyplot_without_a_figure(self, tmp_path: Path) -> None:
        from matplotlib import pyplot

        before = pyplot.get_fignums()
        plots.roc_curve_png([0, 1], [0.1, 0.2], str(tmp_path / "roc.png"))
        plots.calibration_png([0, 1], [0.1, 0.2], str(tmp_path / "c.png"))
        assert pyplot.get_fignums() == before
