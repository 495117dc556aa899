"""Cells of a column of JSON to a series, each cell meaning what it means alone.

A number beside texts is the text it has in a column of numbers, and a text beside lists is split
as it is in a column of texts: what a row scores does not depend on the rows it is sent with.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from recsys_had.columns import Column, MultiCategoricalColumn, VectorColumn
from recsys_had.data.problems import Problems, quoted
from recsys_had.schema import DatasetCard
from recsys_had.scoring.frames import texts_of
from recsys_had.utf8 import is_unicode

_DTYPES: dict[type, type[pl.DataType]] = {
    str: pl.String,
    int: pl.Int64,
    float: pl.Float64,
    bool: pl.Boolean,
}


def kind_of(value: object) -> str:
    """What a value of JSON is called.

    >>> kind_of([]), kind_of(None), kind_of(1.5)
    ('a list', 'null', 'a number')
    """
    match value:
        case None:
            return "null"
        case bool():
            return "a truth"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "an object"


def series_of(
    name: str, cells: Sequence[Any], card: DatasetCard, *, problems: Problems
) -> pl.Series:
    """A column of raw rows: texts, numbers, truths, or lists where its kind takes them.

    Args:
        name: the column.
        cells: its cells, as JSON has them.
        card: what the columns are.
        problems: takes the rows that hold no cell: an object, a list where none is taken, a
            number beyond 64 bits, a text that is no Unicode. Then the series is not to be used.

    >>> from recsys_had.schema import parse_card
    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns: {click: {kind: label}, tags: {kind: multi_categorical, separator: ","}}
    ... split: {by: given}
    ... ''')
    >>> series_of("tags", [["a", 1.0], "b,c", 2, None], card, problems=Problems()).to_list()
    [['a', '1'], ['b', 'c'], ['2'], None]
    """
    column = card.columns.get(name)
    kinds = set(map(type, cells)) - {type(None)}
    before = problems.total
    if not _is_plain(cells, kinds):
        told = [_wrong(cell, column) for cell in cells]
        bad = np.array([line is not None for line in told], np.bool_)
        problems.add_rows(bad, lambda row: f"row {row}", lambda row: f"column {name}: {told[row]}")
    if problems.total > before:
        return pl.Series(name, [], dtype=pl.String)
    if list in kinds:
        return _lists(name, cells, _separator(column) or "", card.format.missing)
    dtype = _dtype(cells, kinds)
    return pl.Series(
        name, cells if dtype is not None else texts_of(cells), dtype=dtype or pl.String
    )


def _separator(column: Column | None) -> str | None:
    """What stands between the values of a text, of a column that takes lists; else None."""
    match column:
        case VectorColumn() | MultiCategoricalColumn(flags=None):
            return column.separator
        case _:
            return None


def _is_plain(cells: Sequence[Any], kinds: set[type]) -> bool:
    """Whether nothing can be wrong with the cells, seen without going through them one by one."""
    if not kinds <= _DTYPES.keys():
        return False
    if float in kinds and not all(math.isfinite(cell) for cell in cells if type(cell) is float):
        return False
    return str not in kinds or is_unicode("".join(cell for cell in cells if type(cell) is str))


def _wrong(cell: object, column: Column | None) -> str | None:
    """What is wrong with a cell, None where nothing is."""
    match cell:
        case list() if _separator(column) is not None:
            inside = [_wrong(element, None) for element in cell]
            if isinstance(column, VectorColumn):
                inside += ["must hold numbers; got a truth." for e in cell if isinstance(e, bool)]
            return next((told for told in inside if told is not None), None)
        case list() | dict():
            return f"must be text, a number, a truth or null; got {kind_of(cell)}."
        case float() if not math.isfinite(cell):
            return "must be a finite number; got one beyond 64 bits."
        case str() if not is_unicode(cell):
            return f"must be Unicode; got half of a pair of surrogates in {quoted(cell)}."
        case _:
            return None


def _dtype(values: Sequence[Any], kinds: set[type]) -> type[pl.DataType] | None:
    """What a series of the values holds; None where they are of several kinds, or too large."""
    if len(kinds) != 1:
        return None if kinds else pl.Null
    [kind] = kinds
    if kind is int and not all(v is None or -(2**63) <= v < 2**63 for v in values):
        return None
    return _DTYPES[kind]


def _lists(name: str, cells: Sequence[Any], separator: str, missing: tuple[str, ...]) -> pl.Series:
    elements = [element for cell in cells if isinstance(cell, list) for element in cell]
    dtype = _dtype(elements, set(map(type, elements)) - {type(None)})
    if dtype is not None and all(cell is None or isinstance(cell, list) for cell in cells):
        return pl.Series(name, cells, dtype=pl.List(dtype))
    written = iter(texts_of(elements))
    lists: list[list[str | None] | None] = []
    for cell in cells:
        if isinstance(cell, list):
            lists.append([next(written) for _ in cell])
        else:
            [text] = texts_of([cell])
            lists.append(None if text is None or text in missing else [*text.split(separator)])
    return pl.Series(name, lists, dtype=pl.List(pl.String))
