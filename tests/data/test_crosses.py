r"""Crosses: one value for each combination of values, whatever characters they hold."""

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys_had.columns import source_columns
from recsys_had.data.crosses import crossed
from recsys_had.data.encode import Encoder
from recsys_had.data.encoder_files import load_encoder, save_encoder
from recsys_had.data.lookups import SideTable
from recsys_had.data.raw import RawSource
from recsys_had.data.split import row_texts
from recsys_had.errors import DataError, SchemaError
from recsys_had.ingestion.ingest import ingest
from recsys_had.schema import DatasetCard, parse_card

CARD = r"""
name: clicks
format: {type: csv}
columns:
  click: {kind: label}
  user: {kind: categorical, missing: nobody}
  url: {kind: categorical, hash_buckets: 7}
  user_x_hour: {kind: crossed, of: [user, hour], min_count: 2}
  url_x_price_x_visits: {kind: crossed, of: [url, price, visits]}
  user_x_genre: {kind: crossed, of: [user, genre], hash_buckets: 100}
  user_x_price: {kind: crossed, of: [user, price], hash_buckets: 100}
  at: {kind: timestamp, format: unix, parts: [hour]}
  price: {kind: float, transform: quantile_bins, num_bins: 2}
  visits: {kind: integer, transform: log_squared_bucket}
lookups:
  urls: {file: urls.csv, key: url, format: {type: csv}, columns: {url: {kind: id},
    genre: {kind: categorical}}}
split: {by: content_hash, ratios: {train: 0.8, valid: 0.2}}
"""
ROWS: dict[str, list[Any]] = {
    "click": [1, 0, 1, 0],
    "user": ["a", "a", None, r"a|\b"],
    "url": ["u", "v", "u", "w"],
    "at": [3600, 7000, 0, 90_000],  # hours 1, 1, 0, 1
    "price": [1.0, 2.5, None, 3.0],  # 1 | 2.5 3
    "visits": [1, 100, 0, 1],
}
URLS = {"url": ["u", "v"], "genre": ["war", "drama"]}
at_any_speed = settings(deadline=None)
TEXTS = st.text(alphabet="ab|\\é$0", max_size=3)


def fitted(text: str = CARD, **columns: list[Any]) -> Encoder:
    card = parse_card(text)
    table = {"urls": SideTable(card.lookups["urls"], pl.DataFrame(URLS))} if card.lookups else {}
    return Encoder.fit_frame(card, pl.DataFrame(ROWS | columns), table)


def values_of(encoder: Encoder, field: str, ids: list[int]) -> list[str | None]:
    return encoder.value_of(field, pl.Series(ids)).to_list()


def test_crosses_are_encoded_as_worked_out_by_hand() -> None:
    encoder = fitted()
    encoded = encoder.encode(pl.DataFrame(ROWS)).to_dict(as_series=False)
    assert encoded["user_x_hour"] == [1, 1, 0, 0]  # a|1 twice; nobody|0 and a\|\\b|1 once
    assert values_of(encoder, "user_x_hour", [1]) == ["a|1"]
    # Once each, so in the order of their bytes; the third row has no price.
    assert encoded["url_x_price_x_visits"] == [1, 2, 0, 3]
    told = ["u|(-inf, 2.5)|1", "v|[2.5, inf)|21", "w|[2.5, inf)|1"]
    assert values_of(encoder, "url_x_price_x_visits", [1, 2, 3]) == told

    def buckets(*texts: bytes | None) -> list[int]:
        return [0 if text is None else 1 + xxhash.xxh64_intdigest(text) % 100 for text in texts]

    # The last url is not in the side table.
    assert encoded["user_x_genre"] == buckets(b"a|war", b"a|drama", b"nobody|war", None)
    assert encoded["user_x_price"] == buckets(
        b"a|(-inf, 2.5)", b"a|[2.5, inf)", None, rb"a\|\\b|[2.5, inf)"
    )
    assert encoder.num_embeddings["user_x_hour"] == 2
    assert encoder.num_embeddings["user_x_genre"] == 101
    names = ["user", "url", "user_x_hour", "url_x_price_x_visits", "user_x_genre", "user_x_price"]
    assert [field.name for field in encoder.card.fields][:6] == names


