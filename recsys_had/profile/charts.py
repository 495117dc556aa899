"""Charts as HTML and inline SVG that stretch with the page.

A drawing stretches in both directions, so all text stands beside it in HTML, and lines keep their
width by `vector-effect`. Its own coordinates are 0..1000 from left to right, 0..100 from the top.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recsys_had.profile.rates import Rate
from recsys_had.profile.words import escaped, percent, short

_WIDTH, _HEIGHT = 1000.0, 100.0


@dataclass(frozen=True)
class Axis:
    """A vertical axis from ``low`` to ``high``."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, low: float, high: float) -> "Axis":
        """An axis with round ticks that holds both ends.

        >>> Axis.over(0.0, 0.93)
        Axis(low=0.0, high=1.0, ticks=(0.0, 0.25, 0.5, 0.75, 1.0))
        """
        if high <= low:
            high = low + (abs(low) or 1.0)
        step = 10.0 ** math.floor(math.log10((high - low) / 2))
        step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= 4)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = tuple(round(step * number, 12) for number in range(first, last + 1))
        return cls(ticks[0], ticks[-1], ticks)

    def y(self, value: float) -> float:
        """Where a value stands, from the top."""
        return _HEIGHT * (self.high - value) / (self.high - self.low)


@dataclass(frozen=True)
class Point:
    """What a chart shows at one place of its horizontal axis.

    Args:
        label: the place in words.
        rate: rows and clicks there.
        tick: what the axis says there; nothing for most.
    """

    label: str
    rate: Rate
    tick: str = ""


def rate_chart(points: Sequence[Point], *, title: str, joined: bool) -> str:
    """Click rates with their 95 % intervals, to stand above the bars of the same points.

    Args:
        points: from left to right; one without rows leaves a gap.
        title: what it shows, for those who cannot see it.
        joined: as a line in a band, else as dots with whiskers.
    """
    seen = [point.rate for point in points if point.rate.click_rate is not None]
    if not seen:
        return '<p class="none">No rows.</p>'
    low = min(rate.low for rate in seen if rate.low is not None)
    high = max(rate.high for rate in seen if rate.high is not None)
    # A band that lies near the ground stands on it.
    axis = Axis.over(0.0 if low < 0.4 * high else low, high)
    shapes = _grid(axis)
    shapes += _band(points, axis) if joined else _whiskers(points, axis)
    shapes += _hovers(points)
    return _framed(shapes, axis, percent, [], title=title, css="rates")


def bar_chart(
    points: Sequence[Point],
    *,
    title: str,
    parts: Sequence[tuple[str, Sequence[int]]] = (),
) -> str:
    """Rows as bars.

    Args:
        points: from left to right.
        title: what it shows, for those who cannot see it.
        parts: class and rows of what a bar is stacked of; else it is one.
    """
    rows = [point.rate.rows for point in points]
    axis = Axis.over(0.0, float(max(rows, default=0)))
    step = _WIDTH / max(len(points), 1)
    shapes = _grid(axis)
    ground = [0] * len(points)
    for css, heights in parts or [("bar", rows)]:
        for place, height in enumerate(heights):
            if height:
                top = axis.y(ground[place] + height)
                tall = axis.y(ground[place]) - top
                shapes.append(
                    f'<rect class="{css}" x="{place * step + 0.08 * step:.2f}" y="{top:.2f}" '
                    f'width="{0.84 * step:.2f}" height="{tall:.2f}"/>'
                )
            ground[place] += height
    shapes += _hovers(points)
    return _framed(shapes, axis, short, points, title=title, css="bars")


def share_bar(share: float, *, css: str = "") -> str:
    """A bar in a table's cell, as long as a share.

    >>> share_bar(0.25)
    '<span class="share "><i style="width:25.0%"></i></span>'
    """
    return f'<span class="share {css}"><i style="width:{100 * share:.1f}%"></i></span>'


