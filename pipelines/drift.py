"""``recsys-had drift``: how far the columns of newer rows have moved from those of older ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from recsys_had.pipelines._command import Result, local_path, recsys_had_command

if TYPE_CHECKING:
    from recsys_had.data.drift import ColumnDrift, Side
    from recsys_had.data.folder import DataFolder


@recsys_had_command("drift")
@click.argument("old", type=local_path)
@click.argument("new", type=local_path, required=False)
@click.option(
    "--splits",
    multiple=True,
    metavar="SPLIT...",
    help="One of OLD, one of NEW. All of both; of one folder, train and valid.",
)
def command(old: Path, new: Path | None, splits: tuple[str, ...]) -> Result:
    """Compare the rows of the data folder NEW with those of OLD, or two splits of OLD.

    Columns stand by falling population stability index (PSI): below 0.1 stable, below 0.25
    moderate, else large. It is taken over the 20 most frequent values of OLD, the others, and what
    is missing or OLD has no id for; over OLD's deciles of a number. Values are compared, not ids.
    """
    content = drift(old, new, splits=splits)
    return Result(content, _as_text(content))


def drift(old: Path, new: Path | None = None, *, splits: tuple[str, ...] = ()) -> dict[str, Any]:
    """What ``--json`` prints."""
    from recsys_had.data.drift import Side, compare
    from recsys_had.data.folder import DataFolder

    before = DataFolder.open(old)
    after = before if new is None else DataFolder.open(new)
    of_old, of_new = _splits(before, splits, one_folder=new is None)
    sides = Side.count(before, of_old), Side.count(after, of_new)
    found = compare(*sides)
    return {
        "old": _side(sides[0]),
        "new": _side(sides[1]),
        "columns": [_column(column) for column in found.columns],
        "not_compared": found.not_compared,
        "only_in_old": list(found.only_in_old),
        "only_in_new": list(found.only_in_new),
    }


def _splits(
    data: "DataFolder", splits: tuple[str, ...], *, one_folder: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The splits of either side."""
    from recsys_had.errors import ConfigError

    if one_folder and not splits:
        others = [split for split in data.manifest["rows"] if split != "train"]
        splits = ("train", *others[:1])
    if len(splits) > 2 or (one_folder and len(splits) != 2):
        wanted = "two splits of one folder" if one_folder else "one split or two"
        raise ConfigError(
            f"--splits: must name {wanted}; got {', '.join(splits)}. Name them, or another folder."
        )
    return splits[:1], splits[-1:]


def _side(side: "Side") -> dict[str, Any]:
    return {
        "path": str(side.data.path),
        "splits": list(side.splits),
        "rows": side.tallies.rows,
        "click_rate": side.click_rate,
    }


def _column(column: "ColumnDrift") -> dict[str, Any]:
    return {
        "name": column.name,
        "kind": column.kind,
        "psi": column.psi.value,
        "psi_by_chance": column.psi.by_chance,
        "verdict": column.psi.verdict,
        "old_zero_share": column.old_zero_share,
        "new_zero_share": column.new_zero_share,
        "new_value_share": column.new_value_share,
    }


def _as_text(content: dict[str, Any]) -> str:
    header = ("column", "PSI", "by chance", "verdict", "id 0 old", "id 0 new", "new values")
    rows = [
        (
            column["name"],
            f"{column['psi']:.4f}",
            f"{column['psi_by_chance']:.4f}",
            column["verdict"],
            f"{column['old_zero_share']:.2%}",
            f"{column['new_zero_share']:.2%}",
            "" if column["new_value_share"] is None else f"{column['new_value_share']:.2%}",
        )
        for column in content["columns"]
    ]
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    lines = [
        f"{side}: {content[side]['path']} ({', '.join(content[side]['splits'])}), "
        f"{content[side]['rows']:,} rows, click rate {content[side]['click_rate']:.4f}"
        for side in ("old", "new")
    ]
    for row in (header, *rows):
        cells = [
            f"{cell:<{width}}" if at in (0, 3) else f"{cell:>{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines += [f"{name}: not compared: {why}" for name, why in content["not_compared"].items()]
    lines += [f"{name}: in old only" for name in content["only_in_old"]]
    lines += [f"{name}: in new only" for name in content["only_in_new"]]
    return "\n".join(lines)