def test_a_cross_never_seen_is_unseen_and_one_with_a_missing_part_is_missing() -> None:
    encoder = fitted()
    frame = pl.DataFrame(ROWS | {"user": ["b", "a", "a", "a"], "price": [None, 1, 9, 9]})
    counts = unseen(encoder, frame)
    # b|1 and a|0; of v|(-inf, 2.5)|21, u|[2.5, inf)|0 and w|[2.5, inf)|1 the last is known.
    assert counts["user_x_hour"] == 2
    assert counts["url_x_price_x_visits"] == 2
    assert counts["user_x_genre"] == counts["user_x_price"] == 0


def joined(texts: tuple[str | None, ...]) -> str | None:
    """The value of a cross, in plain Python."""
    if None in texts:
        return None
    return "|".join(re.sub(r"([|\\])", r"\\\1", str(text)) for text in texts)


@at_any_speed
@given(st.lists(st.tuples(*[st.one_of(st.none(), TEXTS)] * 3)))
@example([("a|b", "c", ""), ("a", "b|c", ""), ("a", "b", "|c")])
@example([(None, None, None)])
def test_a_cross_is_its_parts_escaped_and_joined(rows: list[tuple[str | None, ...]]) -> None:
    parts = [
        pa.array([row[at] for row in rows], pa.large_string()).dictionary_encode()
        for at in range(3)
    ]
    found = crossed(parts)
    assert found.to_pylist() == [joined(row) for row in rows]
    assert len(set(found.dictionary.to_pylist())) == len(found.dictionary)


@at_any_speed
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=2, max_size=30, unique=True))
def test_no_two_combinations_have_one_text(rows: list[tuple[str, str]]) -> None:
    assert len({joined(row) for row in rows}) == len(rows)
    parts = [pa.array(list(part)).dictionary_encode() for part in zip(*rows, strict=True)]
    assert len(crossed(parts).dictionary) == len(rows)


