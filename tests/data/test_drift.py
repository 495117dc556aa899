"""Drift between two data folders, against plain Python over their raw rows."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import xxhash

from recsys_had.data import shards, tallies
from recsys_had.data.drift import ColumnDrift, Side, compare
from recsys_had.data.folder import DataFolder
from recsys_had.ingestion.ingest import ingest
from recsys_had.schema import parse_card

COLUMNS = {
    "word": "{kind: categorical, min_count: 2}",
    "tags": "{kind: multi_categorical}",
    "hashed": "{kind: categorical, hash_buckets: 40}",
    "managed": "{kind: categorical, managed: {rows: 9}}",
    "count": "{kind: integer, transform: standardise}",
    "price": "{kind: float, transform: log1p}",
    "image": "{kind: vector, size: 1}",
}


@dataclass(frozen=True)
class Made:
    """A data folder and the raw rows of each split."""

    data: DataFolder
    raw: dict[str, list[dict[str, str]]]

    @property
    def rows(self) -> list[dict[str, str]]:
        return [row for rows in self.raw.values() for row in rows]


Make = Callable[..., Made]


def raw_rows(seed: int, num_rows: int, shift: int) -> list[dict[str, str]]:
    generator = np.random.default_rng(seed)

    def known(text: str) -> str:
        return text if generator.random() < 0.9 else ""

    return [
        {
            "click": str(int(generator.random() < 0.3 + 0.01 * shift)),
            "word": known(f"w{shift + int(generator.exponential(12))}"),
            "tags": "|".join(f"t{shift + t}" for t in generator.integers(0, 30, row % 4)),
            "hashed": known(f"h{shift + int(generator.exponential(9))}"),
            "managed": known(f"m{shift + int(generator.exponential(7))}"),
            "count": known(str(3 * shift + int(generator.integers(-40, 160)))),
            "price": known(str(int(generator.integers(0, 250)))),
            "image": "1",
        }
        for row in range(num_rows)
    ]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Ingests made-up rows; a column may be of another kind, or None for none at all."""

    def run(seed: int, shift: int, **kinds: str | None) -> Made:
        folder = tmp_path_factory.mktemp("made")
        columns = {name: kind for name, kind in {**COLUMNS, **kinds}.items() if kind is not None}
        lines = [f"  {name}: {kind}" for name, kind in columns.items()]
        card = "\n".join(
            [
                *("name: made", "format: {type: csv}", "split: {by: given}"),
                *("columns:", "  click: {kind: label}", *lines),
            ]
        )
        raw = {"train": raw_rows(seed, 900, shift), "valid": raw_rows(seed + 1, 300, shift + 1)}
        for split, rows in raw.items():
            cells = [",".join(row[name] for name in ("click", *columns)) for row in rows]
            text = "\n".join([",".join(("click", *columns)), *cells])
            (folder / f"{split}.csv").write_text(text + "\n")
        inputs = [(split, folder / f"{split}.csv") for split in raw]
        ingest(parse_card(card), inputs, folder / "data", block_bytes=1 << 13)
        return Made(DataFolder.open(folder / "data"), raw)

    return run


@pytest.fixture(scope="module")
def old(make: Make) -> Made:
    return make(1, shift=0)


@pytest.fixture(scope="module")
def new(make: Make) -> Made:
    return make(5, shift=4)


def columns_of(one: Made, other: Made) -> dict[str, ColumnDrift]:
    found = compare(Side.count(one.data), Side.count(other.data))
    return {column.name: column for column in found.columns}


def plain_psi(old: Sequence[object], new: Sequence[object], classes: Sequence[object]) -> float:
    """Of things that are each in one of the classes."""
    total = 0.0
    before, after = Counter(old), Counter(new)
    for one in classes:
        p = max(before[one] / len(old), 1e-4)
        q = max(after[one] / len(new), 1e-4)
        total += (q - p) * math.log(q / p)
    assert set(before) | set(after) <= set(classes)
    return total


def vocabulary(made: Made, name: str, min_count: int) -> set[str]:
    counts = Counter(value for row in made.raw["train"] for value in set(row[name].split("|")))
    return {value for value, count in counts.items() if value and count >= min_count}


@pytest.mark.parametrize("name, min_count", [("word", 2), ("tags", 1)])
def test_fields_are_compared_by_value_whatever_their_ids(
    name: str, min_count: int, old: Made, new: Made
) -> None:
    ids_of_old = vocabulary(old, name, min_count)
    ids_of_new = vocabulary(new, name, min_count)
    assert ids_of_old != ids_of_new
    before = [
        value if value in ids_of_old else "" for row in old.rows for value in row[name].split("|")
    ]
    seen = [
        value if value in ids_of_new else "" for row in new.rows for value in row[name].split("|")
    ]
    after = [value if value in ids_of_old else "" for value in seen]
    # Of values as frequent as each other the one with more training rows has the lower id.
    trained = Counter(value for row in old.raw["train"] for value in set(row[name].split("|")))
    counts = Counter(value for value in before if value)
    order = sorted(counts, key=lambda value: (-counts[value], -trained[value], value.encode()))
    top = {value: value for value in [*order[:20], ""]}
    psi = plain_psi(
        [top.get(value, "other") for value in before],
        [top.get(value, "other") for value in after],
        [*top, "other"],
    )
    found = columns_of(old, new)[name]
    assert found.psi.value == pytest.approx(psi, rel=1e-12)
    assert found.old_zero_share == before.count("") / len(before)
    assert found.new_zero_share == seen.count("") / len(seen)
    unknown = sum(value != "" and value not in ids_of_old for value in seen)
    assert found.new_value_share == unknown / len(seen) > 0


