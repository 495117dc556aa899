"""A picture of how strong the fields of a model are, alone and in pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

_BLUE, _INK, _FAINT = "#1f5fa8", "#22262c", "#e3e6ea"
# Up to so many fields each cell tells its number.
_MOST_WITH_NUMBERS = 14
_MOST_LETTERS = 22


def draw_interactions(
    path: Path,
    *,
    names: Sequence[str],
    single: Mapping[str, float],
    pair: Mapping[tuple[str, str], float],
    title: str,
    note: str,
) -> None:
    """Draws the pairs as a triangle of coloured cells and the single fields as bars, as PNG.

    Args:
        path: where the PNG goes.
        names: the fields, in order.
        single: strength of each field alone.
        pair: strength of each pair, its fields in order.
        title: above the picture.
        note: below the title, in small letters.
    """
    from matplotlib.figure import Figure

    count = len(names)
    side = min(16.0, max(5.4, 0.23 * count + 3.1))
    letters = max(5.5, min(9.5, 9.5 - 0.07 * (count - 10)))
    figure = Figure(figsize=(side + 3.4, side + 0.6), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=_INK)
    cells, bars = figure.subplots(1, 2, width_ratios=(side, 2.0), sharey=True)
    strength = np.full((count, count), np.nan)
    place = {name: number for number, name in enumerate(names)}
    for (first, second), size in pair.items():
        strength[place[second], place[first]] = size
    highest = float(np.nanmax(strength)) if pair else 0.0
    image = cells.imshow(strength, cmap="Blues", vmin=0, vmax=highest or 1.0, aspect="auto")
    if count <= _MOST_WITH_NUMBERS:
        digits = max(2, 1 - int(np.floor(np.log10(highest or 1.0))))
        for (row, column), size in np.ndenumerate(strength):
            if not np.isnan(size):
                ink = "white" if size > 0.6 * highest else _INK
                cells.text(
                    column,
                    row,
                    f"{size:.{digits}f}",
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color=ink,
                )
    told = [_short(name) for name in names]
    # The last field is on the left of no pair.
    cells.set_xticks(range(count - 1), told[:-1], rotation=90, fontsize=letters)
    cells.set_yticks(range(count), told, fontsize=letters)
    cells.set_title(note, loc="left", fontsize=9, color=_INK)
    cells.set_xticks(np.arange(-0.5, count - 1), minor=True)
    cells.set_yticks(np.arange(-0.5, count), minor=True)
    cells.set_xlim(-0.5, count - 1.5)
    cells.grid(which="minor", color=_FAINT, linewidth=0.5)
    cells.tick_params(which="both", length=0)
    cells.spines[:].set_visible(False)
    scale = figure.colorbar(
        image,
        ax=cells,
        location="bottom",
        fraction=0.04,
        pad=0.02,
        aspect=50,
    )
    scale.set_label("pairs: mean absolute effect on the logit", fontsize=9, color=_INK)
    scale.ax.tick_params(labelsize=8)
    scale.outline.set_visible(False)
    bars.barh(range(count), [single[name] for name in names], color=_BLUE, height=0.7)
    bars.set_title("fields alone", loc="left", fontsize=9, color=_INK)
    bars.set_ylim(count - 0.5, -0.5)
    bars.tick_params(axis="y", which="both", length=0, labelleft=False)
    bars.tick_params(axis="x", labelsize=8)
    bars.set_axisbelow(True)
    bars.grid(axis="x", color=_FAINT)
    bars.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _short(name: str) -> str:
    """A name that leaves room for the picture.

    >>> _short("a_field_with_a_long_name_of_its_own")
    'a_field_with_a_long_n…'
    """
    return name if len(name) <= _MOST_LETTERS else name[: _MOST_LETTERS - 1] + "…"
