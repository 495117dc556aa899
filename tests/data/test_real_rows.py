"""Ingestion of real rows, against a reference in plain Python that shares no code with it.

A failure names columns and row ids and quotes no row: the owners' terms do not allow it.
"""

import functools
import gzip
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_had.data.encoder_files import load_encoder
from recsys_had.data.raw import BLOCK_BYTES, RawSource
from recsys_had.ingestion.ingest import ingest
from recsys_had.schema import load_card
from tests.data.reference import (
    HEXES,
    INTEGERS,
    REFERENCES,
    Reference,
    criteo_values,
    read_lines,
)

FILES: dict[str, list[tuple[str | None, str]]] = {
    "criteo": [(None, "criteo/train_head_8000.tsv")],
    "criteo_x4": [(None, "criteo/train_head_8000.tsv")],
    "avazu": [(None, "avazu/train_first_hour.csv")],
    "avazu_x4": [(None, "avazu/train_first_hour.csv")],
    "frappe": [("train", "frappe/train.csv"), ("valid", "frappe/valid.csv")],
    "movielens": [(None, "movielens/u.data")],
}


@dataclass(frozen=True)
class Ingested:
    """A data folder and all its rows in the order of their ids, each with its split."""

    path: Path
    rows: pd.DataFrame = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> "Ingested":
        tables = []
        for part in sorted(path.glob("*/part-*.parquet")):
            table = pq.read_table(part)
            split = pa.array([part.parent.name] * len(table))
            tables.append(table.append_column("split", split))
        rows = pa.concat_tables(tables).sort_by("row_id").to_pandas()
        return cls(path, rows)

    @property
    def manifest(self) -> dict[str, dict[str, int]]:
        manifest: dict[str, dict[str, int]] = json.loads((self.path / "manifest.json").read_text())
        return manifest

    def vocabulary(self, field: str) -> list[tuple[str, int]]:
        table = pq.read_table(self.path / "vocab" / f"{field}.parquet")
        return list(zip(table["value"].to_pylist(), table["count"].to_pylist(), strict=True))


Ingest = Callable[[str], Ingested]


def ingest_as(
    name: str, inputs: Sequence[tuple[str | None, str | Path]], out: Path, block_bytes: int
) -> Ingested:
    ingest(load_card(name), inputs, out, block_bytes=block_bytes)
    return Ingested.read(out)


