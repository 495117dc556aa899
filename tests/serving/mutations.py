"""Requests that are damaged on purpose, and a plain reading of those that were taken nevertheless.

The reading is written without the code under test: another parser of JSON, Arrow's own reader, and
the text that each value would be in a raw file.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pydantic_core

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
_NASTY = (
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" * 30, "1" * 5000, "-0", "1.5", "1e2"),
    *("12.0", "0x10", "01", "'a'", "", "true", "false", "null", '""', '"x"', '"NULL"', '"12"'),
    *('"\\ud800"', '"\\u0000"', '"/etc/passwd"', "[]", "[[]]", '["a"]', "[null]", "[1, 2.5]"),
    *("{}", '{"a": 1}', "[" * 2000),
)


@dataclass(frozen=True)
class Mutated:
    """A request.

    Args:
        told: how it was made.
        headers: its headers, but for the length.
        body: its body.
    """

    told: str
    headers: dict[str, str]
    body: bytes


def mutated_requests(rows: list[dict[str, Any]], *, number: int, seed: int) -> Iterator[Mutated]:
    """Requests made of rows by damage to their bytes, their cells, their shape or their headers."""
    generator = np.random.default_rng(seed)
    table = pa.Table.from_pylist(rows)
    coded = table.set_column(2, "user", table["user"].dictionary_encode())
    streams = [_stream(table), _stream(table, compression="zstd"), _stream(coded)]
    for count in range(number):
        match count % 6:
            case 0 | 1:
                body = _bytes_changed(json.dumps({"rows": rows}).encode(), generator)
                yield Mutated("bytes of JSON", {"Content-Type": JSON}, body)
            case 2:
                yield Mutated("a cell of JSON", {"Content-Type": JSON}, _cell(rows, generator))
            case 3:
                yield Mutated("the shape of JSON", {"Content-Type": JSON}, _shape(rows, generator))
            case 4:
                body = _bytes_changed(streams[int(generator.integers(3))], generator)
                yield Mutated("bytes of Arrow", {"Content-Type": ARROW}, body)
            case _:
                yield _typed_otherwise(table, generator)


def plain_rows(request: Mutated, names: list[str]) -> pl.DataFrame:
    """The rows of a request as a raw file's text; ``tags`` as lists of it.

    Raises:
        ValueError: the body is not right.
    """
    if request.headers["Content-Type"] == ARROW:
        table = pa.ipc.open_stream(request.body).read_all()
        table.validate(full=True)
        rows = [{name: row[name] for name in names} for row in table.to_pylist()]
    else:
        content = pydantic_core.from_json(request.body, allow_inf_nan=False)
        json.loads(request.body, object_pairs_hook=_without_twins)
        [(shape, inside)] = content.items()
        if shape == "rows":
            rows = [{name: row[name] for name in names} for row in inside]
        else:
            [length] = {len(column) for column in inside.values()}
            rows = [{name: inside[name][row] for name in names} for row in range(length)]
    texts = [
        {name: _list(cell) if name == "tags" else _text(cell) for name, cell in row.items()}
        for row in rows
    ]
    return pl.DataFrame(
        texts, schema={n: pl.List(pl.String) if n == "tags" else pl.String for n in names}
    )


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _text(cell: object) -> str | None:
    match cell:
        case None:
            return None
        case str():
            return cell or None
        case bytes():
            return cell.decode() or None
        case bool() | int():
            return str(int(cell))
        case float():
            if math.isnan(cell):
                return None
            return str(int(cell)) if abs(cell) < 2**63 and cell == int(cell) else repr(cell)
        case _:
            raise ValueError(f"no text: {cell!r}")


def _list(cell: object) -> list[str | None] | None:
    if isinstance(cell, list):
        return [_text(element) for element in cell]
    text = _text(cell)
    return None if text is None else list(text.split(","))


def _bytes_changed(body: bytes, generator: np.random.Generator) -> bytes:
    changed = bytearray(body)
    for _ in range(int(generator.integers(1, 4))):
        place = int(generator.integers(len(changed)))
        match int(generator.integers(6)):
            case 0:
                changed[place] = int(generator.integers(256))
            case 1:
                changed[place] ^= 1 << int(generator.integers(8))
            case 2:
                del changed[place + 1 : place + int(generator.integers(2, 10))]
            case 3:
                changed[place:place] = changed[: int(generator.integers(1, 30))]
            case 4:
                changed[place] = ord("0123456789"[int(generator.integers(10))])
            case _:
                del changed[max(1, place) :]
    return bytes(changed)


def _cell(rows: list[dict[str, Any]], generator: np.random.Generator) -> bytes:
    """Another value in the place of one."""
    marked = json.loads(json.dumps(rows))
    row = marked[int(generator.integers(len(marked)))]
    row[list(row)[int(generator.integers(len(row)))]] = "@mark@"
    nasty = _NASTY[int(generator.integers(len(_NASTY)))]
    return json.dumps({"rows": marked}).replace('"@mark@"', nasty).encode()


def _shape(rows: list[dict[str, Any]], generator: np.random.Generator) -> bytes:
    """Keys and brackets elsewhere, fewer or more of them."""
    name = list(rows[0])[int(generator.integers(len(rows[0])))]
    without = [{k: v for k, v in row.items() if k != name} for row in rows]
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    shapes: list[object] = [
        rows,
        {"row": rows},
        {"rows": without},
        {"rows": [*rows, without[0]]},
        {"rows": [*rows, None]},
        {"rows": {"0": rows[0]}},
        {"rows": rows, "columns": columns},
        {"rows": rows, "batch": 1},
        {"rows": [{**row, name.upper(): 1, "path": "/etc/passwd"} for row in rows]},
        {"columns": columns},
        {"columns": {**columns, name: columns[name][1:]}},
        {"columns": {**columns, name: rows[0][name]}},
        {"columns": rows},
        {"rows": rows * 3000},
        {"rows": []},
        {},
        None,
    ]
    text = json.dumps(shapes[int(generator.integers(len(shapes)))])
    if generator.random() < 0.2:
        text = text.replace(f'"{name}": ', f'"{name}": 1, "{name}": ', 1)
    return text.encode("utf-16" if generator.random() < 0.1 else "utf-8")


def _typed_otherwise(table: pa.Table, generator: np.random.Generator) -> Mutated:
    """Columns of another type, name or number, or other headers."""
    name = table.column_names[int(generator.integers(table.num_columns))]
    place = table.column_names.index(name)
    others: list[pa.Array] = [
        pa.nulls(len(table)),
        pa.array([{"a": 1}] * len(table)),
        pa.array([b"\xff"] * len(table), pa.binary()).view(pa.string()),
        pa.array(["5"] * len(table), pa.string_view()),
        pa.array([5.0] * len(table), pa.float32()),
        pa.array([float("inf")] * len(table)),
        pa.array([2**64 - 1] * len(table), pa.uint64()),
        pa.array([[["a"]]] * len(table)),
        pa.array([[1, None]] * len(table)),
        pa.array([True] * len(table)),
    ]
    kind = {"Content-Type": ARROW}
    match int(generator.integers(5)):
        case 0 | 1 | 2:
            changed = table.set_column(place, name, others[int(generator.integers(len(others)))])
        case 3:
            changed = table.append_column(name, table[name])
        case _:
            changed = table.drop([name])
            kind = [{"Content-Type": "text/csv"}, {**kind, "Content-Encoding": "gzip"}, kind][
                int(generator.integers(3))
            ]
    return Mutated(f"columns of Arrow, {name}", kind, _stream(changed))


def _stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    written = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(sink, table.schema, options=written) as writer:
        writer.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body
