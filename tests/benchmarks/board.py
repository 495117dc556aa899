"""Sets a benchmark's results beside the published ones, as a Markdown table.

The published figures, `published.json` in the report's folder, are those of the public board's own
logs: AUC and logloss on the same validation rows, and on test rows that are not at hand. Of some
models it tells the mean of five runs' test AUC too, by which a mean is judged as well.

    recsys-had benchmark frappe --data data/frappe --out docs/results/frappe --seeds 2021 2022
    python tests/benchmarks/board.py docs/results/frappe

With ``--beside NAME``, another folder of runs in the report's, it also writes `NAME.md`: the same
models under something else, by the mean of their AUC over the seeds both have.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from recsys_had.comparison import Measured, Row, summarise

# What a mean on the validation rows should exceed the published test AUC by: half of what lies
# between the two where both are published.
MARGIN = 0.0005


def decimals(value: float | None, places: int = 5) -> str:
    """A share without its leading zero."""
    return "" if value is None else f"{value:.{places}f}".replace("0.", ".", 1)


def line(row: Row, aucs: list[float], published: dict[str, Any] | None) -> str:
    """One model's row of the table."""
    known = published or {}
    spread = "" if row.auc_std is None else f" ± {decimals(row.auc_std)}"
    test_mean = ""
    if "test_auc_mean" in known:
        test_mean = f"{decimals(known['test_auc_mean'])} ± {decimals(known['test_auc_std'])}"
    cells = [
        row.experiment.split("_", 1)[1],
        f"{row.parameters:,}",
        str(row.seeds),
        decimals(row.auc_mean) + spread,
        decimals(max(aucs)),
        decimals(row.logloss_mean),
        f"{row.epochs_mean:.0f}",
        decimals(known.get("valid_auc")),
        decimals(known.get("valid_logloss")),
        decimals(known.get("test_auc")),
        reached(row.auc_mean, known.get("test_auc")),
        test_mean,
        reached(row.auc_mean, known.get("test_auc_mean")),
    ]
    return f"| {' | '.join(cells)} |"


def reached(mean: float, test_auc: float | None) -> str:
    """Whether a mean on the validation rows lies a margin above a published test AUC."""
    return "" if test_auc is None else "yes" if mean >= test_auc + MARGIN else "no"


def results_in(folder: Path) -> list[Measured]:
    """Every finished run of a folder; trials are not."""
    notes = sorted(folder.glob("*.json"))
    return [Measured.load(path) for path in notes if "-trial" not in path.stem]


def beside(ours: list[Measured], others: list[Measured], published: dict[str, Any]) -> str:
    """A table of the models both have runs of, by the seeds both have."""
    by_run = {(one.experiment, one.seed): one for one in others}
    pairs: dict[str, list[tuple[float, float]]] = {}
    for one in ours:
        if (other := by_run.get((one.experiment, one.seed))) is not None:
            pairs.setdefault(one.experiment, []).append((one.auc, other.auc))
    lines = [
        "| model | seeds | valid AUC here | there | there less here | published |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    gains = []
    for name, found in sorted(pairs.items()):
        here, there = (sum(column) / len(found) for column in zip(*found, strict=True))
        gains.append(there - here)
        known = published.get(name.split("_", 1)[1], {})
        lines.append(
            f"| {name.split('_', 1)[1]} | {len(found)} | {decimals(here)} | {decimals(there)} "
            f"| {there - here:+.5f} | {decimals(known.get('valid_auc'))} |"
        )
    lines.append(f"| mean | | | | {sum(gains) / len(gains):+.5f} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes `board.md` into the report's folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--beside", metavar="NAME")
    options = parser.parse_args()
    folder = options.report
    published = json.loads((folder / "published.json").read_text())
    results = results_in(folder / "runs")
    if options.beside:
        table = beside(results, results_in(folder / options.beside), published)
        (folder / f"{options.beside}.md").write_text(table)
    aucs: dict[str, list[float]] = {}
    for one in results:
        aucs.setdefault(one.experiment, []).append(one.auc)
    head = (
        "| model | parameters | seeds | valid AUC | best seed | valid logloss | epochs "
        "| published valid AUC | its logloss | its test AUC | mean ≥ test + .0005 "
        "| five runs' test AUC | mean ≥ theirs + .0005 |"
    )
    lines = [head, "| --- |" + " --- |" * 12]
    for row in summarise(results):
        name = row.experiment.split("_", 1)[1]
        lines.append(line(row, aucs[row.experiment], published.get(name)))
    (folder / "board.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
