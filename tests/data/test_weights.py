"""Weights: what a row counts for, from raw text to a batch."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys_had.data.encode import Encoder
from recsys_had.data.folder import DataFolder
from recsys_had.data.normalise import normalise
from recsys_had.data.parquet import Position, SplitReader
from recsys_had.data.prepare import prepare
from recsys_had.data.raw import RawSource
from recsys_had.errors import DataError, SchemaError
from recsys_had.ingestion.ingest import ingest
from recsys_had.schema import DatasetCard, parse_card

CARD = """\
name: shop
format: {type: csv}
columns:
  click: {kind: label}
  counts: {kind: weight}
  item: {kind: categorical}
split: {by: given}
"""
FILLED = CARD.replace("kind: weight", "kind: weight, missing: 2.5")
BARE = CARD.replace("type: csv", "type: csv, header: false")


def weights_of(card: str, counts: Any) -> list[float]:
    frame = pl.DataFrame(
        {"click": ["1"] * len(counts), "counts": counts, "item": ["a"] * len(counts)}
    )
    known = parse_card(card)
    rows = prepare(
        normalise(frame, known), known, {}, place=lambda row: f"f:{row + 2}", require_label=True
    )
    assert rows.column("weight").type == pa.float32()
    found: list[float] = rows.column("weight").to_pylist()
    return found


def test_weights_are_numbers_of_0_or_more() -> None:
    assert weights_of(CARD, ["0", "1", "0.25", "1e3", "3.4e38"]) == pytest.approx(
        [0, 1, 0.25, 1000, 3.4e38]
    )
    assert weights_of(CARD, [0.5, 2.0]) == [0.5, 2.0]
    assert weights_of(CARD, [True, False]) == [1, 0]


def test_a_missing_weight_is_what_the_card_says_it_is() -> None:
    assert weights_of(FILLED, ["1", None, ""]) == [1, 2.5, 2.5]
    assert weights_of(FILLED, [1.0, None, float("nan")]) == [1, 2.5, 2.5]


def test_what_is_no_weight_is_told_with_its_place() -> None:
    counts = ["1", "-1", "x", "nan", "inf", "1e39", None]
    told = "column counts: must be a finite number, 0 or more; got"
    missing = (
        "f:8: column counts: is missing. Give every row a weight, or let missing in the card say "
        "what it is."
    )
    wrong = tuple(f"f:{row}: {told} '{counts[row - 2]}'." for row in range(3, 8))
    with pytest.raises(DataError) as caught:
        weights_of(CARD, counts)
    assert caught.value.problems == (*wrong, missing)
    with pytest.raises(DataError) as caught:
        weights_of(FILLED, counts)
    assert caught.value.problems == wrong


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "item: {kind: categorical}",
            "more: {kind: weight}",
            "c.yaml: file: columns must hold at most one of kind weight; got ['counts', 'more'].",
        ),
        (
            "kind: weight",
            "kind: weight, missing: -1",
            "c.yaml:5: columns.counts.missing: must be at least 0.0; got -1.",
        ),
        (
            "item: {kind: categorical}",
            "weight: {kind: categorical}",
            "c.yaml: file: a field's name must not be label, row_id or weight, which encoded rows "
            "have a column for; got 'weight'. Rename it in the raw rows, or mark it ignored.",
        ),
        (
            "split:",
            "lookups:\n  items:\n    file: i.csv\n    key: item\n    format: {type: csv}\n"
            "    columns: {item: {kind: id}, worth: {kind: weight}}\nsplit:",
            "c.yaml:12: lookups.items.columns.worth: a weight must stand in the raw rows, not "
            "in a side table. Move it there, or mark it ignored.",
        ),
    ],
)
def test_a_wrong_card_is_told(old: str, new: str, problem: str) -> None:
    with pytest.raises(SchemaError, match=f"^{re.escape(problem)}$"):
        parse_card(CARD.replace(old, new), path="c.yaml")


def test_the_weight_itself_may_be_named_weight() -> None:
    card = parse_card(CARD.replace("counts:", "weight:"))
    assert card.weight == "weight"
    assert parse_card(CARD.replace("kind: weight", "kind: ignored")).weight is None


def test_rows_to_be_scored_need_no_weight_and_theirs_is_not_looked_at() -> None:
    card = parse_card(CARD)
    rows = pl.DataFrame({"item": ["a", "b"]})
    encoder = Encoder.fit_frame(card, rows)
    assert encoder.required_columns == ("item",)
    assert encoder.encode(rows).equals(encoder.encode(rows.with_columns(counts=pl.lit("?"))))


def rows_of(path: Path, card: DatasetCard) -> list[dict[str, Any]]:
    (block,) = RawSource([path], card, label="optional").blocks()
    return block.frame.to_dicts()


def test_a_file_without_a_header_may_lack_the_label_or_both(tmp_path: Path) -> None:
    card = parse_card(BARE)
    path = tmp_path / "rows.csv"
    for line in ("1,0.5,a", "0.5,a", "a"):
        path.write_text(f"{line}\n")
        assert rows_of(path, card) == [{"item": "a"}]
    path.write_text("1,0.5,a,b\n")
    message = (
        f"{path}:1: holds 4 columns; the card has 3 (2 without click, 1 without click and counts). "
        "Is it the right file, and the right separator?"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        rows_of(path, card)
    path.write_text("1,a\n")
    with pytest.raises(DataError, match=r"holds 2 columns; the card has 3\. Is it"):
        RawSource([path], card)


@pytest.fixture(params=["csv", "parquet"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> DataFolder:
    """101 rows whose weight tells them."""
    frame = pl.DataFrame(
        {
            "click": [row % 2 for row in range(101)],
            "counts": [row / 4 for row in range(101)],
            "item": [f"i{row}" for row in range(101)],
        }
    )
    raw = tmp_path / f"rows.{request.param}"
    frame.write_csv(raw) if request.param == "csv" else frame.write_parquet(raw)
    ingest(parse_card(CARD), [("train", raw)], tmp_path / "data", block_bytes=500)
    return DataFolder.open(tmp_path / "data")


def test_shards_hold_the_weight_of_each_row(data: DataFolder) -> None:
    weights = data.weights("train")
    assert weights is not None
    assert weights.tolist() == [row / 4 for row in range(101)]
    part = sorted((data.path / "train").glob("part-*.parquet"))[0]
    assert pq.read_schema(part).field("weight").type == pa.float32()


@pytest.mark.parametrize("world_size", [1, 3])
def test_every_rank_knows_the_weight_of_its_rows_and_of_all(
    data: DataFolder, world_size: int
) -> None:
    ranks = [
        list(
            SplitReader(
                data.path / "train",
                layout=data.layout,
                batch_size=8,
                rank=rank,
                world_size=world_size,
                seed=3,
                pool_rows=40,
            ).steps(Position(0, 0))
        )
        for rank in range(world_size)
    ]
    for step in zip(*ranks, strict=True):
        rows = [row for mine in step for row in mine.batch.row_id.tolist()]
        for mine in step:
            assert mine.total == mine.global_weight == sum(row / 4 for row in rows)
            assert mine.batch.weight is not None
            assert mine.batch.weight.tolist() == (mine.batch.row_id / 4).tolist()
            moved = mine.batch.to(torch.device("meta")).weight
            assert moved is not None
            assert moved.device.type == "meta"
