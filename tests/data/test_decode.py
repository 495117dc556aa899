"""Decoding: raw rows of every kind of column come back, by an independent reading of them."""

import csv
import datetime
import json
import math
import shutil
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from recsys_had.data import shards
from recsys_had.data.decoded_files import decode_folder
from recsys_had.data.folder import DataFolder
from recsys_had.errors import CheckpointError, ConfigError, DataError
from recsys_had.ingestion.ingest import ingest
from recsys_had.schema import parse_card

CARD = """
name: kinds
format: {type: tsv, missing: ["", "NA"]}
columns:
  key: {kind: id}
  click: {kind: label}
  worth: {kind: weight}
  word: {kind: categorical, min_count: 2}
  filled: {kind: categorical, missing: none}
  hashed: {kind: categorical, hash_buckets: 50}
  managed: {kind: categorical, managed: {rows: 10}}
  tags: {kind: multi_categorical, separator: ",", max_length: 3}
  colours: {kind: multi_categorical, flags: [red, green]}
  bucket: {kind: integer, transform: log_squared_bucket}
  whole: {kind: integer}
  visits: {kind: integer, transform: log1p}
  age: {kind: integer, transform: standardise, missing: 7}
  price: {kind: float}
  spent: {kind: float, transform: log1p}
  heat: {kind: float, transform: standardise}
  seen: {kind: timestamp, format: "%Y-%m-%d %H", parts: [hour, weekday, is_weekend]}
  plain: {kind: vector, size: 2}
  unit: {kind: vector, size: 2, transform: l2}
lookups:
  words:
    file: words.tsv
    key: word
    format: {type: tsv}
    columns: {word: {kind: id}, sort: {kind: categorical}}
split: {by: given}
"""
HEADER = (
    *("key", "click", "worth", "word", "filled", "hashed", "managed", "tags", "red", "green"),
    *("bucket", "whole", "visits", "age", "price", "spent", "heat", "seen", "plain", "unit"),
)
SORTS = {f"w{number}": f"sort {number % 3}" for number in range(12)}


def raw_row(generator: np.random.Generator, number: int) -> list[str]:
    def known(text: str) -> str:
        return str(generator.choice([text, "", "NA"], p=[0.8, 0.1, 0.1]))

    tags = [f"t{tag}" for tag in generator.integers(0, 30, generator.integers(0, 5))]
    vectors = ["|".join(f"{x:.3f}" for x in generator.normal(size=2)) for _ in range(2)]
    hour = datetime.datetime(2024, 5, 1) + datetime.timedelta(hours=int(generator.integers(500)))
    return [
        f"k{number}",
        str(generator.integers(2)),
        f"{generator.random():.2f}",
        known(f"w{int(generator.exponential(4))}"),
        known(f"ü {generator.integers(4)}"),
        known(f"h{generator.integers(300)}"),
        known(f"m{generator.integers(300)}"),
        ",".join(tags),
        *generator.choice(["0", "1", ""], 2).tolist(),
        known(str(generator.integers(-3, 3000))),
        known(str(generator.integers(-(1 << 24), 1 << 24))),
        known(str(generator.integers(-9, 100_000))),
        known(str(generator.integers(10, 90))),
        known(f"{generator.normal(scale=100):.4f}"),
        known(f"{generator.normal(scale=1e6):.3f}"),
        known(f"{20 + generator.normal(scale=7):.3f}"),
        known(f"{hour:%Y-%m-%d %H}"),
        *map(known, vectors),
    ]


@dataclass(frozen=True)
class Kinds:
    """A data folder, and the raw rows it was made of, per split."""

    data: DataFolder
    raw: dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    folder = tmp_path_factory.mktemp("kinds")
    generator = np.random.default_rng(8)
    raw: dict[str, list[dict[str, str]]] = {}
    for split, num_rows in (("train", 700), ("valid", 300)):
        rows = [raw_row(generator, number) for number in range(num_rows)]
        lines = ["\t".join(cells) for cells in (HEADER, *rows)]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        raw[split] = [dict(zip(HEADER, cells, strict=True)) for cells in rows]
    sorts = "\n".join("\t".join(pair) for pair in (("word", "sort"), *SORTS.items()))
    (folder / "words.tsv").write_text(sorts + "\n")
    inputs = [(split, folder / f"{split}.tsv") for split in raw]
    ingest(parse_card(CARD), inputs, folder / "data", block_bytes=1 << 14)
    assert len(list((folder / "data" / "train").iterdir())) > 2
    return Kinds(DataFolder.open(folder / "data"), raw)


def read_parquet(out: Path, split: str) -> list[dict[str, Any]]:
    parts = sorted((out / split).glob("part-*.parquet"))
    return [row for part in parts for row in pq.ParquetFile(part).read().to_pylist()]


