"""A folder that does not hold what it says is told in one line, never shown."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_had.data.folder import DataFolder
from recsys_had.errors import DataError
from recsys_had.profile import profile


@pytest.fixture
def copied(made, tmp_path: Path) -> DataFolder:
    shutil.copytree(made.data.path, tmp_path / "data")
    return DataFolder.open(tmp_path / "data")


def changed(data: DataFolder, change: Callable[[pa.Table], pa.Table]) -> DataFolder:
    """Rewrites the first training part."""
    part = min((data.path / "train").glob("part-*.parquet"))
    pq.write_table(change(pq.read_table(part)), part)
    return data


def with_first(table: pa.Table, name: str, value: float) -> pa.Table:
    place = table.schema.get_field_index(name)
    column = table.column(name).to_numpy().copy()
    column[0] = value
    return table.set_column(place, name, pa.array(column))


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda t: t.drop_columns("tags"), "column tags is missing. Restore the file"),
        (lambda t: t.slice(1), "train: must hold 2,000 rows, says the manifest; got 1,999."),
        (lambda t: with_first(t, "label", 2), "train: label: must be 0 or 1; got 2.0."),
        (lambda t: with_first(t, "user", 9_999), "column user: must hold ids from 0 to "),
        (lambda t: with_first(t, "price", np.nan), "train: column price: holds what is no number."),
    ],
)
def test_a_part_that_is_not_as_encoded_is_refused(copied, change, told: str) -> None:
    with pytest.raises(DataError, match=re.escape(told)):
        profile(changed(copied, change))


def test_a_part_that_is_cut_off_is_refused(copied) -> None:
    part = copied.path / "test" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"part-00000\.parquet: cannot be read: "):
        profile(copied)


def test_a_vocabulary_that_is_gone_is_refused(copied) -> None:
    (copied.path / "vocab" / "colour.parquet").unlink()
    with pytest.raises(DataError, match=r"colour\.parquet: cannot be read: .* Re-run"):
        profile(copied)


def test_a_vocabulary_without_an_id_is_refused(copied) -> None:
    path = copied.path / "vocab" / "colour.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(DataError, match=r"colour\.parquet: has no value of id 1, which training"):
        profile(copied)


def test_a_folder_without_a_row_is_refused(make_small_data, tmp_path: Path) -> None:
    data = make_small_data(tmp_path / "small", rows={"train": 0})
    with pytest.raises(DataError, match=r"small: holds no row\. Re-run `recsys-had ingest`\."):
        profile(data)
