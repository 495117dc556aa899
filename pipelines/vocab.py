"""``recsys-had vocab``: a field's values, how many training rows hold each, and their ids."""

from pathlib import Path
from typing import Any

import click
from recsys_had.pipelines._command import Result, local_path, recsys_had_command

_MAX_WIDTH = 60


@recsys_had_command("vocab")
@click.argument("data", type=local_path)
@click.argument("field")
@click.option("--top", type=click.IntRange(min=1), help="The most frequent so many (20).")
@click.option("--find", "values", multiple=True, metavar="VALUE...", help="These values.")
@click.option("--id", "ids", type=int, multiple=True, metavar="ID...", help="These ids.")
def command(
    data: Path, field: str, top: int | None, values: tuple[str, ...], ids: tuple[int, ...]
) -> Result:
    """Show the vocabulary of FIELD: the most frequent values, or those asked for.

    Id 0 stands for every missing or unseen value. The whole table is DATA/vocab/FIELD.parquet.
    """
    content = vocab(data, field, top=top, values=values, ids=ids)
    return Result(content, _as_text(content))


def vocab(
    data: Path,
    field: str,
    *,
    top: int | None = None,
    values: tuple[str, ...] = (),
    ids: tuple[int, ...] = (),
) -> dict[str, Any]:
    """What ``--json`` prints."""
    from recsys_had.data.entries import entries_of
    from recsys_had.data.folder import DataFolder
    from recsys_had.data.shards import encoder_of

    folder = DataFolder.open(data)
    encoder = encoder_of(folder)
    entries = entries_of(encoder, field, top=top, values=values, ids=ids)
    rows = folder.counted_rows
    return {
        "field": field,
        "num_embeddings": encoder.num_embeddings[field],
        "training_rows": rows,
        "entries": [
            {**entry, "share": entry["count"] / rows if entry["count"] is not None else None}
            for entry in entries.to_dicts()
        ],
    }


def _as_text(content: dict[str, Any]) -> str:
    header = ("id", "count", "share", "value")
    cells = [
        (
            f"{entry['id']:,}",
            "" if entry["count"] is None else f"{entry['count']:,}",
            "" if entry["share"] is None else f"{entry['share']:.2%}",
            _shown(entry["value"], entry["id"]),
        )
        for entry in content["entries"]
    ]
    widths = [max(len(row[at]) for row in (header, *cells)) for at in range(3)]
    lines = [
        "  ".join([*(f"{row[at]:>{widths[at]}}" for at in range(3)), row[3]])
        for row in (header, *cells)
    ]
    told = (
        f"{content['field']}: {content['num_embeddings'] - 1:,} values over "
        f"{content['training_rows']:,} training rows; id 0 is a missing or an unseen value"
    )
    return "\n".join([told, *lines])


def _shown(value: str | None, number: int) -> str:
    r"""A value on one line; one that would not be seen as it is stands in quotes.

    >>> _shown("a b", 1), _shown("a\tb", 1), _shown("", 1), _shown("?", 0), _shown(None, 0)
    ('a b', "'a\\tb'", "''", '? (unseen)', '(missing or unseen)')
    """
    if value is None:
        return "(missing or unseen)"
    shown = value if value.isprintable() and value.strip() == value != "" else repr(value)
    if len(shown) > _MAX_WIDTH:
        shown = f"{shown[: _MAX_WIDTH - 3]}..."
    return shown if number else f"{shown} (unseen)"
