"""Blocks of raw rows: wrong ones are an error, or left out and told one by one."""

import re
from pathlib import Path

import numpy as np
import pytest

from recsys_had.data.lookups import SideTable
from recsys_had.data.raw import RawSource
from recsys_had.data.read_block import SPLIT, ReadBlock, read_block
from recsys_had.errors import DataError
from recsys_had.schema import DatasetCard, parse_card

CARD = """
name: clicks
format: {type: csv}
columns:
  id: {kind: id}
  click: {kind: label}
  counts: {kind: weight}
  C1: {kind: categorical}
  I1: {kind: integer}
  image: {kind: vector, size: 2}
  at: {kind: timestamp, format: "%Y%m%d", parts: [weekday]}
split: {by: time, column: at, valid_from: "20200102"}
"""
HEADER = "id,click,counts,C1,I1,image,at\n"
RIGHT = "r,1,2,a,5,1|2,20200101\n"


def card_of(**format_options: str) -> DatasetCard:
    options = ", ".join(f"{name}: {value}" for name, value in format_options.items())
    return parse_card(CARD.replace("type: csv", f"type: csv{options and ', '}{options}"))


def read(path: Path, card: DatasetCard | None = None, *, reject: bool = True) -> ReadBlock:
    card = card or card_of()
    [block] = RawSource([path], card).blocks()
    return read_block(block, card, {}, None, reject=reject)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_every_wrong_row_is_left_out_with_its_line_reasons_and_text(tmp_path: Path) -> None:
    wrong = {
        "1,0,2,a,5,1|2": "holds 6 columns; 7 are expected.",
        "": "is blank. Remove the line.",
        "2,0,2,a,5,1|2,20200101,": "holds 8 columns; 7 are expected.",
        "3,0,2,a,x,1|2,20200101": "column I1: must be a whole number; got 'x'.",
        "4,,-1,a,5,1|2,20200101": (
            "column click: must be 0 or 1; got nothing.; "
            "column counts: must be a finite number, 0 or more; got '-1'."
        ),
        "5,0,2,a,5,1|2|3,20200101": "column image: must hold 2 numbers; got 3.",
        "6,0,2,a,5,1|y,20200101": "column image: must hold finite numbers; got 'y' as number 2.",
        "7,0,2,a,5,1|2,20201301": "column at: must be a time written as %Y%m%d; got '20201301'.",
        "8,0,2,a,5,1|2,": "column at: is missing, and the split needs it.",
        '9,0,2,a"b",5,1|2,20200101': (
            "a quote stands inside a column. Put the column in quotes and double those inside it."
        ),
    }
    lines = "".join(f"{line}\n{RIGHT}" for line in wrong)
    path = write(tmp_path / "rows.csv", f"{HEADER}{lines}")
    found = read(path)
    assert found.kept is not None
    assert found.kept.tolist() == list(range(1, 20, 2))
    assert found.rejects.to_pylist() == [
        {"row": row, "file": str(path), "line": row + 2, "reason": reason, "text": line}
        for row, (line, reason) in zip(range(0, 20, 2), wrong.items(), strict=True)
    ]
    assert found.values.num_rows == 10
    assert found.ids["id"].to_list() == ["r"] * 10


def test_what_is_kept_reads_as_a_file_without_the_others(tmp_path: Path) -> None:
    rows = [f'{i},{i % 2},1,"v,{i}",{i},{i}|1,2020010{1 + i % 2}\n' for i in range(30)]
    mixed = "".join(row if i % 3 else row.replace("2020", "x") for i, row in enumerate(rows))
    alone = "".join(row for i, row in enumerate(rows) if i % 3)
    one = read(write(tmp_path / "mixed.csv", HEADER + mixed))
    other = read(write(tmp_path / "alone.csv", HEADER + alone), reject=False)
    assert one.values.equals(other.values)
    assert one.kept is not None and one.kept.tolist() == [i for i in range(30) if i % 3]
    assert one.kept.dtype == np.int64
    assert other.kept is None and other.rejects.num_rows == 0
    assert other.values.column(SPLIT).to_pylist() == [i % 2 for i in range(30) if i % 3]