def test_many_parts_of_many_values_do_not_run_over() -> None:
    """Five parts of 20,000 values: 3.2e21 combinations, more than 64 bits count."""
    numbers = np.random.default_rng(0).permuted(np.tile(np.arange(20_000), (5, 1)), axis=1)
    texts = [pa.array(part.astype(str)).dictionary_encode() for part in numbers]
    found = crossed(texts).to_pylist()
    assert found == ["|".join(map(str, row)) for row in numbers.T.tolist()]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", None]),
            st.sampled_from([0, 3600]),
            st.one_of(st.none(), st.integers(0, 5).map(float)),
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 6),
    st.randoms(),
)
def test_any_order_and_any_cut_of_the_rows_gives_the_same_ids(
    rows: list[tuple[Any, ...]], block: int, random: Any
) -> None:
    card = parse_card(
        "name: n\nformat: {type: csv}\nsplit: {by: given}\ncolumns:\n  y: {kind: label}\n"
        "  user: {kind: categorical}\n  at: {kind: timestamp, format: unix, parts: [hour]}\n"
        "  price: {kind: float, transform: quantile_bins, num_bins: 3}\n"
        "  plain: {kind: crossed, of: [hour, user], top_k: 3}\n"
        "  binned: {kind: crossed, of: [user, price], min_count: 2, top_k: 4}\n"
    )

    def frame_of(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
        schema = {"user": pl.String, "at": pl.Int64, "price": pl.Float64}
        return pl.DataFrame(rows, schema=schema, orient="row").cast(pl.String)

    whole = Encoder.fit_frame(card, frame_of(rows))
    intervals = whole.value_of("price", whole.encode(frame_of(rows))["price"])
    counts = Counter(
        joined((user, interval))
        for (user, _, _), interval in zip(rows, intervals, strict=True)
        if user is not None and interval is not None
    )
    kept = [text for text, count in counts.items() if count >= 2]
    ranked = sorted(kept, key=lambda text: (-counts[text], str(text).encode()))[:4]
    assert whole.counts_of("binned")["value"].to_list() == ranked

    shuffled = rows.copy()
    random.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows.csv"
        frame_of(shuffled).insert_column(
            0, pl.repeat("1", len(rows), eager=True).alias("y")
        ).write_csv(path)
        ingest(card, [("train", path)], Path(name) / "data", num_workers=1, block_bytes=20 * block)
        assert load_encoder(Path(name) / "data").digest == whole.digest


def test_an_encoder_with_crosses_comes_back_from_its_folder(tmp_path: Path) -> None:
    encoder = fitted()
    save_encoder(encoder, tmp_path)
    loaded = load_encoder(tmp_path)
    assert loaded.digest == encoder.digest
    assert loaded.encode(pl.DataFrame(ROWS)).equals(encoder.encode(pl.DataFrame(ROWS)))
    assert (tmp_path / "vocab" / "user_x_hour.parquet").is_file()
    assert not (tmp_path / "vocab" / "user_x_genre.parquet").exists()


def without_crosses() -> DatasetCard:
    lines = [line for line in CARD.splitlines() if "kind: crossed" not in line]
    return parse_card("\n".join(lines))


def test_a_cross_stands_in_no_file(tmp_path: Path) -> None:
    plain, card = without_crosses(), parse_card(CARD)
    assert source_columns(card.columns) == source_columns(plain.columns)
    frame = pl.DataFrame(ROWS).cast(pl.String)
    assert row_texts(frame, card) == row_texts(frame, plain)
    assert fitted().required_columns == ("user", "url", "at", "price", "visits")
    rows = frame.select(source_columns(card.columns))
    rows.write_csv(tmp_path / "with.csv")
    rows.write_csv(tmp_path / "without.csv", include_header=False)
    bare = parse_card(CARD.replace("{type: csv}\ncol", "{type: csv, header: false}\ncol"))
    for name, read in (("with", card), ("without", bare)):
        (block,) = RawSource([tmp_path / f"{name}.csv"], read).blocks()
        assert block.frame.equals(rows)


def test_a_raw_column_named_like_a_cross_is_not_read(tmp_path: Path) -> None:
    strange = pl.DataFrame(ROWS).with_columns(user_x_hour=pl.lit("?"))
    encoder = fitted()
    assert encoder.encode(strange).equals(encoder.encode(pl.DataFrame(ROWS)))
    with pytest.raises(DataError, match=r"user_x_hour: is missing"):
        pl.DataFrame(ROWS).write_csv(tmp_path / "rows.csv")
        RawSource([tmp_path / "rows.csv"], encoder.card, keep=["user_x_hour"])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "[user, hour]",
            "[user]",
            ":8: columns.user_x_hour.of: must hold at least 2; got ['user'].",
        ),
        (
            "[user, hour]",
            "[user, hour, user]",
            ":8: columns.user_x_hour.of: must name each field once; got 'user' twice.",
        ),
        (
            "[user, hour]",
            "[usr, hour]",
            ":8: columns.user_x_hour.of: 'usr' is no categorical field. Did you mean 'user'?",
        ),
        (
            "[user, hour]",
            "[user, at]",
            ":8: columns.user_x_hour.of: 'at' is no categorical field. Known: genre, hour, price, "
            "url, user, visits.",
        ),
        (
            "[user, genre]",
            "[user, user_x_hour]",
            ":10: columns.user_x_genre.of: 'user_x_hour' is crossed itself. Name the fields it is "
            "made of.",
        ),
        (
            "transform: quantile_bins, num_bins: 2",
            "transform: log1p",
            ":9: columns.url_x_price_x_visits.of: 'price' is a number; let quantile_bins or "
            "log_squared_bucket make it a field.",
        ),
        (
            "user: {kind: categorical, missing: nobody}",
            "user: {kind: multi_categorical}",
            ":8: columns.user_x_hour.of: 'user' has several values a row, and a cross is of one "
            "each. Leave it out.",
        ),
        (
            "genre: {kind: categorical}",
            "genre: {kind: categorical}, both: {kind: crossed, of: [user, url]}",
            ":17: lookups.urls.columns.both: a cross must stand among the columns of the card, not "
            "of a side table. Move it there; its parts may come from side tables.",
        ),
        (
            "min_count: 2}",
            "min_count: 2, top_k: 3, hash_buckets: 9}",
            ":8: columns.user_x_hour: min_count and hash_buckets exclude each other; a hash keeps "
            "no counts. Keep one.",
        ),
    ],
)
def test_a_wrong_cross_is_told_with_file_and_line(old: str, new: str, told: str) -> None:
    assert CARD.count(old) == 1
    with pytest.raises(SchemaError) as caught:
        parse_card(CARD.replace(old, new), path="c.yaml")
    assert caught.value.problems == (f"c.yaml{told}",)


def unseen(encoder: Encoder, frame: pl.DataFrame) -> dict[str, int]:
    values = encoder.prepare(frame)
    return encoder.unseen(values, encoder.encode_values(values))
