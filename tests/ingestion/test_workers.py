"""What comes out of an ingestion does not depend on who does the work, nor on its being killed."""

import hashlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recsys_had.engines.local import open_engine
from recsys_had.errors import DataError, EngineError, WorkerLostError
from recsys_had.ingestion.ingest import ingest
from recsys_had.schema import DatasetCard, parse_card

HASHED = "{by: content_hash, ratios: {train: 0.8, valid: 0.1, test: 0.1}}"
STRATIFIED = "{by: stratified_kfold, num_folds: 5}"
GIVEN = "{by: given}"
BLOCK_BYTES = 4000


def card(split: str) -> DatasetCard:
    return parse_card(
        f"""
name: clicks
format: {{type: csv}}
columns:
  click: {{kind: label}}
  user: {{kind: categorical, min_count: 2}}
  item: {{kind: categorical}}
  page: {{kind: categorical, hash_buckets: 50}}
  tags: {{kind: multi_categorical}}
  price: {{kind: float, transform: standardise}}
  visits: {{kind: integer, transform: log_squared_bucket}}
lookups:
  items:
    file: items.csv
    key: item
    format: {{type: csv}}
    columns: {{item: {{kind: id}}, genre: {{kind: categorical}}}}
split: {split}
"""
    )


def write_rows(folder: Path, *, files: int = 3, rows: int = 400) -> list[Path]:
    """Some files of rows, and the side table."""
    generator = np.random.default_rng(0)
    paths = []
    for number in range(files):
        lines = ["click,user,item,page,tags,price,visits"]
        for _ in range(rows):
            user, item = generator.integers(0, 200), generator.integers(0, 50)
            tags = "|".join(f"t{tag}" for tag in generator.integers(0, 30, generator.integers(4)))
            lines.append(
                f"{generator.integers(0, 2)},u{user},i{item},p{generator.integers(0, 99)},{tags},"
                f"{generator.normal():.6f},{generator.integers(0, 1000)}"
            )
        paths.append(folder / f"day-{number}.csv")
        paths[-1].write_text("\n".join(lines) + "\n")
    genres = [f"i{item},g{item % 7}" for item in range(45)]
    (folder / "items.csv").write_text("\n".join(["item,genre", *genres]) + "\n")
    return paths


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("what", ["written to", "replaced", "gone"])
@pytest.mark.parametrize("number", [0, 2])
def test_a_file_that_changes_while_it_is_read_gives_no_data(
    tmp_path: Path, what: str, number: int
) -> None:
    """Some shards would be of what it was, and others of what it is."""
    paths, out = write_rows(tmp_path), tmp_path / "data"
    path, other = paths[number], tmp_path / "other"
    other.write_text(path.read_text().replace(",i1,", ",i2,"))
    seen: list[int] = []

    def change(rows: int) -> None:
        seen.append(rows)
        if len(seen) > 1:
            return
        match what:
            case "written to":
                with path.open("a") as file:
                    file.write("0,u1,i1,p1,,0.5,3\n")
            case "replaced":
                other.replace(path)
            case _:
                path.unlink()

    given = [(None, path) for path in paths]
    with pytest.raises(DataError, match=rf"{path}: (was changed while it was read|cannot be read)"):
        ingest(card(HASHED), given, out, num_workers=1, block_bytes=BLOCK_BYTES, on_rows=change)
    assert not out.exists()


@pytest.mark.parametrize(("split", "others"), [(HASHED, (2, 4)), (STRATIFIED, (2,)), (GIVEN, (2,))])
def test_any_number_of_workers_writes_the_same_bytes(
    tmp_path: Path, split: str, others: tuple[int, ...]
) -> None:
    paths = write_rows(tmp_path)
    splits = ["train", "train", "valid"] if split == GIVEN else [None] * 3
    given = list(zip(splits, paths, strict=True))
    found = {}
    for workers in (1, *others):
        out = tmp_path / f"data-{workers}"
        report = ingest(card(split), given, out, num_workers=workers, block_bytes=BLOCK_BYTES)
        assert report["rows_read"] == 1200
        found[workers] = digests(out)
    assert len([name for name in found[1] if name.startswith("train/")]) > 5
    assert all(found[workers] == found[1] for workers in others)


def test_files_in_another_order_give_the_same_vocabularies(tmp_path: Path) -> None:
    paths = write_rows(tmp_path)
    found = []
    for number, order in enumerate([paths, paths[::-1]]):
        out = tmp_path / f"data-{number}"
        given = [(None, path) for path in order]
        ingest(card(HASHED), given, out, num_workers=1, block_bytes=BLOCK_BYTES)
        found.append(digests(out))
    # Row ids count through the files as they are given, and so differ.
    same = {name for name in found[0] if found[0][name] == found[1].get(name)}
    assert {
        name for name in found[0] if not name.startswith(("train", "valid", "test"))
    } - same == {"manifest.json"}


def test_results_come_in_the_order_of_the_tasks() -> None:
    # The first takes longest by far.
    numbers = [20_000, 1, 2, 3, 4, 5]
    with open_engine("local", num_workers=2) as engine:
        assert list(engine.map(math.factorial, numbers)) == list(map(math.factorial, numbers))
        assert engine.peak_rss_bytes > 50_000_000


def test_tasks_are_taken_up_as_there_is_room_for_them() -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    with open_engine("local", num_workers=2) as engine:
        results = engine.map(math.sqrt, tasks())
        assert next(results) == 0
        assert len(taken) <= 4
        assert list(results) == [math.sqrt(number) for number in range(1, 50)]


