"""``recsys-had prune``: a run without its weakest pairs of fields."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from recsys_had.pipelines._command import Result, local_path, path_or_url, recsys_had_command

if TYPE_CHECKING:
    from recsys_had.storage import AnyPath

_TOLD = (
    ("auc", ".6f"), ("logloss", ".6f"), ("rows_per_s", ",.0f"), ("parameters", ",d"),
    ("flops_per_row", ",d"),
)  # fmt: skip


@recsys_had_command("prune")
@click.argument("run", type=local_path)
@click.option("--data", required=True, type=path_or_url, help="Encoded rows.")
@click.option("--out", required=True, type=local_path, help="Folder of the smaller run.")
@click.option(
    "--pairs",
    "share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Share of the pairs to keep.",
)
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Number of pairs to keep.")
@click.option("--split", default="valid", show_default=True, help="train, valid or test.")
@click.option(
    "--rows",
    default=200,
    show_default=True,
    type=click.IntRange(min=1),
    help="Rows to find the weakest pairs by, as `interactions` does.",
)
@click.option("--overwrite", is_flag=True, help="Replace what OUT holds.")
def command(
    run: Path,
    data: "AnyPath",
    out: Path,
    share: float | None,
    keep: int | None,
    split: str,
    rows: int,
    overwrite: bool,
) -> Result:
    """Leave RUN's weakest pairs out, and measure what that costs and saves.

    OUT is a run like any other, not trained further. The weakest pairs are those that move the
    scores least, found without a label.
    """
    content = prune(
        run, data=data, out=out, share=share, keep=keep, split=split, rows=rows,
        overwrite=overwrite,
    )  # fmt: skip
    return Result(content, _as_text(content))


def prune(
    run: Path,
    *,
    data: "AnyPath",
    out: Path,
    share: float | None = None,
    keep: int | None = None,
    split: str = "valid",
    rows: int = 200,
    overwrite: bool = False,
) -> dict[str, Any]:
    """What ``--json`` prints."""
    from recsys_had.data.folder import DataFolder
    from recsys_had.errors import ConfigError
    from recsys_had.explanation import Explainer, look_at_split, strength_of
    from recsys_had.explanation.prune import paces, quality, strongest, write_pruned
    from recsys_had.explanation.pruning import prunable_nodes
    from recsys_had.scoring import BatchPredictor

    if (share is None) == (keep is None):
        raise ConfigError("prune: needs one of --pairs SHARE and --keep N.")
    # A calibrator is not carried over: both are measured without one.
    whole, folder = BatchPredictor.load(run, calibrate=False), DataFolder.open(data)
    prunable_nodes(whole.run.experiment.model)
    baseline, sources = look_at_split(whole, folder, split, num_rows=rows)
    explainer = Explainer(whole.model, baseline)
    _, pairs = strength_of(explainer, explainer.of_sources(sources))
    num_fields = whole.model.embeddings.num_fields
    num_pairs = num_fields * (num_fields - 1) // 2
    count = max(1, round((share or 0) * num_pairs)) if keep is None else keep
    kept = strongest(whole, pairs, count)
    graph = write_pruned(whole, folder, out, kept, overwrite=overwrite)
    smaller = BatchPredictor.load(out)
    before, after = (quality(predictor, folder, split) for predictor in (whole, smaller))
    before["rows_per_s"], after["rows_per_s"] = paces((whole, smaller), folder, split)
    return {
        "run": str(run),
        "out": str(out),
        "split": split,
        "nodes": list(graph.nodes),
        "pairs": num_pairs,
        "kept": len(kept),
        "before": before,
        "after": after,
    }


def _as_text(content: dict[str, Any]) -> str:
    before, after = content["before"], content["after"]
    lines = [
        f"{content['kept']:,} of {content['pairs']:,} pairs kept in {', '.join(content['nodes'])}",
        "",
        f"{content['split']:<14} {'before':>14} {'after':>14} {'change':>12}",
    ]
    for name, form in _TOLD:
        first, second = before[name], after[name]
        if first is None or second is None:
            lines.append(f"{name:<14} {'undefined':>14} {'undefined':>14}")
            continue
        change = f"{second - first:+.6f}" if form == ".6f" else f"{second / first - 1:+.1%}"
        lines.append(f"{name:<14} {first:>14{form}} {second:>14{form}} {change:>12}")
    lines += ["", f"the smaller run: {content['out']}"]
    return "\n".join(lines)
