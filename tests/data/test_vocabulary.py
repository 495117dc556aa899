"""Vocabularies: which value has which id, and that a changed file is not taken for the same."""

import re
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_had.data.statistics import rows_per_value
from recsys_had.data.vocabulary import (
    HashedIds,
    SortedTexts,
    Vocabulary,
    VocabularyWriter,
    digest_of,
)
from recsys_had.errors import CheckpointError

# Among them the order of UTF-8, of UTF-16 and of a locale differ.
TEXTS = st.text(alphabet="aAzZ0 é\x00\uffff😀", max_size=3)
at_any_speed = settings(deadline=None)


def counted(counts: dict[str, int]) -> pl.DataFrame:
    return pl.DataFrame(
        {"value": list(counts), "count": list(counts.values())},
        schema={"value": pl.String, "count": pl.Int64},
    )


def test_ids_count_from_1_by_falling_count_then_by_bytes() -> None:
    # UTF-8: "Z" 5A, "a" 61, "é" C3A9, U+FFFF EFBFBF, the face F09F9880; UTF-16 ends otherwise.
    counts = {"😀": 2, "é": 2, "\uffff": 2, "a": 2, "Z": 2, "often": 9, "rare": 1}
    vocabulary = Vocabulary.from_counts(counted(counts), min_count=2)
    assert vocabulary.values.to_list() == ["often", "Z", "a", "é", "\uffff", "😀"]
    assert vocabulary.counts.to_list() == [9, 2, 2, 2, 2, 2]
    assert vocabulary.num_embeddings == 7
    asked = pl.Series(["a", "rare", "often", "", "never", "😀"])
    assert vocabulary.ids(asked).tolist() == [3, 0, 1, 0, 0, 6]
    assert vocabulary.value_of(pl.Series([3, 0, 1, None])).to_list() == ["a", None, "often", None]


def test_of_values_with_the_same_count_top_k_keeps_the_first_by_bytes() -> None:
    counts = {"b": 3, "a": 3, "often": 9, "c": 3, "rare": 1}
    for top_k, min_count, oracle in (
        (2, 1, ["often", "a"]),
        (4, 1, ["often", "a", "b", "c"]),
        (5, 3, ["often", "a", "b", "c"]),
        (3, 9, ["often"]),
    ):
        vocabulary = Vocabulary.from_counts(counted(counts), min_count=min_count, top_k=top_k)
        assert vocabulary.values.to_list() == oracle
        assert vocabulary.num_embeddings == len(oracle) + 1


