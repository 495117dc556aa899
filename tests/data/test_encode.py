"""Encoder: ids and numbers of raw rows, and that a changed encoder is not loaded."""

import json
import math
import re
import statistics
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys_had.data.encode import Encoder
from recsys_had.data.encoder_files import load_encoder, save_encoder
from recsys_had.data.lookups import SideTable
from recsys_had.data.statistics import Moments
from recsys_had.errors import CheckpointError, DataError, SchemaError
from recsys_had.schema import parse_card

CARD = """
name: clicks
format: {type: csv, missing: ["", NA]}
columns:
  click: {kind: label}
  C1: {kind: categorical, min_count: 2}
  C2: {kind: categorical, hash_buckets: 7}
  tags: {kind: multi_categorical}
  I1: {kind: integer, transform: log_squared_bucket, missing: 0}
  price: {kind: float, transform: standardise}
  age: {kind: integer, transform: log1p}
lookups:
  items: {file: items.csv, key: C1, format: {type: csv}, columns: {C1: {kind: id},
    genre: {kind: categorical}, year: {kind: integer}}}
split: {by: given}
"""
ROWS: dict[str, list[Any]] = {
    "click": [1, 0, 1, 0],
    "C1": ["b", "a", "b", "c"],
    "C2": ["x", "y", None, "x"],
    "tags": ["p|q", "q|q", None, "q"],
    "I1": [100, None, 0, 100],
    "price": [1.0, 2.0, 6.0, None],
    "age": [0, -1, 6, None],
}
ITEMS = {"C1": ["a", "b"], "genre": ["war", "drama"], "year": ["1950", "1960"]}


def make(*, card: str = CARD, items: dict[str, list[str]] = ITEMS, **columns: list[Any]) -> Encoder:
    read = parse_card(card)
    table = SideTable(read.lookups["items"], pl.DataFrame(items))
    return Encoder.fit_frame(read, pl.DataFrame(ROWS | columns), {"items": table})


def test_rows_are_encoded_as_worked_out_by_hand() -> None:
    encoder = make()
    encoded = encoder.encode(pl.DataFrame(ROWS)).to_dict(as_series=False)
    buckets = [1 + xxhash.xxh64_intdigest(text) % 7 for text in (b"x", b"y")]
    # Mean of 1, 2, 6 is 3; squares of -2, -1, 3 have the mean 14/3.
    std = math.sqrt(14 / 3)
    assert encoded == {
        "label": [1, 0, 1, 0],
        "C1": [1, 0, 1, 0],  # b twice; a and c once, below min_count
        "C2": [buckets[0], buckets[1], 0, buckets[0]],
        "tags": [[2, 1], [1, 1], [0], [1]],  # q in three rows, p in one
        "I1": [2, 1, 1, 2],  # 100 is in bucket 21; 0 and 21 twice each, and "0" < "21"
        "genre": [1, 2, 1, 0],  # drama twice, war once
        "price": pytest.approx([-2 / std, -1 / std, 3 / std, 0], rel=1e-6),
        "age": pytest.approx([0, -math.log(2), math.log(7), 0], rel=1e-6),
        "year": [1960, 1950, 1960, 0],
    }
    assert encoder.num_embeddings == {
        "C1": 2,
        "C2": 8,
        "tags": 3,
        "I1": 3,
        "genre": 3,
    }


def test_text_and_typed_columns_of_one_meaning_have_one_encoding() -> None:
    typed = pl.DataFrame(ROWS)
    text = pl.DataFrame(
        {name: ["NA" if v is None else str(v) for v in values] for name, values in ROWS.items()}
    )
    nullable = typed.with_columns(pl.col("I1", "age", "click").cast(pl.Float64))
    lists = typed.with_columns(pl.col("tags").str.split("|"))
    encoder = make()
    for other in (text, nullable, lists):
        assert encoder.encode(other).equals(encoder.encode(typed))
        assert make(**other.to_dict(as_series=False)).digest == encoder.digest


def test_the_types_are_those_of_a_batch_even_of_no_rows() -> None:
    encoder = make()
    assert encoder.required_columns == ("C1", "C2", "tags", "I1", "price", "age")
    for frame in (pl.DataFrame(ROWS).clear(), pl.DataFrame(ROWS)):
        encoded = encoder.encode(frame.with_columns(extra=pl.lit("?")))
        assert encoded.schema == {
            "label": pl.Float32,
            "C1": pl.Int32,
            "C2": pl.Int32,
            "tags": pl.List(pl.Int32),
            "I1": pl.Int32,
            "genre": pl.Int32,
            "price": pl.Float32,
            "age": pl.Float32,
            "year": pl.Float32,
        }
        assert len(encoded) == len(frame)
    assert "label" not in encoder.encode(pl.DataFrame(ROWS).drop("click")).columns


