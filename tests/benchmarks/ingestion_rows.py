"""The rows that ingestion is measured on, made once and kept, and the cards they are read by."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

from criteo_shaped import write, write_distinct

DISTINCT_CARD = """
name: distinct
format: {type: tsv, header: false}
columns:
  label: {kind: label}
  id: {kind: categorical}
split: {by: given}
"""
# Those of datasets/criteo_x4, which are FuxiCTR's, for the files FuxiCTR reads.
X4_CSV_CARD = """
name: x4_csv
format: {type: csv}
columns:
  label: {kind: label}
  I1..I13: {kind: integer, transform: log_squared_bucket, missing: 0, min_count: 10}
  C1..C26: {kind: categorical, min_count: 10}
split: {by: given}
"""
SPLITS = ("train", "valid", "test")
_HEADER = ",".join(["label", *(f"I{n}" for n in range(1, 14)), *(f"C{n}" for n in range(1, 27))])


def criteo(folder: Path, num_rows: int) -> Path:
    """Rows in the shape of Criteo's."""
    return _once(folder / f"criteo-{num_rows}.tsv", lambda path: write(path, num_rows))


def distinct(folder: Path, num_rows: int) -> tuple[Path, Path]:
    """A card, and rows whose only field has another value in each."""
    rows = _once(folder / f"distinct-{num_rows}.tsv", lambda path: write_distinct(path, num_rows))
    return _card(folder / "distinct.yaml", DISTINCT_CARD), rows


def csv_splits(folder: Path, num_rows: int) -> tuple[Path, Path]:
    """A card, and a folder of ``train.csv``, ``valid.csv`` and ``test.csv``: 8 : 1 : 1 rows."""
    rows = folder / f"criteo-{num_rows}"
    source = criteo(folder, num_rows)
    borders = (0, num_rows * 8 // 10, num_rows * 9 // 10, num_rows)
    for place, split in enumerate(SPLITS):
        first, end = borders[place], borders[place + 1]
        _once(rows / f"{split}.csv", partial(_cut, source, first, end))
    return _card(folder / "x4_csv.yaml", X4_CSV_CARD), rows


def _cut(source: Path, first: int, end: int, path: Path) -> None:
    with source.open() as lines, path.open("w") as sink:
        sink.write(_HEADER + "\n")
        sink.writelines(line.replace("\t", ",") for line in islice(lines, first, end))


def _card(path: Path, text: str) -> Path:
    path.write_text(text.lstrip())
    return path


def _once(path: Path, make: Callable[[Path], object]) -> Path:
    """Makes a file unless it is there; a stopped run leaves none that is not whole."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.tmp")
        make(unfinished)
        unfinished.rename(path)
    return path
