"""Merging: the vocabulary of all shards, and the id of each shard's each value."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_had.columns import Field
from recsys_had.ingestion.shard import Shard, write_batch
from recsys_had.ingestion.vocabularies import Merger, ids_of

# UTF-8's order is not that of UTF-16 or of a locale among them.
TEXTS = st.text(alphabet="aAzZ0 é\x00\uffff😀", max_size=3)
SHARDS = st.lists(st.dictionaries(TEXTS, st.integers(0, 3), max_size=20), min_size=1, max_size=5)


def staged(work: Path, counts: list[dict[str, int]]) -> list[Shard]:
    """Shards that hold these values, each in so many training rows."""
    shards = []
    for number, held in enumerate(counts):
        shard = Shard(number, 0, work)
        distinct = pa.array(list(held), pa.large_string())
        # Which rows hold which value does not matter any more.
        values = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), distinct)
        write_batch(pa.RecordBatch.from_pydict({"A": values}), shard.path)
        lists = pa.array([list(held.values())], pa.list_(pa.int32()))
        write_batch(pa.RecordBatch.from_pydict({"A": lists}), shard.counts_path)
        shards.append(shard)
    return shards


def merged(
    folder: Path, counts: list[dict[str, int]], *, min_count: int, max_values: int
) -> tuple[list[tuple[str, int, int]], list[list[int]], bytes]:
    """The vocabulary's rows, the ids of each shard's values, and the file."""
    work, vocab = folder / "work", folder / "vocab"
    for path in (work, vocab):
        path.mkdir(parents=True)
    merger = Merger(tuple(staged(work, counts)), vocab, work, max_values)
    field = Field("A", "A", "value", min_count)
    made = merger((field, [len(held) for held in counts]))
    # Asked again, as after a kill, it is taken from the disk.
    assert merger((field, [])) == made
    assert not [
        path for path in work.iterdir() if path.name.startswith(("run-", "groups", "earlier"))
    ]
    rows = pl.read_parquet(made.path).rows()
    assert made.num_embeddings == len(rows) + 1
    ids = [ids_of(work, "A", number).tolist() for number in range(len(counts))]
    return rows, ids, made.path.read_bytes()


@settings(deadline=None, max_examples=60)
@given(SHARDS, st.integers(1, 4))
@pytest.mark.parametrize("max_values", [1 << 22, 1, 3, 10])
def test_ids_are_those_of_a_count_in_python_however_much_is_held_at_once(
    tmp_path_factory: pytest.TempPathFactory,
    max_values: int,
    counts: list[dict[str, int]],
    min_count: int,
) -> None:
    total = Counter[str]()
    for held in counts:
        total.update(held)
    kept = [value for value, count in total.items() if count >= min_count]
    ranked = sorted(kept, key=lambda value: (-total[value], value.encode()))
    oracle = {value: number for number, value in enumerate(ranked, start=1)}
    folder = tmp_path_factory.mktemp("merge")
    rows, ids, _ = merged(folder, counts, min_count=min_count, max_values=max_values)
    assert rows == [(value, total[value], oracle[value]) for value in ranked]
    assert ids == [[oracle.get(value, 0) for value in held] for held in counts]


@pytest.mark.parametrize("batch_rows", [1 << 16, 7])
def test_the_file_is_the_same_in_any_number_of_passes_and_order_of_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    monkeypatch.setattr("recsys_had.ingestion.sorted_runs._BATCH_ROWS", batch_rows)
    generator = np.random.default_rng(3)
    counts = [
        {str(value): int(generator.integers(0, 4)) for value in generator.integers(0, 3000, 1500)}
        for _ in range(6)
    ]
    whole = merged(tmp_path / "whole", counts, min_count=2, max_values=1 << 22)
    for max_values in (200, 1000, 5000):
        passes = merged(tmp_path / str(max_values), counts, min_count=2, max_values=max_values)
        assert passes == whole
    back = merged(tmp_path / "back", counts[::-1], min_count=2, max_values=700)
    assert back[0] == whole[0]
    assert back[1] == whole[1][::-1]
    assert back[2] == whole[2]
