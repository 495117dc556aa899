"""What is told of the run that is served: its digests, and the columns its card wants."""

from typing import Any

from recsys_had.columns import (
    MultiCategoricalColumn,
    TimestampColumn,
    VectorColumn,
    source_columns,
)
from recsys_had.data.values import required_columns
from recsys_had.run_folder import RunFolder
from recsys_had.schema import DatasetCard
from recsys_had.versions import library_versions


def run_content(run: RunFolder) -> dict[str, Any]:
    """Which run it is, and what it is scored with."""
    return {
        "status": "ready",
        "dataset": run.card.name,
        "run_digest": run.manifest["digest"],
        "weights_digest": run.manifest["weights_digest"],
        "versions": library_versions(),
    }


def card_content(card: DatasetCard) -> dict[str, Any]:
    """The raw columns that rows must have, in the card's order.

    >>> from recsys_had.schema import parse_card
    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns:
    ...   click: {kind: label}
    ...   tags: {kind: multi_categorical, separator: ","}
    ...   genres: {kind: multi_categorical, flags: [drama]}
    ... split: {by: given}
    ... ''')
    >>> for column in card_content(card)["columns"]:
    ...     print(column)
    {'name': 'tags', 'kind': 'multi_categorical', 'separator': ','}
    {'name': 'drama', 'kind': 'flag', 'of': 'genres'}
    """
    wanted = set(required_columns(card))
    columns: list[dict[str, Any]] = []
    for name, column in card.columns.items():
        flags = column.flags if isinstance(column, MultiCategoricalColumn) else None
        for source in source_columns({name: column}):
            if source not in wanted:
                continue
            entry: dict[str, Any] = {"name": source, "kind": column.kind}
            match column:
                case MultiCategoricalColumn() if flags:
                    entry |= {"kind": "flag", "of": name}
                case MultiCategoricalColumn():
                    entry |= {"separator": column.separator}
                case VectorColumn():
                    entry |= {"separator": column.separator, "size": column.size}
                case TimestampColumn():
                    entry |= {"format": column.format}
                case _:
                    pass
            columns.append(entry)
    return {
        "dataset": card.name,
        "card_digest": card.digest,
        "missing": list(card.format.missing),
        "columns": columns,
    }
