"""Splits: which rows train, validate and test, on any engine and in any order."""

import datetime
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xxhash
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from recsys_had.columns import source_columns
from recsys_had.data.normalise import normalise
from recsys_had.data.raw import RawSource
from recsys_had.data.split import (
    hash_fractions,
    row_texts,
    split_by_content,
    split_by_time,
    split_stratified,
)
from recsys_had.errors import DataError, SchemaError
from recsys_had.schema import DatasetCard, StratifiedSplit, parse_card

CARD = """
name: clicks
format: {type: tsv, header: false}
columns:
  id: {kind: id}
  y: {kind: label}
  C1: {kind: categorical}
  tags: {kind: multi_categorical, separator: ","}
  genres: {kind: multi_categorical, flags: [drama, war]}
  note: {kind: ignored}
  at: {kind: timestamp, format: unix}
split: SPLIT
"""
COLUMNS = ("id", "y", "C1", "tags", "drama", "war", "note", "at")
ROWS = [
    ("7", "1", "é", "a,b", "0", "1", None, "1413853200"),
    ("8", "0", None, None, "1", None, "n", "1414627200"),
    ("9", "0", "", "c", "1", "0", "\x1f", "1414713600"),
]
TEXTS = [
    "7\x1f1\x1fé\x1fa,b\x1f0\x1f1\x1f\x1f1413853200".encode(),
    b"8\x1f0\x1f\x1f\x1f1\x1f\x1fn\x1f1414627200",
    b"9\x1f0\x1f\x1fc\x1f1\x1f0\x1f\x1f\x1f1414713600",
]


def card_of(**split: Any) -> DatasetCard:
    return parse_card(CARD.replace("SPLIT", repr(split)))


def frame_of(rows: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")


def test_a_row_is_known_by_its_columns_in_the_cards_order_joined_by_0x1f() -> None:
    card = card_of(by="given")
    assert row_texts(frame_of(ROWS), card) == TEXTS
    assert row_texts(frame_of(ROWS).select(sorted(COLUMNS)), card) == TEXTS


def test_a_typed_row_is_known_by_the_same_bytes() -> None:
    card = card_of(by="given")
    typed = frame_of(ROWS).with_columns(
        pl.col("id", "y", "drama", "war").cast(pl.Float64),
        pl.col("tags").str.split(","),
        pl.from_epoch(pl.col("at").cast(pl.Int64)).alias("at"),
    )
    assert row_texts(normalise(typed, card), card) == TEXTS


@pytest.mark.parametrize("seed", [0, 1, 2018])
@pytest.mark.parametrize(
    "ratios", [{"train": 0.8, "valid": 0.1, "test": 0.1}, {"train": 0.5, "test": 0.5}]
)
def test_a_split_is_the_upper_53_bits_of_xxh64_against_the_ratios(
    seed: int, ratios: dict[str, float]
) -> None:
    rows = [(str(number), *ROWS[0][1:]) for number in range(500)]
    oracle = []
    for number in range(500):
        text = str(number).encode() + TEXTS[0][1:]
        fraction = (xxhash.xxh64(text, seed=seed).intdigest() >> 11) / 2**53
        if fraction < ratios["train"]:
            oracle.append(0)
        elif "valid" in ratios and fraction < ratios["train"] + ratios["valid"]:
            oracle.append(1)
        else:
            oracle.append(2)
    card = card_of(by="content_hash", ratios=ratios, seed=seed)
    found = split_by_content(frame_of(rows), card, card.split)  # type: ignore[arg-type]
    assert found.dtype == np.int8
    assert found.tolist() == oracle
    order = np.random.default_rng(0).permutation(500)
    shuffled = split_by_content(frame_of(rows)[order], card, card.split)  # type: ignore[arg-type]
    assert shuffled.tolist() == found[order].tolist()


def test_the_known_digest_of_nothing_gives_its_fraction() -> None:
    # XXH64("", seed 0) = 0xef46db3751d8e999; / 2^64 = 0.934674...
    [fraction] = hash_fractions([b""], seed=0)
    assert fraction == pytest.approx(0xEF46DB3751D8E999 / 2**64, abs=2**-53)
    assert 0.9346 < fraction < 0.9347


def test_the_shares_of_a_content_split_are_the_ratios() -> None:
    rows = [(str(number), *ROWS[0][1:]) for number in range(20_000)]
    card = card_of(by="content_hash", ratios={"train": 0.7, "valid": 0.2, "test": 0.1})
    found = split_by_content(frame_of(rows), card, card.split)  # type: ignore[arg-type]
    # A share of n rows has the deviation sqrt(p (1 - p) / n) < 0.0033; four of them.
    assert np.bincount(found) / len(found) == pytest.approx([0.7, 0.2, 0.1], abs=0.013)


def test_a_moment_belongs_to_the_split_that_begins_with_it() -> None:
    at = ["1414627199", "1414627200", "1414713599", "1414713600", "-5"]
    frame = pl.DataFrame({"at": at})
    begin = {"valid_from": "2014-10-30", "test_from": "1414713600"}
    for split, oracle in (
        (begin, [0, 1, 1, 2, 0]),
        ({"valid_from": begin["valid_from"]}, [0, 1, 1, 1, 0]),
    ):
        card = card_of(by="time", column="at", **split)
        found = split_by_time(frame, card, card.split, place=str)  # type: ignore[arg-type]
        assert found.tolist() == oracle


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**31), min_size=1))
def test_a_split_by_time_equals_a_comparison_of_datetimes(seconds: list[int]) -> None:
    card = card_of(by="time", column="at", valid_from="2010-01-01T06:30", test_from="2020-01-01")
    frame = pl.DataFrame({"at": [str(second) for second in seconds]})
    epoch = datetime.datetime(1970, 1, 1)
    limits = (datetime.datetime(2010, 1, 1, 6, 30), datetime.datetime(2020, 1, 1))
    times = [epoch + datetime.timedelta(seconds=second) for second in seconds]
    oracle = [sum(time >= limit for limit in limits) for time in times]
    found = split_by_time(frame, card, card.split, place=str)  # type: ignore[arg-type]
    assert found.tolist() == oracle


