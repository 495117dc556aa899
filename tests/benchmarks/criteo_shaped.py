"""Rows in the shape of Criteo's log: a label, 13 whole numbers, 26 values of eight hex digits.

python tests/benchmarks/criteo_shaped.py ROWS FILE
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

# Values of each field; the same however many rows are drawn.
CARDINALITIES = [
    *(1_400, 550, 200_000, 120_000, 300, 20, 12_000, 600, 3, 60_000, 5_000, 190_000, 3_100),
    *(26, 11_000, 180_000, 10, 4_700, 2_000, 4, 185_000, 16, 15, 80_000, 80, 55_000),
]
_CHUNK_ROWS = 1 << 18


def chunk(number: int, num_rows: int) -> pl.DataFrame:
    """The ``number``-th rows, drawn alike on every machine."""
    generator = np.random.Generator(np.random.Philox(key=[7, number]))
    columns: dict[str, pl.Series] = {}
    columns["label"] = pl.Series((generator.random(num_rows) < 0.26).astype(np.int8))
    for place in range(13):
        drawn = np.floor(generator.lognormal(1.0 + place / 4, 1.5, num_rows)).astype(np.int64) - 1
        missing = generator.random(num_rows) < 0.02 * place
        columns[f"I{place + 1}"] = _with_gaps(pl.Series(drawn), missing)
    for place, size in enumerate(CARDINALITIES):
        # Log-uniform: few values are frequent, most are rare.
        rank = np.floor(np.exp(generator.random(num_rows) * np.log(size + 1))).astype(np.uint64) - 1
        missing = generator.random(num_rows) < (0.4 if place % 7 == 2 else 0.02)
        columns[f"C{place + 1}"] = _with_gaps(
            hex_digits(rank * np.uint64(26) + np.uint64(place)), missing
        )
    return pl.DataFrame(columns)


def _with_gaps(values: pl.Series, missing: NDArray[np.bool_]) -> pl.Series:
    return values.to_frame("v").select(pl.when(pl.Series(~missing)).then("v"))["v"]


def hex_digits(numbers: NDArray[np.uint64]) -> pl.Series:
    """Eight hex digits for each number; no two below 2**32 have the same."""
    mixed = (numbers * np.uint64(2_654_435_761)) & np.uint64(0xFFFFFFFF)
    digits = mixed.astype(">u4").tobytes().hex()
    array = np.frombuffer(digits.encode(), "S8")
    return pl.Series(array.astype("U8"))


def write(path: Path, num_rows: int) -> Path:
    """Writes a tab-separated file without a header."""
    with path.open("wb") as stream:
        for number, first in enumerate(range(0, num_rows, _CHUNK_ROWS)):
            rows = chunk(number, min(_CHUNK_ROWS, num_rows - first))
            rows.write_csv(stream, separator="\t", include_header=False)
    return path


def write_distinct(path: Path, num_rows: int) -> Path:
    """Writes a label and a value that no other row holds, likewise."""
    with path.open("wb") as stream:
        for first in range(0, num_rows, _CHUNK_ROWS):
            numbers = np.arange(first, min(first + _CHUNK_ROWS, num_rows), dtype=np.uint64)
            label = pl.Series((numbers % 4 == 0).astype(np.int8))
            rows = pl.DataFrame({"label": label, "id": hex_digits(numbers)})
            rows.write_csv(stream, separator="\t", include_header=False)
    return path


if __name__ == "__main__":
    write(Path(sys.argv[2]), int(sys.argv[1]))
