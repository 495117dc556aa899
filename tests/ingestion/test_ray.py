"""Ray does what the processes of one machine do, to the byte, and leaves nothing behind."""

import gzip
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys_had.data.raw import RawSource
from recsys_had.engines import ray_tasks
from recsys_had.engines.local import open_engine
from recsys_had.errors import (
    ConfigError,
    DataError,
    EngineError,
    RecsysHadError,
    SchemaError,
    WorkerLostError,
)
from recsys_had.ingestion.ingest import ingest
from recsys_had.ingestion.stage import Stager
from recsys_had.schema import parse_card
from tests.ingestion import test_rejects
from tests.ingestion.test_workers import BLOCK_BYTES, HASHED, STRATIFIED, card, digests, write_rows

for name, value in ray_tasks.SETTINGS.items():
    os.environ.setdefault(name, value)
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'recsys_had[ray]'")


@pytest.mark.parametrize("split", [HASHED, STRATIFIED])
def test_ray_writes_the_same_bytes_as_one_process(
    tmp_path: Path, cluster: None, split: str
) -> None:
    given = [(None, path) for path in write_rows(tmp_path)]
    alone, spread = tmp_path / "alone", tmp_path / "ray"
    ingest(card(split), given, alone, num_workers=1, block_bytes=BLOCK_BYTES)
    report = ingest(card(split), given, spread, engine="ray", block_bytes=BLOCK_BYTES)
    assert report["rows_read"] == 1200
    assert len(list(spread.glob("train/*"))) > 5
    assert digests(spread) == digests(alone)
    # Of this process and of at least one other.
    assert report["peak_rss_bytes"] > 200_000_000
    assert ray.is_initialized()