@pytest.mark.parametrize("name", ["count", "price"])
def test_numbers_are_compared_before_their_transform_over_the_deciles_of_old(
    name: str, old: Made, new: Made
) -> None:
    zero = "zero"

    def numbers(made: Made) -> list[float | str]:
        # A price of 0 is encoded as a missing one is; a count of 0 is not, for it is no mean.
        return [
            zero if not row[name] or (name == "price" and row[name] == "0") else float(row[name])
            for row in made.rows
        ]

    before, after = numbers(old), numbers(new)
    known = sorted(x for x in before if isinstance(x, float))
    edges = [known[math.ceil(k * len(known) / 10) - 1] for k in range(1, 10)]

    def place(x: float | str) -> object:
        return x if isinstance(x, str) else sum(x > edge for edge in edges)

    want = plain_psi([*map(place, before)], [*map(place, after)], [*range(10), zero])
    found = columns_of(old, new)[name]
    assert found.psi.value == pytest.approx(want, rel=1e-12)
    assert found.old_zero_share == before.count(zero) / len(before)
    assert found.new_zero_share == after.count(zero) / len(after)
    assert found.new_value_share is None and found.kind == "dense"


@pytest.mark.parametrize("name", ["hashed", "managed"])
def test_hashes_are_compared_as_they_are(name: str, old: Made, new: Made) -> None:
    def hashes(made: Made) -> list[int]:
        digests = [xxhash.xxh64_intdigest(row[name].encode()) for row in made.rows]
        # A managed value is the upper 63 bits of its hash, of which 2^20 classes are made.
        ids = [1 + (x % 40 if name == "hashed" else ((x >> 1) - 1) % 2**20) for x in digests]
        return [one if row[name] else 0 for one, row in zip(ids, made.rows, strict=True)]

    before, after = hashes(old), hashes(new)
    counts = Counter(x for x in before if x)
    top = {*sorted(counts, key=lambda x: (-counts[x], x))[:20], 0}
    want = plain_psi(
        [x if x in top else -1 for x in before], [x if x in top else -1 for x in after], [*top, -1]
    )
    found = columns_of(old, new)[name]
    assert found.psi.value == pytest.approx(want, rel=1e-12)
    assert found.new_value_share is None


def test_the_same_rows_have_not_drifted_at_all(old: Made, make: Make) -> None:
    same = make(1, shift=0)
    for column in columns_of(old, same).values():
        assert column.psi.value == 0.0
        assert column.old_zero_share == column.new_zero_share
        assert column.new_value_share in (0.0, None)


def test_columns_stand_by_falling_index_and_rows_are_counted(old: Made, new: Made) -> None:
    side = Side.count(old.data, ["valid"])
    clicks = [row["click"] == "1" for row in old.raw["valid"]]
    assert (side.tallies.rows, side.click_rate) == (300, sum(clicks) / 300)
    found = compare(side, Side.count(new.data))
    indices = [column.psi.value for column in found.columns]
    assert indices == sorted(indices, reverse=True) and indices[0] > 0.25


def test_what_cannot_be_compared_is_told_with_the_reason(old: Made, make: Make) -> None:
    other = make(
        1,
        shift=0,
        word="{kind: categorical, hash_buckets: 5}",
        tags=None,
        hashed="{kind: categorical, hash_buckets: 41}",
        managed="{kind: categorical, managed: {rows: 3}}",
        count="{kind: integer}",
        price="{kind: categorical}",
    )
    found = compare(Side.count(old.data), Side.count(other.data))
    assert found.not_compared == {
        "word": "was a vocabulary's and is hashed into 5 buckets",
        "hashed": "was hashed into 40 buckets and is hashed into 41 buckets",
        "count": "its transform was standardise and is none",
        "price": "was a dense and is a field",
        "image": "vectors are not compared",
    }
    # A managed value's number does not depend on the number of rows.
    assert [(column.name, column.psi.value) for column in found.columns] == [("managed", 0.0)]
    assert (found.only_in_old, found.only_in_new) == (("tags",), ())
    back = compare(Side.count(other.data), Side.count(old.data))
    assert (back.only_in_old, back.only_in_new) == ((), ("tags",))


def test_a_standardised_column_that_was_constant_is_not_compared(make: Make, old: Made) -> None:
    constant = make(1, shift=0, image="{kind: integer, transform: standardise}")
    found = compare(Side.count(constant.data), Side.count(constant.data))
    told = "the training rows hold one number only, so all became 0.0"
    assert found.not_compared == {"image": f"{constant.data.path}: {told}"}


def test_neither_the_size_of_a_piece_nor_that_of_a_table_changes_a_tally(
    old: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = Side.count(old.data).tallies
    monkeypatch.setattr(shards, "_PIECE_ROWS", 7)  # tables are then larger than what is added
    got = Side.count(old.data).tallies
    assert (got.rows, got.clicks) == (want.rows, want.clicks)
    for name, counts in want.ids.items():
        assert np.array_equal(got.ids[name], counts), name
    for name, numbers in want.numbers.items():
        assert got.numbers[name].zeros == numbers.zeros
        assert np.array_equal(got.numbers[name].codes, numbers.codes), name
    assert len(want.ids["managed"]) == tallies.MAX_HASHES + 1
