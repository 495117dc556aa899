"""Side tables: each row's key finds its values, and a wrong table is told."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_had.data.lookups import SideTable
from recsys_had.errors import DataError
from recsys_had.schema import Lookup

COLUMNS = {
    "item": {"kind": "id"},
    "title": {"kind": "ignored"},
    "brand": {"kind": "categorical", "missing": "none"},
    "genres": {"kind": "multi_categorical", "flags": ["drama", "war"]},
    "tags": {"kind": "multi_categorical"},
    "year": {"kind": "integer"},
}
TEXT = '1|A "b"|x|1|1|p,q|1990\n2|B||0|1||\n3|C|z|||r|2001\n'
Read = Callable[..., SideTable]


def lookup_of(file: str = "u.item", columns: Any = None, **how: Any) -> Lookup:
    described = columns or COLUMNS | {"tags": COLUMNS["tags"] | {"separator": ","}}
    how = {"type": "tsv", "header": False, "separator": "|"} | how
    content = {"file": file, "key": "item", "format": how, "columns": described}
    return Lookup.model_validate(content)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(text: str | bytes = TEXT, **how: Any) -> SideTable:
        (tmp_path / "u.item").write_bytes(text.encode() if isinstance(text, str) else text)
        return SideTable.read(lookup_of(**how), tmp_path)

    return read


def joined(table: SideTable, *keys: str | None) -> dict[str, list[Any]]:
    found = table.join(pl.Series(keys, dtype=pl.String))
    return {name: values.to_pylist() for name, values in found.items()}


def test_a_key_finds_its_row_and_one_that_is_unknown_or_missing_finds_nothing(read: Read) -> None:
    assert joined(read(), "3", "1", "9", None, "2", "1", "") == {
        "brand": ["z", "x", "none", "none", "none", "x", "none"],
        "genres": [[], ["drama", "war"], [], [], ["war"], ["drama", "war"], []],
        "tags": [["r"], ["p", "q"], [], [], [], ["p", "q"], []],
        "year": [2001, 1990, None, None, None, 1990, None],
    }
    assert joined(read()) == {"brand": [], "genres": [], "tags": [], "year": []}


@settings(deadline=None)
@given(
    st.dictionaries(st.text("ab é", min_size=1, max_size=3), st.text("xyz", min_size=1)),
    st.lists(st.one_of(st.none(), st.text("ab é", max_size=3))),
)
def test_a_join_is_a_dictionary(table: dict[str, str], keys: list[str | None]) -> None:
    columns = {"item": {"kind": "id"}, "brand": {"kind": "categorical"}}
    frame = pl.DataFrame(
        {"item": list(table), "brand": list(table.values())},
        schema={"item": pl.String, "brand": pl.String},
    )
    side = SideTable(lookup_of(columns=columns), frame)
    assert joined(side, *keys) == {"brand": [table.get(key) for key in keys]}  # type: ignore[arg-type]


def test_keys_must_be_there_and_unique_and_values_what_the_card_says(
    read: Read, tmp_path: Path
) -> None:
    place = f"{tmp_path}/u.item"
    with pytest.raises(DataError) as caught:
        read("1|A|x|1|1|p|old\n2|B||0|2||\n1|C|z|||r|2001\n|D|z|||r|\n")
    assert caught.value.problems == (
        f"{place}:1: column year: must be a whole number; got 'old'.",
        f"{place}:2: column war: must be 0 or 1; got '2'.",
        f"{place}:3: column item: must be there and unique; got '1'.",
        f"{place}:4: column item: must be there and unique; got None.",
    )


def test_a_table_that_is_not_there_is_told_with_its_key(tmp_path: Path) -> None:
    message = (
        f"{tmp_path}/u.item: there is no such file; the card joins it to every row by 'item'. "
        "Put it beside the first raw file."
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        SideTable.read(lookup_of(), tmp_path)


def test_columns_that_lack_are_told_with_the_nearest_name(read: Read, tmp_path: Path) -> None:
    place = f"{tmp_path}/u.item:1"
    with pytest.raises(DataError) as caught:
        read("items|brand|drama|war|tags\n", header=True)
    assert caught.value.problems == (
        f"{place}: column item: is missing. Did you mean 'items'?",
        f"{place}: column year: is missing. Known: brand, drama, items, tags, war.",
    )
    message = (
        f"{place}: holds 2 columns; the card has 7. Is it the right file, and the right separator?"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read("1|2\n")


def test_a_column_that_stands_twice_is_told(read: Read) -> None:
    with pytest.raises(DataError, match=r"u\.item:1: column year: stands twice"):
        read("item|brand|drama|war|tags|year|year\n1|x|0|0|p|1|2\n", header=True)


def test_a_table_without_rows_knows_no_key_or_is_told(read: Read) -> None:
    try:
        table = read("item|brand|drama|war|tags|year\n", header=True)
    except DataError:
        return
    assert joined(table, "1")["brand"] == ["none"]


def test_latin_1_titles_and_their_quotes_do_not_matter(read: Read) -> None:
    table = read('1|Mis\xe9rables, "Les|\xe9|1|0|p|1995\n'.encode("latin-1"), encoding="latin-1")
    assert joined(table, "1")["brand"] == ["é"]


@pytest.mark.parametrize("row_group_size", [1, 100])
def test_a_parquet_table_reads_as_the_text_it_stands_for(
    read: Read, tmp_path: Path, row_group_size: int
) -> None:
    table = pa.table(
        {
            "year": [1990.0, None, 2001.0],
            "item": [1, 2, 3],
            "brand": pa.array(["x", None, "z"]).dictionary_encode(),
            "drama": [True, False, None],
            "war": [1, 1, None],
            "tags": [["p", "q"], [], ["r"]],
        }
    )
    pq.write_table(table, tmp_path / "items.parquet", row_group_size=row_group_size)
    side = SideTable.read(lookup_of("items.parquet"), tmp_path)
    keys = ("3", "1", "9", None, "2")
    assert joined(side, *keys) == joined(read(), *keys)


@pytest.mark.parametrize("row_group_size", [1, 100])
def test_keys_of_a_parquet_table_are_unique_over_its_row_groups(
    tmp_path: Path, row_group_size: int
) -> None:
    path = tmp_path / "items.parquet"
    brands = pa.array(["x", "y", "z"]).dictionary_encode()
    columns = {"item": {"kind": "id"}, "brand": {"kind": "categorical"}}
    pq.write_table(
        pa.table({"item": [1, 2, 1], "brand": brands}), path, row_group_size=row_group_size
    )
    message = f"{path}: row 2: column item: must be there and unique; got '1'."
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        SideTable.read(lookup_of("items.parquet", columns), tmp_path)


def test_a_table_comes_back_from_its_file(read: Read, tmp_path: Path) -> None:
    table = read()
    table.save(tmp_path / "items.parquet")
    loaded = SideTable.load(table.lookup, tmp_path / "items.parquet")
    assert loaded.digest == table.digest
    assert joined(loaded, "1", "9", "2") == joined(table, "1", "9", "2")


def test_the_digest_changes_with_a_used_value_and_not_with_an_ignored_one(read: Read) -> None:
    digest = read().digest
    assert read(TEXT.replace("|A ", "|B ")).digest == digest
    assert read(TEXT.replace("|x|", "|y|")).digest != digest
    assert read(TEXT.replace("p,q", "q,p")).digest != digest
    assert read(TEXT.replace("|2001", "|")).digest != digest


def test_a_saved_table_that_is_gone_or_changed_is_refused_by_name(
    read: Read, tmp_path: Path
) -> None:
    path = tmp_path / "items.parquet"
    table = read()
    for write in (
        lambda: None,
        lambda: path.write_bytes(b"PAR1"),
        lambda: pq.write_table(pa.table({"brand": ["x"]}), path),
        lambda: pq.write_table(pa.table({"item": ["1"], "brand": ["x"]}), path),
    ):
        write()
        with pytest.raises(DataError, match=f"^{re.escape(str(path))}: cannot be read: "):
            SideTable.load(table.lookup, path)