def test_a_row_without_a_time_cannot_be_split_by_it() -> None:
    card = card_of(by="time", column="at", valid_from="2014-10-30")
    frame = pl.DataFrame({"at": ["1", None, "later"]})
    with pytest.raises(DataError) as caught:
        split_by_time(frame, card, card.split, place=lambda row: f"f:{row}")  # type: ignore[arg-type]
    assert caught.value.problems == (
        "f:1: column at: is missing, and the split needs it.",
        "f:2: column at: must be a time written as unix, whole seconds since 1970; got 'later'.",
    )


def test_a_card_that_names_no_time_is_told() -> None:
    card = card_of(by="time", column="at", valid_from="soon")
    message = (
        "split: must name a time like 2014-10-30T12:00:00 or one written as unix, whole seconds "
        "since 1970; got 'soon'."
    )
    with pytest.raises(SchemaError, match=f"^{re.escape(message)}$"):
        split_by_time(pl.DataFrame({"at": ["1"]}), card, card.split, place=str)  # type: ignore[arg-type]


def test_stratified_folds_are_those_of_the_x4_benchmarks() -> None:
    labels = np.random.default_rng(3).integers(0, 2, 997).astype(np.int8)
    folds = StratifiedKFold(n_splits=10, shuffle=True, random_state=2018)
    parts = [rows for _, rows in folds.split(labels, labels)]
    oracle = np.zeros(997, np.int8)
    oracle[parts[0]], oracle[parts[1]] = 2, 1
    found = split_stratified(labels, StratifiedSplit(by="stratified_kfold"))
    assert found.tolist() == oracle.tolist()
    for code, share in ((1, 0.1), (2, 0.1)):
        positive = labels[found == code].sum() / labels.sum()
        assert positive == pytest.approx(share, abs=1 / labels.sum())
    other = split_stratified(
        labels, StratifiedSplit(by="stratified_kfold", test_fold=4, valid_fold=9)
    )
    assert np.flatnonzero(other == 2).tolist() == sorted(parts[4].tolist())
    assert np.flatnonzero(other == 1).tolist() == sorted(parts[9].tolist())


def test_too_few_rows_for_the_folds_are_told() -> None:
    for labels in ([], [0] * 5 + [1] * 4):
        message = (
            f"split: 10 folds need at least 10 rows of a label; got {len(labels)} rows. "
            "Give more rows, or another split."
        )
        with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
            split_stratified(np.array(labels, np.int8), StratifiedSplit(by="stratified_kfold"))


def test_a_rare_label_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="recsys_had"):
        split_stratified(
            np.array([0] * 20 + [1] * 3, np.int8), StratifiedSplit(by="stratified_kfold")
        )
    assert caplog.messages == ["The rarer label has 3 rows, so not every fold holds one."]


@pytest.mark.parametrize("folds", [{"test_fold": 10}, {"test_fold": -1}, {"test_fold": 1}])
def test_a_fold_that_is_none_or_taken_twice_is_refused(folds: dict[str, int]) -> None:
    # Folds are 0..9 and fold 1 validates; such a card would silently have no test rows.
    with pytest.raises(SchemaError, match="fold"):
        card_of(by="stratified_kfold", **folds)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(*[st.text("ab \x1f\r\ufeffé\u2028", max_size=3)] * 2, st.sampled_from("01")),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["tsv", "csv"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_a_row_s_text_is_the_same_from_its_bytes_and_from_its_columns(
    rows: list[tuple[str, ...]], kind: str, line_end: str, ends: bool
) -> None:
    card = parse_card(
        f"name: n\nformat: {{type: {kind}, header: false}}\nsplit: {{by: given}}\n"
        "columns: {a: {kind: categorical}, b: {kind: categorical}, y: {kind: label}}\n"
    )
    separator = "\t" if kind == "tsv" else ","
    # In CSV's first row a lone return is refused.
    assume(kind == "tsv" or "\r" not in "".join(rows[0]))
    text = line_end.join(separator.join(row) for row in rows) + line_end * ends
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.txt"
        path.write_bytes(text.encode())
        [block] = RawSource([path], card).blocks()
        texts = block.row_texts(source_columns(card.columns))
        assert texts == row_texts(block.read(), card)


def test_a_row_s_text_is_not_taken_from_its_bytes_where_they_mean_something_else(
    tmp_path: Path,
) -> None:
    columns = "columns: {a: {kind: categorical}, y: {kind: label}}\nsplit: {by: given}\n"
    quoted, other, turned = (tmp_path / name for name in ("quoted.csv", "other.csv", "turned.csv"))
    quoted.write_text('a,y\n"x",1\n')
    other.write_text("a,y\nNA,1\n")
    turned.write_text("y,a\n1,x\n")
    for path, missing in ((quoted, '""'), (other, '"", NA'), (turned, '""')):
        card = parse_card(f"name: n\nformat: {{type: csv, missing: [{missing}]}}\n{columns}")
        [block] = RawSource([path], card).blocks()
        assert block.row_texts(source_columns(card.columns)) is None
