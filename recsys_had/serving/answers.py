"""Scores as the body of an answer: JSON or an Arrow stream."""

import json

import numpy as np
import polars as pl
import pyarrow as pa

from recsys_had.scoring.predictor import Scores

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"


def json_of(scores: Scores) -> bytes:
    """``{"scores": [...]}``: each score in as few digits as lead back to its float32.

    They do by way of float64 too, as most readers of JSON go. A score that is not a number, of
    which JSON has none, is null.

    >>> json_of(np.array([0.1, 1e-7, np.nan], np.float32))
    b'{"scores": [0.1, 1e-7, null]}'
    """
    texts = pl.Series(scores, dtype=pl.Float32).cast(pl.String).to_list()
    back = np.array([float(text) for text in texts]).astype(np.float32)
    is_nan = np.isnan(scores)
    # Rounded twice, a few come out as a neighbour: these are written as the float64 they are.
    for row in np.flatnonzero((back != scores) & ~is_nan).tolist():
        texts[row] = repr(float(scores[row]))
    for row in np.flatnonzero(is_nan).tolist():
        texts[row] = "null"
    return f'{{"scores": [{", ".join(texts)}]}}'.encode()


def arrow_of(scores: Scores) -> bytes:
    """A stream of one column ``score``, float32.

    >>> body = arrow_of(np.array([0.5], np.float32))
    >>> pa.ipc.open_stream(body).read_all().to_pydict()
    {'score': [0.5]}
    """
    batch = pa.record_batch({"score": pa.array(scores, pa.float32())})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    body: bytes = sink.getvalue().to_pybytes()
    return body


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
