"""Text files: rows as Python's csv module and str.split read them, at any size of block."""

import csv
import gzip
import io
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_had.data.lines import Dialect, Records
from recsys_had.data.text import TextFile
from recsys_had.errors import DataError, SchemaError
from recsys_had.schema import FileFormat

COLUMNS = ("a", "b", "c")
WORDS = st.text(alphabet="xy \",\t;|\\#'1é\u2028\x0b\x85\x00😀", max_size=5)
Row = tuple[str, tuple[str | None, ...]]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(data: bytes | str, name: str = "rows.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return write


def rows_of(path: Path, block_bytes: int = 1 << 20, **how: object) -> list[Row]:
    """Line and values of every row."""
    file = TextFile(path, FileFormat.model_validate(how), columns=COLUMNS)
    found: list[Row] = []
    for num_rows, rows in file.blocks(file.columns, block_bytes=block_bytes):
        values = rows.read().rows()
        assert len(values) == num_rows
        for number, row in enumerate(values):
            name, line = rows.place(number).rsplit(":", 1)
            assert name == str(path)
            found.append((line, row))
    return found


def same(lines: list[str], rows: list[list[str]]) -> list[Row]:
    """What :func:`rows_of` gives where an empty text is missing."""
    values = [tuple(text or None for text in row) for row in rows]
    return list(zip(lines, values, strict=True))


anywhere = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@anywhere
@given(
    rows=st.lists(st.lists(WORDS.map(lambda w: w.replace("\t", "")), min_size=3, max_size=3)),
    header=st.booleans(),
    mark=st.sampled_from(["", "\ufeff"]),
    ends=st.lists(st.sampled_from(["\n", "\r\n"]), min_size=1),
    closed=st.booleans(),
    block_bytes=st.integers(1, 60),
)
def test_a_tsv_reads_as_str_split_reads_it_at_any_block_size(
    write: Write,
    rows: list[list[str]],
    header: bool,
    mark: str,
    ends: list[str],
    closed: bool,
    block_bytes: int,
) -> None:
    table = [["a", "b", "c"], *rows] if header else [["1", "2", "3"], *rows]
    lines = ["\t".join(row) + ends[i % len(ends)] for i, row in enumerate(table)]
    text = mark + "".join(lines)
    path = write(text if closed else text.removesuffix("\n").removesuffix("\r"))
    oracle = [
        line.removesuffix("\r").split("\t")
        for line in text.removeprefix("\ufeff").removesuffix("\n").split("\n")
    ]
    numbers = [str(number) for number in range(1, len(oracle) + 1)]
    wanted = same(numbers[header:], oracle[header:])
    assert rows_of(path, block_bytes, type="tsv", header=header) == wanted
    assert rows_of(path, type="tsv", header=header) == wanted


@anywhere
@given(
    rows=st.lists(
        st.lists(
            st.tuples(
                st.one_of(WORDS, st.sampled_from(["\n", "x\r\ny", "\n\n", '"\n"'])), st.booleans()
            ),
            min_size=3,
            max_size=3,
        )
    ),
    ends=st.lists(st.sampled_from(["\n", "\r\n"]), min_size=1),
    mark=st.sampled_from(["", "\ufeff"]),
    closed=st.booleans(),
    separator=st.sampled_from([",", ";", "|"]),
    block_bytes=st.integers(1, 60),
)
def test_a_csv_reads_as_the_csv_module_reads_it_at_any_block_size(
    write: Write,
    rows: list[list[tuple[str, bool]]],
    ends: list[str],
    mark: str,
    closed: bool,
    separator: str,
    block_bytes: int,
) -> None:
    def column(value: str, quote: bool) -> str:
        if quote or any(letter in value for letter in f'{separator}"\r\n'):
            return '"' + value.replace('"', '""') + '"'
        return value

    text = separator.join("abc") + "\n"
    for number, row in enumerate(rows):
        text += separator.join(column(*item) for item in row) + ends[number % len(ends)]
    if not closed:
        text = text.removesuffix("\n").removesuffix("\r")
    # Line ends inside quotes are written as \n.
    reader = csv.reader(io.StringIO(text.replace("\r\n", "\n"), newline="\n"), delimiter=separator)
    wanted = []
    line = 1
    for values in reader:
        wanted.append((str(line), values))
        line = reader.line_num + 1
    lines, oracle = [line for line, _ in wanted[1:]], [values for _, values in wanted[1:]]
    path = write(mark + text)
    how = {"type": "csv", "separator": separator}
    assert rows_of(path, block_bytes, **how) == same(lines, oracle)
    assert rows_of(path, **how) == same(lines, oracle)


def test_a_quote_in_a_tsv_is_a_character_even_if_it_is_never_closed(write: Write) -> None:
    path = write('"x\ty"z\t""\n\'\t"\t"q"\n')
    assert rows_of(path, type="tsv", header=False) == [
        ("1", ('"x', 'y"z', '""')),
        ("2", ("'", '"', '"q"')),
    ]


def test_a_return_that_ends_no_line_is_a_character(write: Write) -> None:
    # str.split("\n") leaves "3\r" once the line end "\r\n" is gone.
    path = write("1\r1\t2\r\t3\r\r\n4\t5\t6\r\n")
    assert rows_of(path, type="tsv", header=False) == [
        ("1", ("1\r1", "2\r", "3\r")),
        ("2", ("4", "5", "6")),
    ]


def test_a_byte_order_mark_is_a_character_wherever_no_file_begins(write: Write) -> None:
    # Two files that each had a mark, joined into one.
    path = write("\ufeff1\t2\t3\n\ufeff4\t5\t6\n")
    for block_bytes in (1000, 12, 1):
        assert rows_of(path, block_bytes, type="tsv", header=False) == [
            ("1", ("1", "2", "3")),
            ("2", ("\ufeff4", "5", "6")),
        ]


def test_only_the_texts_the_card_names_are_missing(write: Write) -> None:
    path = write('a,b,c\n,"",NA\nNA,\\N,"NA"\n')
    assert rows_of(path, type="csv", missing=["NA", "\\N"]) == [
        ("2", ("", "", None)),
        ("3", (None, None, None)),
    ]
    assert rows_of(path, type="csv", missing=[]) == [
        ("2", ("", "", "NA")),
        ("3", ("NA", "\\N", "NA")),
    ]
    assert rows_of(path, type="csv", missing=["", "NA"]) == [
        ("2", (None, None, None)),
        ("3", (None, "\\N", None)),
    ]


def test_latin_1_is_read_as_its_letters_and_refused_as_utf_8(write: Write) -> None:
    path = write(b"a\tb\tc\n1\t2\t3\n4\t\xe9t\xe9\t\xff\n")
    assert rows_of(path, type="tsv", encoding="latin-1")[1] == ("3", ("4", "été", "ÿ"))
    message = (
        f"{path}:3: must be UTF-8; got the byte 0xe9. "
        "Convert the file, or set format.encoding to latin-1 in the card."
    )
    for block_bytes in (1, 9, 1000):
        with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
            rows_of(path, block_bytes, type="tsv")


def test_one_column_of_empty_lines_is_rows_without_a_value(write: Write) -> None:
    file = TextFile(write("x\n\n\ny\n"), FileFormat(type="tsv", header=False), columns=("a",))
    [(num_rows, rows)] = file.blocks(("a",), block_bytes=100)
    assert (num_rows, rows.read()["a"].to_list()) == (4, ["x", None, None, "y"])


def test_a_header_without_rows_gives_no_block(write: Write) -> None:
    for text in ("a,b,c\n", "a,b,c", "\ufeffa,b,c\r\n"):
        assert rows_of(write(text), type="csv") == []


@pytest.mark.parametrize("block_bytes", [1, 12, 1000])
def test_every_row_of_another_width_is_told_with_its_line(write: Write, block_bytes: int) -> None:
    path = write('a,b,c\n1,2,3\n1,2\n"x\ny",2,3,4\n\n1,2,3\n')
    problems: list[str] = []
    file = TextFile(path, FileFormat(type="csv"), columns=())
    for _, rows in file.blocks(("a",), block_bytes=block_bytes):
        try:
            rows.read()
        except DataError as error:
            problems += error.problems
    assert problems == [
        f"{path}:3: holds 2 columns; 3 are expected.",
        f"{path}:4: holds 4 columns; 3 are expected.",
        f"{path}:6: is blank. Remove the line.",
    ]


def test_of_many_problems_the_first_twenty_are_told_and_all_are_counted(write: Write) -> None:
    path = write("a\tb\tc\n" + "1\t2\t3\n" * 5 + "1\t2\n" * 33)
    with pytest.raises(DataError) as caught:
        rows_of(path, type="tsv")
    assert caught.value.total == 33
    assert caught.value.problems == tuple(
        f"{path}:{line}: holds 2 columns; 3 are expected." for line in range(7, 27)
    )


@pytest.mark.parametrize(
    ("text", "line", "begin"),
    [
        ('a,b,c\n1,2,3\n1,x"y",3\n', 3, 3),
        ('a,b,c\n1,"x"y,3\n', 2, 2),
        ('a,b,c\n1,"x\n\ny" ,3\n', 4, 2),
        ('a,b,c\n1,2,3\n1,"x,3\n1,2,3\n', 3, 3),
        ('a,b,c\n1,2,3\n1,"x,3\n1,2,3\n1,"y",3\n', 5, 3),
        ('a,b,c\n1, "x",3\n', 2, 2),
        ('a,"b"x,c\n1,2,3\n', 1, 1),
        ('a,b"x,c\n1,2,3\n', 1, 1),
    ],
)
def test_a_stray_quote_is_told_with_its_line_and_where_its_row_begins(
    write: Write, text: str, line: int, begin: int
) -> None:
    path = write(text)
    where = "" if begin == line else f" in the row that begins in line {begin}"
    message = (
        f"{path}:{line}: a quote stands inside a column or is never closed{where}. "
        "Put the column in quotes and double those inside it."
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        rows_of(path, type="csv")


@pytest.mark.parametrize("text", ["1,2,3\r4,5,6\r", '1,"2' + "\n1,2,3" * 30_000])
def test_a_first_record_no_csv_can_have_is_the_users_mistake(write: Write, text: str) -> None:
    # Line ends of an old Mac; a quote of the first row that is never closed.
    with pytest.raises(DataError, match=re.escape("rows.txt:1: ")):
        rows_of(write(text), type="csv", header=False)


def test_a_record_without_an_end_is_told(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_had.data.text.MAX_RECORD_BYTES", 1 << 20)
    path = write('a,b,c\n1,2,3\n4,"' + "x,\n" * (1 << 20))
    message = (
        f"{path}:3: the row goes on for more than 1 MiB. Is a quote never closed, or is it no text?"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        rows_of(path, 100, type="csv")


def test_a_file_without_a_header_must_have_the_cards_columns(write: Write) -> None:
    path = write("1,2,3\n")
    message = (
        f"{path}:1: holds 1 columns; the card has 3. Is it the right file, and the right separator?"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        rows_of(path, type="tsv", header=False)


@pytest.mark.parametrize("separator", ["\n", '"', "é", "\r"])
def test_a_separator_that_separates_nothing_is_refused(write: Write, separator: str) -> None:
    message = (
        "format.separator: must be an ASCII character other than a quote or a line end; "
        f"got {separator!r}."
    )
    with pytest.raises(SchemaError, match=f"^{re.escape(message)}$"):
        rows_of(write("1\n"), type="csv", separator=separator)


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_a_file_of_no_text_is_empty(write: Write, data: bytes) -> None:
    path = write(data, "rows.csv.gz" if data[:1] == b"\x1f" else "rows.csv")
    message = f"{path}: is empty. Remove it, or give the file that holds the rows."
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        rows_of(path, type="csv")


def test_compressed_files_read_as_plain_ones(write: Write) -> None:
    text = "".join(f"{number}\t{number * number}\tx\n" for number in range(2000)).encode()
    plain = [values for _, values in rows_of(write(text), type="tsv", header=False)]
    squeeze = pa.Codec("zstd").compress
    for name, data in {
        "a.gz": gzip.compress(text),
        "b.gz": gzip.compress(text[:7]) + gzip.compress(text[7:]),
        "a.zst": squeeze(text, asbytes=True),
        "b.zst": squeeze(text[:7], asbytes=True) + squeeze(text[7:], asbytes=True),
    }.items():
        path = write(data, name)
        assert [v for _, v in rows_of(path, 1000, type="tsv", header=False)] == plain


@pytest.mark.parametrize("name", ["rows.gz", "rows.zst"])
def test_a_compressed_file_that_is_cut_off_is_told_wherever_it_is_cut(
    write: Write, name: str
) -> None:
    text = "".join(f"{number}\t{number * 7919 % 1009}\tx\n" for number in range(40_000)).encode()
    whole = gzip.compress(text) if name == "rows.gz" else pa.compress(text, "zstd", asbytes=True)
    told = re.escape(f"{name}: cannot be decompressed to its end; the file is cut off or damaged (")
    for left in (3, 11, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        with pytest.raises(DataError, match=rf"^\S*{told}.*\)\. Fetch it again\.$"):
            rows_of(write(whole[:left], name), 1 << 16, type="tsv", header=False)
    with pytest.raises(DataError, match=rf"^\S*{told}.*\)\. Fetch it again\.$"):
        rows_of(write(b"1\t2\t3\n", name), type="tsv", header=False)


@anywhere
@given(data=st.text(alphabet='a,"\n', max_size=30).map(str.encode), width=st.integers(1, 3))
def test_the_widths_of_records_are_counted_outside_quotes(data: bytes, width: int) -> None:
    # One pass over the letters, as RFC 4180 is read by hand.
    ends, widths, lines, line, begin = [], [], [], 0, 0
    quoted, count = False, 1
    for place, letter in enumerate(data.decode()):
        quoted ^= letter == '"'
        count += letter == "," and not quoted
        line += letter == "\n"
        if letter == "\n" and not quoted:
            ends, widths, lines = [*ends, place], [*widths, count], [*lines, begin]
            count, begin = 1, line
    if data and not data.endswith(b"\n"):
        ends, widths, lines = [*ends, len(data)], [*widths, count], [*lines, begin]
    elif data and quoted:
        return  # the text of a block ends with a record
    records = Records(data, Dialect(b",", quoted=True))
    assert len(records) == len(ends)
    assert records.ends.tolist() == ends
    assert records.lines.tolist() == lines
    rows, found = records.wrong_widths(width)
    wrong = [(row, wide) for row, wide in enumerate(widths) if wide != width]
    assert list(zip(rows.tolist(), found.tolist(), strict=True)) == wrong
