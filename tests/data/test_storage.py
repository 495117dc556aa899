"""Object stores: raw rows and data folders behind a URL equal those on a disk."""

import gzip
import io
import json
import pickle
import re
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile

from recsys_had.data.encoder_files import load_encoder
from recsys_had.data.files import expand, open_bytes
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position, SplitReader
from recsys_had.data.raw import RawSource
from recsys_had.errors import ConfigError, DataError, StoreError
from recsys_had.filesystems import store_errors
from recsys_had.ingestion.ingest import ingest
from recsys_had.output import OutputFolder
from recsys_had.schema import parse_card
from recsys_had.storage import AnyPath, any_path, open_parquet
from recsys_had.store_path import StorePath
from tests.data.stores import listed, put, text_of

pytestmark = pytest.mark.usefixtures("temporary")

CARD = parse_card(
    """
name: clicks
format: {type: csv}
columns:
  click: {kind: label}
  C1: {kind: categorical}
  I1: {kind: integer}
  E: {kind: vector, size: 2}
split: {by: given}
"""
)


@pytest.fixture
def memory() -> StorePath:
    """A folder of a store in this process's memory, which needs no server."""
    return StorePath("memory", f"bucket-{uuid.uuid4().hex[:12]}")


def test_a_url_is_no_path_and_keeps_both_its_slashes() -> None:
    path = any_path("S3://bucket/a b/day=1.tsv.gz")
    assert isinstance(path, StorePath)
    assert str(path) == "s3://bucket/a b/day=1.tsv.gz"
    assert (path.name, path.suffix) == ("day=1.tsv.gz", ".gz")
    assert str(path.parent / "x") == "s3://bucket/a b/x"
    assert any_path("a//b") == Path("a/b")
    assert pickle.loads(pickle.dumps(path)) == path  # noqa: S301 - our own


def test_what_was_uploaded_is_found_read_and_removed(bucket: StorePath, tmp_path: Path) -> None:
    odd = bucket / "a b+c%20d/é#1?.txt"
    put(odd, b"hello", tmp_path)
    assert odd.is_file() and not odd.is_dir() and odd.parent.is_dir()
    assert odd.stat().st_size == 5
    assert odd.read_text() == "hello"
    assert [str(path) for path in odd.parent.iterdir()] == [str(odd)]
    odd.unlink()
    assert not odd.exists()
    odd.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError) as missing:
        odd.unlink()
    assert missing.value.filename == str(odd)


def test_a_folder_comes_back_as_it_went(bucket: StorePath, tmp_path: Path) -> None:
    files = {"a.txt": b"a", "deep/b.bin": bytes(range(256)) * 100_000, "deep/er/c": b""}
    for name, content in files.items():
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / name).write_bytes(content)
    (bucket / "top").upload(tmp_path / "there")
    assert listed(bucket / "top") == sorted(files)
    (bucket / "top").download(tmp_path / "back")
    for name, content in files.items():
        assert (tmp_path / "back" / name).read_bytes() == content
    (bucket / "top").remove_tree()
    assert not listed(bucket)