@pytest.fixture(scope="module")
def ingested(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Ingest:
    """Ingests a bundled dataset's real rows, each dataset once."""

    @functools.cache
    def run(name: str) -> Ingested:
        inputs = [(split, samples / file) for split, file in FILES[name]]
        return ingest_as(name, inputs, tmp_path_factory.mktemp(name) / "data", BLOCK_BYTES)

    return run


@pytest.fixture(scope="module")
def reference(samples: Path) -> Callable[[str], Reference]:
    """The reference of a dataset, each made once."""
    return functools.cache(lambda name: REFERENCES[name](samples))


def assert_equal(got: Sequence[object], want: Sequence[object], name: str) -> None:
    """Names the rows that differ, and quotes none."""
    __tracebackhide__ = True  # pytest would print the arguments
    assert len(got) == len(want), f"{name}: {len(got)} against {len(want)}"
    if list(got) != list(want):
        pairs = zip(got, want, strict=True)
        wrong = [row for row, (one, other) in enumerate(pairs) if one != other]
        pytest.fail(f"{name}: {len(wrong)} of {len(want)} differ, the first are {wrong[:5]}")


def assert_same_data(got: Ingested, want: Ingested) -> None:
    assert list(got.rows) == list(want.rows)
    for name in want.rows:
        assert got.rows[name].dtype == want.rows[name].dtype
        one, other = (data.rows[name].to_numpy() for data in (got, want))
        if name == "genres":  # lists
            one, other = ([tuple(ids) for ids in lists] for lists in (one, other))
        assert_equal(one, other, str(name))
    for key in ("num_embeddings", "rows", "vocabulary_digest", "card_digest"):
        assert got.manifest[key] == want.manifest[key]
    for name in want.manifest["num_embeddings"]:
        assert_equal(got.vocabulary(name), want.vocabulary(name), f"vocabulary of {name}")


@pytest.mark.parametrize("dataset", FILES)
def test_every_row_and_column_equals_the_reference(
    dataset: str, ingested: Ingest, reference: Callable[[str], Reference]
) -> None:
    data, want = ingested(dataset), reference(dataset)
    multi = {"genres"} if dataset == "movielens" else set()  # has a test of its own
    assert set(data.rows) == {"row_id", "split", "label", *want.values, *multi}
    assert data.rows["row_id"].dtype == np.int64 and data.rows["label"].dtype == np.float32
    assert_equal(data.rows["row_id"], range(len(want.labels)), "row_id")
    assert_equal(data.rows["split"], want.splits, "split")
    assert_equal(data.rows["label"], want.labels, "label")
    assert data.manifest["rows"] == Counter(want.splits)
    for name in want.values:
        assert data.rows[name].dtype == np.int32
        assert_equal(data.rows[name], want.ids(name), name)
        assert_equal(data.vocabulary(name), want.vocabulary(name), f"vocabulary of {name}")
        assert data.manifest["num_embeddings"][name] == 1 + len(want.vocabulary(name))


@pytest.mark.parametrize(
    "name, rows",
    [
        # From the hash and folds of the reference above; the splits stay these for ever.
        ("criteo", {"train": 6_397, "valid": 804, "test": 799}),
        ("criteo_x4", {"train": 6_400, "valid": 800, "test": 800}),
        ("avazu", {"train": 7_186, "valid": 888, "test": 925}),
        ("avazu_x4", {"train": 7_199, "valid": 900, "test": 900}),
        ("frappe", {"train": 202_027, "valid": 57_722}),
        ("movielens", {"train": 79_899, "valid": 9_935, "test": 10_166}),
    ],
)
def test_the_splits_hold_the_rows_they_have_always_held(
    name: str, rows: dict[str, int], ingested: Ingest
) -> None:
    assert ingested(name).manifest["rows"] == rows


def test_a_missing_integer_is_id_0_in_criteo_and_the_number_0_in_criteo_x4(
    samples: Path, ingested: Ingest
) -> None:
    rows = read_lines(samples / "criteo/train_head_8000.tsv", "\t")
    num_missing = 0
    for at, name in enumerate(INTEGERS, start=1):
        texts = np.array([row[at] for row in rows])
        missing, zero = texts == "", texts == "0"
        plain, x4 = (ingested(card).rows[name].to_numpy() for card in ("criteo", "criteo_x4"))
        assert set(plain[missing]) <= {0}, name
        if missing.sum() >= 100 and zero.sum() >= 100:  # then 0 is in both vocabularies
            assert 0 not in plain[zero] and 0 not in x4[zero | missing], name
            assert len(set(x4[zero | missing])) == 1, name
            num_missing += missing.sum()
    assert num_missing > 1000


@pytest.mark.parametrize("name", ["avazu", "avazu_x4"])
def test_avazus_id_is_no_input_of_the_model(name: str, ingested: Ingest) -> None:
    data = ingested(name)
    assert "id" not in data.rows and "id" not in data.manifest["num_embeddings"]
    assert not (data.path / "vocab" / "id.parquet").exists()
    assert len(data.manifest["num_embeddings"]) == 24  # 21 categories and 3 parts of the hour


def test_frappe_has_the_published_number_of_ids(ingested: Ingest) -> None:
    num_embeddings = ingested("frappe").manifest["num_embeddings"]
    assert len(num_embeddings) == 10
    assert sum(num_embeddings.values()) == 5_379 + 10  # and id 0 of each field


def test_movielens_rows_have_the_flags_of_their_item_and_the_facts_of_their_user(
    samples: Path, ingested: Ingest
) -> None:
    data = ingested("movielens")
    encoder = load_encoder(data.path)
    rows = read_lines(samples / "movielens/u.data", "\t")
    users = {row[0]: row for row in read_lines(samples / "movielens/u.user", "|")}
    items = {row[0]: row for row in read_lines(samples / "movielens/u.item", "|", "latin-1")}
    # Their order in u.item, from the data's own description.
    genres = [
        *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
        *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
        *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
    ]

    lists = data.rows["genres"]
    texts = encoder.value_of("genres", pl.Series(np.concatenate(list(lists)))).to_list()
    ends = np.cumsum([len(ids) for ids in lists]).tolist()
    got = [set(texts[first:end]) for first, end in zip([0, *ends], ends, strict=False)]
    flags = {
        item: {genre for genre, flag in zip(genres, row[5:], strict=True) if flag == "1"}
        for item, row in items.items()
    }
    assert_equal(got, [flags[row[1]] for row in rows], "genres")
    assert_equal(lists.map(len), [len(flags[row[1]]) for row in rows], "number of genres")
    for at, name in enumerate(("age", "gender", "occupation"), start=1):
        values = encoder.value_of(name, pl.Series(data.rows[name])).to_list()
        assert_equal(values, [users[row[0]][at] for row in rows], name)
    trained = [row for row, split in zip(rows, data.rows["split"], strict=True) if split == "train"]
    counts = Counter(genre for row in trained for genre in flags[row[1]])
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0].encode()))
    assert_equal(data.vocabulary("genres"), ordered, "vocabulary of genres")


def test_unlabelled_rows_get_the_ids_that_training_rows_gave(
    samples: Path, ingested: Ingest, reference: Callable[[str], Reference]
) -> None:
    path = samples / "criteo/unlabelled_10000.tsv"
    encoder = load_encoder(ingested("criteo").path)
    source = RawSource([path], encoder.card, label="optional")
    got = pl.concat([encoder.encode(block.frame) for block in source.blocks(1 << 20)])
    values = criteo_values(read_lines(path, "\t"), None)
    assert set(got.columns) == set(values)
    for name, column in values.items():
        assert_equal(got[name].to_list(), reference("criteo").ids(name, column), name)


