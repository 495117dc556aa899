"""A picture of a model: its nodes from what they read to the logit, as PNG or SVG.

Drawn through matplotlib's objects, without pyplot, so it needs no display.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BOX_WIDTH, _BOX_HEIGHT = 2.3, 0.92
_COLUMN, _ROW = 3.1, 1.25  # inches from box to box
_INK, _GREY, _EDGE = "#22262c", "#767b84", "#1f5fa8"
# A box by its name, or the place where an arrow passes a column: from, to, column.
Slot = tuple[str] | tuple[str, str, int]
_FILL = {"source": "#eef1f4", "node": "#ffffff", "logit": "#e4eef9"}


@dataclass(frozen=True)
class Box:
    """One box of the picture.

    Args:
        name: of the node; also told in bold.
        lines: what else is told, a line each.
        reads: names of boxes it reads.
        kind: source, node or logit.
    """

    name: str
    lines: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    kind: str = "node"


def columns(boxes: Sequence[Box]) -> dict[str, int]:
    """Column of each box: one right of the rightmost box it reads; the logit last.

    >>> columns([Box("x"), Box("a", reads=("x",)), Box("b", reads=("x", "a"))])
    {'x': 0, 'a': 1, 'b': 2}
    """
    found: dict[str, int] = {}
    for box in boxes:
        found[box.name] = 1 + max((found[name] for name in box.reads), default=-1)
    return found


def draw_graph(boxes: Sequence[Box], path: str | Path, *, title: str) -> None:
    """Draws boxes and arrows.

    Args:
        boxes: in an order in which each stands after those it reads.
        path: where the picture goes; its ending, .png or .svg, says what it is.
        title: above the picture.

    Raises:
        ValueError: another ending.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     draw_graph([Box("fields"), Box("fm", reads=("fields",))], f"{folder}/m.svg", title="FM")
    ...     "<svg" in Path(folder, "m.svg").read_text()
    True
    """
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix not in {".png", ".svg"}:
        raise ValueError(f"{path}: must end in .png or .svg.")
    place = _places(boxes)
    width = _COLUMN * (1 + max(x for x, _ in place.values()))
    height = _ROW * (1 + max(y for _, y in place.values())) + 0.5
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    axes.text(0.25, 0.32, title, fontsize=12, weight="bold", color=_INK, va="center")
    centre = {slot: (_COLUMN * (x + 0.5), 0.5 + _ROW * (y + 0.5)) for slot, (x, y) in place.items()}
    for route in _routes(boxes):
        _arrow(axes, [centre[slot] for slot in route])
    for box in boxes:
        _box(axes, box, centre[box.name,])
    # Without a date and with a fixed salt the same picture is the same bytes.
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "recsys_had", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=150, metadata=metadata)


def _routes(boxes: Sequence[Box]) -> list[list[Slot]]:
    """The slots each arrow passes: its ends, and one in every column between them."""
    column = columns(boxes)
    return [
        [
            (name,),
            *((name, box.name, x) for x in range(column[name] + 1, column[box.name])),
            (box.name,),
        ]
        for box in boxes
        for name in box.reads
    ]


def _places(boxes: Sequence[Box]) -> Mapping[Slot, tuple[float, float]]:
    """Column and row of each slot: columns are centred, what reads from high up stands high up."""
    column = columns(boxes)
    members: dict[int, list[Slot]] = {}
    sources: dict[Slot, list[Slot]] = {(box.name,): [] for box in boxes}
    for box in boxes:
        members.setdefault(column[box.name], []).append((box.name,))
    for route in _routes(boxes):
        for before, slot in pairwise(route):
            sources.setdefault(slot, []).append(before)
            if len(slot) == 3:
                members[slot[2]].append(slot)
    row: dict[Slot, float] = {}
    for x in sorted(members):
        known = {slot: [row[s] for s in sources[slot]] for slot in members[x]}
        members[x].sort(key=lambda slot: sum(known[slot]) / max(len(known[slot]), 1))
        row |= {slot: number - len(members[x]) / 2 for number, slot in enumerate(members[x])}
    top = min(row.values())
    return {slot: (x, row[slot] - top) for x, slots in members.items() for slot in slots}


def _arrow(axes: "Axes", centres: list[tuple[float, float]]) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Line

    half = _BOX_WIDTH / 2
    points = [(centres[0][0] + half, centres[0][1])]
    for x, y in centres[1:-1]:
        points += [(x - half, y), (x + half, y)]
    points.append((centres[-1][0] - half, centres[-1][1]))
    axes.add_patch(
        FancyArrowPatch(
            path=Line(points),
            arrowstyle="-|>",
            mutation_scale=11,
            color=_GREY,
            linewidth=1.1,
            zorder=1,
        )
    )


def _box(axes: "Axes", box: Box, centre: tuple[float, float]) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = centre
    axes.add_patch(
        FancyBboxPatch(
            (x - _BOX_WIDTH / 2, y - _BOX_HEIGHT / 2),
            _BOX_WIDTH,
            _BOX_HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.09",
            facecolor=_FILL[box.kind],
            edgecolor=_EDGE if box.kind != "source" else _GREY,
            linewidth=1.1,
            zorder=2,
        )
    )
    step = _BOX_HEIGHT / (len(box.lines) + 2)
    top = y - _BOX_HEIGHT / 2 + step
    axes.text(
        x, top, box.name, ha="center", va="center", fontsize=9, weight="bold", color=_INK, zorder=3
    )
    for number, line in enumerate(box.lines, start=1):
        axes.text(
            x, top + number * step, line, ha="center", va="center", fontsize=7.5, color=_INK,
            zorder=3,
        )  # fmt: skip