def test_ray_rejects_the_same_rows(tmp_path: Path, cluster: None) -> None:
    test_rejects.write_rows(tmp_path / "rows.csv")
    given = [(None, tmp_path / "rows.csv")]
    for engine in ("local", "ray"):
        ingest(
            test_rejects.card(),
            given,
            tmp_path / engine,
            engine=engine,  # type: ignore[arg-type]
            num_workers=2,
            on_error="reject",
            block_bytes=500,
        )
    assert (tmp_path / "ray" / "rejects.parquet").is_file()
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_relative_paths_mean_the_same_to_all(
    tmp_path: Path, cluster: None, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    # Compressed rows travel with the tasks, others are read where the task runs.
    for path in write_rows(tmp_path):
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for engine in ("local", "ray"):
        ingest(
            card(HASHED),
            [(None, f"../day-*.{suffix}")],
            Path(engine),
            engine=engine,  # type: ignore[arg-type]
            num_workers=1,
            block_bytes=BLOCK_BYTES,
        )
    assert digests(Path("ray")) == digests(Path("local"))


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_file_that_becomes_shorter_is_told(tmp_path: Path, cluster: None, engine: str) -> None:
    path = tmp_path / "rows.csv"
    test_rejects.write_rows(path)
    stager = Stager(test_rejects.card(), None, {}, tmp_path, reject=True)
    blocks = list(RawSource([path], test_rejects.card()).blocks(500))
    path.write_text(path.read_text()[:1000])
    with open_engine(engine, num_workers=2) as workers:
        staged = list(workers.map(stager, enumerate(blocks)))
    assert staged[0].problems is None
    told = f"{path}: became shorter while it was read. Run the command again."
    assert str(staged[-1].problems) == told


def test_wrong_rows_are_told_as_one_process_tells_them(tmp_path: Path, cluster: None) -> None:
    test_rejects.write_rows(tmp_path / "rows.csv")
    given = [(None, tmp_path / "rows.csv")]
    told: list[RecsysHadError] = []
    for engine in ("local", "ray"):
        with pytest.raises(DataError) as error:
            ingest(
                test_rejects.card(),
                given,
                tmp_path / "data",
                engine=engine,  # type: ignore[arg-type]
                num_workers=1,
                block_bytes=500,
            )
        told.append(error.value)
    assert told[1].problems == told[0].problems
    assert len(told[1].problems) == told[1].total > 2


def test_results_come_in_the_order_of_the_tasks(cluster: None) -> None:
    # The first takes longest by far.
    numbers = [20_000, 1, 2, 3, 4, 5]
    with open_engine("ray", num_workers=2) as engine:
        assert list(engine.map(math.factorial, numbers)) == list(map(math.factorial, numbers))


def test_tasks_are_taken_up_as_there_is_room_for_them(cluster: None) -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    with open_engine("ray") as engine:
        results = engine.map(math.sqrt, tasks())
        assert next(results) == 0
        assert len(taken) <= 5
        assert list(results) == [math.sqrt(number) for number in range(1, 50)]


def test_a_mistake_found_by_a_task_arrives_with_all_its_problems(cluster: None) -> None:
    text = "name: a\nformat: {type: csv}\ncolumns: {a: {kind: lable}, b: {kind: flaot}}\n"
    with pytest.raises(SchemaError) as here:
        parse_card(text)
    with open_engine("ray", num_workers=1) as engine, pytest.raises(SchemaError) as there:
        list(engine.map(parse_card, [text]))
    assert type(there.value) is SchemaError
    assert there.value.problems == here.value.problems
    assert len(here.value.problems) >= 2


def test_a_bug_in_a_task_stays_one(cluster: None) -> None:
    with (
        open_engine("ray", num_workers=2) as engine,
        pytest.raises(TypeError, match="cannot be interpreted as an integer"),
    ):
        list(engine.map(math.factorial, ["a"]))  # type: ignore[list-item]


def test_a_task_whose_process_is_killed_every_time_is_told(cluster: None) -> None:
    with (
        open_engine("ray", num_workers=2) as engine,
        pytest.raises(WorkerLostError, match="--engine ray: a task was lost at every try"),
    ):
        list(engine.map(os._exit, [9]))


def test_what_still_runs_has_ended_when_the_engine_has(tmp_path: Path, cluster: None) -> None:
    late = tmp_path / "late"
    with pytest.raises(ZeroDivisionError), open_engine("ray", num_workers=2) as engine:
        for _ in engine.map(os.system, ["true", f"sleep 1; touch {late}"]):
            raise ZeroDivisionError
    assert late.exists()


def test_a_machine_that_does_not_see_the_folder_is_told(tmp_path: Path, cluster: None) -> None:
    with (
        open_engine("ray", folder=tmp_path / "nowhere") as engine,
        pytest.raises(
            EngineError, match=f"^{tmp_path}/nowhere: every machine of a Ray cluster must"
        ),
    ):
        list(engine.map(abs, [1]))


def test_a_machine_with_other_libraries_is_told() -> None:
    other = ray_tasks.Here("head", (), (("recsys_had", "0.0.1"), *[("x", None)] * 3))
    with pytest.raises(ConfigError, match=r"same libraries\. \S+ has recsys_had \S+, head has 0\."):
        ray_tasks.join(other)


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1"])
def test_an_address_without_a_cluster_is_told(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(ConfigError, match=f"^RAY_ADDRESS={address}: no Ray cluster can be used"),
        open_engine("ray"),
    ):
        pass


PROGRAM = f"""
import signal, sys
from pathlib import Path
from recsys_had.ingestion.ingest import ingest
from recsys_had.ingestion.stage import Stager
from recsys_had.schema import DatasetCard

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    card = DatasetCard.model_validate_json(Path(sys.argv[1]).read_text())
    given = [(None, path) for path in sys.argv[3:]]
    out = Path(sys.argv[2])
    ingest(card, given, out, engine="ray", num_workers=2, block_bytes={BLOCK_BYTES})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, None)]
)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_cluster_ends_with_the_process_that_began_it_and_the_same_command_goes_on(
    tmp_path: Path, number: signal.Signals, status: int | None
) -> None:
    paths = write_rows(tmp_path, rows=4000)
    whole, out = tmp_path / "whole", tmp_path / "data"
    given = [(None, path) for path in paths]
    ingest(card(HASHED), given, whole, num_workers=1, block_bytes=BLOCK_BYTES)
    (tmp_path / "card.json").write_text(card(HASHED).model_dump_json())
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [tmp_path / "program.py", tmp_path / "card.json", out, *paths]
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            env={**environment, "RAY_TMPDIR": folder},
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 240
        while len(list(out.glob(".work/state/shard-*.arrow"))) < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        begun = processes_with(folder)
        assert len(begun) >= 4
        process.send_signal(number)
        process.wait(timeout=300)
        while processes_with(folder):
            assert time.monotonic() < deadline, processes_with(folder)
            time.sleep(0.05)
        if number != signal.SIGKILL:
            assert list(Path(folder).iterdir()) == []
    assert status is None or process.returncode == status
    assert not (out / "manifest.json").exists()
    ingest(card(HASHED), given, out, num_workers=2, block_bytes=BLOCK_BYTES)
    assert digests(out) == digests(whole)


def processes_with(folder: str) -> dict[str, str]:
    """Processes whose environment names a folder, and what each was begun as."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if folder.encode() in (process / "environ").read_bytes():
                found[process.name] = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it has just ended, or is another's
    return found