@pytest.fixture(scope="module")
def decoded(kinds: Kinds, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decoded") / "out"
    decode_folder(kinds.data, out)
    return out


def value(cell: str) -> str | None:
    return None if cell in ("", "NA") else cell


Values = Callable[[dict[str, str]], list[str | None]]


def bucket(cell: str) -> str | None:
    if value(cell) is None:
        return None
    number = int(cell)
    return str(math.floor(math.log(number) ** 2) if number > 2 else number)


def time_part(pick: Callable[[datetime.datetime], int]) -> Values:
    def part(row: dict[str, str]) -> list[str | None]:
        if value(row["seen"]) is None:
            return [None]
        return [str(pick(datetime.datetime.strptime(row["seen"], "%Y-%m-%d %H")))]

    return part


# What the values of each field with a vocabulary are, as the card says.
FIELDS: dict[str, Values] = {
    "word": lambda row: [value(row["word"])],
    "filled": lambda row: [value(row["filled"]) or "none"],
    "tags": lambda row: list(filter(None, row["tags"].split(",")))[:3],
    "colours": lambda row: [name for name in ("red", "green") if row[name] == "1"],
    "bucket": lambda row: [bucket(row["bucket"])],
    "hour": time_part(lambda time: time.hour),
    "weekday": time_part(lambda time: time.weekday()),
    "is_weekend": time_part(lambda time: int(time.weekday() >= 5)),
    "sort": lambda row: [SORTS.get(row["word"])],
}


@pytest.mark.parametrize("split", ["train", "valid"])
def test_every_id_comes_back_as_the_value_that_stood_in_the_raw_row(
    split: str, kinds: Kinds, decoded: Path
) -> None:
    rows = read_parquet(decoded, split)
    assert len(rows) == len(kinds.raw[split])
    nulls = Counter[str]()
    for name, values in FIELDS.items():
        counts = Counter(x for row in kinds.raw["train"] for x in set(values(row)))
        min_count = 2 if name == "word" else 1
        for got, raw in zip(rows, kinds.raw[split], strict=True):
            want = [x if x is not None and counts[x] >= min_count else None for x in values(raw)]
            if name in ("tags", "colours"):
                assert got[name] == (want or [None]), name
            else:
                assert got[name] == want[0], name
            nulls[name] += (want or [None]).count(None)
    assert min(nulls[name] for name in ("word", "tags", "bucket", "hour", "sort")) > 0


def test_nulls_are_reported_for_every_field_over_all_splits(kinds: Kinds, decoded: Path) -> None:
    rows = read_parquet(decoded, "train") + read_parquet(decoded, "valid")
    told = json.loads((decoded / "manifest.json").read_text())["id_0"]
    assert set(told) == set(FIELDS)
    for name in FIELDS:
        lists = [row[name] if isinstance(row[name], list) else [row[name]] for row in rows]
        assert told[name] == sum(values.count(None) for values in lists), name


def test_numbers_come_back_within_the_rounding_of_float32(kinds: Kinds, decoded: Path) -> None:
    trained = kinds.raw["train"]
    ages = [int(value(row["age"]) or 7) for row in trained]
    heats = [float(row["heat"]) for row in trained if value(row["heat"])]
    mean_heat = statistics.fmean(heats)
    for split in ("train", "valid"):
        rows = read_parquet(decoded, split)
        for row, raw in zip(rows, kinds.raw[split], strict=True):
            # Whole numbers up to 2^24, so that float32 keeps them.
            assert row["whole"] == int(value(raw["whole"]) or 0)
            assert row["visits"] == int(value(raw["visits"]) or 0)
            assert row["age"] == int(value(raw["age"]) or 7)
            assert row["price"] == float(np.float32(value(raw["price"]) or 0))
            # An encoded y is off by |y| 2^-24: x = e^y - 1 then by (1 + x) |y| 2^-24.
            spent = float(value(raw["spent"]) or 0)
            bound = (1 + abs(spent)) * math.log1p(abs(spent)) * 2**-24
            assert abs(row["spent"] - spent) <= 1.001 * bound
            heat = float(value(raw["heat"]) or mean_heat)
            assert abs(row["heat"] - heat) <= abs(heat - mean_heat) * 2**-23 + 1e-12
    missing = json.loads((decoded / "manifest.json").read_text())["missing_as"]
    # The card fills the age; all the others were encoded as 0.0.
    assert missing == pytest.approx(
        {"whole": 0, "visits": 0, "price": 0, "spent": 0, "heat": mean_heat}
    )
    assert statistics.pstdev(ages) > 0


def test_label_weight_and_row_id_are_kept_and_so_is_what_has_no_way_back(
    kinds: Kinds, decoded: Path
) -> None:
    first = 0
    for split in ("train", "valid"):
        for number, (row, raw) in enumerate(
            zip(read_parquet(decoded, split), kinds.raw[split], strict=True)
        ):
            assert row["row_id"] == first + number
            assert row["label"] == float(raw["click"])
            assert row["weight"] == np.float32(raw["worth"])
            hashes = {
                name: xxhash.xxh64(raw[name].encode()).intdigest() if value(raw[name]) else None
                for name in ("hashed", "managed")
            }
            assert row["hashed"] == (0 if hashes["hashed"] is None else 1 + hashes["hashed"] % 50)
            assert row["managed"] == (0 if hashes["managed"] is None else hashes["managed"] >> 1)
            plain = [np.float32(x) for x in (value(raw["plain"]) or "0|0").split("|")]
            assert row["plain"] == plain
            numbers = [float(x) for x in (value(raw["unit"]) or "0|0").split("|")]
            length = math.hypot(*numbers) or 1.0
            assert row["unit"] == pytest.approx([x / length for x in numbers], rel=1e-6)
        first += len(kinds.raw[split])


def test_the_report_says_how_each_column_came_back_and_why_others_did_not(
    kinds: Kinds, decoded: Path
) -> None:
    manifest = json.loads((decoded / "manifest.json").read_text())
    assert manifest["rows"] == {"train": 700, "valid": 300}
    columns = list(read_parquet(decoded, "train")[0])
    assert {*manifest["decoded"], *manifest["not_decoded"]} == set(columns)
    assert manifest["decoded"]["word"] == "value"
    assert manifest["decoded"]["is_weekend"] == "is_weekend of seen"
    assert manifest["decoded"]["spent"] == "number, inverse of log1p"
    assert manifest["not_decoded"] == {
        "hashed": "hashed into 50 buckets, and a hash has no way back",
        "managed": "its ids are hashes, and a hash has no way back",
        "unit": "scaled to length 1, and the length was not kept",
    }


@pytest.mark.parametrize("file_format", ["csv", "tsv"])
def test_text_files_hold_what_the_parquet_ones_hold(
    file_format: Literal["csv", "tsv"], kinds: Kinds, decoded: Path, tmp_path: Path
) -> None:
    decode_folder(kinds.data, tmp_path / "out", splits=["valid"], file_format=file_format)
    rows = []
    for part in sorted((tmp_path / "out" / "valid").iterdir()):
        with part.open(encoding="utf-8", newline="") as stream:
            if file_format == "csv":
                rows += list(csv.DictReader(stream))
            else:
                header, *lines = [line.removesuffix("\n").split("\t") for line in stream]
                rows += [dict(zip(header, line, strict=True)) for line in lines]
    want = read_parquet(decoded, "valid")
    assert [list(row) for row in rows] == [list(row) for row in want]
    separators = {"tags": ",", "colours": "|"}
    for row, expected in zip(rows, want, strict=True):
        for name, content in expected.items():
            if name in ("plain", "unit"):
                assert [float(x) for x in row[name].split("|")] == pytest.approx(content, rel=1e-6)
            elif name in separators:
                assert row[name] == separators[name].join(filter(None, content)), name
            elif content is None or isinstance(content, str):
                assert row[name] == (content or ""), name
            else:
                assert float(row[name]) == pytest.approx(content, rel=1e-6), name


def test_some_splits_rows_and_columns_can_be_asked_for(
    kinds: Kinds, decoded: Path, tmp_path: Path
) -> None:
    found = decode_folder(
        kinds.data, tmp_path / "out", splits=["train"], rows=200, columns=["tags", "price"]
    )
    assert found["rows"] == {"train": 200}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "train"]
    rows = read_parquet(decoded, "train")[:200]
    names = ("row_id", "tags", "price")
    assert read_parquet(tmp_path / "out", "train") == [
        {name: row[name] for name in names} for row in rows
    ]
    assert list(read_parquet(tmp_path / "out", "train")[0]) == list(names)


