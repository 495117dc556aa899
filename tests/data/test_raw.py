"""RawSource: which files, which columns, which row has which number and place."""

import datetime
import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_had.data.raw import RawSource
from recsys_had.errors import DataError
from recsys_had.schema import DatasetCard, parse_card

CARD = """
name: clicks
format: {type: csv}
columns:
  click: {kind: label}
  at: {kind: timestamp, format: "%y%m%d%H", parts: [hour]}
  C1: {kind: categorical}
  tags: {kind: multi_categorical}
  note: {kind: ignored}
split: {by: given}
"""
CSV = parse_card(CARD)
BARE = parse_card(CARD.replace("csv}", "tsv, header: false}"))
SEVERAL = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
        return path

    return write


Write = Callable[[str, str], Path]


def rows_of(source: RawSource, block_bytes: int = 1 << 20) -> list[tuple[Any, ...]]:
    """Input, row id, place and values of every row."""
    found: list[tuple[Any, ...]] = []
    for block in source.blocks(block_bytes):
        frame = block.frame
        assert len(frame) == block.num_rows
        for row, values in enumerate(frame.rows()):
            at = (block.input_index, block.first_row_id + row, block.place(row))
            found.append((*at, *values))
    return found


def refused(*problems: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(chr(10).join(problems))}$")