def test_all_rows_may_be_wrong_in_form_or_in_content(tmp_path: Path) -> None:
    for rows in ("x\n" * 25, RIGHT.replace("2020", "x") * 25):
        found = read(write(tmp_path / "rows.csv", HEADER + rows))
        assert found.values.num_rows == 0 and found.rejects.num_rows == 25
        assert found.kept is not None and len(found.kept) == 0


def test_rows_that_are_no_utf_8_are_left_out_and_written_as_ascii(tmp_path: Path) -> None:
    row = RIGHT.encode()
    data = HEADER.encode() + row + row.replace(b"a", b"\xe9\xff") + row.replace(b"a", "é".encode())
    path = write(tmp_path / "rows.csv", data)
    found = read(path)
    assert found.kept is not None and found.kept.tolist() == [0, 2]
    assert found.values.column("C1").to_pylist() == ["a", "é"]
    assert found.rejects.select(["line", "reason", "text"]).to_pylist() == [
        {
            "line": 3,
            "reason": "must be UTF-8; got the byte 0xe9.",
            "text": RIGHT.strip().replace("a", "\\xe9\\xff"),
        }
    ]
    latin = read(path, card_of(encoding="latin-1"))
    assert latin.kept is None and latin.values.column("C1")[1].as_py() == "éÿ"


def test_of_a_long_row_the_beginning_is_kept_and_of_its_reasons_too(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", HEADER + RIGHT + "é" * 100_000 + "\n")
    [reject] = read(path).rejects.to_pylist()
    assert reject["text"] == "é" * 2048
    assert reject["reason"] == "holds 1 columns; 7 are expected."


def test_a_row_of_several_lines_is_told_by_its_first(tmp_path: Path) -> None:
    text = HEADER + '1,0,1,"x\ny",5,1|2,20200101\n2,0,1,"x\n\ny",z,1|2,20200101\n' + "3\n"
    found = read(write(tmp_path / "rows.csv", text))
    assert found.kept is not None and found.kept.tolist() == [0]
    assert found.rejects["line"].to_pylist() == [4, 7]
    assert found.rejects["text"][0].as_py() == '2,0,1,"x\n\ny",z,1|2,20200101'


@pytest.mark.parametrize(
    ("rows", "line", "begin"),
    [
        (RIGHT + RIGHT.replace("a", '"a') + RIGHT, 3, 3),
        (RIGHT + RIGHT.replace("a", 'a"b') + RIGHT, 3, 3),
        (RIGHT + RIGHT.replace("a", '"a') + RIGHT + RIGHT.replace("a", '"b"'), 5, 3),
        (RIGHT.replace("a", '"a" "b"') + RIGHT.replace("a", '"a\nb"c'), 4, 3),
    ],
)
def test_a_quote_that_does_not_end_in_its_line_is_an_error_of_the_file(
    tmp_path: Path, rows: str, line: int, begin: int
) -> None:
    path = write(tmp_path / "rows.csv", HEADER + rows)
    where = "" if line == begin else f" in the row that begins in line {begin}"
    message = f"{path}:{line}: a quote stands inside a column or is never closed{where}. "
    with pytest.raises(DataError, match=f"^{re.escape(message)}"):
        read(path)


def test_without_reject_the_problems_are_an_error_as_ever(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", HEADER + RIGHT + RIGHT.replace(",5,", ",x,") * 30)
    with pytest.raises(DataError) as caught:
        read(path, reject=False)
    assert caught.value.total == 30 and len(caught.value.problems) == 20
    assert caught.value.problems[0] == f"{path}:3: column I1: must be a whole number; got 'x'."


def test_the_key_of_a_side_table_identifies_no_row(tmp_path: Path) -> None:
    card = parse_card("""
name: n
format: {type: csv}
columns: {id: {kind: id}, user: {kind: id}, click: {kind: label}}
lookups:
  users:
    file: users.csv
    key: user
    format: {type: csv}
    columns: {user: {kind: id}, age: {kind: categorical}}
split: {by: given}
""")
    write(tmp_path / "users.csv", "user,age\nu,30\n")
    path = write(tmp_path / "rows.csv", "id,user,click\n1,u,0\n2,u,1\n")
    [block] = RawSource([path], card).blocks()
    lookups = {"users": SideTable.read(card.lookups["users"], tmp_path)}
    found = read_block(block, card, lookups, [0])
    assert list(found.ids) == ["id"] and found.values.column("age").to_pylist() == ["30"] * 2
