"""``recsys-had ingest --update``: a second day from raw rows to scores, every old row kept."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recsys_had.data.encoder_files import load_encoder
from recsys_had.data.folder import DataFolder
from recsys_had.training.loop import Trainer
from tests.pipelines.conftest import raw_rows
from tests.pipelines.test_warm_start import begun


@pytest.fixture(scope="module")
def day_2(cli: Any, job: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Rows of users 15 to 34 (they were 0 to 19), encoded over the job's data; the report."""
    folder = tmp_path_factory.mktemp("day-2")
    rows = []
    for line in raw_rows(2000, seed=7):
        cells = line.split("\t")
        cells[3] = f"u{int(cells[3][1:]) + 15}"
        rows.append("\t".join(cells))
    (folder / "raw.tsv").write_text("\n".join(rows) + "\n")
    words = ("--raw", folder / "raw.tsv", "--out", folder / "data", "--update", job.data)
    done = cli("ingest", job.card, *words, "--json")
    assert done.code == 0, done.err
    return folder, done.json


def test_the_report_tells_kept_and_new_values_of_each_field(day_2: tuple[Path, Any]) -> None:
    folder, report = day_2
    assert report["update"]["user"] == {"kept": 20, "new": 15}
    assert report["update"]["item"] == {"kept": 10, "new": 0}
    assert report["num_embeddings"]["user"] == 36
    lineage = json.loads((folder / "data" / "manifest.json").read_text())["lineage"]
    assert [each["rows_read"] for each in lineage] == [3000]


def test_a_person_is_told_in_a_line(cli: Any, job: Any, day_2: Any, tmp_path: Path) -> None:
    folder, report = day_2
    words = ("--raw", folder / "raw.tsv", "--out", tmp_path / "data", "--update", job.data)
    done = cli("ingest", job.card, *words)
    kept = sum(each["kept"] for each in report["update"].values())
    new = sum(each["new"] for each in report["update"].values())
    fields = report["num_embeddings"]
    told = f"{len(fields)} fields with {sum(fields.values()):,} ids: {kept:,} values kept theirs, "
    assert f"{told}{new:,} are new" in done.out.splitlines()


def test_a_warm_start_keeps_every_row_where_it_was(
    job: Any, day_2: tuple[Path, Any], alone: torch.device, tmp_path: Path
) -> None:
    from recsys_had.training.pieces import gather_state

    trainer, told = begun(job, day_2[0] / "data", alone, tmp_path)
    assert isinstance(trainer, Trainer)
    assert told["fresh"] == []
    growth = {name: each["new"] for name, each in day_2[1]["update"].items()}
    for table, rows in told["tables"].items():
        assert rows["gone"] == 0 and rows["new"] == growth[table.split(".")[1]], table
    state = gather_state(trainer.sharded, trainer.model)
    assert state is not None
    for name, before in load_file(job.run / "weights.safetensors").items():
        held = state[name][: len(before)] if ".tables." in name else state[name]
        assert torch.equal(held, before), name


def test_the_second_day_is_trained_and_scored(
    cli: Any, job: Any, day_2: tuple[Path, Any], tmp_path: Path
) -> None:
    folder = day_2[0]
    words = ("--data", folder / "data", "--out", tmp_path / "run", "--warm-start", job.run)
    done = cli("train", job.experiment, *words, "--no-tracking", "--json")
    assert done.code == 0, done.err
    assert done.json["warm_start"]["tables"]["fields.user"] == {"kept": 21, "new": 15, "gone": 0}
    words = ("--input", job.raw, folder / "raw.tsv", "--out", tmp_path / "scores")
    done = cli("predict", tmp_path / "run", *words, "--json")
    assert done.code == 0, done.err
    # Values of either day have an id now.
    assert done.json["rows"] == 5000
    assert done.json["oov"]["user"] == 0
    assert pl.read_parquet(tmp_path / "scores" / "part-*.parquet")["score"].is_between(0, 1).all()


def test_frequent_values_are_told_by_count_where_ids_follow_days(
    cli: Any, day_2: tuple[Path, Any]
) -> None:
    done = cli("vocab", day_2[0] / "data", "user", "--top", "35", "--json")
    counts = [entry["count"] for entry in done.json["entries"]]
    assert counts == sorted(counts, reverse=True) and len(counts) == 35
    # Each row of either day has a user, so these are all training rows there were.
    assert done.json["training_rows"] == sum(counts)
    assert sum(entry["share"] for entry in done.json["entries"]) == pytest.approx(1)
    assert [entry["id"] for entry in done.json["entries"]] != list(range(1, 36))


def test_an_earlier_run_refuses_the_later_ids(job: Any, day_2: tuple[Path, Any], cli: Any) -> None:
    done = cli("evaluate", job.run, "--data", day_2[0] / "data", "--split", "valid")
    assert done.code == 2
    assert "vocabular" in done.err


def test_mistakes_are_told_in_a_line(cli: Any, job: Any, tmp_path: Path) -> None:
    words = ("ingest", job.card, "--raw", job.raw, "--out")
    done = cli(*words, tmp_path / "data", "--update", tmp_path / "none")
    assert done.code == 2
    told = f"{tmp_path / 'none'}: is not a data folder: manifest.json is missing. "
    assert done.err.splitlines()[-1] == f"{told}Run `recsys-had ingest` first."
    done = cli(*words, job.data, "--update", job.data, "--overwrite")
    assert done.code == 2
    assert done.err.splitlines()[-1] == (
        f"{job.data}: --out must not hold the folder of --update, which runs refer to; got "
        f"{job.data} for that. Choose another folder for --out."
    )
    assert DataFolder.open(job.data).rows("train") > 0
    assert load_encoder(job.data).num_embeddings["user"] == 21