@SEVERAL
@given(block_bytes=st.integers(1, 90), sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_rows_count_over_files_in_the_order_of_the_inputs_at_any_block_size(
    write: Write, block_bytes: int, sizes: list[int]
) -> None:
    header, wanted, paths = "C1,click,at,tags,note\n", [], []
    for number, size in enumerate(sizes):
        lines = [f'{number}.{row},1,14102100,"x\ny",\n' for row in range(size)]
        path = write(f"{9 - number}.csv.gz" if number % 2 else f"{9 - number}.csv", header)
        write(path.name, header + "".join(lines))
        paths.append(path)
        for row in range(size):
            at = f"{path}:{2 + 2 * row}"
            values = ("1", "14102100", f"{number}.{row}", "x\ny", None)
            wanted.append((number, len(wanted), at, *values))
    assert rows_of(RawSource(paths, CSV), block_bytes) == wanted


def test_a_glob_gives_its_files_sorted_and_no_folder(write: Write, tmp_path: Path) -> None:
    for name in ("day/b.tsv", "day/a.tsv.gz", "day/c.tsv"):
        write(name, f"1\t14102100\t{name[4]}\t\t\n")
    (tmp_path / "day" / "d.tsv").mkdir()
    source = RawSource([tmp_path / "day/c.tsv", f"{tmp_path}/day/*.tsv*"], BARE)
    assert [(row[0], row[1], row[5]) for row in rows_of(source)] == [
        (0, 0, "c"),
        (1, 1, "a"),
        (1, 2, "b"),
        (1, 3, "c"),
    ]
    assert [index for index, _ in source.paths] == [0, 1, 1, 1]


def test_a_file_whose_name_holds_a_bracket_is_no_pattern(write: Write) -> None:
    path = write("part[1].tsv", "1\t14102100\ta\t\t\n")
    write("part1.tsv", "1\t14102100\tb\t\t\n")
    assert [row[5] for row in rows_of(RawSource([path], BARE))] == ["a"]


def test_every_unusable_input_is_told_at_once(write: Write, tmp_path: Path) -> None:
    empty = write("empty.tsv", "")
    with refused(
        f"{tmp_path}: is a folder. Name its files, for example '{tmp_path}/*'.",
        f"{tmp_path}/none.tsv: there is no such file.",
        f"{empty}: is empty. Remove it, or give the file that holds the rows.",
        f"{tmp_path}/*.log: no file matches the pattern.",
    ):
        RawSource([tmp_path, tmp_path / "none.tsv", empty, f"{tmp_path}/*.log"], BARE)
    with refused("no raw file was given. Name at least one."):
        RawSource([], BARE)


def test_every_wrong_header_is_told_with_the_nearest_name(write: Write) -> None:
    one = write("1.csv", "click,at,C11,tags,note,note\n")
    two = write("2.csv", "clicks,at,C1,tags,note,extra\n")
    right = write("3.csv", "note,tags,C1,at,click\n")
    with refused(
        f"{one}:1: column note: stands twice. Rename one of them.",
        f"{one}:1: column C1: is missing. Did you mean 'C11'?",
        f"{two}:1: column click: is missing. Did you mean 'clicks'?",
    ):
        RawSource([one, right, two], CSV)


def test_a_blank_first_line_is_told_as_one(write: Write) -> None:
    path = write("1.csv", "\nclick,at,C1,tags,note\n")
    with pytest.raises(DataError) as caught:
        RawSource([path], CSV)
    assert caught.value.problems[0] == f"{path}:1: column click: is missing."


def test_the_label_and_unused_columns_may_lack_where_the_label_is_optional(write: Write) -> None:
    path = write("1.csv", "C1,tags,at\na,x,14102100\n")
    assert rows_of(RawSource([path], CSV, label="optional")) == [
        (0, 0, f"{path}:2", "14102100", "a", "x")
    ]
    with refused(
        f"{path}:1: column click: is missing. Known: C1, at, tags.",
        f"{path}:1: column note: is missing. Known: C1, at, tags.",
    ):
        RawSource([path], CSV)


def test_a_file_without_a_header_may_lack_the_label_alone(write: Write) -> None:
    full = write("full.tsv", "1\t14102100\ta\tx\tn\n")
    bare = write("bare.tsv", "14102101\tb\ty\tn\n")
    source = RawSource([full, bare], BARE, label="optional")
    assert [row[3:] for row in rows_of(source)] == [("14102100", "a", "x"), ("14102101", "b", "y")]
    asks = "Is it the right file, and the right separator?"
    with refused(f"{bare}:1: holds 4 columns; the card has 5. {asks}"):
        RawSource([bare], BARE)
    short = write("short.tsv", "b\ty\tn\n")
    with refused(f"{short}:1: holds 3 columns; the card has 5 (4 without click). {asks}"):
        RawSource([short], BARE, label="optional")


def test_kept_columns_are_read_beside_the_models(write: Write) -> None:
    path = write("1.csv", "id,C1,tags,at,note,click\n7,a,x,14102100,n,1\n")
    source = RawSource([path], CSV, label="optional", keep=["id", "C1", "click"])
    [block] = source.blocks()
    assert block.frame.to_dicts() == [
        {"at": "14102100", "C1": "a", "tags": "x", "id": "7", "click": "1"}
    ]
    assert source.empty_block().frame.schema == block.frame.schema
    with refused(
        f"{path}:1: column idd: is missing. Did you mean 'id'?",
    ):
        RawSource([path], CSV, keep=["idd"])


def test_a_file_that_changes_has_another_fingerprint(write: Write) -> None:
    path = write("1.tsv", "1\t14102100\ta\tx\tn\n")
    before = RawSource([path], BARE).fingerprint
    assert RawSource([path], BARE).fingerprint == before
    write("1.tsv", "1\t14102100\tab\tx\tn\n")
    assert RawSource([path], BARE).fingerprint != before


@pytest.mark.parametrize("row_group_size", [1, 2, 100])
def test_a_parquet_file_reads_as_the_text_it_stands_for(
    tmp_path: Path, row_group_size: int
) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    table = pa.table(
        {
            "note": pa.array([None, None, None]),
            "C1": pa.array([153.0, None, 2.5]),
            "tags": pa.array([["x", None, "y"], [], None]),
            "at": pa.array(
                [datetime.datetime(2014, 10, 21, 1, tzinfo=zone), None, None],
                pa.timestamp("ms", tz="Europe/Berlin"),
            ),
            "click": pa.array([True, False, None]),
        }
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path, row_group_size=row_group_size)
    wanted = [
        ("1", "14102023", "153", ["x", None, "y"], None),
        ("0", None, None, [], None),
        (None, None, "2.5", None, None),
    ]
    for block_bytes in (1, 50, 1 << 20):
        rows = rows_of(RawSource([path], BARE), block_bytes)
        assert [row[1:3] for row in rows] == [(i, f"{path}: row {i}") for i in range(3)]
        assert [row[3:] for row in rows] == wanted


DAY, MOMENT = datetime.date(2014, 10, 21), datetime.datetime(2014, 10, 21, 1)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([5, None, -7], pa.int8()), ["5", None, "-7"]),
        (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
        (pa.array([1e15, -0.0, 0.1, float("nan")]), ["1000000000000000", "0", "0.1", None]),
        (pa.array([0.1, 7.0], pa.float32()), ["0.1", "7"]),
        (pa.array([True, None, False]), ["1", None, "0"]),
        (pa.array(["a", None, "", "a"]).dictionary_encode(), ["a", None, None, "a"]),
        (pa.array([5, None, 5]).dictionary_encode(), ["5", None, "5"]),
        (pa.array(["a", "\\N"], pa.large_string()), ["a", "\\N"]),
        (pa.array([b"a"]), ["a"]),
        (pa.array([DAY]), ["2014-10-21"]),
        (pa.array([None, None]), [None, None]),
    ],
    ids=lambda values: str(values.type) if isinstance(values, pa.Array) else None,
)
def test_a_typed_category_is_the_text_it_stands_for(
    tmp_path: Path, values: pa.Array, texts: list[str | None]
) -> None:
    nothing = pa.nulls(len(values))
    names = {"click": nothing, "at": nothing, "C1": values, "tags": nothing, "note": nothing}
    pq.write_table(pa.table(names), tmp_path / "rows.parquet")
    [block] = RawSource([tmp_path / "rows.parquet"], CSV).blocks()
    assert block.frame["C1"].to_list() == texts


