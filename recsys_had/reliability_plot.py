"""Picture of what calibration did: reliability before and after, side by side."""

from pathlib import Path

from numpy.typing import ArrayLike

from recsys_had.metrics import expected_calibration_error
from recsys_had.plots import (
    calibration_points,
    draw_reliability,
    dress,
    figure_of,
    limits_of,
    save_png,
    titled,
)


def reliability_png(
    label: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    path: str | Path,
    *,
    weight: ArrayLike | None = None,
    bins: int = 15,
) -> None:
    """Draws the observed click rate against the predicted one, before and after calibration.

    Both panels have the same axes. Each point is a bin of about as many rows as the others, its
    bar the 95 % Wilson interval; rows count once there, whatever their weight. Each title tells
    the panel's expected calibration error, of weighted rows.

    Args:
        label: 0 or 1 per row.
        before: the predicted probability of a 1, not calibrated.
        after: the same, calibrated.
        path: where the PNG goes; its folder exists, and a file in its place is replaced.
        weight: what each row counts for in the error; None for 1 each.
        bins: number of points; fewer are drawn where rows share a score.

    Raises:
        ValueError: as for :func:`recsys_had.plots.calibration_points`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     reliability_png([0, 1, 0, 1], [0.1, 0.9] * 2, [0.4, 0.6] * 2, Path(folder, "r.png"))
    ...     Path(folder, "r.png").read_bytes()[1:4]
    b'PNG'
    """
    figure = figure_of(5.9, 11.6)
    panels = [calibration_points(label, score, bins) for score in (before, after)]
    limits = [limits_of(points) for points in panels]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    for left, name, score, points in zip(
        (0.07, 0.57), ("Before", "After"), (before, after), panels, strict=True
    ):
        axes = figure.add_axes((left, 0.11, 0.41, 0.73))
        dress(axes)
        draw_reliability(axes, points, low, high)
        axes.set(xlabel="Predicted click rate", ylabel="Observed click rate")
        error = expected_calibration_error(label, score, weight, bins=bins)
        titled(
            axes,
            f"{name}: calibration error {error.ece:.4f}",
            f"{points.rows.sum():,} rows; 95 % interval of the error {error.low:.4f} to "
            f"{error.high:.4f}",
        )
    save_png(figure, path)
