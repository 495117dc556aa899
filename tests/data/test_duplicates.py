"""Duplicate row ids: counted as a dictionary counts them, whatever memory there is."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_had.data import duplicates
from recsys_had.data.duplicates import IdFile, Repeated, find_duplicates, write_ids

anywhere = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write_blocks(folder: Path, blocks: list[list[str | None]]) -> list[IdFile]:
    files, first = [], 0
    for number, ids in enumerate(blocks):
        rows = np.arange(first, first + len(ids))
        files.append(
            write_ids(
                pl.Series(ids, dtype=pl.String),
                rows,
                rows - first + 2,
                folder / f"ids-{number}.npy",
                file=f"{number}.csv",
            )
        )
        first += len(ids)
    return files


def oracle(blocks: list[list[str | None]]) -> list[Repeated]:
    """The repeated rows, met one after the other."""
    seen: dict[str, int] = {}
    found, row_id = [], 0
    for number, ids in enumerate(blocks):
        for row, name in enumerate(ids):
            if name is not None and name in seen:
                found.append(Repeated(row_id, f"{number}.csv", row + 2, seen[name]))
            elif name is not None:
                seen[name] = row_id
            row_id += 1
    return found


@anywhere
@given(
    blocks=st.lists(
        st.lists(
            st.one_of(st.none(), st.text(max_size=2), st.sampled_from("abc"), st.just("a")),
            max_size=60,
        ),
        max_size=5,
    ),
    memory_bytes=st.integers(200, 5000),
    num_told=st.integers(0, 6),
)
def test_repeated_rows_are_those_a_dictionary_finds_in_any_memory(
    tmp_path: Path, blocks: list[list[str | None]], memory_bytes: int, num_told: int
) -> None:
    want = oracle(blocks)
    files = write_blocks(tmp_path, blocks)
    found = find_duplicates(files, memory_bytes=memory_bytes, num_told=num_told)
    assert found.num_rows == len(want)
    assert found.first == tuple(want[:num_told])
    assert find_duplicates(files[::-1], num_told=num_told) == found


def test_many_rows_are_counted_and_no_pass_holds_more_than_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = np.random.default_rng(5).integers(0, 40_000, 60_000).astype(str).tolist()
    blocks = [names[start : start + 7000] for start in range(0, 60_000, 7000)]
    files = write_blocks(tmp_path, blocks)
    passes = []
    count = duplicates._repeated

    def noted(entries: "np.typing.NDArray[np.void]") -> object:
        passes.append(len(entries))
        return count(entries)

    monkeypatch.setattr(duplicates, "_repeated", noted)
    found = find_duplicates(files, memory_bytes=600_000)
    assert found.num_rows == sum(times - 1 for times in Counter(names).values())
    assert list(found.first) == oracle(blocks)[:5]
    # 60,000 entries of 120 bytes are 12 times the memory: 16 ranges of about 3,750 entries.
    assert len(passes) == 16 and sum(passes) == 60_000 and max(passes) < 600_000 / 120


def test_an_id_of_nearly_all_rows_is_counted_and_not_kept_row_by_row(tmp_path: Path) -> None:
    blocks = [["same"] * 5000 + [f"own {number}"] for number in range(20)]
    files = write_blocks(tmp_path, blocks)
    found = find_duplicates(files)
    assert found.num_rows == 20 * 5000 - 1
    assert list(found.first) == oracle(blocks)[:5]
    assert [file.num_entries for file in files] == [duplicates._NAMED + 1] * 20
    with pytest.raises(ValueError, match="num_told: must be below 8; got 8"):
        find_duplicates(files, num_told=8)


def test_rows_without_an_id_and_blocks_without_a_row_have_no_duplicates(tmp_path: Path) -> None:
    files = write_blocks(tmp_path, [[None, None], [], [None, "a"]])
    assert find_duplicates(files).num_rows == 0
    assert [file.num_entries for file in files] == [0, 0, 1]
    assert find_duplicates([]).num_rows == 0


def test_ids_of_the_same_upper_half_are_different_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        duplicates.xxhash, "xxh3_128_digest", lambda text: bytes(8) + text.rjust(8, b"\0")
    )
    files = write_blocks(tmp_path, [["a", "b", "c"], ["b"]])
    assert find_duplicates(files, memory_bytes=1).first == (Repeated(3, "1.csv", 2, 1),)