def test_what_is_missing_or_wrong_in_a_frame_is_told_at_once() -> None:
    encoder = make()
    with pytest.raises(DataError) as caught:
        encoder.encode(pl.DataFrame(ROWS).rename({"C1": "C11"}).drop("age"))
    assert caught.value.problems == (
        "column C1: is missing. Did you mean 'C11'?",
        "column age: is missing. Known: C11, C2, I1, click, price, tags.",
    )
    wrong = pl.DataFrame(ROWS | {"age": ["1", "old", "2", "3"], "price": ["1", "2", "3", "?"]})
    told = (
        "column age: must be a whole number; got 'old'.",
        "column price: must be a finite number; got '?'.",
    )
    for place, rows in (("line", ("line 1", "line 3")), (lambda row: f"p{row}", ("p1", "p3"))):
        with pytest.raises(DataError) as caught:
            encoder.encode(wrong, place=place)
        assert caught.value.problems == tuple(f"{r}: {t}" for r, t in zip(rows, told, strict=True))


def test_only_values_that_are_there_count_as_unseen() -> None:
    encoder = make()
    frame = pl.DataFrame(
        ROWS
        | {
            "C1": ["b", "c", None, "never"],
            "C2": ["never", None, "x", "y"],
            "tags": ["p|new|other", None, "", "new"],
            "I1": [None, 100, 5, 99],
        }
    )
    # 5 is in bucket 2, 99 in 21; "c" and "never" are not among the items.
    counts = {"C1": 2, "C2": 0, "tags": 3, "I1": 1, "genre": 0}
    assert unseen(encoder, frame) == counts


def test_ids_lead_back_to_values_where_there_is_a_vocabulary() -> None:
    encoder = make()
    assert encoder.value_of("tags", pl.Series([1, 2, 0])).to_list() == ["q", "p", None]
    assert encoder.value_of("I1", pl.Series([2, 1])).to_list() == ["21", "0"]
    assert encoder.counts_of("tags").rows() == [("q", 3, 1), ("p", 1, 2)]
    assert encoder.counts_of("C2").schema == encoder.counts_of("C1").schema
    assert encoder.counts_of("C2").is_empty()
    with pytest.raises(ValueError, match=r"^value_of: no field 'tag'\. Did you mean 'tags'\?$"):
        encoder.value_of("tag", pl.Series([1]))
    with pytest.raises(ValueError, match=r"^value_of: C2 is hashed, and a hash has no way back\.$"):
        encoder.value_of("C2", pl.Series([1]))


NUMBERS = st.lists(
    st.one_of(
        st.floats(-1e30, 1e30),
        st.floats(-10, 10),
        st.integers(-(2**63), 2**63 - 1).map(float),
        st.sampled_from([1e16, -1e16, 1.0, 0.1]),
    ),
    min_size=1,
)


@settings(deadline=None)
@given(NUMBERS, st.integers(1, 7), st.randoms())
@example([4.493170944980836e-57], 1, Random(1))
@example([1e40, 1e40, 3e40], 2, Random(1))
def test_mean_and_deviation_are_exact_and_the_same_in_any_order_and_blocks(
    numbers: list[float], block: int, random: Any
) -> None:
    def scale_of(values: list[float], size: int) -> tuple[float, float]:
        moments = Moments()
        for first in range(0, len(values), size):
            moments.add(np.array(values[first : first + size]))
        scale = moments.scale()
        return scale.mean, scale.std

    whole = scale_of(numbers, len(numbers))
    assert whole[0] == float(sum(map(Fraction, numbers)) / len(numbers))
    largest = max(map(abs, numbers))
    assert whole[1] == pytest.approx(
        statistics.pstdev(map(Fraction, numbers)), rel=1e-9, abs=1e-14 * largest + 1e-150
    )
    shuffled = numbers.copy()
    random.shuffle(shuffled)
    assert scale_of(shuffled, block) == whole


@pytest.mark.parametrize("transform", ["standardise", "min_max"])
def test_a_number_far_from_those_of_training_stays_finite(transform: str) -> None:
    """It is finite, and so is what the model reads: the greatest number of 32 bits."""
    card = parse_card(
        "name: a\nformat: {type: csv}\nsplit: {by: given}\ncolumns: {y: {kind: label}, "
        f"x: {{kind: float, transform: {transform}}}}}\n"
    )
    training = pl.DataFrame({"y": [0, 1], "x": [0.0, 1e-9]})
    encoder = Encoder.fit_frame(card, training)
    found = encoder.encode(pl.DataFrame({"x": [3e38, -3e38, 5e-10]}))["x"]
    largest = float(np.finfo(np.float32).max)
    assert found.to_list()[:2] == [largest, -largest]
    assert 0 <= found[2] <= 0.5


def test_a_column_of_one_number_or_none_is_standardised_to_0() -> None:
    for prices in ([5.0, 5.0, None, 5.0], [None] * 4):
        encoder = make(price=prices)
        frame = pl.DataFrame(ROWS | {"price": [5.0, 9.0, None, -1.0]})
        assert encoder.encode(frame)["price"].to_list() == [0, 0, 0, 0]


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_log1p_is_the_signed_logarithm_of_one_more(numbers: list[int]) -> None:
    card = parse_card(
        "name: n\nformat: {type: csv}\nsplit: {by: given}\n"
        "columns: {y: {kind: label}, x: {kind: integer, transform: log1p}}"
    )
    encoder = Encoder.fit_frame(card, pl.DataFrame({"x": numbers}))
    found = encoder.encode(pl.DataFrame({"x": numbers}))["x"].to_list()
    assert found == pytest.approx([math.copysign(math.log1p(abs(x)), x) for x in numbers], rel=1e-6)


