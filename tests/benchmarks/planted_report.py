"""Table and picture of what was learned of the planted laws."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from planted_laws import LAWS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Results = dict[str, dict[str, dict[str, dict[str, Any]]]]  # by candidate, law and seed

LEARNED = 0.1  # share of the law left at most
MARKS = {
    ("learn", True): "✓",
    ("learn", False): "✗",
    ("fail", True): "∅",
    ("fail", False): "!",
    ("none", True): "",
    ("none", False): "",
}
# Told apart by colour and marker in every panel; all others are thin lines.
CAST = {
    "fm": ("#1f77b4", "o"),
    "ffm": ("#17becf", "s"),
    "cin": ("#d62728", "^"),
    "hadamard_cross, num_layers 3": ("#2ca02c", "D"),
    "polynomial_interaction": ("#9467bd", "v"),
    "hofm, order 4": ("#8c564b", "P"),
    "mlp": ("#ff7f0e", "X"),
    "autoint": ("#e377c2", "*"),
    "senet + fm, fm": ("#000000", "<"),
}
# Colour, line width, layer and marker of all others, by what is expected of them.
SHADES = {
    "learn": ("#a9c4dd", 0.9, 3, ""),
    "none": ("#e3c88f", 0.9, 2, ""),
    "fail": ("#8a8a8a", 1.2, 1, ""),
}
TICKS = (20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000)


def judged(seeds: dict[str, dict[str, Any]], law: str) -> tuple[str, bool, float] | None:
    """What was expected, whether it came so, and the share left: by the seed that speaks against.

    None where no seed was run to its end.
    """
    runs = [run for run in seeds.values() if "curve" in run]
    if not runs:
        return None
    expected = runs[0]["expected"]
    left = [run["curve"][-1][1] for run in runs]
    if expected == "fail":
        return expected, min(left) > LAWS[law].least_left, min(left)
    return expected, max(left) < LEARNED, max(left)


def write_table(results: Results, path: Path) -> None:
    """A row an interaction, a column a law, and how many came as expected."""
    laws = [law for law in LAWS if any(law in by_law for by_law in results.values())]
    lines = ["| interaction | " + " | ".join(laws) + " |", "| --- |" + " --- |" * len(laws)]
    counts: dict[str, list[list[bool]]] = {"learn": [], "fail": []}
    for of in counts.values():
        of.extend([] for _ in laws)
    for label in sorted(results):
        cells = []
        for place, law in enumerate(laws):
            found = judged(results[label].get(law, {}), law)
            if found is None:
                cells.append("error" if law in results[label] else "")
                continue
            expected, as_expected, left = found
            cells.append(f"{left:.3f} {MARKS[expected, as_expected]}".rstrip())
            if expected in counts:
                counts[expected][place].append(as_expected)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    for expected, label in (("learn", "claimed and learned"), ("fail", "must fail and failed")):
        cells = [f"{sum(of)} of {len(of)}" for of in counts[expected]]
        lines.append(f"| **{label}** | " + " | ".join(cells) + " |")
    path.write_text("\n".join(lines) + "\n")


def write_curves(results: Results, path: Path) -> None:
    """A panel a law: what is left against rows seen, of the first seed."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(15, 8.4), layout="constrained")
    panels = figure.subplots(2, 4, sharex=True, sharey=True)
    for axes, law in zip(panels.flat, LAWS, strict=True):
        draw_panel(axes, results, law)
    for axes in panels[1]:
        axes.set_xlabel("rows seen")
    for axes in panels[:, 0]:
        axes.set_ylabel("share of the law not learned")
    legend = [
        Line2D([], [], color=color, marker=marker, markersize=6, linewidth=1.8, label=name)
        for name, (color, marker) in CAST.items()
    ]
    for expected, label in (
        ("learn", "another that claims it"),
        ("none", "one that claims nothing here"),
        ("fail", "one that must fail"),
    ):
        color = SHADES[expected][0]
        legend.append(Line2D([], [], color=color, linewidth=2, label=label))
    legend.append(
        Line2D([], [], color="#444", linestyle=":", linewidth=1, label="learned is below this")
    )
    figure.legend(handles=legend, loc="outside lower center", ncols=5, fontsize=10, frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def draw_panel(axes: "Axes", results: Results, law: str) -> None:
    """One law; a curve that ended early, with all learned, ends in a ring."""
    failing = []
    last = max((x for of in results.values() for one in LAWS for x, _ in curve_of(of, one)))
    for label, of in results.items():
        curve = curve_of(of, law)
        if not curve:
            continue
        expected = next(run for run in of[law].values() if "curve" in run)["expected"]
        color, width, order, marker = SHADES[expected]
        if expected == "learn" and label in CAST:
            color, marker = CAST[label]
            width, order = 1.8, 5
        elif expected == "fail" and label in CAST:
            failing.append(label.split(",")[0])
        axes.plot(*zip(*curve, strict=True), color=color, linewidth=width, zorder=order,
                  marker=marker, markersize=6)  # fmt: skip
        if curve[-1][0] < last:
            axes.plot(*curve[-1], "o", mfc="none", markersize=10, color=color, zorder=order)
    told = "must fail: " + ", ".join(failing) if failing else ""
    axes.text(0.03, 0.04, told, transform=axes.transAxes, fontsize=10, color="#555", zorder=6)
    axes.axhline(LEARNED, color="#444", linestyle=":", linewidth=1)
    axes.set(xscale="log", ylim=(-0.03, 1.25))
    axes.set_title(f"{law}\n", fontsize=12, fontweight="bold")
    axes.text(0.5, 1.02, summary(results, law), transform=axes.transAxes, ha="center", fontsize=9)
    axes.set_xticks([x for x in TICKS if x <= last], minor=False)
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    axes.grid(color="#eceff2")


def summary(results: Results, law: str) -> str:
    """How many came as expected."""
    found = [judged(of[law], law) for of in results.values() if law in of]
    learn = [one[1] for one in found if one and one[0] == "learn"]
    fail = [one[1] for one in found if one and one[0] == "fail"]
    return f"{sum(learn)} of {len(learn)} learn it, {sum(fail)} of {len(fail)} fail as they must"


def curve_of(of: dict[str, dict[str, dict[str, Any]]], law: str) -> list[tuple[int, float]]:
    """The first seed's curve, or nothing."""
    return next((run["curve"] for run in of.get(law, {}).values() if "curve" in run), [])
