"""``recsys-had interactions``: which fields and pairs of fields move a run's scores most."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from recsys_had.pipelines._command import Result, local_path, path_or_url, recsys_had_command

if TYPE_CHECKING:
    from recsys_had.storage import AnyPath

_TOLD_PAIRS, _TOLD_FIELDS = 20, 10


@recsys_had_command("interactions")
@click.argument("run", type=local_path)
@click.option("--data", required=True, type=path_or_url, help="Encoded rows.")
@click.option("--split", default="valid", show_default=True, help="train, valid or test.")
@click.option(
    "--rows",
    default=200,
    show_default=True,
    type=click.IntRange(min=1),
    help="Rows to look at, evenly spaced over the split.",
)
@click.option("--out", type=local_path, help="Also draw a heat map: a file .png.")
@click.option(
    "--keep-mean",
    is_flag=True,
    help="Keep the split's mean row in RUN, for predict --explain to compare with.",
)
def command(
    run: Path, data: "AnyPath", split: str, rows: int, out: Path | None, keep_mean: bool
) -> Result:
    """Tell how strong each pair of fields is in RUN, whatever its model, and each field alone.

    A strength is the mean absolute effect on the logit, compared with the mean row.
    """
    content = interactions(run, data=data, split=split, rows=rows, out=out, keep_mean=keep_mean)
    return Result(content, _as_text(content))


def interactions(
    run: Path,
    *,
    data: "AnyPath",
    split: str = "valid",
    rows: int = 200,
    out: Path | None = None,
    keep_mean: bool = False,
) -> dict[str, Any]:
    """What ``--json`` prints: all pairs and all fields, the strongest first."""
    import numpy as np

    from recsys_had.data.folder import DataFolder
    from recsys_had.errors import DataError
    from recsys_had.explanation import Explainer, look_at_split, strength_of
    from recsys_had.explanation.of_run import MEAN_ROW
    from recsys_had.scoring import BatchPredictor
    from recsys_had.tracking import record_later

    if out is not None and out.suffix != ".png":
        raise DataError(f"{out}: must end in .png.")
    predictor = BatchPredictor.load(run)
    if keep_mean:
        predictor.run.require_changeable()
    baseline, sources = look_at_split(predictor, DataFolder.open(data), split, num_rows=rows)
    explainer = Explainer(predictor.model, baseline)
    effects = explainer.of_sources(sources)
    fields, pairs = strength_of(explainer, effects)
    content: dict[str, Any] = {
        "run": str(run),
        "split": split,
        "rows": len(effects.logit),
        "exact": explainer.is_exact,
        "baseline_logit": effects.baseline,
        "mean_move": float(np.abs(effects.logit - effects.baseline).mean()),
        "mean_rest": float(np.abs(effects.rest()).mean()),
        "pairs": [_entry(pair) for pair in pairs],
        "fields": [_entry(field) for field in fields],
        "picture": None if out is None else str(out),
        **dict.fromkeys(("mlflow_run_id", "mlflow_uri", "mlflow_error")),
    }
    if out is not None:
        _draw(content, list(explainer.parts.names), out)
    if keep_mean:
        predictor.run.add(MEAN_ROW, baseline.to_json())
    if out is None and not keep_mean:
        return content
    recorded = record_later(
        predictor.run.path,
        predictor.run.card,
        predictor.run.manifest.get("mlflow_run_id"),
        picture=out,
        logs_model=keep_mean,
    )
    return {**content, **recorded}


def _entry(strength: Any) -> dict[str, Any]:
    return {
        "fields": list(strength.fields),
        "strength": strength.mean,
        "standard_error": strength.standard_error,
    }


def _draw(content: dict[str, Any], names: list[str], out: Path) -> None:
    from recsys_had.errors import DataError
    from recsys_had.interaction_plot import draw_interactions

    try:
        draw_interactions(
            out,
            names=names,
            single={entry["fields"][0]: entry["strength"] for entry in content["fields"]},
            pair={tuple(entry["fields"]): entry["strength"] for entry in content["pairs"]},
            title=f"What moves the scores of {Path(content['run']).name}",
            note=f"{content['rows']:,} rows of {content['split']}, compared with their mean row",
        )
    except OSError as cause:
        raise DataError(f"{out}: cannot be written: {cause.strerror}.") from cause


def _as_text(content: dict[str, Any]) -> str:
    how = "exact" if content["exact"] else "by second differences"
    lines = [
        f"{content['rows']:,} rows of {content['split']}, compared with their mean row; {how}",
        f"a row moves the logit by {content['mean_move']:.4f} on average; fields and pairs leave "
        f"{content['mean_rest']:.4f} of it untold",
        "",
    ]
    for key, told, most in (("pairs", "pair", _TOLD_PAIRS), ("fields", "field", _TOLD_FIELDS)):
        entries = content[key][:most]
        width = max(len(told), *(len(" x ".join(entry["fields"])) for entry in entries))
        lines.append(f"{told:<{width}}  mean |effect|  standard error")
        for entry in entries:
            error = entry["standard_error"]
            names = " x ".join(entry["fields"])
            told_error = "" if error is None else f"{error:.4f}"
            lines.append(f"{names:<{width}}  {entry['strength']:>13.4f}  {told_error:>14}".rstrip())
        if len(content[key]) > most:
            lines.append(f"... of {len(content[key])}; --json tells all")
        lines.append("")
    if content["picture"] is not None:
        lines.append(f"heat map: {content['picture']}")
    return "\n".join(lines).rstrip()
