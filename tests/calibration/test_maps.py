"""The maps from logits to probabilities: their formulas, their order, and what is refused."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_had.calibration import Calibrator, ToScores, log_kept_share, parse_calibrator
from recsys_had.calibration.maps import (
    BetaMap,
    CenteredIsotonicMap,
    IsotonicMap,
    PlattMap,
    TemperatureMap,
    log_sigmoid,
    sigmoid,
)
from recsys_had.errors import CheckpointError

STRICT = {
    "platt": PlattMap(slope=0.7, intercept=-0.3),
    "temperature": TemperatureMap(temperature=1.8),
    "beta": BetaMap(a=0.5, b=1.5, c=-0.2),
    "centered_isotonic": CenteredIsotonicMap(knots=(-3.0, -1.0, 2.0), logits=(-4.0, -3.5, 1.0)),
}
ISOTONIC = IsotonicMap(knots=(-2.0, 0.0, 1.0, 3.0), probabilities=(0.1, 0.25, 0.25, 0.75))
MAPS = {**STRICT, "isotonic": ISOTONIC}
SEGMENTED = Calibrator(
    whole=STRICT["platt"], field="site", segments={3: ISOTONIC, 8: STRICT["temperature"]}
)
logits = st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=40)


def by_hand(name: str, z: float) -> float:
    """The formulas of the papers, a row at a time."""
    q = 1 / (1 + math.exp(-z))
    match name:
        case "platt":
            return 1 / (1 + math.exp(-(0.7 * z - 0.3)))
        case "temperature":
            return 1 / (1 + math.exp(-z / 1.8))
        case "beta":
            odds = math.exp(-0.2) * q**0.5 / (1 - q) ** 1.5
            return odds / (1 + odds)
        case "isotonic":
            if z <= -2 or z >= 3:
                return 0.1 if z <= -2 else 0.75
            if z <= 0:
                return 0.1 + (z + 2) / 2 * 0.15
            return 0.25 if z <= 1 else 0.25 + (z - 1) / 2 * 0.5
        case _:
            if z <= -3 or z >= 2:
                found = z - 1
            else:
                found = -4 + (z + 3) / 4 if z <= -1 else -3.5 + (z + 1) * 1.5
            return 1 / (1 + math.exp(-found))


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_its_formula(name: str) -> None:
    rows = [-9.0, -3.0, -2.0, -1.25, -1.0, 0.0, 0.5, 1.0, 1.75, 2.0, 3.0, 7.5]
    expected = [by_hand(name, z) for z in rows]
    assert MAPS[name](np.array(rows)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", MAPS)
@settings(deadline=None)
@given(rows=logits)
def test_probabilities_rise_with_logits_and_are_probabilities(name: str, rows: list[float]) -> None:
    ascending = np.sort(np.array(rows))
    found = MAPS[name](ascending)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("name", STRICT)
@settings(deadline=None)
@given(low=st.floats(-12, 12), gap=st.floats(1e-3, 5))
def test_strict_maps_keep_every_two_rows_apart(name: str, low: float, gap: float) -> None:
    below, above = STRICT[name](np.array([low, low + gap]))
    assert below < above


def test_the_logistic_function_is_numbers_at_its_ends() -> None:
    ends = np.array([-1e4, -800.0, -40.0, 40.0, 800.0, 1e4])
    assert sigmoid(ends).tolist() == [0.0, 0.0, math.exp(-40.0), 1.0, 1.0, 1.0]
    assert log_sigmoid(ends).tolist() == [-1e4, -800.0, -40.0, -math.exp(-40.0), 0.0, 0.0]
    assert np.isnan(ToScores(shift=-1.0)(np.array([np.nan], np.float32))).all()


def test_left_out_negatives_are_put_back_as_bayes_rule_says() -> None:
    """In 1,000 rows like these 40 click; of the others 96 in 960 are kept, and 40 in 136 click."""
    kept = 0.1
    seen = 40 / (40 + 960 * kept)
    logit = np.array([math.log(seen / (1 - seen))], np.float32)
    shift = log_kept_share({"negatives": kept, "left_out": 864})
    assert ToScores(shift=shift)(logit).tolist() == pytest.approx([40 / 1000], rel=1e-6)
    assert log_kept_share({"negatives": kept, "left_out": 0}) == 0.0
    rows = np.linspace(-8, 8, 33).astype(np.float32)
    q = 1 / (1 + np.exp(-rows.astype(np.float64)))
    expected = q / (q + (1 - q) / kept)
    assert ToScores(shift=shift)(rows) == pytest.approx(expected, rel=1e-6)


def test_the_calibrator_comes_after_the_correction() -> None:
    calibrator = Calibrator(whole=PlattMap(slope=2.0, intercept=1.0))
    to_scores = ToScores(shift=-0.5, calibrator=calibrator)
    # 2 * (1 - 0.5) + 1 = 2; the other way round it would be 2 * 1 + 1 - 0.5 = 2.5.
    expected = 1 / (1 + math.exp(-2.0))
    assert to_scores(np.array([1.0], np.float32)).tolist() == pytest.approx([expected], rel=1e-7)


@pytest.mark.parametrize("name", [*MAPS, "none", "segmented"])
def test_a_score_does_not_depend_on_the_rows_it_is_scored_with(name: str) -> None:
    generator = np.random.default_rng(1)
    rows = generator.normal(0, 4, 4096).astype(np.float32)
    segments = generator.integers(0, 10, 4096).astype(np.int32)
    calibrator = SEGMENTED
    if name != "segmented":
        calibrator = None if name == "none" else Calibrator(whole=MAPS[name])
    to_scores = ToScores(shift=-0.7, calibrator=calibrator)
    whole = to_scores(rows, segments)
    assert whole.dtype == np.float32
    for size in (1, 7, 1000):
        parts = [
            to_scores(rows[first : first + size], segments[first : first + size])
            for first in range(0, 4096, size)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    order = generator.permutation(4096)
    assert to_scores(rows[order], segments[order]).tobytes() == whole[order].tobytes()


def test_each_segment_has_its_map_and_the_others_that_of_all() -> None:
    rows = np.array([-1.25, -1.25, -1.25, -1.25])
    found = SEGMENTED(rows, np.array([3, 8, 5, 0]))
    expected = [by_hand(name, -1.25) for name in ("isotonic", "temperature", "platt", "platt")]
    assert found == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match=r"segments must be given where it is fitted by site"):
        SEGMENTED(rows)


@pytest.mark.parametrize("name", [*MAPS, "segmented"])
def test_a_calibrator_is_read_back_to_the_bit(name: str) -> None:
    one = SEGMENTED if name == "segmented" else Calibrator(whole=MAPS[name], fitted_on={"rows": 9})
    assert parse_calibrator(one.to_text(), place="run") == one


@settings(max_examples=30, deadline=None)
@given(slope=st.floats(1e-6, 1e6), intercept=st.floats(-1e6, 1e6))
def test_any_number_is_read_back_to_the_bit(slope: float, intercept: float) -> None:
    one = Calibrator(whole=PlattMap(slope=slope, intercept=intercept))
    assert parse_calibrator(one.to_text(), place="run") == one


@pytest.mark.parametrize(
    "change, told",
    [
        ({"version": 2}, "run/c: version: is not usable"),
        ({"whole": {"method": "platt", "slope": -1.0, "intercept": 0.0}}, "run/c: whole.platt."),
        ({"whole": {"method": "platt", "slope": 1.0}}, "intercept: is not usable: Field required"),
        ({"whole": {"method": "spline"}}, "run/c: whole: is not usable"),
        ({"whole": {"method": "platt", "slope": "1.0", "intercept": 0.0}}, "slope: is not usable"),
        ({"whole": {"method": "beta", "a": 0.0, "b": 0.0, "c": 1.0}}, "a and b must not both be"),
        (
            {"whole": {"method": "isotonic", "knots": [1.0, 0.0], "probabilities": [0.1, 0.2]}},
            "knots must rise",
        ),
        (
            {"whole": {"method": "isotonic", "knots": [0.0, 1.0], "probabilities": [0.3, 0.2]}},
            "probabilities must not fall",
        ),
        (
            {"whole": {"method": "isotonic", "knots": [0.0], "probabilities": [0.3, 0.4]}},
            "there must be a probability a knot; got 2 for 1",
        ),
        (
            {"whole": {"method": "centered_isotonic", "knots": [0.0, 1.0], "logits": [1.0, 1.0]}},
            "knots and logits must rise",
        ),
        (
            {"whole": {"method": "centered_isotonic", "knots": [], "logits": []}},
            "knots: is not usable",
        ),
        (
            {"segments": {"3": {"method": "temperature", "temperature": 1.0}}},
            "segments need the field whose values they are",
        ),
        ({"colour": "red"}, "run/c: colour: is not usable"),
    ],
)
def test_a_damaged_calibrator_is_refused_by_name(change: dict[str, object], told: str) -> None:
    content = json.loads(Calibrator(whole=STRICT["platt"]).to_text())
    with pytest.raises(CheckpointError) as error:
        parse_calibrator(json.dumps({**content, **change}), place="run/c")
    assert told in str(error.value)
    assert all(line.endswith("with `recsys-had calibrate`.") for line in error.value.problems)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"whole": {"method": "platt", "slope": NaN}}'])
def test_text_that_is_no_calibrator_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"^run/c: .*is not usable"):
        parse_calibrator(text, place="run/c")
