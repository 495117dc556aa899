"""Scores, and what stands beside them, as the body of an answer: JSON or an Arrow stream."""

import json
from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"


def json_of(columns: Mapping[str, pa.Array]) -> bytes:
    """``{"scores": [...], ...}``: each number in as few digits as lead back to its float32.

    They do by way of float64 too, as most readers of JSON go. What is not a number, of which JSON
    has none, is null. Any other column keeps its name: ``novelty``, and ``explanation``, a list of
    ``{"fields": [...], "effect": ...}`` for each row.

    >>> json_of({"score": pa.array(np.array([0.1, 1e-7, np.nan], np.float32))})
    b'{"scores": [0.1, 1e-7, null]}'
    """
    parts = [
        f"{json.dumps('scores' if name == 'score' else name)}: [{', '.join(_texts(column))}]"
        for name, column in columns.items()
    ]
    return f"{{{', '.join(parts)}}}".encode()


def arrow_of(columns: Mapping[str, pa.Array]) -> bytes:
    """A stream of the columns: ``score``, float32, and any other.

    >>> body = arrow_of({"score": pa.array([0.5], pa.float32())})
    >>> pa.ipc.open_stream(body).read_all().to_pydict()
    {'score': [0.5]}
    """
    batch = pa.record_batch(dict(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _texts(column: pa.Array) -> list[str]:
    """Each value of a column as JSON."""
    kind = column.type
    if pa.types.is_float32(kind):
        return _numbers(column.to_numpy(zero_copy_only=False))
    if pa.types.is_list(kind):
        items, ends = _texts(column.flatten()), np.cumsum(pc.list_value_length(column).to_numpy())
        starts = [0, *ends[:-1].tolist()]
        return [
            f"[{', '.join(items[start:end])}]"
            for start, end in zip(starts, ends.tolist(), strict=True)
        ]
    if pa.types.is_struct(kind):
        names = [json.dumps(field.name) for field in kind]
        rows = zip(*(_texts(values) for values in column.flatten()), strict=True)
        return [
            f"{{{', '.join(f'{k}: {v}' for k, v in zip(names, row, strict=True))}}}" for row in rows
        ]
    return [json.dumps(value) for value in column.to_pylist()]


def _numbers(values: NDArray[np.float32]) -> list[str]:
    texts = pl.Series(values, dtype=pl.Float32).cast(pl.String).to_list()
    back = np.array([float(text) for text in texts]).astype(np.float32)
    is_number = np.isfinite(values)
    # Rounded twice, a few come out as a neighbour: these are written as the float64 they are.
    for row in np.flatnonzero((back != values) & is_number).tolist():
        texts[row] = repr(float(values[row]))
    for row in np.flatnonzero(~is_number).tolist():
        texts[row] = "null"
    return texts


def accepted(accept: str) -> str:
    """What an ``Accept`` header asks for: an Arrow stream where it names one and JSON no more.

    >>> accepted("*/*"), accepted(ARROW) == accepted(f"{JSON};q=0.5, {ARROW};q=0.9") == ARROW
    ('application/json', True)
    """
    wanted = {JSON: 0.0, ARROW: 0.0}
    for part in accept.lower().split(","):
        name, *options = (word.strip() for word in part.split(";"))
        if name in wanted:
            wanted[name] = next(
                (_quality(option[2:]) for option in options if option.startswith("q=")), 1.0
            )
    return ARROW if wanted[ARROW] > wanted[JSON] else JSON


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def json_bytes(content: object) -> bytes:
    """An object as JSON in ASCII, and a line end."""
    return (json.dumps(content, allow_nan=False) + "\n").encode()
