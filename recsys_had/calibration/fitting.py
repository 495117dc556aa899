"""Fits calibrators: to labels, corrected logits and weights of rows that did not train."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from recsys_had.calibration.calibrator import Calibrator, Segments
from recsys_had.calibration.maps import (
    BetaMap,
    CenteredIsotonicMap,
    Floats,
    IsotonicMap,
    Map,
    PlattMap,
    TemperatureMap,
    log_sigmoid,
    sigmoid,
)
from recsys_had.errors import DataError

Method = Literal["platt", "temperature", "beta", "isotonic", "centered_isotonic"]
METHODS: tuple[Method, ...] = get_args(Method)

MIN_ROWS = 100
MIN_OF_A_LABEL = 10
Clicked = NDArray[np.bool_]


def fit_calibrator(
    label: NDArray[np.generic],
    logits: NDArray[np.floating[Any]],
    weight: NDArray[np.floating[Any]] | None = None,
    *,
    method: Method,
    field: str | None = None,
    segments: Segments | None = None,
    min_segment_rows: int = 1000,
    fitted_on: Mapping[str, str | int | float] | None = None,
    place: str = "calibration",
) -> Calibrator:
    """Fits one map to all rows, and one to each segment that has rows enough.

    A segment has a map of its own where it has ``min_segment_rows`` rows, 10 of either label, and
    its logits rise with its click rate; all others share that of all rows, as do missing and
    unseen values, whose id is 0: the rows that meet it later have nothing in common.

    Args:
        label: ``(B,)``, 0 or 1.
        logits: ``(B,)``, corrected for sampling.
        weight: ``(B,)``, what each row counts for; None for 1 each.
        method: kind of the maps.
        field: the field whose values are the segments, or None.
        segments: ``(B,)``, each row's id in it.
        min_segment_rows: rows of weight above 0 that a segment needs.
        fitted_on: what the calibrator keeps of what it was fitted on, beside rows and clicks.
        place: opens every message.

    Raises:
        DataError: there are too few rows, of either label or at all; a logit is not finite; or
            clicks do not become likelier as logits rise.
    """
    require_fit_rows(label, weight, place=place)
    clicked, values = label == 1, logits.astype(np.float64)
    weights = np.ones(len(values)) if weight is None else weight.astype(np.float64)
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise DataError(
            f"{place}: {int(wrong.sum())} of {len(values)} logits are not finite numbers; the "
            f"first is {values[wrong][0]}, of row {int(np.argmax(wrong))}. "
            "Train again with a lower learning rate."
        )
    counts = weights > 0
    whole = _fit(method, clicked[counts], values[counts], weights[counts])
    if whole is None:
        raise DataError(
            f"{place}: clicks do not become likelier as logits rise, so no map that keeps their "
            "order fits. Look whether the model learned anything, or whether labels are turned."
        )
    maps: dict[int, Map] = {}
    if field is not None:
        assert segments is not None, "segments are the ids of the field"
        ids, rows = np.unique(segments[counts], return_counts=True)
        for segment in ids[(rows >= min_segment_rows) & (ids != 0)].tolist():
            mine = counts & (segments == segment)
            if min(clicked[mine].sum(), (~clicked[mine]).sum()) < MIN_OF_A_LABEL:
                continue
            found = _fit(method, clicked[mine], values[mine], weights[mine])
            if found is not None:
                maps[segment] = found
    told = {"rows": int(counts.sum()), "clicks": int(clicked[counts].sum())}
    return Calibrator(
        whole=whole, field=field, segments=maps, fitted_on={**(fitted_on or {}), **told}
    )


def require_fit_rows(
    label: NDArray[np.generic], weight: NDArray[np.floating[Any]] | None, *, place: str
) -> None:
    """Refuses rows that nothing can be fitted to.

    Raises:
        DataError: fewer than 100 count, or fewer than 10 of a label.
    """
    counts = np.ones(len(label), np.bool_) if weight is None else weight > 0
    rows, clicks = int(counts.sum()), int((label[counts] == 1).sum())
    if rows < MIN_ROWS:
        raise DataError(
            f"{place}: calibration needs {MIN_ROWS} rows that count; got {rows}. "
            "Give a larger split."
        )
    if min(clicks, rows - clicks) < MIN_OF_A_LABEL:
        raise DataError(
            f"{place}: calibration needs {MIN_OF_A_LABEL} rows of either label; got {clicks} of "
            f"label 1 and {rows - clicks} of label 0. Give a larger split."
        )


def newton(features: Floats, target: Floats, weights: Floats) -> Floats:
    """Coefficients of the logistic regression without penalty, by Newton's method.

    Minimises ``-sum(w * (t * log(p) + (1 - t) * log(1 - p)))``, ``p = sigmoid(features @ c)``.
    scikit-learn's takes hard labels alone and stops at a gradient of 1e-4.

    Shape: ``(B, K), (B,), (B,) -> (K,)``.

    Args:
        features: no column is a sum of others.
        target: within (0, 1), so that the minimum is finite.
        weights: above 0.
    """

    def loss(c: Floats) -> float:
        logit = features @ c
        return -float(weights @ (target * log_sigmoid(logit) + (1 - target) * log_sigmoid(-logit)))

    found: Floats = np.zeros(features.shape[1])
    lost = loss(found)
    for _ in range(100):
        p = sigmoid(features @ found)
        gradient = features.T @ (weights * (p - target))
        curvature = (features * (weights * p * (1 - p))[:, None]).T @ features
        step = np.linalg.lstsq(curvature, gradient)[0]
        size = 1.0
        while (now := loss(found - size * step)) > lost and size > 1e-9:
            size /= 2
        if size <= 1e-9:
            break
        found, lost = found - size * step, now
        if np.abs(step).max() * size <= 1e-12 * (1 + np.abs(found).max()):
            break
    return found


def platt_targets(clicked: Clicked, weights: Floats) -> Floats:
    """What Platt fits to in place of 1 and 0: ``(N1 + 1) / (N1 + 2)`` and ``1 / (N0 + 2)``.

    The labels' posterior means under a uniform prior. They keep a slope finite where a threshold
    parts the labels, and change nothing that matters where rows are many. ``N1`` and ``N0`` are
    sums of the weights, which are taken to have the mean 1.

    Paper: Platt 1999, sec. 2.2.

    >>> platt_targets(np.array([True, False, False]), np.ones(3)).tolist()
    [0.6666666666666666, 0.25, 0.25]
    """
    counted = weights / weights.mean()
    clicks, misses = counted[clicked].sum(), counted[~clicked].sum()
    targets: Floats = np.where(clicked, (clicks + 1) / (clicks + 2), 1 / (misses + 2))
    return targets


def _fit(method: Method, clicked: Clicked, logits: Floats, weights: Floats) -> Map | None:
    """The map, or None where clicks do not become likelier as logits rise."""
    return _FITS[method](clicked, logits, weights)


def _fit_platt(clicked: Clicked, logits: Floats, weights: Floats) -> Map | None:
    features = np.column_stack([logits, np.ones_like(logits)])
    slope, intercept = newton(features, platt_targets(clicked, weights), weights)
    return PlattMap(slope=float(slope), intercept=float(intercept)) if slope > 0 else None


def _fit_temperature(clicked: Clicked, logits: Floats, weights: Floats) -> Map | None:
    (slope,) = newton(logits[:, None], platt_targets(clicked, weights), weights)
    return TemperatureMap(temperature=1 / float(slope)) if slope > 0 else None


def _fit_beta(clicked: Clicked, logits: Floats, weights: Floats) -> Map | None:
    """A coefficient that comes out negative is left out, and the others fitted again."""
    target = platt_targets(clicked, weights)
    columns = {"a": log_sigmoid(logits), "b": -log_sigmoid(-logits)}
    found: dict[str, float] = {}
    while columns:
        features = np.column_stack([*columns.values(), np.ones_like(logits)])
        found = dict(zip([*columns, "c"], newton(features, target, weights).tolist(), strict=True))
        negative = [name for name in columns if found[name] <= 0]
        if not negative:
            return BetaMap(a=found.get("a", 0.0), b=found.get("b", 0.0), c=found["c"])
        del columns[min(negative, key=lambda name: found[name])]
    return None


def _fit_isotonic(clicked: Clicked, logits: Floats, weights: Floats) -> Map | None:
    """Nearer to 0 and 1 than Platt's targets no probability comes: a knot may be of one row."""
    from sklearn.isotonic import IsotonicRegression

    target = platt_targets(clicked, weights)
    regression = IsotonicRegression(y_min=target.min(), y_max=target.max())
    regression.fit(logits, clicked.astype(np.float64), weights)
    probabilities = regression.y_thresholds_
    if probabilities[0] == probabilities[-1]:
        return None
    return IsotonicMap(
        knots=tuple(regression.X_thresholds_.tolist()),
        probabilities=tuple(np.maximum.accumulate(probabilities).tolist()),
    )


def _fit_centered_isotonic(clicked: Clicked, logits: Floats, weights: Floats) -> Map | None:
    isotonic = _fit_isotonic(clicked, logits, weights)
    if isotonic is None:
        return None
    # Rows of one level become one knot, the middle of their weight; levels that rounding alone
    # parts are one.
    levels, level = np.unique(np.round(isotonic(logits), 12), return_inverse=True)
    mass = np.bincount(level, weights)
    return CenteredIsotonicMap(
        knots=tuple((np.bincount(level, weights * logits) / mass).tolist()),
        logits=tuple((np.log(levels) - np.log1p(-levels)).tolist()),
    )


_FITS: dict[Method, Callable[[Clicked, Floats, Floats], Map | None]] = {
    "platt": _fit_platt,
    "isotonic": _fit_isotonic,
    "centered_isotonic": _fit_centered_isotonic,
    "temperature": _fit_temperature,
    "beta": _fit_beta,
}