def test_a_glob_of_a_store_finds_what_a_glob_of_a_disk_finds(
    bucket: StorePath, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    names = ["day-10.tsv", "day-2.tsv", "day-2.gz", ".day-3.tsv", "x/day-4.tsv", "x/y/day-5.tsv"]
    names += ["x-1/day-6.tsv", "day[1].tsv", ".hidden/day-7.tsv"]
    for name in names:
        (disk / name).parent.mkdir(parents=True, exist_ok=True)
        (disk / name).write_text("1\n")
    bucket.upload(disk)
    patterns = [
        "day-*.tsv",
        "day-?.tsv",
        "*/day-*",
        "**/*.tsv",
        "x*/**/day-*.tsv",
        "day-[0-3]*.tsv",
    ]
    for pattern in [*patterns, "day[1].tsv", "x/**", ".day*", "**/day-[!2]*.tsv", "day-2.tsv"]:
        expected = [str(path.relative_to(disk)) for _, path in expand([f"{disk}/{pattern}"])]
        found = [
            str(path).removeprefix(f"{bucket}/") for _, path in expand([f"{bucket}/{pattern}"])
        ]
        assert found == expected, pattern


@pytest.mark.parametrize(
    "name, pack",
    [
        ("rows.csv", bytes),
        ("rows.csv.gz", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
        ("rows.csv.zst", lambda data: pa.compress(data, "zstd", asbytes=True)),
    ],
)
def test_a_packed_object_reads_as_the_file_does(
    bucket: StorePath, tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    # More than one request brings.
    data = np.random.default_rng(0).integers(32, 127, 12 << 20, np.uint8).tobytes()
    put(bucket / name, pack(data), tmp_path)
    assert text_of(bucket / name) == data


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.csv.zst"])
def test_an_object_that_was_cut_off_is_told(bucket: StorePath, tmp_path: Path, name: str) -> None:
    data = np.random.default_rng(0).bytes(1 << 20)
    whole = gzip.compress(data) if name.endswith("gz") else pa.compress(data, "zstd", asbytes=True)
    put(bucket / name, whole[: len(whole) // 2], tmp_path)
    with pytest.raises(DataError, match=rf"^{bucket}/{name}: cannot be decompressed to its end"):
        text_of(bucket / name)


def test_parquet_rows_equal_those_of_the_file(bucket: StorePath, tmp_path: Path) -> None:
    table = pa.table(
        {
            "click": [1, 0, None, 1],
            "C1": ["a", None, "c", "a"],
            "I1": [5, 6, 7, None],
            # Arrow cannot read lists of a fixed size that may be null; polars reads a copy.
            "E": pa.array([[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    (bucket / "rows.parquet").upload(tmp_path / "rows.parquet")

    def rows_of(path: AnyPath) -> list[pl.DataFrame]:
        return [block.frame for block in RawSource([path], CARD).blocks(block_bytes=64)]

    local, remote = rows_of(tmp_path / "rows.parquet"), rows_of(bucket / "rows.parquet")
    assert len(local) > 1
    assert [frame.rows() for frame in remote] == [frame.rows() for frame in local]


def test_an_object_that_was_replaced_is_told_from_what_it_was(
    bucket: StorePath, tmp_path: Path
) -> None:
    path = put(bucket / "rows.csv", b"click,C1,I1,E\n1,a,1,1|2\n", tmp_path)
    first = RawSource([path], CARD).fingerprint
    assert first == RawSource([str(path)], CARD).fingerprint
    # Of the same length, and maybe within the same second.
    put(path, b"click,C1,I1,E\n1,b,1,1|2\n", tmp_path)
    second = RawSource([path], CARD).fingerprint
    assert first[0]["size_bytes"] == second[0]["size_bytes"]
    assert first[0]["etag"] != second[0]["etag"]


class _Counted(MemoryFile):
    """A file in memory that counts what is read of it."""

    bytes_read = 0

    def __init__(self, content: bytes) -> None:
        io.BytesIO.__init__(self, content)

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        _Counted.bytes_read += len(found)
        return found


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Tells how much has been read of the store in memory."""
    monkeypatch.setattr(_Counted, "bytes_read", 0)
    kind = type(fsspec.filesystem("memory"))
    original = kind._open

    def counted(self: object, path: str, mode: str = "rb", **options: object) -> object:
        file = original(self, path, mode=mode, **options)
        return _Counted(file.getvalue()) if mode == "rb" else file

    monkeypatch.setattr(kind, "_open", counted)
    return lambda: _Counted.bytes_read


def test_a_large_object_is_never_read_whole(
    memory: StorePath, tmp_path: Path, bytes_read: Callable[[], int]
) -> None:
    put(memory / "rows.csv", b"a,b\n" * (16 << 20), tmp_path)
    with open_bytes(memory / "rows.csv") as stream:
        assert stream.read(8) == b"a,b\na,b\n"
    assert 8 <= bytes_read() <= 8 << 20  # of 64 MiB


def test_of_a_part_only_the_columns_that_are_asked_for_are_read(
    memory: StorePath, tmp_path: Path, bytes_read: Callable[[], int]
) -> None:
    num_rows = 100_000
    wide = np.random.default_rng(0).bytes(40 * num_rows)
    columns = {"narrow": np.zeros(num_rows, np.int32), "wide": pa.array([wide[:100]] * num_rows)}
    columns["noise"] = np.frombuffer(wide, np.float32)[:num_rows]
    pq.write_table(pa.table(columns), tmp_path / "part", use_dictionary=False)
    (memory / "part").upload(tmp_path / "part")
    with open_parquet(memory / "part", ahead=True) as file:
        assert file.read_row_group(0, columns=["narrow"]).num_columns == 1
    size = (tmp_path / "part").stat().st_size
    # Arrow asks for the last 64 KiB at first, and for near-by ranges together.
    assert size > 400_000
    assert 0 < bytes_read() < 150_000


def batches(data: DataFolder, rank: int, world_size: int) -> list[tuple[object, ...]]:
    reader = SplitReader(
        data.path / "train",
        layout=data.layout,
        batch_size=50,
        rank=rank,
        world_size=world_size,
        seed=7,
        pool_rows=200,
    )
    return [
        (
            step.after,
            step.batch.row_id.tolist(),
            step.batch.label.tolist(),
            step.batch.dense.tolist(),
            step.batch.sparse.values().tolist(),
            step.batch.sparse.lengths().tolist(),
        )
        for step in reader.steps(Position(3, 0))
    ]


@pytest.mark.parametrize("rank, world_size", [(0, 1), (0, 2), (1, 2)])
def test_training_reads_the_same_batches_from_a_store(
    bucket: StorePath,
    tmp_path: Path,
    make_small_data: Callable[..., DataFolder],
    rank: int,
    world_size: int,
) -> None:
    local = make_small_data(tmp_path / "data", rows={"train": 1000, "valid": 10})
    (bucket / "data").upload(tmp_path / "data")
    remote = DataFolder.open(bucket / "data")
    assert (remote.card.digest, remote.manifest) == (local.card.digest, local.manifest)
    expected = batches(local, rank, world_size)
    assert len(expected) == 20 // world_size
    assert batches(remote, rank, world_size) == expected
    assert remote.labels("train").tolist() == local.labels("train").tolist()
    assert remote.column("train", "price").tolist() == local.column("train", "price").tolist()


def test_rows_of_a_store_are_ingested_into_a_store_as_from_disk_to_disk(
    bucket: StorePath, tmp_path: Path, temporary: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "day-1.csv").write_text("click,C1,I1,E\n1,a,1,1|2\n0,b,2,3|4\n")
    (raw / "day-2.csv.gz").write_bytes(gzip.compress(b"click,C1,I1,E\n1,b,,\n"))
    (bucket / "raw").upload(raw)
    local = ingest(CARD, [("train", f"{raw}/day-*")], tmp_path / "data")
    remote = ingest(CARD, [("train", f"{bucket}/raw/day-*")], bucket / "out" / "data")
    assert remote["rows"] == local["rows"] == {"train": 3}
    (bucket / "out").download(tmp_path / "back")
    files = sorted(path for path in (tmp_path / "data").rglob("*") if path.is_file())
    names = [str(path.relative_to(tmp_path / "data")) for path in files]
    assert listed(bucket / "out" / "data") == names
    for name, path in zip(names, files, strict=True):
        assert (tmp_path / "back" / "data" / name).read_bytes() == path.read_bytes(), name
    loaded = load_encoder(bucket / "out" / "data")
    assert loaded.digest == load_encoder(tmp_path / "data").digest
    assert not [path for path in temporary.rglob("*") if path.is_file()]


def test_what_is_wrong_with_an_input_is_one_line_each(bucket: StorePath, tmp_path: Path) -> None:
    put(bucket / "empty.csv", b"", tmp_path)
    put(bucket / "folder/rows.csv", b"1\n", tmp_path)
    inputs = ["s3://no-such-bucket/a.csv", f"{bucket}/missing.csv", f"{bucket}/day-*.csv"]
    inputs += [f"{bucket}/empty.csv", f"{bucket}/folder", f"{bucket}/a//b.csv", "s3://b*/rows.csv"]
    inputs += ["s3://no-such-bucket/day-*.csv"]
    with pytest.raises(DataError) as error:
        expand(inputs)
    assert error.value.problems == (
        "s3://no-such-bucket/a.csv: there is no bucket 'no-such-bucket'. Check its name.",
        f"{bucket}/missing.csv: there is no such file.",
        f"{bucket}/day-*.csv: no file matches the pattern.",
        f"{bucket}/empty.csv: is empty. Remove it, or give the file that holds the rows.",
        f"{bucket}/folder: is a folder. Name its files, for example '{bucket}/folder/*'.",
        f"{bucket}/a//b.csv: is not a usable URL. It holds an empty name.",
        "s3://b*/rows.csv: there is no bucket 'b*'. Check its name.",
        "s3://no-such-bucket/day-*.csv: there is no bucket 'no-such-bucket'. Check its name.",
    )


def test_a_data_folder_that_is_not_there_is_told(bucket: StorePath) -> None:
    with pytest.raises(
        DataError, match=rf"^{bucket}/data: is not a data folder: manifest\.json is"
    ):
        DataFolder.open(bucket / "data")


@pytest.mark.parametrize("bucket", ["logs-2403", "ee40333bacc3", "403"])
@pytest.mark.parametrize("name", ["a.tsv", "day-403.tsv", "403", "Forbidden/part-403.tsv"])
def test_a_name_that_reads_like_an_answer_is_none(
    monkeypatch: pytest.MonkeyPatch, bucket: str, name: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    asked = f"When getting information for key '{name}' in bucket '{bucket}': AWS Error "
    url = f"s3://{bucket}/{name}"
    for answer, told in {
        "NETWORK_CONNECTION during HeadObject operation": "no connection to http://127.0.0.1:9",
        "UNKNOWN (HTTP status 403) during HeadObject operation": "access is denied",
        "ACCESS_DENIED during PutObject operation": "access is denied",
        "NO_SUCH_BUCKET during HeadObject operation": f"there is no bucket '{bucket}'",
        "UNKNOWN (HTTP status 500) during HeadObject operation": "the store answers with an error",
    }.items():
        with pytest.raises(StoreError, match=f"^{re.escape(f'{url}: {told}')}"), store_errors(url):
            raise OSError(asked + answer)


def test_credentials_that_are_refused_are_told(
    bucket: StorePath, store_server: str, tmp_path: Path
) -> None:
    def let_in(requests: str) -> None:
        """After so many requests the server asks for credentials it knows, and knows none."""
        address = f"{store_server}/moto-api/reset-auth"
        kind = {"Content-Type": "text/plain"}
        request = urllib.request.Request(address, requests.encode(), kind)
        urllib.request.urlopen(request).close()

    put(bucket / "rows.csv", b"1\n", tmp_path)
    let_in("0")
    try:
        with pytest.raises(DataError, match=r"rows\.csv: access is denied\. Are the credentials"):
            expand([f"{bucket}/rows.csv"])
        with pytest.raises(StoreError, match=r"access is denied\..*AWS_ACCESS_KEY_ID"):
            OutputFolder(bucket / "out", marker="m")
    finally:
        let_in("inf")


def test_a_protocol_nobody_serves_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^nowhere://bucket: cannot be opened\. Protocol not"):
        expand(["nowhere://bucket/rows.csv"])
    with pytest.raises(ConfigError, match=r"^abfs://bucket: cannot be opened\. Install adlfs"):
        expand(["abfs://bucket/rows.csv"])


def test_what_is_changed_after_ingestion_is_told_of_a_store_too(
    bucket: StorePath, tmp_path: Path, make_small_data: Callable[..., DataFolder]
) -> None:
    make_small_data(tmp_path / "data", rows={"train": 100})
    (bucket / "data").upload(tmp_path / "data")
    manifest = json.loads((bucket / "data" / "manifest.json").read_text())
    (bucket / "data" / "manifest.json").write_text(json.dumps({**manifest, "card_digest": "0"}))
    with pytest.raises(DataError, match=r"does not match the manifest"):
        DataFolder.open(bucket / "data")
    put(bucket / "data" / "train" / "part-00000.parquet", b"PAR1 cut off", tmp_path)
    with pytest.raises(DataError, match=rf"^{bucket}/.*part-00000\.parquet: is not a readable"):
        SplitReader(
            bucket / "data" / "train",
            layout=DataFolder.open(tmp_path / "data").layout,
            batch_size=8,
        )
