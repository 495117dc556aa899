"""Pictures of the quality of scores: the ROC curve and the calibration of a split.

Both draw through matplotlib's objects, without pyplot, so they neither need a display nor touch
the state of whoever calls them. A picture holds a few thousand points whatever the rows.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_had.metrics import auc, bin_starts, calibration, check_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_POINTS = 2_000
_Z_95 = 1.959964  # 95 % of a normal distribution lies within so many standard deviations
_LOG_FROM_RATIO = 10.0  # mean scores that spread wider than this are drawn on log axes
_BLUE, _GREY, _INK, _FAINT = "#1f5fa8", "#767b84", "#22262c", "#e3e6ea"
_DASHED: dict[str, Any] = {"color": _GREY, "linewidth": 1.2, "linestyle": (0, (4, 3))}

Floats = NDArray[np.float64]


def roc_curve_png(label: ArrayLike, score: ArrayLike, path: str | Path, *, note: str = "") -> None:
    """Draws the ROC curve of one split, with its exact AUC in the title.

    The curve is thinned to 2,000 of its own corners, evenly spread along it. Without rows, or
    with rows of one class, the picture says why there is no curve.

    Args:
        label: 0 or 1 per row.
        score: any number that grows with the chance of a click; rounded to float32.
        path: where the PNG goes; its folder exists, and a file in its place is replaced.
        note: told after the number of rows.

    Raises:
        ValueError: unequal lengths, a label that is neither 0 nor 1, a NaN score.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     roc_curve_png([0, 1, 0, 1], [0.1, 0.4, 0.35, 0.8], Path(folder, "roc.png"))
    ...     Path(folder, "roc.png").read_bytes()[1:4]
    b'PNG'
    """
    clicked, scores = check_scores("roc_curve_png", label, score, allow_empty=True)
    area = auc(clicked, scores) if len(scores) else None
    told_of_rows = _rows_and_clicks(clicked) + (note and f", {note}")
    figure = figure_of(height_inches=6.6)
    axes = figure.add_axes((0.13, 0.09, 0.835, 0.81))
    dress(axes)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set(
        xlabel="False positive rate (share of the other rows above the threshold)",
        ylabel="True positive rate (share of the clicks above the threshold)",
    )
    axes.plot([0, 1], [0, 1], **_DASHED)
    axes.text(
        0.72,
        0.69,
        "chance",
        color=_GREY,
        rotation=45,
        rotation_mode="anchor",
        ha="center",
        va="top",
    )
    if area is None:
        titled(axes, "ROC curve", told_of_rows)
        _say(axes, _why_no_curve(clicked, "A ROC curve needs both classes."))
    else:
        titled(axes, f"ROC curve: AUC {area:.4f}", told_of_rows)
        false_rate, true_rate = roc_points(clicked, scores)
        axes.fill_between(false_rate, true_rate, color=_BLUE, alpha=0.10, linewidth=0)
        axes.plot(false_rate, true_rate, color=_BLUE, linewidth=2.2, solid_joinstyle="round")
    save_png(figure, path)


def calibration_png(
    label: ArrayLike, score: ArrayLike, path: str | Path, bins: int = 20, *, note: str = ""
) -> None:
    """Draws the observed click rate against the predicted one, and below it where the rows lie.

    Each point is a bin of about as many rows as the others; its bar is the 95 % Wilson interval
    of the click rate. Axes are logarithmic where the predictions spread over more than a factor
    of ten. Without rows, the picture says so.

    Args:
        label: 0 or 1 per row.
        score: the predicted probability of a 1.
        path: where the PNG goes; its folder exists, and a file in its place is replaced.
        bins: number of points; fewer are drawn where rows share a score.
        note: told after the number of rows.

    Raises:
        ValueError: unequal lengths, a label that is neither 0 nor 1, a score outside [0, 1], fewer
            than 1 bins.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     calibration_png([0, 1, 0, 1], [0.1, 0.4, 0.35, 0.8], Path(folder, "c.png"), bins=2)
    ...     Path(folder, "c.png").read_bytes()[1:4]
    b'PNG'
    """
    clicked, scores = check_scores(
        "calibration_png", label, score, probability=True, allow_empty=True
    )
    _check_bins("calibration_png", bins)
    told_of_rows = _rows_and_clicks(clicked) + (note and f", {note}")
    figure = figure_of(height_inches=7.0)
    axes = figure.add_axes((0.13, 0.305, 0.835, 0.575))
    below = figure.add_axes((0.13, 0.10, 0.835, 0.16), sharex=axes)
    for each in (axes, below):
        dress(each)
    axes.tick_params(labelbottom=False)
    axes.set_ylabel("Observed click rate")
    below.set(xlabel="Predicted click rate", ylabel="Rows")
    if not len(scores):
        titled(axes, "Calibration", told_of_rows)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        below.set_yticks([])
        _say(axes, _why_no_curve(clicked, "Calibration needs scored rows."))
        save_png(figure, path)
        return

    points = calibration_points(clicked, scores, bins)
    ratio = calibration(clicked, scores)
    told = "no click to compare with" if ratio is None else f"predicted / observed {ratio:.4f}"
    titled(
        axes,
        f"Calibration: {told}",
        f"{told_of_rows}; {_bins_in_words(points.rows)}",
    )
    low, high = limits_of(points)
    draw_reliability(axes, points, low, high)
    edges = np.geomspace(low, high, 81) if low > 0 else np.linspace(low, high, 81)
    below.stairs(np.histogram(scores, edges)[0], edges, fill=True, color=_BLUE, alpha=0.45)
    _count_ticks(below)
    save_png(figure, path)


def draw_reliability(axes: "Axes", points: "CalibrationPoints", low: float, high: float) -> None:
    """Draws bins, their intervals and the diagonal on dressed axes.

    Args:
        axes: to draw on.
        points: the bins.
        low: where both axes begin; above 0 they are logarithmic.
        high: where they end.
    """
    if low > 0:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set(xlim=(low, high), ylim=(low, high))
    axes.plot([low, high], [low, high], **_DASHED, zorder=1, label="predicted = observed")
    _draw_points(axes, points, low)
    axes.legend(loc="best", fontsize=9, labelcolor=_INK, edgecolor=_FAINT, framealpha=1)
    _plain_ticks(axes, decades=np.log10(high / low) if low > 0 else None)


class CalibrationPoints(NamedTuple):
    """Per bin of rows with neighbouring scores: mean score, click rate and its interval."""

    predicted: Floats
    observed: Floats
    lower: Floats
    upper: Floats
    rows: NDArray[np.int64]


def roc_points(
    label: ArrayLike, score: ArrayLike, max_points: int = _MAX_POINTS
) -> tuple[Floats, Floats]:
    """Gives corners of the ROC curve, from (0, 0) to (1, 1), at most ``max_points`` of them.

    Args:
        label: 0 or 1 per row, both present.
        score: any number that grows with the chance of a click; rounded to float32.
        max_points: the most corners to keep; those kept lie evenly along the curve.

    Returns:
        The false positive rates and the true positive rates, rising.

    Raises:
        ValueError: as for ``metrics.auc``, and rows of one class.

    >>> roc_points([0, 1, 1], [0.5, 0.5, 0.9])
    (array([0., 0., 1.]), array([0. , 0.5, 1. ]))
    """
    clicked, scores = check_scores("roc_points", label, score)
    if clicked.all() or not clicked.any():
        raise ValueError(
            f"roc_points: label must hold both classes; got {_rows_and_clicks(clicked)}. "
            "Leave out splits of one class."
        )
    order = np.argsort(-scores)
    descending = scores[order]
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))
    clicks = np.append(0, np.cumsum(clicked[order])[last])
    misses = np.append(0, last + 1) - clicks
    false_rate, true_rate = misses / misses[-1], clicks / clicks[-1]
    if len(false_rate) > max_points:
        along = false_rate + true_rate  # grows at every corner, from 0 to 2
        kept = np.unique(np.searchsorted(along, np.linspace(0, 2, max_points)))
        false_rate, true_rate = false_rate[kept], true_rate[kept]
    return false_rate, true_rate


def calibration_points(label: ArrayLike, score: ArrayLike, bins: int = 20) -> CalibrationPoints:
    """Cuts the rows, sorted by score, into bins of equal mass and compares each with its clicks.

    Rows of one score never part, so bins can be uneven, or fewer, under ties. The interval is
    ``(k + z^2/2 +- z sqrt(k (n - k) / n + z^2/4)) / (n + z^2)`` for k clicks in n rows.

    Paper: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    Differs from the paper: nothing.

    Args:
        label: 0 or 1 per row.
        score: the predicted probability of a 1.
        bins: number of bins.

    Raises:
        ValueError: as for ``metrics.logloss``, and fewer than 1 bins.

    >>> points = calibration_points([0, 1, 1, 1], [0.25, 0.25, 0.5, 1.0], bins=2)
    >>> points.predicted, points.observed, points.rows
    (array([0.25, 0.75]), array([0.5, 1. ]), array([2, 2]))
    """
    clicked, scores = check_scores("calibration_points", label, score, probability=True)
    _check_bins("calibration_points", bins)
    order = np.argsort(scores)
    ascending = scores[order]
    start = bin_starts(ascending, bins)
    rows = np.diff(start, append=len(scores))
    clicks = np.add.reduceat(clicked[order].astype(np.int64), start)
    predicted = np.add.reduceat(ascending.astype(np.float64), start) / rows
    middle = clicks + _Z_95**2 / 2
    spread = _Z_95 * np.sqrt(clicks * ((rows - clicks) / rows) + _Z_95**2 / 4)
    scale = rows + _Z_95**2
    return CalibrationPoints(
        predicted, clicks / rows, (middle - spread) / scale, (middle + spread) / scale, rows
    )


def _check_bins(place: str, bins: int) -> None:
    if bins < 1:
        raise ValueError(f"{place}: bins must be at least 1; got {bins}. Leave it out for 20.")


def limits_of(points: CalibrationPoints) -> tuple[float, float]:
    """Gives the ends of both axes for some bins; a low end above 0 asks for log axes."""
    low, high = float(points.predicted[0]), float(points.predicted[-1])
    top = max(high, float(points.upper.max()))
    if low > 0 and high / low > _LOG_FROM_RATIO:
        seen = points.observed[points.observed > 0]
        return min(low, float(seen.min(initial=low))) / 1.6, min(top * 1.3, 1.25)
    return 0.0, min(top * 1.08, 1.02)


def _draw_points(axes: "Axes", points: CalibrationPoints, low: float) -> None:
    lower, upper = np.maximum(points.lower, low), np.maximum(points.upper, low)
    axes.vlines(points.predicted, lower, upper, color=_BLUE, alpha=0.55, linewidth=1.6, zorder=2)
    # A rate of 0 has no place on a log axis: it stands on the floor, hollow.
    seen = points.observed > 0
    for chosen, marker, inside, rim, name in (
        (seen, "o", _BLUE, "white", "bin with 95 % interval"),
        (~seen, "v", "white", _BLUE, "bin without a click"),
    ):
        if chosen.any():
            axes.scatter(
                points.predicted[chosen],
                np.maximum(points.observed[chosen], low),
                s=40,
                marker=marker,
                facecolor=inside,
                edgecolor=rim,
                zorder=3,
                clip_on=False,
                label=name,
            )


def _plain_ticks(axes: "Axes", *, decades: float | None) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if decades is not None:
        steps = (1.0, 2.0, 5.0) if decades < 3.5 else (1.0,)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=steps))
            axis.set_minor_formatter(NullFormatter())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _count_ticks(below: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    below.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def _short(count: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g} {letter}"
    return f"{count:g}"


def _bins_in_words(rows: NDArray[np.int64]) -> str:
    bins = "1 bin" if len(rows) == 1 else f"{len(rows)} bins"
    low, high = int(rows.min()), int(rows.max())
    if high - low > 0.01 * high:
        return f"{bins} of {low:,} to {high:,} rows"
    about = "" if low == high else "about "
    return f"{bins} of {about}{_rows_in_words(round(int(rows.sum()) / len(rows)))}"


def _rows_and_clicks(clicked: NDArray[np.bool_]) -> str:
    rows = _rows_in_words(len(clicked))
    return f"{rows}, {100 * clicked.mean():.3g} % clicked" if len(clicked) else rows


def _rows_in_words(num_rows: int) -> str:
    return "1 row" if num_rows == 1 else f"{num_rows:,} rows"


def _why_no_curve(clicked: NDArray[np.bool_], need: str) -> str:
    if not len(clicked):
        return f"This split has no rows.\n{need}"
    kind = "a click" if clicked[0] else "no click"
    return f"Every row of this split has label {int(clicked[0])} ({kind}).\n{need}"


def figure_of(height_inches: float, width_inches: float = 6.4) -> "Figure":
    """An empty figure that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inches, height_inches), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def dress(axes: "Axes") -> None:
    """Gives axes the looks of all these pictures."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(color=_FAINT, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(which="both", color=_GREY, labelcolor=_INK, labelsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=_INK, size=10)


def titled(axes: "Axes", title: str, subtitle: str) -> None:
    """Writes a title and a line below it over axes."""
    axes.set_title(title, loc="left", pad=28, fontsize=14, fontweight="bold", color=_INK)
    axes.annotate(
        subtitle,
        xy=(0, 1),
        xycoords="axes fraction",
        xytext=(0, 11),
        textcoords="offset points",
        fontsize=9.5,
        color=_GREY,
    )


def _say(axes: "Axes", sentence: str) -> None:
    box = {"boxstyle": "round,pad=0.8", "facecolor": "white", "edgecolor": _FAINT}
    axes.text(
        0.5,
        0.5,
        sentence,
        transform=axes.transAxes,
        ha="center",
        va="center",
        size=11,
        linespacing=1.6,
        color=_INK,
        bbox=box,
    )


def save_png(figure: "Figure", path: str | Path) -> None:
    """Writes a figure; the same one gives the same bytes."""
    # Without the version in it, the same rows give the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})