@pytest.mark.parametrize("name", ["criteo", "criteo_x4", "avazu", "frappe", "movielens"])
def test_the_size_of_a_block_changes_nothing(
    name: str, samples: Path, ingested: Ingest, tmp_path: Path
) -> None:
    inputs = [(split, samples / file) for split, file in FILES[name]]
    block_bytes = (1 << 18) if name == "frappe" else (1 << 16)
    data = ingest_as(name, inputs, tmp_path / "data", block_bytes)
    assert len(list((data.path / "train").iterdir())) > 10
    assert_same_data(data, ingested(name))


def test_the_order_of_the_rows_changes_no_split_and_no_id(
    samples: Path, ingested: Ingest, tmp_path: Path
) -> None:
    lines = (samples / FILES["criteo"][0][1]).read_bytes().splitlines(keepends=True)
    (tmp_path / "rows.tsv").write_bytes(b"".join(reversed(lines)))
    data = ingest_as("criteo", [(None, tmp_path / "rows.tsv")], tmp_path / "data", 1 << 18)
    back = data.rows.iloc[::-1].reset_index(drop=True)
    back["row_id"] = back["row_id"].to_numpy()[::-1].copy()
    assert_same_data(Ingested(data.path, back), ingested("criteo"))


@pytest.fixture(scope="module")
def head(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TSV of Criteo's first 2,000 rows."""
    lines = (samples / FILES["criteo"][0][1]).read_bytes().splitlines(keepends=True)
    path = tmp_path_factory.mktemp("head") / "rows.tsv"
    path.write_bytes(b"".join(lines[:2000]))
    return path


@pytest.fixture(scope="module")
def ingested_head(head: Path) -> Ingested:
    """They, ingested as they are."""
    return ingest_as("criteo", [(None, head)], head.with_name("data"), BLOCK_BYTES)


def write_gz(head: Path, folder: Path) -> list[Path]:
    (folder / "rows.tsv.gz").write_bytes(gzip.compress(head.read_bytes()))
    return [folder / "rows.tsv.gz"]


def write_gz_of_two_members(head: Path, folder: Path) -> list[Path]:
    data = head.read_bytes()
    members = [gzip.compress(part) for part in (data[:77_777], data[77_777:])]
    (folder / "rows.tsv.gz").write_bytes(b"".join(members))
    return [folder / "rows.tsv.gz"]


def write_zst(head: Path, folder: Path) -> list[Path]:
    path = folder / "rows.tsv.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(head.read_bytes())
    return [path]


def write_parquet(head: Path, folder: Path) -> list[Path]:
    rows = read_lines(head, "\t")
    columns = zip(["label", *INTEGERS, *HEXES], zip(*rows, strict=True), strict=True)
    table = pa.table(
        {
            name: pa.array([text or None for text in column], pa.string()).cast(
                pa.string() if name in HEXES else pa.int8() if name == "label" else pa.int64()
            )
            for name, column in columns
        }
    )
    pq.write_table(table, folder / "rows.parquet", row_group_size=300)
    return [folder / "rows.parquet"]


def write_two_files(head: Path, folder: Path) -> list[Path]:
    """The second comes first by name; the first ends without a line end."""
    lines = head.read_bytes().splitlines(keepends=True)
    (folder / "b.tsv").write_bytes(b"".join(lines[:1234]).removesuffix(b"\n"))
    (folder / "a.tsv").write_bytes(b"".join(lines[1234:]))
    return [folder / "b.tsv", folder / "a.tsv"]


def write_a_glob(head: Path, folder: Path) -> list[Path]:
    lines = head.read_bytes().splitlines(keepends=True)
    (folder / "part-1.tsv").write_bytes(b"".join(lines[1234:]))
    (folder / "part-0.tsv").write_bytes(b"".join(lines[:1234]))
    return [folder / "part-*.tsv"]


def write_windows_line_ends(head: Path, folder: Path) -> list[Path]:
    (folder / "rows.tsv").write_bytes(head.read_bytes().replace(b"\n", b"\r\n"))
    return [folder / "rows.tsv"]


@pytest.mark.parametrize(
    "write",
    [
        write_gz,
        write_gz_of_two_members,
        write_zst,
        write_parquet,
        write_two_files,
        write_a_glob,
        write_windows_line_ends,
    ],
)
def test_the_way_the_rows_are_written_changes_nothing(
    write: Callable[[Path, Path], list[Path]],
    head: Path,
    ingested_head: Ingested,
    tmp_path: Path,
) -> None:
    inputs = [(None, path) for path in write(head, tmp_path)]
    assert_same_data(ingest_as("criteo", inputs, tmp_path / "data", 1 << 17), ingested_head)
