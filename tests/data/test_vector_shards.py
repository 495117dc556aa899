"""Content vectors from side tables and through shards: each stays with its row."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys_had.batch import Batch
from recsys_had.data.encode import Encoder
from recsys_had.data.folder import DataFolder
from recsys_had.data.lookups import SideTable
from recsys_had.data.parquet import Position, SplitReader, rows_from_table
from recsys_had.errors import DataError
from recsys_had.ingestion.ingest import ingest
from recsys_had.schema import DatasetCard, Lookup, parse_card

NUM_ROWS = 101


def card_of(kind: str) -> DatasetCard:
    return parse_card(
        f"name: shop\nformat: {{type: {kind}}}\nsplit: {{by: given}}\ncolumns:\n"
        "  click: {kind: label}\n  item: {kind: categorical}\n"
        "  image: {kind: vector, size: 3}\n  none: {kind: vector, size: 1}\n"
    )


def image_of(row: int) -> list[float]:
    return [float(row), row / 2, float(-row)]


@pytest.fixture(scope="module", params=["csv", "parquet"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """Rows whose vectors tell them; every tenth has none."""
    folder = tmp_path_factory.mktemp("vectors")
    images = [None if row % 10 == 9 else image_of(row) for row in range(NUM_ROWS)]
    raw = folder / f"rows.{request.param}"
    frame = pl.DataFrame(
        {
            "click": [row % 2 for row in range(NUM_ROWS)],
            "item": [f"i{row}" for row in range(NUM_ROWS)],
            "image": pl.Series(images, dtype=pl.List(pl.Float32)),
            "none": pl.Series([None] * NUM_ROWS, dtype=pl.List(pl.Float32)),
        }
    )
    if request.param == "csv":
        texts = pl.col("image", "none").cast(pl.List(pl.String)).list.join("|")
        frame.with_columns(texts).write_csv(raw)
    else:
        frame.write_parquet(raw)
    ingest(card_of(request.param), [("train", raw)], folder / "data", block_bytes=1000)
    return DataFolder.open(folder / "data")


def batches(data: DataFolder, **options: Any) -> Iterator[Batch]:
    reader = SplitReader(
        data.path / "train", layout=data.layout, **{"batch_size": 8, "seed": 1, **options}
    )
    for step in reader.steps(Position(0, 0)):
        yield step.batch


def test_shards_hold_lists_of_a_fixed_size_of_float32(data: DataFolder) -> None:
    parts = sorted((data.path / "train").glob("part-*.parquet"))
    assert len(parts) > 1
    for part in parts:
        schema = pq.read_schema(part)
        assert schema.field("image").type == pa.list_(pa.float32(), 3)
        assert schema.field("none").type == pa.list_(pa.float32(), 1)
    assert data.layout.vectors == {"image": 3, "none": 1}


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("seed", [None, 4])
def test_a_vector_stays_with_its_row_on_every_rank(
    data: DataFolder, world_size: int, seed: int | None
) -> None:
    seen = []
    for rank in range(world_size):
        for batch in batches(data, rank=rank, world_size=world_size, seed=seed, pool_rows=30):
            rows = batch.row_id.tolist()
            seen += rows
            expected = [[0.0] * 3 if row % 10 == 9 else image_of(row) for row in rows]
            assert batch.vectors["image"].dtype == torch.float32
            assert batch.vectors["image"].tolist() == expected
            assert batch.vectors["none"].tolist() == [[0.0]] * len(rows)
    assert sorted(seen) == list(range(NUM_ROWS))


def test_a_batch_moves_with_its_vectors(data: DataFolder) -> None:
    batch = next(batches(data)).to(torch.device("meta"))
    assert {name: vector.device.type for name, vector in batch.vectors.items()} == {
        "image": "meta",
        "none": "meta",
    }


def test_a_slice_of_a_table_gives_its_own_rows() -> None:
    card = card_of("csv")
    frame = pl.DataFrame(
        {"item": ["a"] * 5, "image": [image_of(row) for row in range(5)], "none": ["7"] * 5}
    )
    table = Encoder.fit_frame(card, frame).encode(frame).to_arrow()
    table = table.append_column("row_id", pa.array(np.arange(5)))
    layout = DataFolder(Path(), card, {}).layout
    rows = rows_from_table(table.slice(2, 2), layout)
    assert rows.vectors["image"].tolist() == [image_of(2), image_of(3)]
    assert rows.vectors["none"].tolist() == [[7.0], [7.0]]
    empty = rows_from_table(table.slice(0, 0), layout)
    assert empty.vectors["image"].shape == (0, 3)


def test_a_shard_without_the_column_is_refused(data: DataFolder, tmp_path: Path) -> None:
    part = sorted((data.path / "train").glob("part-*.parquet"))[0]
    pq.write_table(pq.read_table(part).drop_columns(["image"]), tmp_path / "part-00000.parquet")
    with pytest.raises(DataError, match=r"column image is missing\. Re-run `recsys-had ingest`\.$"):
        SplitReader(tmp_path, layout=data.layout, batch_size=8)


LOOKUP = Lookup.model_validate(
    {
        "file": "items.parquet",
        "key": "item",
        "format": {"type": "parquet"},
        "columns": {
            "item": {"kind": "id"},
            "image": {"kind": "vector", "size": 2, "transform": "l2"},
        },
    }
)


def joined(table: SideTable) -> list[list[float]]:
    keys = pl.Series(["b", "?", None, "a", "b"], dtype=pl.String)
    found: list[list[float]] = table.join(keys)["image"].to_pylist()
    return found


def side_table(folder: Path, images: list[Any]) -> SideTable:
    pq.write_table(pa.table({"item": ["a", "b"], "image": images}), folder / "items.parquet")
    return SideTable.read(LOOKUP, folder)


def test_a_key_finds_its_vector_and_an_unknown_one_finds_zeros(tmp_path: Path) -> None:
    table = side_table(tmp_path, [[0.0, 2.0], [-0.5, 0.0]])
    assert joined(table) == [[-1, 0], [0, 0], [0, 0], [0, 1], [-1, 0]]
    table.save(tmp_path / "saved.parquet")
    again = SideTable.load(LOOKUP, tmp_path / "saved.parquet")
    assert again.digest == table.digest
    assert joined(again) == joined(table)


def test_the_digest_of_a_side_table_tells_numbers_apart_that_differ_in_a_fraction(
    tmp_path: Path,
) -> None:
    digests = {
        side_table(tmp_path, [[0.25, 2.0], image]).digest
        for image in ([0.5, 0.0], [0.75, 0.0], None, [])
    }
    # An empty list and none at all are not the same bytes, though both are missing.
    assert len(digests) == 4


def test_a_wrong_vector_of_a_side_table_is_told_with_its_row(tmp_path: Path) -> None:
    told = r"items\.parquet: row 1: column image: must hold 2 numbers; got 3\.$"
    with pytest.raises(DataError, match=told):
        side_table(tmp_path, [[1.0, 2.0], [1.0, 2.0, 3.0]])


def test_a_card_of_vectors_alone_is_a_card(tmp_path: Path) -> None:
    card = parse_card(
        "name: shop\nformat: {type: csv}\nsplit: {by: given}\n"
        "columns: {click: {kind: label}, image: {kind: vector, size: 2}}\n"
    )
    (tmp_path / "rows.csv").write_text("click,image\n1,1|2\n0,\n1,3|4\n")
    ingest(card, [("train", tmp_path / "rows.csv")], tmp_path / "data")
    data = DataFolder.open(tmp_path / "data")
    assert json.loads((data.path / "manifest.json").read_text())["num_embeddings"] == {}
    (batch,) = batches(data, seed=None)
    assert batch.vectors["image"].tolist() == [[1, 2], [0, 0], [3, 4]]
    assert batch.dense.shape == (3, 0)
    # Three rows over two ranks: the second has one, and none are looked up.
    (second,) = batches(data, seed=None, rank=1, world_size=2, batch_size=2)
    assert second.vectors["image"].tolist() == [[3, 4]]