def interval(rate: Rate, *, mean: float | None, low: float = 0.0, high: float) -> str:
    """A click rate's interval in a table's cell, beside a line at the mean of all rows.

    Args:
        rate: the rate.
        mean: click rate of all rows.
        low: the rate at the left end.
        high: the rate at the right end.
    """
    if rate.click_rate is None or rate.low is None or rate.high is None:
        return ""

    def x(value: float) -> float:
        return 2 + 116 * min(max((value - low) / ((high - low) or 1.0), 0.0), 1.0)

    middle = "" if mean is None else _line(x(mean), 0, x(mean), 16, "mean")
    return (
        '<svg class="interval" viewBox="0 0 120 16" width="120" height="16" aria-hidden="true">'
        f"{middle}{_line(x(rate.low), 8, x(rate.high), 8, 'whisker')}"
        f'<circle class="dot" cx="{x(rate.click_rate):.1f}" cy="8" r="3.2"/></svg>'
    )


def _centre(place: int, size: int) -> float:
    return _WIDTH * (place + 0.5) / size


def _grid(axis: Axis) -> list[str]:
    return [_line(0, axis.y(tick), _WIDTH, axis.y(tick), "grid") for tick in axis.ticks]


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}"/>'


def _band(points: Sequence[Point], axis: Axis) -> list[str]:
    """A line in its band, broken where there are no rows; a lone point is a dot."""
    runs: list[list[tuple[float, Rate]]] = [[]]
    for place, point in enumerate(points):
        if point.rate.click_rate is None:
            runs.append([])
        else:
            runs[-1].append((_centre(place, len(points)), point.rate))
    shapes = []
    for run in runs:
        if len(run) == 1:
            shapes += _whisker(run[0][0], run[0][1], axis)
        elif run:
            upper = [f"{x:.2f},{axis.y(rate.high or 0.0):.2f}" for x, rate in run]
            lower = [f"{x:.2f},{axis.y(rate.low or 0.0):.2f}" for x, rate in reversed(run)]
            middle = [f"{x:.2f},{axis.y(rate.click_rate or 0.0):.2f}" for x, rate in run]
            shapes.append(f'<polygon class="band" points="{" ".join(upper + lower)}"/>')
            shapes.append(f'<polyline class="line" points="{" ".join(middle)}"/>')
    return shapes


def _whiskers(points: Sequence[Point], axis: Axis) -> list[str]:
    return [
        shape
        for place, point in enumerate(points)
        for shape in _whisker(_centre(place, len(points)), point.rate, axis)
    ]


def _whisker(x: float, rate: Rate, axis: Axis) -> list[str]:
    if rate.low is None or rate.high is None or rate.click_rate is None:
        return []
    y = axis.y(rate.click_rate)
    # A line of no length with round ends: a circle would be stretched to an ellipse.
    return [_line(x, axis.y(rate.low), x, axis.y(rate.high), "whisker"), _line(x, y, x, y, "point")]


def _hovers(points: Sequence[Point]) -> list[str]:
    """What a pointer is told at each place."""
    step = _WIDTH / max(len(points), 1)
    return [
        f'<rect class="hover" x="{place * step:.2f}" y="0" width="{step:.2f}" height="100">'
        f"<title>{escaped(_told(point))}</title></rect>"
        for place, point in enumerate(points)
    ]


def _told(point: Point) -> str:
    rate = point.rate
    if rate.click_rate is None:
        return f"{point.label}: no rows"
    return (
        f"{point.label}: {rate.rows:,} rows, {percent(rate.click_rate)} clicked "
        f"({percent(rate.low)} to {percent(rate.high)})"
    )


def _framed(
    shapes: Sequence[str],
    axis: Axis,
    told: Callable[[float], str],
    points: Sequence[Point],
    *,
    title: str,
    css: str,
) -> str:
    ticks = "".join(
        f'<span style="top:{axis.y(tick):.2f}%">{escaped(told(tick))}</span>' for tick in axis.ticks
    )
    places = "".join(
        f'<span style="left:{_centre(place, len(points)) / 10:.2f}%">{escaped(point.tick)}</span>'
        for place, point in enumerate(points)
        if point.tick
    )
    return (
        f'<div class="chart {css}"><div class="y" aria-hidden="true">{ticks}</div>'
        f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{escaped(title)}">{"".join(shapes)}</svg>'
        f'<div class="x" aria-hidden="true">{places}</div></div>'
    )