def test_a_killed_worker_is_told() -> None:
    with (
        open_engine("local", num_workers=2) as engine,
        pytest.raises(DataError, match="a worker process was killed, by the system where mem"),
    ):
        list(engine.map(os._exit, [9]))


def test_a_bug_in_a_worker_stays_one() -> None:
    with (
        open_engine("local", num_workers=2) as engine,
        pytest.raises(TypeError, match="cannot be interpreted as an integer"),
    ):
        list(engine.map(math.factorial, ["a"]))  # type: ignore[list-item]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent_and_the_same_command_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    paths = write_rows(tmp_path, rows=4000)
    whole = tmp_path / "whole"
    given = [(None, path) for path in paths]
    ingest(card(HASHED), given, whole, num_workers=1, block_bytes=BLOCK_BYTES)
    out = tmp_path / "data"
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from recsys_had.ingestion.ingest import ingest\n"
        "from recsys_had.schema import DatasetCard\n"
        "if __name__ == '__main__':\n"
        "    card = DatasetCard.model_validate_json(Path(sys.argv[1]).read_text())\n"
        "    given = [(None, path) for path in sys.argv[3:]]\n"
        f"    ingest(card, given, Path(sys.argv[2]), num_workers=2, block_bytes={BLOCK_BYTES})\n"
    )
    (tmp_path / "card.json").write_text(card(HASHED).model_dump_json())
    (tmp_path / "program.py").write_text(program)
    words = [tmp_path / "program.py", tmp_path / "card.json", out, *paths]
    process = subprocess.Popen([sys.executable, *map(str, words)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.glob(".work/state/shard-*.arrow"))) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(number)
    process.wait(timeout=300)
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (out / "manifest.json").exists()
    ingest(card(HASHED), given, out, num_workers=2, block_bytes=BLOCK_BYTES)
    assert digests(out) == digests(whole)


def children(process: int) -> list[int]:
    """Processes that one has begun."""
    return [
        int(child)
        for task in Path(f"/proc/{process}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


@pytest.mark.parametrize("moved", range(1, 6))
def test_a_kill_while_results_are_moved_into_place_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    given = [(None, path) for path in write_rows(tmp_path, rows=100)]
    whole, out = tmp_path / "whole", tmp_path / "data"
    ingest(card(HASHED), given, whole, num_workers=1, block_bytes=BLOCK_BYTES)
    rename, moves = Path.rename, []

    def interrupted(self: Path, target: Path) -> Path:
        if target.parent == out:
            moves.append(target.name)
            if len(moves) > moved:
                raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ingest(card(HASHED), given, out, num_workers=1, block_bytes=BLOCK_BYTES)
    assert len(moves) == moved + 1
    ingest(card(HASHED), given, out, num_workers=1, block_bytes=BLOCK_BYTES)
    assert digests(out) == digests(whole)


def test_work_that_is_half_removed_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [(None, path) for path in write_rows(tmp_path, rows=100)]
    out = tmp_path / "data"

    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("recsys_had.ingestion.parts.PartWriter.__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ingest(card(HASHED), given, out, num_workers=1, block_bytes=BLOCK_BYTES)
    with monkeypatch.context() as patch:
        patch.setattr("recsys_had.output._remove", interrupted)
        with pytest.raises(KeyboardInterrupt):
            # Another cut of the files: the work of the first is of no use to it.
            ingest(card(HASHED), given, out, num_workers=1, block_bytes=2 * BLOCK_BYTES)
    for path in (out / ".work" / "state").glob("ids-*"):
        path.unlink()
    ingest(card(HASHED), given, out, num_workers=1, block_bytes=BLOCK_BYTES)
    ingest(card(HASHED), given, tmp_path / "whole", num_workers=1, block_bytes=BLOCK_BYTES)
    assert digests(out) == digests(tmp_path / "whole")


def test_an_engine_that_is_not_there_costs_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [(None, path) for path in write_rows(tmp_path, rows=100)]
    out = tmp_path / "data"

    def killed(*arguments: object) -> None:
        raise WorkerLostError("a worker process was killed.")

    with monkeypatch.context() as patch:
        patch.setattr("recsys_had.ingestion.parts.PartWriter.__call__", killed)
        with pytest.raises(WorkerLostError):
            ingest(card(HASHED), given, out, num_workers=1, block_bytes=BLOCK_BYTES)
    staged = sorted((out / ".work" / "state").glob("shard-*"))
    assert len(staged) >= 3
    monkeypatch.setattr("recsys_had.engines.local.find_spec", lambda name: None)
    with pytest.raises(EngineError, match="Ray is not installed"):
        ingest(card(HASHED), given, out, engine="ray", block_bytes=BLOCK_BYTES)
    assert sorted((out / ".work" / "state").glob("shard-*")) == staged


def test_a_field_named_as_a_shard_s_identifiers_are_does_not_meet_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [f"{row % 2},{row // 2},v{row % 3}" for row in range(200)]
    path.write_text("\n".join(["y,A,A-000001", *rows]) + "\n")
    clash = parse_card(
        "name: n\nformat: {type: csv}\nsplit: {by: given}\n"
        "columns: {y: {kind: label}, A: {kind: id}, A-000001: {kind: categorical}}\n"
    )
    report = ingest(clash, [("train", path)], tmp_path / "data", num_workers=1, block_bytes=300)
    assert report["duplicate_ids"] == {"A": 100}
    assert report["num_embeddings"] == {"A-000001": 4}
