"""Sifting: the rows of a block that are as the file's format asks, the others told one by one."""

import polars as pl

from recsys_had.data.lines import Records, plain_line_ends
from recsys_had.data.problems import Problems
from recsys_had.data.table import TableRows
from recsys_had.data.text import TextRows
from recsys_had.utf8 import told


def sift_table(rows: TableRows, problems: Problems) -> pl.DataFrame:
    """Reads the rows of a Parquet file whose texts are UTF-8.

    Args:
        rows: the rows of a block.
        problems: takes the other rows; it must remember every row.

    Raises:
        DataError: a column's type has no text.
    """
    frame = rows.parse(problems)
    return frame.filter(~pl.Series(problems.bad_rows(len(frame)), dtype=pl.Boolean))


def sift_text(rows: TextRows, problems: Problems) -> pl.DataFrame:
    r"""Reads the rows of a text file that have all their columns and are UTF-8.

    In CSV, a quote out of place belongs to its row alone where the row's quotes pair up within
    its line. Where they do not, nobody knows where the row ends, nor what follows it: that is an
    error of the file.

    Args:
        rows: the rows of a block.
        problems: takes the other rows; it must remember every row.

    Raises:
        DataError: a quote out of place in a row of several lines, or one that is never closed.

    >>> from pathlib import Path
    >>> import tempfile
    >>> from recsys_had.data.text import TextFile
    >>> from recsys_had.schema import FileFormat
    >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
    >>> _ = path.write_bytes(b"a,b\n1,2\n3\n\n4,5\xff\n6,x\"7\"\n8,9\n")
    >>> file = TextFile(path, FileFormat(type="csv"), columns=())
    >>> [(num_rows, rows)] = file.blocks(("a", "b"), block_bytes=100)
    >>> problems = Problems(every_row=True)
    >>> sift_text(rows, problems).rows()
    [('1', '2'), ('8', '9')]
    >>> problems.bad_rows(num_rows).nonzero()[0].tolist()
    [1, 2, 3, 4]
    """
    data = plain_line_ends(rows.data)
    records = Records(data, rows.file.dialect)
    _add_stray_quotes(rows, records, problems)
    if rows.file.format.encoding == "utf-8":
        _add_undecodable(rows, records, problems)
    rows.add_wrong_widths(records, problems)
    kept = records.take(~problems.bad_rows(len(records)))
    text = rows.file.decode(kept, rows.first_line)
    return rows.parse(text, has_quotes=Records(text, rows.file.dialect).has_quotes)


def _add_stray_quotes(rows: TextRows, records: Records, problems: Problems) -> None:
    strays = records.stray_quotes()
    if not len(strays):
        return
    holding = records.holding(strays)
    for stray, record in zip(strays.tolist(), holding.tolist(), strict=True):
        if record == records.open_record or b"\n" in records.record(record):
            rows.file.refuse_quote(records, stray, rows.first_line)
    problems.add_rows(
        records.mask(holding),
        rows.place,
        lambda row: (
            "a quote stands inside a column. Put the column in quotes and double those inside it."
        ),
    )


def _add_undecodable(rows: TextRows, records: Records, problems: Problems) -> None:
    if not rows.data.isascii():
        problems.add_rows(records.undecodable(), rows.place, lambda row: told(records.record(row)))