def test_an_encoder_comes_back_from_its_folder(tmp_path: Path) -> None:
    encoder = make()
    save_encoder(encoder, tmp_path)
    loaded = load_encoder(tmp_path)
    assert loaded.digest == encoder.digest
    assert loaded.num_embeddings == encoder.num_embeddings
    strange = pl.DataFrame(ROWS | {"C1": ["a", "?", None, "b"], "price": [1e9, 0.1, None, -3]})
    assert loaded.encode(strange).equals(encoder.encode(strange))


@pytest.mark.parametrize(
    ("old", "new"),
    [("  tags:", "  é x:"), ("  tags:", "  a/b:"), ("  items:", "  ../../up:")],
)
def test_a_name_no_file_can_have_is_refused_or_written_inside_the_folder(
    tmp_path: Path, old: str, new: str
) -> None:
    try:
        card = parse_card(CARD.replace(old, new))
    except SchemaError:
        return
    tables = {name: SideTable(lookup, pl.DataFrame(ITEMS)) for name, lookup in card.lookups.items()}
    rows = pl.DataFrame(ROWS).rename({"tags": new.strip(" :")} if "tags" in old else {})
    encoder = Encoder.fit_frame(card, rows, tables)
    save_encoder(encoder, tmp_path / "encoder")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    assert load_encoder(tmp_path / "encoder").digest == encoder.digest


def test_an_encoder_of_an_earlier_version_has_the_digest_it_had() -> None:
    # Of commit 7f3987d.
    assert make().digest == "53439dc2fcd071e3f87fa4cd7d65efe00596c4787794c86a9aad71b845145aad"


def test_the_digest_changes_with_each_part_and_with_nothing_else() -> None:
    digests = [
        make().digest,
        make(C1=["b", "a", "b", "b"]).digest,
        make(tags=["p|q", "q", None, "p"]).digest,
        make(price=[1.0, 2.0, 6.0, 3.0]).digest,
        make(items=ITEMS | {"genre": ["war", "comedy"]}).digest,
        make(items=ITEMS | {"year": ["1950", "1961"]}).digest,
        make(card=CARD.replace("hash_buckets: 7", "hash_buckets: 8")).digest,
        make(card=CARD.replace("missing: 0", "missing: 100")).digest,
    ]
    assert len(set(digests)) == len(digests)
    # A hashed value is not counted, and log1p needs no statistics.
    assert make(C2=["?"] * 4, age=[1, 2, 3, 4]).digest == digests[0]


def _rewrite(path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    pq.write_table(change(pl.read_parquet(path)).to_arrow(), path)


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


TAMPER: dict[str, Callable[[Path], None]] = {
    "vocab/tags.parquet": lambda path: _rewrite(
        path, lambda frame: frame.with_columns(value=pl.Series(["p", "q"]))
    ),
    "vocab/I1.parquet": lambda path: _rewrite(path, lambda frame: frame[:1]),
    "lookups/items.parquet": lambda path: _rewrite(
        path, lambda frame: frame.with_columns(genre=pl.lit("war"))
    ),
    "card.json": lambda path: _replace(path, '"hash_buckets": 7', '"hash_buckets": 9'),
    "dense.json": lambda path: _replace(path, '"mean": 3.0', '"mean": 3.5'),
}


@pytest.mark.parametrize("name", TAMPER)
def test_a_changed_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    save_encoder(make(), tmp_path)
    TAMPER[name](tmp_path / name)
    message = f"{tmp_path}: was changed after it was written: {name}. Restore it or ingest again."
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("name", TAMPER)
def test_a_file_that_is_gone_or_unreadable_is_refused(tmp_path: Path, name: str) -> None:
    save_encoder(make(), tmp_path)
    for damage in (lambda path: path.write_bytes(b"{"), lambda path: path.unlink()):
        damage(tmp_path / name)
        with pytest.raises(CheckpointError) as caught:
            load_encoder(tmp_path)
        assert str(caught.value).startswith(str(tmp_path))
        assert name in str(caught.value)


@pytest.mark.parametrize("content", [[], {}, {"digest": "", "scales": []}, {"digest": "0"}])
def test_a_dense_json_of_another_shape_is_refused(tmp_path: Path, content: Any) -> None:
    save_encoder(make(), tmp_path)
    (tmp_path / "dense.json").write_text(json.dumps(content))
    told = re.escape(f"{tmp_path}: is not an encoder: card.json or dense.json cannot be read: ")
    with pytest.raises(CheckpointError, match=f"^{told}"):
        load_encoder(tmp_path)


def unseen(encoder: Encoder, frame: pl.DataFrame) -> dict[str, int]:
    values = encoder.prepare(frame)
    return encoder.unseen(values, encoder.encode_values(values))
