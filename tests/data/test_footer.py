"""Footers of Parquet files: what no writer writes is refused, what some write is not."""

import re
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_had.data.footer import check_footer
from recsys_had.errors import DataError


def footer(num_rows: int, *groups: tuple[int, list[tuple[int, int | None]]]) -> object:
    """A footer of groups: their rows, and where each column's data and dictionary begin."""

    def group_of(rows: int, columns: list[tuple[int, int | None]]) -> object:
        return SimpleNamespace(
            num_rows=rows,
            num_columns=len(columns),
            column=lambda number: SimpleNamespace(
                data_page_offset=columns[number][0], dictionary_page_offset=columns[number][1]
            ),
        )

    made = [group_of(*group) for group in groups]
    return SimpleNamespace(num_rows=num_rows, num_row_groups=len(made), row_group=made.__getitem__)


def test_a_footer_whose_rows_do_not_add_up_is_refused() -> None:
    told = "f: is damaged: it must hold 5 rows; got 4. Fetch it again."
    with pytest.raises(DataError, match=f"^{re.escape(told)}$"):
        check_footer("f", footer(5, (2, [(4, None)]), (2, [(90, None)])))  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [(4, None), (40, 4)])
def test_two_columns_that_begin_together_are_refused(other: tuple[int, int | None]) -> None:
    told = "f: is damaged: two of its columns begin at the same byte. Fetch it again."
    with pytest.raises(DataError, match=f"^{re.escape(told)}$"):
        check_footer("f", footer(2, (2, [(20, 4), (60, 50), other])))  # type: ignore[arg-type]


def test_files_of_arrow_and_polars_with_and_without_rows_are_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    for num_rows in (0, 1, 1000):
        texts = [str(number % 7) for number in range(num_rows)]
        nothing = pa.nulls(num_rows, pa.string())
        table = pa.table({"a": texts, "b": nothing, "c": range(num_rows), "d": [[1]] * num_rows})
        for write in (
            lambda table=table: pq.write_table(table, path, row_group_size=100),
            lambda table=table: pq.write_table(table, path, use_dictionary=False),
            lambda table=table: pl.DataFrame(table).write_parquet(path, row_group_size=100),
        ):
            write()
            check_footer(path, pq.read_metadata(path))
