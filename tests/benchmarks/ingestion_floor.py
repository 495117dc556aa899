"""What no ingestion of Criteo's rows can do without: parsing them and writing the encoded ones.

    python -P tests/benchmarks/ingestion_floor.py ROWS.tsv DATA

DATA is what ``recsys-had ingest criteo`` made of the same rows. Prints one JSON object: CPU seconds
of polars parsing the text at once into numbers and texts, of writing DATA's rows as zstd Parquet
as ingestion writes them, and of writing the parsed rows, texts and all, as zstd Parquet. Imports,
and the reading of DATA, are not counted.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = {
    "label": pl.Int8,
    **{f"I{place}": pl.Int64 for place in range(1, 14)},
    **{f"C{place}": pl.String for place in range(1, 27)},
}


def cpu_seconds(work: Callable[[], object]) -> float:
    """User and system time of all threads while it works."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def parse(path: Path) -> pl.DataFrame:
    """The rows, all in memory."""
    return pl.read_csv(path, separator="\t", has_header=False, quote_char=None, schema=SCHEMA)


def main() -> None:
    rows, data = map(Path, sys.argv[1:3])
    held: list[pl.DataFrame] = []
    parse_s = cpu_seconds(lambda: held.append(parse(rows)))
    parsed = held[0]
    parts = [pq.read_table(part) for part in sorted(data.glob("*/part-*.parquet"))]
    encoded = pa.concat_tables(parts).combine_chunks()
    assert len(encoded) == len(parsed)
    with TemporaryDirectory(dir=data.parent) as folder:
        out = Path(folder) / "rows.parquet"

        def write_encoded() -> None:
            pq.write_table(encoded, out, compression="zstd", row_group_size=1 << 16)

        write_encoded_s = cpu_seconds(write_encoded)
        write_parsed_s = cpu_seconds(lambda: parsed.write_parquet(out, compression="zstd"))
    found = {"parse": parse_s, "write_encoded": write_encoded_s, "write_parsed": write_parsed_s}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
