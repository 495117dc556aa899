"""Updates: earlier values keep their ids and new ones follow, however the work is done."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys_had.data.encoder_files import load_encoder
from recsys_had.errors import CheckpointError, DataError, SchemaError
from recsys_had.ingestion.ingest import ingest
from recsys_had.schema import DatasetCard, load_card, parse_card
from tests.ingestion.test_workers import digests

HASHED = "{by: content_hash, ratios: {train: 0.8, valid: 0.1, test: 0.1}}"
STRATIFIED = "{by: stratified_kfold, num_folds: 5}"
BLOCK_BYTES = 2000


def card(split: str = HASHED, *, top_k: int = 45) -> DatasetCard:
    return parse_card(
        f"""
name: clicks
format: {{type: csv}}
columns:
  click: {{kind: label}}
  user: {{kind: categorical, min_count: 3}}
  item: {{kind: categorical, top_k: {top_k}}}
  page: {{kind: categorical, hash_buckets: 50}}
  tags: {{kind: multi_categorical}}
  price: {{kind: float, transform: standardise}}
  age: {{kind: integer, transform: quantile_bins, num_bins: 4}}
  stay: {{kind: float, transform: min_max, clip: [0, null]}}
  visits: {{kind: integer, transform: log_squared_bucket}}
  user_x_age: {{kind: crossed, of: [user, age]}}
lookups:
  items:
    file: items.csv
    key: item
    format: {{type: csv}}
    columns: {{item: {{kind: id}}, genre: {{kind: categorical}}}}