def test_the_size_of_a_piece_changes_nothing(
    kinds: Kinds, decoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_PIECE_ROWS", 7)
    told: list[int] = []
    decode_folder(kinds.data, tmp_path / "out", on_rows=told.append)
    assert sum(told) == 1000 and max(told) == 7
    for split in ("train", "valid"):
        assert read_parquet(tmp_path / "out", split) == read_parquet(decoded, split)


def test_what_is_not_there_is_refused_with_the_nearest_name(kinds: Kinds, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        decode_folder(kinds.data, tmp_path / "out", columns=["tag", "wrd"])
    assert error.value.problems == (
        "--columns tag: the data have no such column. Did you mean 'tags'?",
        "--columns wrd: the data have no such column. Did you mean 'word'?",
    )
    with pytest.raises(ConfigError, match=r"has no row in split 'tset'\. Known: train, valid\.$"):
        decode_folder(kinds.data, tmp_path / "out", splits=["tset"])
    assert not (tmp_path / "out").exists()


def copy_of(kinds: Kinds, folder: Path) -> Path:
    shutil.copytree(kinds.data.path, folder / "data")
    return folder / "data"


def test_a_damaged_shard_leaves_nothing_behind(kinds: Kinds, tmp_path: Path) -> None:
    data = copy_of(kinds, tmp_path)
    last = sorted((data / "valid").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(DataError, match=f"^{last}: cannot be read: "):
        decode_folder(DataFolder.open(data), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_id_beyond_its_vocabulary_is_refused(kinds: Kinds, tmp_path: Path) -> None:
    data = copy_of(kinds, tmp_path)
    part = data / "valid" / "part-00000.parquet"
    table = pq.ParquetFile(part).read()
    at = table.schema.get_field_index("filled")
    ids = pa.array(np.full(len(table), 6, np.int32))
    pq.write_table(table.set_column(at, "filled", ids), part)
    wanted = r"^filled: ids must be from 0 to 5, those of its vocabulary; got 6\. Restore the"
    with pytest.raises(DataError, match=wanted):
        decode_folder(DataFolder.open(data), tmp_path / "out")


def test_vocabularies_of_other_rows_are_refused(kinds: Kinds, tmp_path: Path) -> None:
    data = copy_of(kinds, tmp_path)
    manifest = json.loads((data / "manifest.json").read_text())
    (data / "manifest.json").write_text(json.dumps({**manifest, "vocabulary_digest": "0" * 64}))
    with pytest.raises(CheckpointError, match=r"are not those its rows were encoded with\."):
        decode_folder(DataFolder.open(data), tmp_path / "out")


def test_the_encoded_rows_themselves_are_never_replaced(kinds: Kinds, tmp_path: Path) -> None:
    data = copy_of(kinds, tmp_path)
    with pytest.raises(DataError, match=r"holds a result that is no decoded data\. Choose another"):
        decode_folder(DataFolder.open(data), data, overwrite=True)
    assert len(list((data / "train").glob("part-*.parquet"))) > 2


WIDE = """
name: wide
format: {type: parquet}
columns:
  click: {kind: label}
  word: {kind: categorical}
  words: {kind: multi_categorical}
  constant: {kind: integer, transform: standardise}
  huge: {kind: integer}
split: {by: given}
"""


@pytest.fixture
def wide(tmp_path: Path) -> DataFolder:
    """Values that text files have no words for, and numbers at the ends of their range."""
    table = pa.table(
        {
            "click": [1, 0],
            "word": ["tab\there", 'two\nlines, "quoted"'],
            "words": [["a|b", "c"], ["d"]],
            "constant": [5, 5],
            "huge": [2**63 - 1, -(2**63)],
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    ingest(parse_card(WIDE), [("train", tmp_path / "rows.parquet")], tmp_path / "data")
    return DataFolder.open(tmp_path / "data")


def test_a_value_that_a_text_file_cannot_hold_is_refused(wide: DataFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        decode_folder(wide, tmp_path / "out", file_format="tsv", columns=["word"])
    assert str(error.value) == (
        "--format tsv: column word: a value holds a tab or a line end, and TSV has no quoting. "
        "Choose csv or parquet."
    )
    with pytest.raises(DataError) as error:
        decode_folder(wide, tmp_path / "out", file_format="csv", columns=["words"])
    assert str(error.value) == (
        "--format: column words: a value holds '|', which stands between values. Choose parquet."
    )
    decode_folder(wide, tmp_path / "out", file_format="csv", columns=["word"])
    with (tmp_path / "out" / "train" / "part-00000.csv").open(newline="") as stream:
        words = [row["word"] for row in csv.DictReader(stream)]
    assert words == ["tab\there", 'two\nlines, "quoted"']


def test_a_column_that_was_constant_is_kept_as_encoded_and_large_numbers_stay_in_range(
    wide: DataFolder, tmp_path: Path
) -> None:
    found = decode_folder(wide, tmp_path / "out")
    assert found["not_decoded"] == {
        "constant": "the training rows hold one number only, so all became 0.0"
    }
    rows = read_parquet(tmp_path / "out", "train")
    assert [row["constant"] for row in rows] == [0.0, 0.0]
    assert [row["words"] for row in rows] == [["a|b", "c"], ["d"]]
    # float32 rounds both to 2^63 in size; the largest float64 below is 2^63 - 1024.
    assert [row["huge"] for row in rows] == [2**63 - 1024, -(2**63 - 1024)]
