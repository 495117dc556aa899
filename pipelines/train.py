"""``recsys-had train``: one experiment on one encoded data folder, on one process or many."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from recsys_had.pipelines._command import (
    Result,
    is_first_rank,
    local_path,
    path_or_url,
    recsys_had_command,
)

if TYPE_CHECKING:
    from recsys_had.storage import AnyPath


@recsys_had_command("train")
@click.argument("experiment")
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--data", required=True, type=path_or_url, help="Encoded rows.")
@click.option("--out", required=True, type=local_path, help="Run folder.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace a finished or unfinished run.")
@click.option(
    "--warm-start",
    type=local_path,
    metavar="RUN",
    help="Begin with the weights of an earlier run, row by row of what its values were.",
)
@click.option(
    "--pretrained",
    multiple=True,
    metavar="NAME=FILE",
    help="Begin with a table's rows from a file, by value: FIELD or SET.FIELD, and a file of "
    "`recsys-had export` or a Parquet file of columns value and vector.",
)
@click.option("--no-tracking", is_flag=True, help="Keep the run out of MLflow.")
def command(
    experiment: str,
    overrides: tuple[str, ...],
    data: "AnyPath",
    out: Path,
    resume: bool,
    overwrite: bool,
    warm_start: Path | None,
    pretrained: tuple[str, ...],
    no_tracking: bool,
) -> Result:
    """Train EXPERIMENT (a bundled name or a YAML file); KEY=VALUE overrides its settings.

    Also under torchrun: torchrun --no-python --nproc-per-node 2 recsys-had train ...
    """
    content = train(
        experiment,
        overrides=overrides,
        data=data,
        out=out,
        resume=resume,
        overwrite=overwrite,
        warm_start=warm_start,
        pretrained=pretrained,
        tracking=not no_tracking,
    )
    return Result(content, _as_text(content, out))


def train(
    name: str,
    *,
    overrides: tuple[str, ...] = (),
    data: "AnyPath",
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    warm_start: Path | None = None,
    pretrained: tuple[str, ...] = (),
    tracking: bool = True,
) -> dict[str, Any]:
    """Trains, tracks and publishes a run folder; returns what ``--json`` prints."""
    from recsys_had.versions import check_trio

    check_trio()

    from recsys_had.allocator import keep_freed_memory
    from recsys_had.data.folder import DataFolder
    from recsys_had.experiment_file import load_experiment_with_card
    from recsys_had.training.distributed import process_group
    from recsys_had.training.pretrained import parse_pretrained
    from recsys_had.training.session import TrainingSession

    keep_freed_memory()
    experiment, card = load_experiment_with_card(name, overrides)
    folder = DataFolder.open(data)
    folder.require(card)
    files = parse_pretrained(pretrained)
    with process_group(experiment.train.timeout_s) as device:
        session = TrainingSession(
            experiment=experiment,
            name=Path(name).stem,
            data=folder,
            out=out,
            device=device,
            resume=resume,
            overwrite=overwrite,
            tracking=tracking,
            warm_start=warm_start,
            pretrained=files,
            show_progress=is_first_rank() and os.isatty(2),
        )
        return session.run()


def _as_text(content: dict[str, Any], out: Path) -> str:
    lines = []
    for split in ("valid", "test"):
        metrics = content.get(split)
        if metrics:
            told = "  ".join(
                f"{name} {'undefined' if number is None else format(number, '.6g')}"
                for name, number in metrics.items()
            )
            lines.append(f"{split}: {told}")
    lines.append(
        f"{content['epochs']} epochs, {content['steps']} steps, "
        f"{content['rows_per_s']:,.0f} rows/s, world size {content['world_size']}"
    )
    if content["warm_start"] is not None:
        lines.append(_warm_line(content["warm_start"]))
    for table, rows in (content["pretrained"] or {}).items():
        lines.append(
            f"{table} pretrained: {rows['taken']:,} of {rows['given']:,} rows taken, "
            f"{rows['unknown']:,} of unknown values"
        )
    lines.append(f"run folder: {out}")
    if content["mlflow_run_id"]:
        lines.append(f"MLflow run: {content['mlflow_run_id']} at {content['mlflow_uri']}")
    return "\n".join(lines)


def _warm_line(told: dict[str, Any]) -> str:
    rows = {
        what: sum(counts[what] for counts in told["tables"].values())
        for what in ("kept", "new", "gone")
    }
    line = (
        f"begun with {told['run']}: {rows['kept']:,} rows of tables kept, {rows['new']:,} new, "
        f"{rows['gone']:,} gone"
    )
    return f"{line}; anew: {', '.join(told['fresh'])}" if told["fresh"] else line