split: {split}
"""
    )


def write_days(folder: Path, *, days: int = 2, rows: int = 600) -> list[Path]:
    """A file a day, whose values move on from day to day, and the side table."""
    generator = np.random.default_rng(0)
    paths = []
    for day in range(days):
        lines = ["click,user,item,page,tags,price,age,stay,visits"]
        for _ in range(rows):
            user, item = generator.integers(40 * day, 40 * day + 120), generator.integers(0, 60)
            tags = "|".join(f"t{tag}" for tag in generator.integers(0, 30, generator.integers(4)))
            age = "" if generator.random() < 0.1 else str(generator.integers(15, 60) + 9 * day)
            lines.append(
                f"{generator.integers(0, 2)},u{user},i{item % (30 + 15 * day)},"
                f"p{generator.integers(0, 99)},{tags},{generator.normal() + day:.6f},{age},"
                f"{generator.normal() * (1 + day):.4f},{generator.integers(0, 50 + 900 * day)}"
            )
        paths.append(folder / f"day-{day}.csv")
        paths[-1].write_text("\n".join(lines) + "\n")
    genres = [f"i{item},g{item % 7}" for item in range(45)]
    (folder / "items.csv").write_text("\n".join(["item,genre", *genres]) + "\n")
    return paths


def encode(
    split: str, path: Path, out: Path, *, update: Path | None = None, workers: int = 1
) -> dict[str, dict[str, dict[str, int]]]:
    return ingest(
        card(split), [(None, path)], out, update=update, num_workers=workers,
        block_bytes=BLOCK_BYTES,
    )  # fmt: skip


def rows_of(data: Path, split: str = "*") -> pl.DataFrame:
    parts = [pl.read_parquet(part) for part in sorted(data.glob(f"{split}/part-*.parquet"))]
    return pl.concat(parts).sort("row_id")


@pytest.mark.parametrize("split", [HASHED, STRATIFIED])
def test_old_ids_and_numbers_stay_and_counts_are_of_all_training_rows(
    tmp_path: Path, split: str
) -> None:
    first, second = write_days(tmp_path)
    encode(split, first, tmp_path / "one")
    untouched = digests(tmp_path / "one")
    report = encode(split, second, tmp_path / "two", update=tmp_path / "one")
    assert digests(tmp_path / "one") == untouched
    old, new = load_encoder(tmp_path / "one"), load_encoder(tmp_path / "two")
    train = rows_of(tmp_path / "two", "train")
    sizes = (old.num_embeddings, new.num_embeddings)
    assert set(report["update"]) == set(sizes[0]) - {"page"}
    for field, told in report["update"].items():
        assert told == {"kept": sizes[0][field] - 1, "new": sizes[1][field] - sizes[0][field]}
        before, after = old.counts_of(field), new.counts_of(field)
        assert after["value"].head(len(before)).to_list() == before["value"].to_list()
        # A row holds a value of a list once, however often it stands there.
        ids = train.select("row_id", field)
        ids = (ids.explode(field).unique() if field == "tags" else ids)[field].to_list()
        held = Counter(ids)
        known = dict(before.select("id", "count").rows())
        assert after["count"].to_list() == [known.get(at, 0) + held[at] for at in after["id"]]
        behind = [(-count, value.encode()) for value, count, _ in after[len(before) :].rows()]
        assert behind == sorted(behind)
    assert report["update"]["user"]["new"] > 10
    assert report["update"]["user_x_age"]["new"] > 10
    assert new.counts_of("user")[sizes[0]["user"] - 1 :]["count"].min() >= 3
    assert report["update"]["age"]["new"] == 0
    # 30 items of the first day, and room for 15.
    assert report["update"]["item"] == {"kept": 30, "new": 15}
    assert (new.scales, new.ranges) == (old.scales, old.ranges)
    assert new.bins["age"].intervals == old.bins["age"].intervals


def test_an_old_value_is_encoded_as_the_old_encoder_does(tmp_path: Path) -> None:
    first, second = write_days(tmp_path)
    encode(HASHED, first, tmp_path / "one")
    encode(HASHED, second, tmp_path / "two", update=tmp_path / "one")
    frame = pl.read_csv(second, infer_schema=False)
    old = load_encoder(tmp_path / "one").encode(frame)
    new = rows_of(tmp_path / "two")
    # Row ids count from 0 again: they are places in this command's inputs.
    assert new["row_id"].to_list() == list(range(len(frame)))
    more = 0
    for name in old.columns:
        before, after = old[name].explode(), new[name].explode()
        known = before != 0
        assert after.filter(known).equals(before.filter(known)), name
        more += int((after != before).sum())
    assert more > 200, "the rows hold values the old folder did not know"


def test_the_same_rows_once_more_are_encoded_the_same(tmp_path: Path) -> None:
    first, _ = write_days(tmp_path)
    encode(HASHED, first, tmp_path / "one")
    report = encode(HASHED, first, tmp_path / "two", update=tmp_path / "one")
    assert {each["new"] for each in report["update"].values()} == {0}
    one, two = digests(tmp_path / "one"), digests(tmp_path / "two")
    assert len(one) > 20 and set(one) == set(two)
    for name in one:
        if not name.startswith(("vocab/", "manifest", "dense")):
            assert two[name] == one[name], name
    old, new = load_encoder(tmp_path / "one"), load_encoder(tmp_path / "two")
    for field in report["update"]:
        doubled = old.counts_of(field).with_columns(pl.col("count") * 2)
        assert new.counts_of(field).equals(doubled), field


@pytest.mark.parametrize("name", ["criteo", "criteo_x4"])
def test_real_rows_get_the_ids_of_a_count_in_python(
    samples: Path, tmp_path: Path, name: str
) -> None:
    lines = (samples / "criteo" / "train_head_8000.tsv").read_bytes().splitlines(keepends=True)
    known = load_card(name)
    for day, part in enumerate((lines[:4000], lines[4000:])):
        (tmp_path / f"{day}.tsv").write_bytes(b"".join(part))
        update = tmp_path / "data-0" if day else None
        ingest(known, [(None, tmp_path / f"{day}.tsv")], tmp_path / f"data-{day}", update=update)
    old, new = load_encoder(tmp_path / "data-0"), load_encoder(tmp_path / "data-1")
    train = rows_of(tmp_path / "data-1", "train")
    cells = [lines[4000 + row].rstrip(b"\n").decode().split("\t") for row in train["row_id"]]
    fields = [field for field in known.fields if field.source == "value"]
    assert len(fields) == 26
    for field in fields:
        column = known.all_columns[field.column]
        at = list(known.all_columns).index(field.column)
        values = [row[at] or getattr(column, "missing", None) for row in cells]
        total = Counter(value for value in values if value is not None)
        before = dict(old.counts_of(field.name).select("value", "count").rows())
        behind = [
            value
            for value, count in total.items()
            if value not in before and count >= field.min_count
        ]
        order = [*before, *sorted(behind, key=lambda value: (-total[value], value.encode()))]
        ids = {value: number for number, value in enumerate(order, start=1)}
        assert new.counts_of(field.name).rows() == [
            (value, before.get(value, 0) + total[value], ids[value]) for value in order
        ]
        assert train[field.name].to_list() == [
            0 if value is None else ids.get(value, 0) for value in values
        ]


def test_no_room_is_left_where_the_old_values_are_top_k_already(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("click,item\n1,a\n0,a\n1,b\n")
    (tmp_path / "two.csv").write_text("click,item\n1,c\n0,c\n1,c\n")
    small = parse_card(
        "name: clicks\nformat: {type: csv}\n"
        "columns: {click: {kind: label}, item: {kind: categorical, top_k: 2}}\nsplit: {by: given}"
    )
    ingest(small, [("train", tmp_path / "one.csv")], tmp_path / "one")
    report = ingest(
        small, [("train", tmp_path / "two.csv")], tmp_path / "two", update=tmp_path / "one"
    )
    assert report["update"] == {"item": {"kept": 2, "new": 0}}
    rows = pl.read_parquet(tmp_path / "two" / "vocab" / "item.parquet").rows()
    assert rows == [("a", 2, 1), ("b", 1, 2)]
    assert rows_of(tmp_path / "two")["item"].to_list() == [0, 0, 0]


def test_the_manifest_tells_of_all_folders_the_ids_came_from(tmp_path: Path) -> None:
    paths = write_days(tmp_path, days=3)
    encode(HASHED, paths[0], tmp_path / "0")
    for day in (1, 2):
        encode(HASHED, paths[day], tmp_path / str(day), update=tmp_path / str(day - 1))
    manifests = [
        json.loads((tmp_path / str(day) / "manifest.json").read_text()) for day in range(3)
    ]
    assert "lineage" not in manifests[0]
    told = [
        {name: manifest[name] for name in ("vocabulary_digest", "rows_read", "rows", "inputs")}
        for manifest in manifests
    ]
    assert manifests[1]["lineage"] == told[:1]
    assert manifests[2]["lineage"] == told[:2]
    assert [each["inputs"][0]["path"] for each in told] == ["day-0.csv", "day-1.csv", "day-2.csv"]


def test_the_same_bytes_come_out_with_any_number_of_workers(tmp_path: Path) -> None:
    first, second = write_days(tmp_path)
    encode(HASHED, first, tmp_path / "one")
    for workers in (1, 2):
        encode(HASHED, second, tmp_path / str(workers), update=tmp_path / "one", workers=workers)
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
    assert (tmp_path / "1" / "train" / "part-00005.parquet").exists()


def test_a_killed_update_goes_on_and_comes_to_the_same(tmp_path: Path) -> None:
    first, second = write_days(tmp_path, rows=6000)
    encode(HASHED, first, tmp_path / "one")
    encode(HASHED, second, tmp_path / "whole", update=tmp_path / "one")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.ingestion.test_update import HASHED, encode\n"
        "one, second, out = map(Path, sys.argv[1:])\n"
        "encode(HASHED, second, out, update=one)\n"
    )
    root = Path(__file__).parents[2]
    for number, wanted in enumerate(
        ("shard-000020.arrow", "merged-user.json", "parts-000009.json")
    ):
        out = tmp_path / f"out-{number}"
        words = [sys.executable, "-c", program, tmp_path / "one", second, out]
        environment = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{root}"}
        process = subprocess.Popen([str(word) for word in words], env=environment)
        deadline = time.monotonic() + 60
        while not (out / ".work" / "state" / wanted).exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=300)
        assert not (out / "manifest.json").exists()
        encode(HASHED, second, out, update=tmp_path / "one")
        assert digests(out) == digests(tmp_path / "whole")


def test_unfinished_work_of_another_earlier_folder_is_not_taken_up(tmp_path: Path) -> None:
    paths = write_days(tmp_path, days=3)
    for day in (0, 1):
        encode(HASHED, paths[day], tmp_path / str(day))
    for day in (0, 1):
        encode(HASHED, paths[2], tmp_path / f"whole-{day}", update=tmp_path / str(day))

    class Killed(BaseException):
        pass

    def kill(rows: int) -> None:
        if (tmp_path / "out" / ".work" / "state" / "merged-user.json").exists():
            raise Killed

    with pytest.raises(Killed):
        ingest(
            card(), [(None, paths[2])], tmp_path / "out", update=tmp_path / "0", num_workers=1,
            block_bytes=BLOCK_BYTES, on_rows=kill,
        )  # fmt: skip
    assert (tmp_path / "out" / ".work").is_dir()
    encode(HASHED, paths[2], tmp_path / "out", update=tmp_path / "1")
    assert digests(tmp_path / "out") == digests(tmp_path / "whole-1")
    assert digests(tmp_path / "out") != digests(tmp_path / "whole-0")


def test_another_card_is_refused(tmp_path: Path) -> None:
    first, second = write_days(tmp_path)
    encode(HASHED, first, tmp_path / "one")
    other = card(top_k=46)
    with pytest.raises(SchemaError) as error:
        ingest(other, [(None, second)], tmp_path / "two", update=tmp_path / "one")
    assert str(error.value) == (
        f"{tmp_path / 'one'}: was made with another card ('clicks', digest {card().digest[:12]}; "
        f"'clicks' has {other.digest[:12]}), and ids go on under one card only. Give the same "
        "card, or leave --update out."
    )
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("inside", [".", "deep/one"])
def test_the_earlier_folder_is_never_written_over(tmp_path: Path, inside: str) -> None:
    first, second = write_days(tmp_path)
    earlier = tmp_path / "out" / inside
    encode(HASHED, first, earlier)
    before = digests(tmp_path / "out")
    with pytest.raises(DataError, match="--out must not hold the folder of --update, which runs"):
        ingest(card(), [(None, second)], tmp_path / "out", update=earlier, overwrite=True)
    assert digests(tmp_path / "out") == before


def test_a_damaged_or_missing_earlier_folder_is_refused(tmp_path: Path) -> None:
    first, second = write_days(tmp_path)
    encode(HASHED, first, tmp_path / "one")
    path = tmp_path / "one" / "vocab" / "user.parquet"
    frame = pl.read_parquet(path)

    def refused(told: str) -> None:
        with pytest.raises(CheckpointError, match=told):
            encode(HASHED, second, tmp_path / "two", update=tmp_path / "one")
        assert not (tmp_path / "two").exists()

    # An encoder that is whole, but not the one of these rows.
    encode(HASHED, second, tmp_path / "other")
    shutil.copytree(tmp_path / "one", tmp_path / "kept")
    for name in ("vocab", "lookups"):
        shutil.copytree(tmp_path / "other" / name, tmp_path / "one" / name, dirs_exist_ok=True)
    shutil.copy(tmp_path / "other" / "dense.json", tmp_path / "one")
    refused("one: its vocabularies are not those its rows were encoded with")
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "kept").rename(tmp_path / "one")
    frame.with_columns(pl.col("value").reverse()).write_parquet(path)
    refused(r"one: was changed after it was written: vocab/user\.parquet\. Restore it or ingest")
    frame[1:].write_parquet(path)
    refused(r"vocab/user\.parquet: its ids must count from 1\.")
    path.write_bytes(b"PAR1")
    refused(r"vocab/user\.parquet: cannot be read: ")
    path.unlink()
    refused(r"vocab/user\.parquet: cannot be read: ")
    shutil.rmtree(tmp_path / "one")
    with pytest.raises(DataError, match=r"one: is not a data folder: manifest\.json is missing"):
        encode(HASHED, second, tmp_path / "two", update=tmp_path / "one")
