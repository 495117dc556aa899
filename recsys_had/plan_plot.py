"""A picture of a planned cluster: what each rank's memory holds, and where a step's time goes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

_BLUE, _GREY, _FAINT, _RED = "#1f5fa8", "#b9bec6", "#e3e6ea", "#b3261e"


def draw_plan(
    path: Path,
    *,
    title: str,
    rank_bytes: Sequence[int],
    reserved_bytes: int,
    hbm_bytes: int,
    step_ms: Mapping[str, float],
) -> None:
    """Draws memory by rank under the line of what there is, and the slowest rank's step, as PNG.

    Args:
        path: where the PNG goes.
        title: above the picture.
        rank_bytes: of tables, by rank.
        reserved_bytes: kept for the rest, on each.
        hbm_bytes: memory of a rank.
        step_ms: milliseconds by part.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.2), layout="constrained")
    memory, time = figure.subplots(2, 1, height_ratios=(3, 2))
    ranks = range(len(rank_bytes))
    tables = [size / 1e9 for size in rank_bytes]
    memory.bar(ranks, tables, width=0.9, color=_BLUE, label="tables and their optimizer")
    memory.bar(
        ranks,
        reserved_bytes / 1e9,
        width=0.9,
        bottom=tables,
        color=_GREY,
        label="kept for the rest",
    )
    memory.axhline(hbm_bytes / 1e9, color=_RED, linewidth=1.4, label="memory of a GPU")
    memory.set(title=title, xlabel="rank", ylabel="GB")
    memory.set_ylim(0, hbm_bytes / 1e9 * 1.12)
    memory.set_xlim(-0.7, len(rank_bytes) - 0.3)
    memory.legend(loc="upper right", ncols=3, fontsize=9)
    names = list(step_ms)
    time.barh(names, [step_ms[name] for name in names], color=_BLUE)
    for place, name in enumerate(names):
        time.annotate(
            f"{step_ms[name]:.2f}", (step_ms[name], place), xytext=(4, 0), va="center",
            textcoords="offset points", fontsize=9,
        )  # fmt: skip
    time.invert_yaxis()
    time.margins(x=0.1)
    time.set(xlabel="estimated ms of a step on the slowest rank")
    for axes in (memory, time):
        axes.set_axisbelow(True)
        axes.grid(axis="y" if axes is memory else "x", color=_FAINT)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, metadata={"Software": None})