@at_any_speed
@given(
    st.lists(TEXTS),
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(1, 9)),
    st.lists(TEXTS),
    st.randoms(),
)
def test_ids_equal_a_sort_in_python_whatever_the_order_of_the_rows(
    rows: list[str], min_count: int, top_k: int | None, asked: list[str], random: object
) -> None:
    counts = Counter(rows)
    kept = [value for value, count in counts.items() if count >= min_count]
    ranked = sorted(kept, key=lambda value: (-counts[value], value.encode()))[:top_k]
    shuffled = list(counts.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    vocabulary = Vocabulary.from_counts(counted(dict(shuffled)), min_count=min_count, top_k=top_k)
    assert vocabulary.values.to_list() == ranked
    oracle = {value: number for number, value in enumerate(ranked, start=1)}
    asked_for = pl.Series([*asked, *rows], dtype=pl.String)
    ids = vocabulary.ids(asked_for)
    assert ids.dtype == np.int32
    assert ids.tolist() == [oracle.get(value, 0) for value in asked_for]


@at_any_speed
@given(st.lists(st.tuples(st.one_of(st.none(), TEXTS), st.booleans())))
def test_the_rows_of_a_value_are_counted_among_the_chosen_ones(
    rows: list[tuple[str | None, bool]],
) -> None:
    values = pa.array([value for value, _ in rows], pa.large_string()).dictionary_encode()
    counts = rows_per_value(values, np.array([chosen for _, chosen in rows], np.bool_))
    oracle = Counter(value for value, chosen in rows if chosen and value is not None)
    assert len(counts) == len(values.dictionary)
    found = zip(values.dictionary.to_pylist(), counts.tolist(), strict=True)
    assert {value: count for value, count in found if count} == oracle


@at_any_speed
@given(st.lists(st.tuples(st.lists(st.sampled_from("abc")), st.booleans()), min_size=1))
def test_a_value_repeated_in_a_row_is_counted_once(rows: list[tuple[list[str], bool]]) -> None:
    lengths = [len(values) for values, _ in rows]
    flat = pa.array([value for values, _ in rows for value in values], pa.large_string())
    offsets = pa.array(np.cumsum([0, *lengths]))
    lists = pa.LargeListArray.from_arrays(offsets, flat.dictionary_encode())
    counts = rows_per_value(lists, np.array([chosen for _, chosen in rows]))
    oracle = Counter(value for values, chosen in rows if chosen for value in set(values))
    found = zip(lists.values.dictionary.to_pylist(), counts.tolist(), strict=True)
    assert {value: count for value, count in found if count} == oracle


@at_any_speed
@given(st.lists(TEXTS, unique=True, max_size=12), st.integers(1, 5), st.integers(1, 4))
def test_a_vocabulary_written_in_pieces_is_the_one_written_at_once(
    values: list[str], piece: int, row_group: int
) -> None:
    frame = counted({value: len(values) - place for place, value in enumerate(values)})
    whole = Vocabulary(frame["value"], frame["count"])
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_had.data.vocabulary._ROW_GROUP_ROWS", row_group)
        paths = [Path(name) / "whole.parquet", Path(name) / "pieces.parquet"]
        whole.save(paths[0])
        writer = VocabularyWriter(paths[1])
        ids = [writer.add(part).tolist() for part in frame.iter_slices(piece)]
        made = writer.close()
        assert paths[0].read_bytes() == paths[1].read_bytes()
        assert Vocabulary.load(paths[1]).digest == made.digest == whole.digest
    assert [number for part in ids for number in part] == list(range(1, len(values) + 1))
    assert made.num_embeddings == whole.num_embeddings


@at_any_speed
@given(st.lists(TEXTS, unique=True), st.lists(TEXTS))
def test_a_text_is_found_where_it_stands(texts: list[str], asked: list[str]) -> None:
    found = SortedTexts(pl.Series(texts, dtype=pl.String)).positions(
        pl.Series(asked, dtype=pl.String)
    )
    assert found.tolist() == [texts.index(text) if text in texts else -1 for text in asked]


@at_any_speed
@given(st.lists(TEXTS, min_size=1), st.integers(1, 2**31 - 2))
def test_a_hashed_id_is_one_plus_xxh64_of_the_bytes(values: list[str], buckets: int) -> None:
    ids = HashedIds(buckets)
    oracle = [1 + xxhash.xxh64(value.encode(), seed=0).intdigest() % buckets for value in values]
    assert ids.ids(pl.Series(values)).tolist() == oracle
    assert ids.num_embeddings == buckets + 1


def test_a_digest_tells_names_values_counts_and_their_bounds_apart() -> None:
    frames = [
        pl.DataFrame({"a": ["xy", ""]}),
        pl.DataFrame({"a": ["x", "y"]}),
        pl.DataFrame({"b": ["x", "y"]}),
        pl.DataFrame({"a": ["y", "x"]}),
        pl.DataFrame({"a": ["xy", None]}),
        pl.DataFrame({"a": ["xy", ""], "c": [1, 2]}),
        pl.DataFrame({"a": ["xy", ""], "c": [1, None]}),
        pl.DataFrame({"a": [["xy"], [""]]}),
        pl.DataFrame({"a": [["xy", ""]]}),
        pl.DataFrame({"a": [["xy"], []]}),
        pl.DataFrame({"a": [["xy"], None]}),
        pl.DataFrame({"a": [["x"], ["y"]]}),
        pl.DataFrame({"a": [["x", "y"], []]}),
    ]
    digests = [digest_of(frame) for frame in frames]
    assert len(set(digests)) == len(frames)
    assert digests == [digest_of(frame.clone()) for frame in frames]


def test_a_digest_does_not_depend_on_how_a_column_is_chunked() -> None:
    whole = pl.DataFrame({"a": ["x", "y", None], "b": [["p"], [], ["q", "r"]]})
    pieces = pl.concat([whole[:1], whole[1:]], rechunk=False)
    assert digest_of(pieces) == digest_of(whole)


@at_any_speed
@given(st.dictionaries(TEXTS, st.integers(1, 4)))
def test_a_vocabulary_comes_back_from_its_file(
    tmp_path_factory: pytest.TempPathFactory, counts: dict[str, int]
) -> None:
    path = tmp_path_factory.mktemp("vocab") / "C1.parquet"
    vocabulary = Vocabulary.from_counts(counted(counts), min_count=2)
    vocabulary.save(path)
    loaded = Vocabulary.load(path)
    assert loaded.frame.equals(vocabulary.frame)
    assert loaded.digest == vocabulary.digest
    asked = pl.Series(list(counts), dtype=pl.String)
    assert loaded.ids(asked).tolist() == vocabulary.ids(asked).tolist()


def test_any_change_of_a_value_a_count_or_the_order_changes_the_digest() -> None:
    digests = {
        Vocabulary(pl.Series(values), pl.Series(counts)).digest
        for values, counts in (
            (["a", "b"], [2, 1]),
            (["a", "c"], [2, 1]),
            (["a", "b"], [3, 1]),
            (["b", "a"], [2, 1]),
            (["a"], [2]),
        )
    }
    assert len(digests) == 5


@pytest.mark.parametrize("ids", [[1, 3], [2, 1], [0, 1], ["1", "2"], [1, None]])
def test_ids_that_do_not_count_from_1_are_refused(tmp_path: Path, ids: list[object]) -> None:
    path = tmp_path / "C1.parquet"
    pq.write_table(pa.table({"value": ["a", "b"], "count": [2, 1], "id": ids}), path)
    message = f"{path}: its ids must count from 1. It was changed; restore it."
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        Vocabulary.load(path)


@pytest.mark.parametrize(
    "columns",
    [
        {"value": ["a"], "id": [1]},
        {"value": ["a"], "count": ["many"], "id": [1]},
        {"value": [b"\xff"], "count": [1], "id": [1]},
        None,
    ],
    ids=["no count", "a count of text", "a value of bytes", "no Parquet"],
)
def test_a_file_that_is_no_vocabulary_is_refused_by_name(
    tmp_path: Path, columns: dict[str, list[object]] | None
) -> None:
    path = tmp_path / "C1.parquet"
    if columns is None:
        path.write_bytes(b"value,count,id\n")
    else:
        pq.write_table(pa.table(columns), path)
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))}: cannot be read: "):
        Vocabulary.load(path)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))}: cannot be read: "):
        Vocabulary.load(path)
