"""The training reader: one global sequence of batches, exactly resumable."""

import gc
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_had.batch import EncodedRows
from recsys_had.data.parquet import Position, SplitReader
from recsys_had.errors import DataError
from recsys_had.layout import Layout

LAYOUT = Layout(("C1", "tags", "C2"), multi=frozenset({"tags"}), dense=("price",))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts of 60 and 41 rows in row groups of 20; every value tells its row."""
    folder = tmp_path_factory.mktemp("data") / "train"
    folder.mkdir()
    for number, (first, last) in enumerate(((0, 60), (60, 101))):
        rows = np.arange(first, last)
        table = pa.table(
            {
                "row_id": rows.astype(np.int64),
                "label": (rows % 2).astype(np.float32),
                "C1": rows.astype(np.int32),
                "C2": (rows + 1000).astype(np.int32),
                "tags": pa.array(
                    [[int(row)] * (int(row) % 3) for row in rows], pa.list_(pa.int32())
                ),
                "price": (rows / 2).astype(np.float32),
            }
        )
        pq.write_table(table, folder / f"part-{number:05d}.parquet", row_group_size=20)
    return folder


def read(
    folder: Path, start: Position = Position(0, 0), **options: int | None
) -> list[tuple[list[int], int]]:
    """Row ids and next row of every step."""
    reader = SplitReader(folder, layout=LAYOUT, **{"batch_size": 8, "seed": 1, **options})  # type: ignore[arg-type]
    return [(step.batch.row_id.tolist(), step.after.row) for step in reader.steps(start)]


@settings(max_examples=30, deadline=None)
@given(
    batch_size=st.integers(1, 120),
    world_size=st.integers(1, 5),
    pool_rows=st.integers(1, 150),
    seed=st.one_of(st.none(), st.integers(0, 5)),
)
def test_every_row_is_dealt_once_and_step_k_is_the_same_at_any_world_size(
    split: Path, batch_size: int, world_size: int, pool_rows: int, seed: int | None
) -> None:
    ranks = [
        read(
            split,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            pool_rows=pool_rows,
            seed=seed,
        )
        for rank in range(world_size)
    ]
    alone = read(split, batch_size=batch_size * world_size, pool_rows=pool_rows, seed=seed)
    dealt = [[row for ids, _ in step for row in ids] for step in zip(*ranks, strict=True)]
    assert dealt == [ids for ids, _ in alone]
    assert sorted(row for ids in dealt for row in ids) == list(range(101))


@settings(max_examples=30, deadline=None)
@given(step=st.integers(0, 12), pool_rows=st.integers(1, 150), epoch=st.integers(0, 2))
def test_reading_goes_on_where_it_stopped(
    split: Path, step: int, pool_rows: int, epoch: int
) -> None:
    whole = read(split, Position(epoch, 0), pool_rows=pool_rows)
    resumed = read(split, Position(epoch, whole[step][1]), pool_rows=pool_rows)
    assert resumed == whole[step + 1 :]


def test_the_order_depends_on_seed_and_epoch(split: Path) -> None:
    orders = [
        read(split, Position(epoch, 0), seed=seed)[0][0] for seed in (1, 2) for epoch in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4
    assert read(split, seed=None)[0][0] == list(range(8))


def test_a_pool_mixes_rows_of_both_parts(split: Path) -> None:
    first_pool = read(split, pool_rows=1000, batch_size=50)[0][0]
    assert min(first_pool) < 60 <= max(first_pool)


def test_values_stay_with_their_row(split: Path) -> None:
    reader = SplitReader(split, layout=LAYOUT, batch_size=16, seed=3)
    for step in reader.steps(Position(0, 0)):
        batch = step.batch
        rows = batch.row_id.tolist()
        fields = {name: batch.sparse[name] for name in LAYOUT.fields}
        assert fields["C1"].values().tolist() == rows
        assert fields["C2"].values().tolist() == [row + 1000 for row in rows]
        assert fields["tags"].lengths().tolist() == [row % 3 for row in rows]
        assert fields["tags"].values().tolist() == [row for row in rows for _ in range(row % 3)]
        assert batch.label.tolist() == [row % 2 for row in rows]
        assert batch.dense[:, 0].tolist() == [row / 2 for row in rows]


def test_the_last_step_may_leave_a_rank_without_rows(split: Path) -> None:
    steps = [read(split, batch_size=25, rank=rank, world_size=4) for rank in range(4)]
    assert [len(rank[-1][0]) for rank in steps] == [1, 0, 0, 0]


def test_leaving_early_ends_the_reading_thread(split: Path) -> None:
    steps = SplitReader(split, layout=LAYOUT, batch_size=1, seed=0).steps(Position(0, 0))
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    gc.collect()
    assert not [t for t in threading.enumerate() if t.name == "recsys_had-reader"]


def test_an_error_while_reading_reaches_the_consumer(tmp_path: Path, split: Path) -> None:
    whole = (split / "part-00000.parquet").read_bytes()
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(whole)
    reader = SplitReader(tmp_path, layout=LAYOUT, batch_size=8)
    path.write_bytes(b"PAR1" + bytes(len(whole) - 4))
    with pytest.raises(DataError, match=r"part-00000\.parquet: cannot be read: "):
        list(reader.steps(Position(0, 0)))


def test_a_folder_without_parts_or_a_part_without_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no part-\*\.parquet\. Run `recsys-had ingest`"):
        SplitReader(tmp_path, layout=LAYOUT, batch_size=8)
    pq.write_table(pa.table({"row_id": [0], "label": [1.0]}), tmp_path / "part-00000.parquet")
    with pytest.raises(DataError, match=r"column C1 is missing\. Re-run `recsys-had ingest`\.$"):
        SplitReader(tmp_path, layout=LAYOUT, batch_size=8)


def test_rows_without_labels_give_an_empty_label() -> None:
    rows = EncodedRows(
        Layout(("C1",)),
        np.arange(2),
        None,
        np.zeros((2, 1), np.int32),
        {},
        np.empty((2, 0), np.float32),
    )
    assert len(EncodedRows.concat([rows, rows]).to_batch().label) == 0