@pytest.mark.parametrize(
    ("pattern", "values", "text"),
    [
        ("unix", [MOMENT], "1413853200"),
        ("unix_ms", [MOMENT], "1413853200000"),
        ("%Y/%m/%d", [DAY], "2014/10/21"),
        ("unix", [1413853200.0, None], "1413853200"),
    ],
)
def test_a_typed_time_is_written_in_its_columns_format(
    tmp_path: Path, pattern: str, values: list[Any], text: str
) -> None:
    card = parse_card(CARD.replace("%y%m%d%H", pattern))
    nothing = pa.nulls(len(values))
    names = {"click": nothing, "at": values, "C1": nothing, "tags": nothing, "note": nothing}
    pq.write_table(pa.table(names), tmp_path / "rows.parquet")
    [block] = RawSource([tmp_path / "rows.parquet"], card).blocks()
    assert block.frame["at"][0] == text


def test_columns_that_have_no_text_are_refused_by_type(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table(
        {
            "click": [1],
            "at": [datetime.time(1)],
            "C1": [{"a": 1}],
            "tags": [[{"a": 1}]],
            "note": [[1]],
        }
    )
    pq.write_table(table, path)
    [block] = RawSource([path], CSV).blocks()
    plain = "must hold text or numbers"
    with refused(
        f"{path}: column at: {plain}; got Time.",
        f"{path}: column C1: {plain}; got Struct({{'a': Int64}}).",
        f"{path}: column tags: must hold text, numbers, times or lists of them; "
        "got List(Struct({'a': Int64})).",
        f"{path}: column note: {plain}; got List(Int64).",
    ):
        block.read()


def test_a_parquet_file_that_lacks_columns_or_is_none_is_told(tmp_path: Path) -> None:
    path, broken = tmp_path / "rows.parquet", tmp_path / "broken.parquet"
    pq.write_table(
        pa.table({"click": [1], "at": ["x"], "C11": ["a"], "tag": ["a"], "note": [1]}), path
    )
    broken.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError) as caught:
        RawSource([path, broken], CSV)
    assert caught.value.problems[:2] == (
        f"{path}: column C1: is missing. Did you mean 'C11'?",
        f"{path}: column tags: is missing. Did you mean 'tag'?",
    )
    assert caught.value.problems[2].startswith(f"{broken}: is not a readable Parquet file: ")


def test_a_parquet_file_without_rows_gives_no_block(
    tmp_path: Path, small_card: DatasetCard
) -> None:
    names = ["label", "A", "B", "tags", "price"]
    pq.write_table(pa.table({name: pa.nulls(0) for name in names}), tmp_path / "rows.parquet")
    assert rows_of(RawSource([tmp_path / "rows.parquet"], small_card)) == []
