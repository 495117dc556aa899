"""Bodies of JSON to frames of raw rows: ``{"rows": [...]}`` or ``{"columns": {...}}``.

The text is read more strictly than Python does: numbers are those of RFC 8259, and a key stands
once in an object. What a cell holds is left to the card; here it is only seen to be a cell.
"""

import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import polars as pl

from recsys_had.data.problems import MAX_PROBLEMS, Problems, quoted
from recsys_had.data.values import required_columns
from recsys_had.errors import DataError
from recsys_had.schema import DatasetCard
from recsys_had.serving.json_columns import kind_of, series_of
from recsys_had.serving.request_error import RequestError, match, short, too_many_rows
from recsys_had.suggest import nearest
from recsys_had.utf8 import told

_SHAPES = ("rows", "columns")
_HOW = 'Write {"rows": [{column: value, ...}, ...]} or {"columns": {column: [value, ...], ...}}.'


def frame_of_json(body: bytes, card: DatasetCard, *, max_rows: int) -> pl.DataFrame:
    """The columns that the card's model reads, of a body of JSON.

    Other columns are left out, whatever they hold.

    Args:
        body: the text.
        card: what the columns are.
        max_rows: rows that are taken.

    Raises:
        RequestError: status 400, it is no JSON; 422, its shape is another; 413, it has more rows.
        DataError: one line per column that is missing, or per cell that is none.

    >>> from recsys_had.schema import parse_card
    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns: {click: {kind: label}, C1: {kind: categorical}, I1: {kind: integer}}
    ... split: {by: given}
    ... ''')
    >>> body = b'{"rows": [{"C1": 12, "I1": 3}, {"C1": "x", "I1": null}]}'
    >>> frame_of_json(body, card, max_rows=10).rows()
    [('12', 3), ('x', None)]
    """
    content = _parsed(body)
    if not isinstance(content, dict):
        raise RequestError(422, f"body: must be an object; got {kind_of(content)}. {_HOW}")
    unknown = [name for name in content if name not in _SHAPES]
    if unknown:
        told = [
            f"body: unknown key {quoted(key)}.{nearest(key[:100], _SHAPES)}"
            for key in unknown[:MAX_PROBLEMS]
        ]
        raise RequestError(422, told, total=len(unknown))
    match content:
        case {"rows": list(rows), **others} if not others:
            found = _columns_of_rows(rows, card, max_rows)
        case {"columns": dict(columns), **others} if not others:
            found = _columns_of_columns(columns, card, max_rows)
        case {"rows": other, **others} if not others:
            raise RequestError(422, f"body: rows must be a list; got {kind_of(other)}. {_HOW}")
        case {"columns": other, **others} if not others:
            raise RequestError(
                422, f"body: columns must be an object; got {kind_of(other)}. {_HOW}"
            )
        case _:
            got = "both" if content else "neither"
            raise RequestError(422, f"body: must hold either rows or columns; got {got}. {_HOW}")
    problems = Problems()
    frame = [series_of(name, cells, card, problems=problems) for name, cells in found.items()]
    problems.raise_any()
    return pl.DataFrame(frame)


def _parsed(body: bytes) -> Any:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise RequestError(400, f"body: {told(body)}") from cause
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as cause:
        raise RequestError(
            400,
            f"body:{cause.lineno}: is no JSON: {cause.msg} at character {cause.colno} of the line.",
        ) from cause
    except RecursionError as cause:
        raise RequestError(400, "body: is nested too deep. Only cells hold lists.") from cause
    except ValueError as cause:  # Python's own limit
        raise RequestError(400, "body: a number has more than 4,300 digits.") from cause


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise RequestError(400, f"body: key {quoted(twice)} stands twice in an object.")
    return found


def _no_constant(name: str) -> NoReturn:
    raise RequestError(400, f"body: is no JSON: {name} is no number of it. Write null for a gap.")


def _columns_of_rows(
    rows: list[Any], card: DatasetCard, max_rows: int
) -> Mapping[str, Sequence[Any]]:
    if len(rows) > max_rows:
        raise too_many_rows(max_rows)
    problems = Problems()
    _add(
        problems,
        [not isinstance(row, dict) for row in rows],
        lambda row: f"must be an object of columns; got {kind_of(rows[row])}.",
    )
    problems.raise_any()
    wanted = required_columns(card)
    for name in wanted:
        _add(
            problems,
            [name not in row for row in rows],
            functools.partial(_missing_of, name, rows),
        )
    problems.raise_any()
    return {name: [row[name] for row in rows] for name in wanted}


def _missing_of(name: str, rows: list[Any], row: int) -> str:
    told = f"column {name}: is missing. Write null where there is no value."
    return told + match(name, rows[row])


def _add(problems: Problems, bad: list[bool], describe: Callable[[int], str]) -> None:
    problems.add_rows(np.array(bad, np.bool_), lambda row: f"row {row}", describe)


def _columns_of_columns(
    columns: Mapping[str, Any], card: DatasetCard, max_rows: int
) -> Mapping[str, Sequence[Any]]:
    wanted = required_columns(card)
    problems = [
        f"column {name}: is missing.{match(name, columns)}"
        for name in wanted
        if name not in columns
    ]
    problems += [
        f"column {short(name)}: must be a list of values; got {kind_of(cells)}."
        for name, cells in columns.items()
        if not isinstance(cells, list)
    ]
    if problems:
        raise DataError(problems[:MAX_PROBLEMS], total=len(problems))
    lengths = {name: len(cells) for name, cells in columns.items()}
    first = next(iter(lengths.items()), ("", 0))
    other = next((pair for pair in lengths.items() if pair[1] != first[1]), first)
    if other != first:
        raise DataError(
            f"columns: must be of one length; got {first[1]} values of {short(first[0])} and "
            f"{other[1]} of {short(other[0])}."
        )
    if first[1] > max_rows:
        raise too_many_rows(max_rows)
    return {name: columns[name] for name in wanted}
