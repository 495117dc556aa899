"""The ingestion of Criteo's rows in chunked pandas, as one would write it by hand: two passes.

    python -P tests/benchmarks/ingestion_pandas.py ROWS.tsv OUT [str|object]

It comes to the same rows as ``recsys-had ingest criteo``: log-squared buckets, values of at least
ten training rows, ids by falling count, splits by the hash of each line. Texts are pandas' own
``str`` or Python's objects, which take less time and more memory. Prints one JSON object: ``rows``
per split and ``num_embeddings`` per field.
"""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

NUMBERS = [f"I{place}" for place in range(1, 14)]
TEXTS = [f"C{place}" for place in range(1, 27)]
FIELDS = [*NUMBERS, *TEXTS]
SPLITS = ("train", "valid", "test")
LIMITS = (0.8, 0.9)
SEED = 2024
MIN_COUNT = 10
CHUNK_ROWS = 500_000


def chunks(path: Path, texts: str, chunk_rows: int) -> Iterator[pd.DataFrame]:
    """The rows, numbers as their buckets and texts as they stand."""
    kinds: dict[str, Any] = {
        "label": np.float32,
        **dict.fromkeys(NUMBERS, np.float64),
        **dict.fromkeys(TEXTS, texts),
    }
    frames = pd.read_csv(
        path,
        sep="\t",
        header=None,
        names=["label", *FIELDS],
        dtype=kinds,
        keep_default_na=False,
        na_values=[""],
        quoting=3,
        chunksize=chunk_rows,
    )
    for frame in frames:
        for name in NUMBERS:
            frame[name] = bucket(frame[name].to_numpy())
        yield frame


def bucket(x: Any) -> Any:
    """``floor(ln(x)^2)`` above 2, else x itself."""
    return np.where(x > 2, np.floor(np.log(np.maximum(x, 1)) ** 2), x)


def split_of_lines(path: Path, chunk_rows: int) -> Iterator[Any]:
    """The place in SPLITS of each row of each chunk, by the XXH64 of its line."""
    with path.open("rb") as stream:
        while lines := list(islice(stream, chunk_rows)):
            texts = (line.rstrip(b"\r\n").replace(b"\t", b"\x1f") for line in lines)
            hashes = [xxhash.xxh64_intdigest(text, SEED) for text in texts]
            fractions = (np.array(hashes, np.uint64) >> np.uint64(11)).astype(np.float64) / 2**53
            yield np.searchsorted(LIMITS, fractions, side="right").astype(np.int8)


def count(path: Path, texts: str, chunk_rows: int) -> tuple[dict[str, pd.Index], list[Any]]:
    """The values of each field that get an id, in the order of their ids; the chunks' splits."""
    counts: dict[str, list[pd.Series]] = {name: [] for name in FIELDS}
    splits = []
    both = zip(chunks(path, texts, chunk_rows), split_of_lines(path, chunk_rows), strict=True)
    for frame, split in both:
        splits.append(split)
        train = frame[split == 0]
        for name in FIELDS:
            counts[name].append(train[name].value_counts())
    vocabularies = {}
    for name in FIELDS:
        total = pd.concat(counts.pop(name)).groupby(level=0, sort=False).sum()
        total = total[total >= MIN_COUNT].rename_axis("value").reset_index(name="count")
        text = total["value"].astype("int64") if name in NUMBERS else total["value"]
        total["text"] = text.astype(str)
        total = total.sort_values(["count", "text"], ascending=[False, True])
        vocabularies[name] = pd.Index(total["value"])
    return vocabularies, splits


def write(
    path: Path,
    out: Path,
    vocabularies: dict[str, pd.Index],
    splits: list[Any],
    *,
    texts: str,
    chunk_rows: int,
) -> None:
    """A Parquet file for each split: row id, label, and the id of every value, 0 for the rest."""
    schema = pa.schema(
        [("row_id", pa.int64()), ("label", pa.float32()), *((n, pa.int32()) for n in FIELDS)]
    )
    writers = [
        pq.ParquetWriter(out / f"{split}.parquet", schema, compression="zstd") for split in SPLITS
    ]
    for frame, split in zip(chunks(path, texts, chunk_rows), splits, strict=True):
        encoded: dict[str, Any] = {
            "row_id": frame.index.to_numpy(),
            "label": frame["label"].to_numpy(),
        }
        for name, values in vocabularies.items():
            encoded[name] = (values.get_indexer(pd.Index(frame[name])) + 1).astype(np.int32)
        rows = pd.DataFrame(encoded)
        for place, writer in enumerate(writers):
            part = rows[split == place]
            writer.write_table(pa.Table.from_pandas(part, schema, preserve_index=False))
    for writer in writers:
        writer.close()


def ingest(
    path: Path, out: Path, *, texts: str = "str", chunk_rows: int = CHUNK_ROWS
) -> dict[str, Any]:
    """Both passes; what they have come to."""
    out.mkdir(parents=True)
    vocabularies, splits = count(path, texts, chunk_rows)
    write(path, out, vocabularies, splits, texts=texts, chunk_rows=chunk_rows)
    rows = np.sum([np.bincount(split, minlength=len(SPLITS)) for split in splits], axis=0)
    return {
        "rows": {name: int(number) for name, number in zip(SPLITS, rows, strict=True) if number},
        "num_embeddings": {name: len(values) + 1 for name, values in vocabularies.items()},
    }


if __name__ == "__main__":
    kind = sys.argv[3] if len(sys.argv) > 3 else "str"
    print(json.dumps(ingest(Path(sys.argv[1]), Path(sys.argv[2]), texts=kind)))
