"""Merging behind an earlier vocabulary: its values keep their ids, new ones follow."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_had.columns import Field
from recsys_had.data.vocabulary import Vocabulary, VocabularyFile
from recsys_had.ingestion.vocabularies import Merger, ids_of
from tests.ingestion.test_vocabularies import SHARDS, TEXTS, staged


def merged(
    folder: Path,
    earlier: list[tuple[str, int]],
    counts: list[dict[str, int]],
    *,
    min_count: int = 1,
    top_k: int | None = None,
    max_values: int = 1 << 22,
) -> tuple[list[tuple[str, int, int]], list[list[int]], bytes]:
    """The vocabulary's rows, the ids of each shard's values, and the file."""
    work, vocab, before = folder / "work", folder / "vocab", folder / "before.parquet"
    for path in (work, vocab):
        path.mkdir(parents=True)
    values = pl.Series([value for value, _ in earlier], dtype=pl.String)
    Vocabulary(values, pl.Series([count for _, count in earlier], dtype=pl.Int64)).save(before)
    known = {"A": VocabularyFile.open(before)}
    merger = Merger(tuple(staged(work, counts)), vocab, work, max_values, earlier=known)
    field = Field("A", "A", "value", min_count, top_k=top_k)
    made = merger((field, [len(held) for held in counts]))
    assert merger((field, [])) == made
    left = [path.name.split("-")[0] for path in work.iterdir()]
    assert not {"kept", "groups", "earlier"} & set(left)
    assert VocabularyFile.open(made.path) == made
    ids = [ids_of(work, "A", number).tolist() for number in range(len(counts))]
    return pl.read_parquet(made.path).rows(), ids, made.path.read_bytes()


def test_a_new_value_goes_behind_the_old_ones_whatever_its_count(tmp_path: Path) -> None:
    # Old: b and a, with 5 and 2 rows; new rows hold a 4 times, c and d 9, e once and f twice.
    counts = [{"c": 4, "a": 4, "e": 1}, {"d": 9, "c": 5, "f": 2}]
    rows, ids, _ = merged(tmp_path, [("b", 5), ("a", 2)], counts, min_count=2)
    assert rows == [("b", 5, 1), ("a", 6, 2), ("c", 9, 3), ("d", 9, 4), ("f", 2, 5)]
    assert ids == [[3, 2, 0], [4, 3, 5]]


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(TEXTS, st.integers(1, 9), max_size=20).map(lambda held: list(held.items())),
    SHARDS,
    st.integers(1, 4),
    st.none() | st.integers(1, 30),
)
@pytest.mark.parametrize("max_values", [1 << 22, 1, 3, 10])
def test_ids_are_those_of_a_count_in_python_however_much_is_held_at_once(
    tmp_path_factory: pytest.TempPathFactory,
    max_values: int,
    earlier: list[tuple[str, int]],
    counts: list[dict[str, int]],
    min_count: int,
    top_k: int | None,
) -> None:
    total = Counter[str]()
    for held in counts:
        total.update(held)
    known = dict(earlier)
    others = [value for value, count in total.items() if value not in known and count >= min_count]
    ranked = sorted(others, key=lambda value: (-total[value], value.encode()))
    if top_k is not None:
        ranked = ranked[: max(0, top_k - len(known))]
    order = [*known, *ranked]
    oracle = {value: number for number, value in enumerate(order, start=1)}
    rows, ids, _ = merged(
        tmp_path_factory.mktemp("merge"),
        earlier,
        counts,
        min_count=min_count,
        top_k=top_k,
        max_values=max_values,
    )
    assert rows == [(value, known.get(value, 0) + total[value], oracle[value]) for value in order]
    assert ids == [[oracle.get(value, 0) for value in held] for held in counts]


def test_the_file_is_the_same_in_any_number_of_passes_and_order_of_shards(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    counts = [
        {str(value): int(generator.integers(0, 4)) for value in generator.integers(0, 3000, 1500)}
        for _ in range(6)
    ]
    # In no order at all, as an update of an update leaves them.
    earlier = [(str(value), int(value) % 7 + 1) for value in generator.permutation(5000)[:2000]]
    whole = merged(tmp_path / "whole", earlier, counts, min_count=2)
    assert len(whole[0]) > 2500
    for max_values in (200, 1000, 5000):
        folder = tmp_path / str(max_values)
        assert merged(folder, earlier, counts, min_count=2, max_values=max_values) == whole
    back = merged(tmp_path / "back", earlier, counts[::-1], min_count=2, max_values=700)
    assert back == (whole[0], whole[1][::-1], whole[2])


def test_an_earlier_vocabulary_of_several_row_groups_is_gone_through_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_had.data.vocabulary._ROW_GROUP_ROWS", 100)
    earlier = [(f"v{value}", 1000 - value) for value in range(450)]
    counts = [{f"v{value}": 1 for value in range(0, 900, 3)}]
    whole = merged(tmp_path / "whole", earlier, counts)
    assert len(list(VocabularyFile.open(tmp_path / "whole" / "before.parquet").pieces())) == 5
    assert merged(tmp_path / "passes", earlier, counts, max_values=150) == whole
    assert [row[1] for row in whole[0][:4]] == [1001, 999, 998, 998]
    assert whole[1] == [[*range(1, 451, 3), *range(451, 601)]]
