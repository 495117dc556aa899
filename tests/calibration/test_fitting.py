"""Fitting: equal to scikit-learn's on the same rows, by segments, and refused where it must be."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from recsys_had.calibration import METHODS, ToScores, fit_calibrator, judge
from recsys_had.calibration.fitting import newton, platt_targets
from recsys_had.errors import DataError
from recsys_had.metrics import expected_calibration_error

Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]


def rows_of(num_rows: int, seed: int = 0, *, slope: float = 0.6, intercept: float = 0.4) -> Arrays:
    """Labels, logits that are too sure of themselves, and weights."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-0.5, 2.5, num_rows).astype(np.float32)
    rate = 1 / (1 + np.exp(-(slope * logits.astype(np.float64) + intercept)))
    label = (generator.random(num_rows) < rate).astype(np.float32)
    return label, logits, generator.choice([0.5, 1.0, 4.0], num_rows)


def soft_rows(label: Any, logits: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Each row twice, so that scikit-learn's hard labels stand for Platt's targets."""
    target = platt_targets(label == 1, weight)
    z = np.concatenate([logits, logits]).astype(np.float64)
    hard = np.concatenate([np.ones_like(label), np.zeros_like(label)])
    return z, hard, np.concatenate([weight * target, weight * (1 - target)])


@pytest.mark.parametrize("weighted", [False, True])
def test_platt_is_scikit_learns_logistic_regression_of_platts_targets(weighted: bool) -> None:
    label, logits, weight = rows_of(3000)
    weight = weight if weighted else np.ones(3000)
    z, hard, weights = soft_rows(label, logits, weight)
    theirs = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12)
    theirs.fit(z[:, None], hard, weights)
    ours = fit_calibrator(label, logits, weight if weighted else None, method="platt").whole
    assert ours.model_dump()["slope"] == pytest.approx(theirs.coef_[0, 0], rel=1e-6)
    assert ours.model_dump()["intercept"] == pytest.approx(theirs.intercept_[0], rel=1e-6)


def test_platts_targets_are_posterior_means() -> None:
    # Three clicks, one miss: 4/5 and 1/3; weights of mean 1 count as rows.
    found = platt_targets(np.array([True, True, True, False]), np.full(4, 2.0))
    assert found.tolist() == pytest.approx([0.8, 0.8, 0.8, 1 / 3])


@pytest.mark.parametrize("method", ["temperature", "beta"])
def test_nothing_fits_better_in_its_family(method: str) -> None:
    label, logits, weight = rows_of(2000, seed=3)
    target = platt_targets(label == 1, weight)
    z = logits.astype(np.float64)

    def loss(parameters: Any) -> float:
        if method == "temperature":
            found = z / parameters[0]
        else:
            a, b, c = parameters
            found = -a * np.logaddexp(0, -z) + b * np.logaddexp(0, z) + c
        return float(weight @ (np.logaddexp(0, found) - target * found)) / len(z)

    start = [1.0] if method == "temperature" else [1.0, 1.0, 0.0]
    best = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
    ours = fit_calibrator(label, logits, weight, method=method).whole.model_dump()  # type: ignore[arg-type]
    found = [ours[name] for name in (["temperature"] if method == "temperature" else "abc")]
    assert found == pytest.approx(best.x, abs=1e-5)


def test_isotonic_is_scikit_learns_between_the_knots_and_outside_them() -> None:
    label, logits, weight = rows_of(2000, seed=5)
    logits = np.round(logits, 1)  # many ties
    target = platt_targets(label == 1, weight)
    theirs = IsotonicRegression(y_min=target.min(), y_max=target.max(), out_of_bounds="clip")
    theirs.fit(logits.astype(np.float64), label, weight)
    ours = fit_calibrator(label, logits, weight, method="isotonic").whole
    asked = np.concatenate([np.linspace(-30, 30, 2001), logits])
    np.testing.assert_allclose(ours(asked), theirs.predict(asked), rtol=0, atol=1e-12)
    assert 0 < ours(np.array([-99.0]))[0] < ours(np.array([99.0]))[0] < 1


def test_centered_isotonic_has_a_knot_in_the_middle_of_each_level() -> None:
    """Levels by hand: 30 rows at -2 and 30 at 0 fall, so they pool to 15/60; 60 at 3 have 45/60."""
    logits = np.repeat(np.array([-2.0, 0.0, 3.0]), [30, 30, 60])
    label = np.concatenate([np.arange(30) < 9, np.arange(30) < 6, np.arange(60) < 45])
    found = fit_calibrator(label.astype(np.float32), logits, method="centered_isotonic").whole
    assert found.model_dump()["knots"] == pytest.approx([-1.0, 3.0])
    assert found.model_dump()["logits"] == pytest.approx([np.log(15 / 45), np.log(45 / 15)])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    digits=st.integers(0, 6),
    method=st.sampled_from(METHODS),
    weighted=st.booleans(),
)
def test_any_rows_give_a_rising_map_of_probabilities(
    seed: int, digits: int, method: Any, weighted: bool
) -> None:
    label, logits, weight = rows_of(300, seed)
    logits = np.round(logits, digits)
    fitted = fit_calibrator(label, logits, weight if weighted else None, method=method)
    asked = np.linspace(-25, 25, 501, dtype=np.float32)
    found = ToScores(calibrator=fitted)(asked)
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()
    if method != "isotonic":
        before, after = (roc_auc_score(label, values) for values in (logits, fitted.whole(logits)))
        assert after == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_a_threshold_parts_get_finite_maps(method: Any) -> None:
    logits = np.linspace(-3, 3, 200)
    fitted = fit_calibrator((logits > 0).astype(np.float32), logits, method=method)
    found = fitted(np.array([-50.0, 50.0]))
    assert np.isfinite(found).all()
    assert found[0] < 0.02 and found[1] > 0.98


def test_a_beta_coefficient_that_would_fall_is_left_out() -> None:
    label, logits, _ = rows_of(4000, seed=2, slope=0.0, intercept=0.0)
    sure = logits > 1.5
    label = np.where(sure, (np.arange(4000) % 10 > 0), label).astype(np.float32)
    target = platt_targets(label == 1, np.ones(4000))
    z = logits.astype(np.float64)
    free = newton(
        np.column_stack([-np.logaddexp(0, -z), np.logaddexp(0, z), np.ones_like(z)]),
        target,
        np.ones(4000),
    )
    assert free[0] < 0 < free[1]
    found = fit_calibrator(label, logits, method="beta").whole.model_dump()
    alone = newton(np.column_stack([np.logaddexp(0, z), np.ones_like(z)]), target, np.ones(4000))
    assert found["a"] == 0
    assert [found["b"], found["c"]] == pytest.approx(alone)


@pytest.mark.parametrize("method", METHODS)
def test_a_segment_is_fitted_as_if_it_were_alone(method: Any) -> None:
    label, logits, weight = rows_of(4000, seed=8)
    segments = np.repeat([1, 2, 3, 0], [1500, 600, 1500, 400]).astype(np.int32)
    label[3000:3600] = 0  # of segment 3 few click, in rows of either kind
    found = fit_calibrator(
        label, logits, weight, method=method, field="site", segments=segments,
        min_segment_rows=1000,
    )  # fmt: skip
    assert sorted(found.segments) == [1, 3]
    for segment in (1, 3):
        mine = segments == segment
        alone = fit_calibrator(label[mine], logits[mine], weight[mine], method=method)
        assert found.segments[segment] == alone.whole
    assert found.whole == fit_calibrator(label, logits, weight, method=method).whole
    assert found.fitted_on == {"rows": 4000, "clicks": int(label.sum())}


def test_segments_that_nothing_can_be_fitted_to_share_the_map_of_all() -> None:
    label, logits, _ = rows_of(5000, seed=9)
    segments = np.repeat([1, 2, 3, 0], [1000, 1000, 1000, 2000])
    label[:1000] = np.arange(1000) < 9  # nine clicks
    label[1000:2000] = logits[1000:2000] < 0  # turned round
    found = fit_calibrator(
        label, logits, method="platt", field="site", segments=segments, min_segment_rows=1000
    )
    assert sorted(found.segments) == [3]


def test_rows_of_weight_0_count_for_nothing() -> None:
    label, logits, _ = rows_of(2000)
    weight = (np.arange(2000) < 1200).astype(np.float64)
    some = fit_calibrator(label, logits, weight, method="centered_isotonic")
    assert some == fit_calibrator(label[:1200], logits[:1200], method="centered_isotonic")


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_fitted_is_refused(method: Any) -> None:
    label, logits, _ = rows_of(400)
    many = np.ones(400, np.float32)
    few = (np.arange(400) < 9).astype(np.float32)
    wrong = logits.copy()
    wrong[[7, 9]] = np.nan, np.inf
    for labels, values, weight, told in (
        (label[:99], logits[:99], None, "rows: calibration needs 100 rows that count; got 99."),
        (label, logits, np.arange(400) < 50.0, "needs 100 rows that count; got 50."),
        (many, logits, None, "needs 10 rows of either label; got 400 of label 1 and 0 of label 0"),
        (few, logits, None, "needs 10 rows of either label; got 9 of label 1 and 391 of label 0"),
        (label, wrong, None, "rows: 2 of 400 logits are not finite numbers; the first is nan, of"),
        (label, -logits, None, "rows: clicks do not become likelier as logits rise"),
    ):
        with pytest.raises(DataError) as error:
            fit_calibrator(
                labels, values, None if weight is None else weight * 1.0,
                method=method, place="rows",
            )  # fmt: skip
        assert told in str(error.value)


def test_a_judgement_finds_no_more_than_chance_where_there_is_nothing_to_mend() -> None:
    """Scores that are right already: the error of other rows is that of chance, not less."""
    before, after = [], []
    for seed in range(8):
        label, logits, _ = rows_of(4000, seed, slope=1.0, intercept=0.0)
        judged = judge(label, logits, method="platt")
        before.append(judged.before["ece"])
        after.append(judged.after["ece"])
    assert np.mean(after) > 0.95 * np.mean(before)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_a_judgement_tells_what_two_fits_by_hand_come_to(method: Any) -> None:
    # 0.6 * (logit - 0.3): a temperature alone can mend it.
    label, logits, weight = rows_of(6000, seed=6, intercept=-0.18)
    judged = judge(label, logits, weight, shift=-0.3, method=method)
    first = np.zeros(6000, np.bool_)
    first[np.random.default_rng(7).permutation(6000)[:3000]] = True
    after = np.empty(6000, np.float32)
    for half in (first, ~first):
        fitted = fit_calibrator(
            label[half], logits[half].astype(np.float64) - 0.3, weight[half], method=method
        )
        after[~half] = fitted.whole(logits[~half].astype(np.float64) - 0.3)
    np.testing.assert_array_equal(judged.scores_after, after)
    halves = (first, ~first)
    errors = [expected_calibration_error(label[h], after[h], weight[h]) for h in halves]
    assert judged.after["ece"] == pytest.approx(np.mean([error.ece for error in errors]))
    assert judged.after["ece_low"] == pytest.approx(np.mean([error.low for error in errors]))
    areas = [roc_auc_score(label[h], after[h], sample_weight=weight[h]) for h in halves]
    assert judged.after["auc"] == pytest.approx(np.mean(areas), abs=1e-12)
    assert judged.before["ece"] is not None
    assert judged.after["ece"] < 0.5 * judged.before["ece"]  # type: ignore[operator]
    if method != "isotonic":
        assert judged.after["auc"] == pytest.approx(judged.before["auc"], abs=1e-6)
