"""What several rooms' tests share: where real rows are, small encoded data, one process group."""

import json
import logging
import os
import signal
import urllib.request
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import settings

from recsys_had.data.folder import DataFolder
from recsys_had.engines import ray_tasks
from recsys_had.schema import DatasetCard, parse_card
from recsys_had.store_path import StorePath
from recsys_had.training.distributed import process_group

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the
# processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


# How long an example takes says nothing on a machine that is busy.
settings.register_profile("recsys_had", deadline=None)
settings.load_profile("recsys_had")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hides GPUs from whoever is not marked ``gpu``: what is told of a CPU runs on one anywhere."""
    # CUDA learns of its GPUs when it is first asked, once for all: before they are hidden.
    torch.cuda.is_available()
    if item.get_closest_marker("gpu") is not None:
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr(torch.cuda, "is_available", lambda: False)
        return (yield)


@pytest.fixture(autouse=True, scope="module")
def own_store() -> Iterator[None]:
    """MLflow sets a variable, which the next module's trainings would take for the user's."""
    before = os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster that others began, for all tests of a file; they skip where there is no Ray."""
    for name, value in ray_tasks.SETTINGS.items():
        os.environ.setdefault(name, value)
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'recsys_had[ray]'")
    with ray_tasks.local_cluster(ray, num_workers=2):
        yield


@pytest.fixture
def no_compiler() -> Iterator[None]:
    """A machine that cannot compile C++."""
    # As slow to import as torch itself; and pytest's own way to patch leaves the setting hidden.
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("no-such-compiler",)}):
        yield


SMALL_CARD = """
name: small
format: {type: tsv, header: false}
columns:
  label: {kind: label}
  A: {kind: categorical}
  B: {kind: categorical}
  tags: {kind: multi_categorical}
  price: {kind: float, transform: standardise}
split: {by: given}
"""
SMALL_TABLES = {"A": 30, "B": 11, "tags": 7}


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real rows; the test skips, saying so, where it is absent."""
    folder = os.environ.get("RECSYS_HAD_SAMPLES")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RECSYS_HAD_SAMPLES names no folder of real rows")
    return Path(folder)


@pytest.fixture
def alone() -> Iterator[torch.device]:
    """A process group of one."""
    with process_group() as device:
        yield device


@pytest.fixture(scope="session")
def small_card() -> DatasetCard:
    """Two single-valued fields, a multi-valued one and a dense input."""
    return parse_card(SMALL_CARD)


@pytest.fixture(scope="session")
def make_small_data(small_card: DatasetCard) -> Callable[..., DataFolder]:
    """Writes an encoded data folder in which clicks depend on a pair of fields."""

    def make(path: Path, *, rows: dict[str, int], seed: int = 0) -> DataFolder:
        generator = np.random.default_rng(seed)
        taste = generator.normal(size=(SMALL_TABLES["A"], SMALL_TABLES["B"]))
        for split, num_rows in rows.items():
            a = generator.integers(0, SMALL_TABLES["A"], num_rows).astype(np.int32)
            b = generator.integers(0, SMALL_TABLES["B"], num_rows).astype(np.int32)
            price = generator.normal(size=num_rows).astype(np.float32)
            chance = 1 / (1 + np.exp(-(1.5 * taste[a, b] + 0.5 * price - 0.5)))
            tags = [
                generator.integers(0, SMALL_TABLES["tags"], generator.integers(1, 4)).tolist()
                for _ in range(num_rows)
            ]
            (path / split).mkdir(parents=True)
            table = pa.table(
                {
                    "row_id": np.arange(num_rows, dtype=np.int64),
                    "label": (generator.random(num_rows) < chance).astype(np.float32),
                    "A": a,
                    "B": b,
                    "tags": pa.array(tags, pa.list_(pa.int32())),
                    "price": price,
                }
            )
            pq.write_table(table, path / split / "part-00000.parquet", row_group_size=64)
        manifest = {
            "num_embeddings": SMALL_TABLES,
            "rows": rows,
            "card_digest": small_card.digest,
            "vocabulary_digest": "0" * 64,
        }
        return _saved(DataFolder(path, small_card, manifest))

    return make


@pytest.fixture
def manage() -> Callable[..., DataFolder]:
    """Has training give out the rows of the fields A and tags of a small data folder, in place."""

    def managed(data: DataFolder, *, rows: int, admit_after: int = 1) -> DataFolder:
        told = f"managed: {{rows: {rows}, admit_after: {admit_after}}}"
        text = SMALL_CARD.replace("A: {kind: categorical", f"A: {{kind: categorical, {told}")
        text = text.replace("kind: multi_categorical", f"kind: multi_categorical, {told}")
        card = parse_card(text)
        for part in data.path.glob("*/part-*.parquet"):
            table = pq.read_table(part)
            for name, kind in (("A", pa.int64()), ("tags", pa.list_(pa.int64()))):
                column = table.column(name).cast(kind)
                if name == "A":
                    # As far apart as hashes are; missing values stay 0.
                    column = pc.multiply(column, 1 << 57)
                table = table.set_column(table.schema.get_field_index(name), name, column)
            pq.write_table(table, part, row_group_size=64)
        sizes = {**SMALL_TABLES, "A": rows + 1, "tags": rows + 1}
        manifest = {**data.manifest, "card_digest": card.digest, "num_embeddings": sizes}
        return _saved(DataFolder(data.path, card, manifest))

    return managed


@pytest.fixture
def weigh() -> Callable[..., DataFolder]:
    """Gives the rows of a small data folder weights, in place."""

    def weighed(data: DataFolder, weights: dict[str, "np.typing.ArrayLike"]) -> DataFolder:
        card = parse_card(SMALL_CARD.replace("  A:", "  counts: {kind: weight}\n  A:"))
        for split, weight in weights.items():
            part = data.path / split / "part-00000.parquet"
            column = pa.array(np.asarray(weight, np.float32))
            table = pq.read_table(part).append_column("weight", column)
            pq.write_table(table, part, row_group_size=64)
        manifest = {**data.manifest, "card_digest": card.digest}
        return _saved(DataFolder(data.path, card, manifest))

    return weighed


def _saved(data: DataFolder) -> DataFolder:
    """As another process opens it."""
    (data.path / "manifest.json").write_text(json.dumps(data.manifest))
    (data.path / "card.json").write_text(data.card.model_dump_json())
    return data


@pytest.fixture(scope="session")
def store_server() -> Iterator[str]:
    """Where an S3-compatible server of this machine answers."""
    moto = pytest.importorskip(
        "moto.server", reason="moto is not installed: there is no object store to test against"
    )
    # Its log of requests would bury what a test that fails has to tell.
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(store_server: str, monkeypatch: pytest.MonkeyPatch) -> StorePath:
    """A new bucket, with nothing in it, and the credentials for it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    request = urllib.request.Request(f"{store_server}/{name}", method="PUT")
    urllib.request.urlopen(request).close()
    return StorePath("s3", name)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where work on a store's output folders lives, here and in processes that are begun."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder
