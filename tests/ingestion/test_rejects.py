"""Rows that are not as the card says: told where they stand and why, and all accounted for."""

import json
from pathlib import Path

import polars as pl
import pytest

from recsys_had.errors import DataError
from recsys_had.ingestion.ingest import ingest
from recsys_had.schema import DatasetCard, parse_card
from tests.ingestion.test_workers import digests

HASHED = "{by: content_hash, ratios: {train: 0.8, valid: 0.2}}"
STRATIFIED = "{by: stratified_kfold, num_folds: 5}"


def card(split: str = HASHED) -> DatasetCard:
    return parse_card(
        f"""
name: clicks
format: {{type: csv}}
columns: {{click: {{kind: label}}, user: {{kind: categorical}}, visits: {{kind: integer}}}}
split: {split}
"""
    )


def write_rows(path: Path, rows: int = 300) -> dict[int, str]:
    """Rows of which some are wrong; those, by row id, and what is wrong with them."""
    wrong = {7: "1,u7", 50: "?,u50,5", 51: "", 120: "1,u120,many", 299: "0,u,1,2"}
    lines = [wrong.get(row, f"{row % 2},u{row % 40},{row}") for row in range(rows)]
    path.write_text("\n".join(["click,user,visits", *lines]) + "\n")
    return wrong


@pytest.mark.parametrize("split", [HASHED, STRATIFIED])
def test_rows_read_are_those_written_and_those_rejected(tmp_path: Path, split: str) -> None:
    wrong = write_rows(tmp_path / "rows.csv")
    given = [(None, tmp_path / "rows.csv")]
    out = tmp_path / "data"
    report = ingest(card(split), given, out, num_workers=1, on_error="reject", block_bytes=500)
    assert report["rows_read"] == 300
    assert report["rows_rejected"] == len(wrong)
    assert sum(report["rows"].values()) == 300 - len(wrong)
    manifest = json.loads((out / "manifest.json").read_text())
    assert {name: manifest[name] for name in ("rows_read", "rows", "rows_rejected")} == {
        name: report[name] for name in ("rows_read", "rows", "rows_rejected")
    }
    written = pl.concat([pl.read_parquet(part) for part in out.glob("*/part-*.parquet")])
    assert sorted(written["row_id"]) == [row for row in range(300) if row not in wrong]
    # A dense input is the number itself: each row kept its own values.
    assert (written["visits"] == written["row_id"]).all()
    assert (written["label"] == written["row_id"] % 2).all()
    rejects = pl.read_parquet(out / "rejects.parquet")
    assert rejects["row_id"].to_list() == list(wrong)
    assert rejects["line"].to_list() == [row + 2 for row in wrong]
    assert rejects["file"].unique().to_list() == [str(tmp_path / "rows.csv")]
    assert rejects["text"].to_list() == list(wrong.values())
    assert rejects["reason"].to_list() == [
        "holds 2 columns; 3 are expected.",
        "column click: must be 0 or 1; got '?'.",
        "is blank. Remove the line.",
        "column visits: must be a whole number; got 'many'.",
        "holds 4 columns; 3 are expected.",
    ]


def test_rejects_are_the_same_with_any_number_of_workers(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv")
    given = [(None, tmp_path / "rows.csv")]
    for workers in (1, 2):
        out = tmp_path / str(workers)
        ingest(card(), given, out, num_workers=workers, on_error="reject", block_bytes=500)
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_without_a_wrong_row_there_is_no_file_of_them(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("click,user,visits\n1,a,3\n0,b,4\n")
    given = [("train", tmp_path / "rows.csv")]
    report = ingest(card(), given, tmp_path / "data", on_error="reject")
    assert report["rows_rejected"] == 0
    assert not (tmp_path / "data" / "rejects.parquet").exists()


def test_only_wrong_rows_leave_nothing_to_train_on(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("click,user,visits\n?,a,3\n?,b,4\n")
    with pytest.raises(DataError, match="split: none of the 0 rows is in the training split"):
        ingest(card(), [("train", tmp_path / "rows.csv")], tmp_path / "data", on_error="reject")
