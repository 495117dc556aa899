"""Real rows come back from their ids, by a reading of the raw file that shares no code with ours.

A failure names columns and row ids and quotes no row: the owners' terms do not allow it.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_had.data.decoded_files import decode_folder
from recsys_had.data.folder import DataFolder
from recsys_had.ingestion.ingest import ingest
from recsys_had.schema import DatasetCard, load_card, parse_card
from tests.data.reference import HEXES, INTEGERS, REFERENCES, read_lines

FILES = {
    "criteo": "criteo/train_head_8000.tsv",
    "criteo_x4": "criteo/train_head_8000.tsv",
    "avazu": "avazu/train_first_hour.csv",
}
NUMBERS = """
name: numbers
format: {type: tsv, header: false}
columns:
  label: {kind: label}
  I1..I13: {kind: integer, transform: TRANSFORM}
  C1..C26: {kind: categorical}
split: {by: content_hash, ratios: {train: 0.7, valid: 0.3}}
"""


def decoded(card: DatasetCard, raw: Path, folder: Path) -> dict[str, list[object]]:
    ingest(card, [(None, raw)], folder / "data", block_bytes=1 << 18)
    decode_folder(DataFolder.open(folder / "data"), folder / "out")
    parts = [pq.ParquetFile(part).read() for part in (folder / "out").glob("*/part-*.parquet")]
    assert len(parts) > 6
    table = pa.concat_tables(parts).sort_by("row_id")
    assert table.column("row_id").to_pylist() == list(range(len(table)))
    return {name: table.column(name).to_pylist() for name in table.column_names}


def assert_no_row_differs(wrong: Sequence[int], name: str) -> None:
    __tracebackhide__ = True  # pytest would print the arguments
    if wrong:
        pytest.fail(f"{name}: {len(wrong)} rows differ, the first are {list(wrong[:5])}")


@pytest.mark.parametrize("dataset", FILES)
def test_every_value_with_an_id_comes_back_and_every_other_is_null(
    dataset: str, samples: Path, tmp_path: Path
) -> None:
    reference = REFERENCES[dataset](samples)
    columns = decoded(load_card(dataset), samples / FILES[dataset], tmp_path)
    assert set(columns) == {"row_id", "label", *reference.values}
    wrong = [
        at
        for at, (got, want) in enumerate(zip(columns["label"], reference.labels, strict=True))
        if got != want
    ]
    assert_no_row_differs(wrong, "label")
    known = 0
    for name, values in reference.values.items():
        has_id = {value for value, _ in reference.vocabulary(name)}
        wrong = [
            at
            for at, (got, value) in enumerate(zip(columns[name], values, strict=True))
            if got != (value if value in has_id else None)
        ]
        assert_no_row_differs(wrong, name)
        known += sum(value in has_id for value in values)
    assert known > len(reference.labels)


@pytest.mark.parametrize("transform", ["none", "log1p", "standardise"])
def test_real_integers_come_back_whole_through_every_transform(
    transform: str, samples: Path, tmp_path: Path
) -> None:
    raw = samples / FILES["criteo"]
    rows = read_lines(raw, "\t")
    columns = decoded(parse_card(NUMBERS.replace("TRANSFORM", transform)), raw, tmp_path)
    largest = 0
    for at, name in enumerate(INTEGERS, start=1):
        wrong = []
        for row, (cells, got) in enumerate(zip(rows, columns[name], strict=True)):
            if not cells[at]:
                continue
            number = int(cells[at])
            largest = max(largest, abs(number))
            # x is off by (1 + x) ln(1 + x) 2^-24 after log1p, by |x - mean| 2^-24 otherwise.
            error = (1 + abs(number)) * math.log1p(abs(number)) * 2**-24
            allowed = 0 if error < 0.4 else 1 + 2 * error
            assert isinstance(got, int)
            if abs(got - number) > allowed:
                wrong.append(row)
        assert_no_row_differs(wrong, name)
    assert largest > 1_000_000
    # Distinct texts of the other columns are known in the training part or null.
    for at, name in enumerate(HEXES, start=1 + len(INTEGERS)):
        pairs = zip(rows, columns[name], strict=True)
        wrong = [row for row, (cells, got) in enumerate(pairs) if got not in (cells[at], None)]
        assert_no_row_differs(wrong, name)
