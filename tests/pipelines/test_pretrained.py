"""``train --pretrained``: rows of tables begin as a file says, by value, at any sharding."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys_had.data.encoder_files import load_encoder
from recsys_had.data.folder import DataFolder
from recsys_had.experiment_file import load_experiment
from recsys_had.training.loop import Trainer
from recsys_had.training.pieces import gather_state
from recsys_had.training.pretrained import parse_pretrained
from tests.training.launch import launch_forked

RANKS = Path(__file__).parents[1] / "training" / "pretrained_ranks.py"


@pytest.fixture(scope="module")
def exported(cli, job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job's tables."""
    out = tmp_path_factory.mktemp("exported") / "tables"
    assert cli("export", job.run, "--out", out).code == 0
    return out


def vectors_file(path: Path, values: Any, vectors: Any, kind: Any = None) -> Path:
    """A Parquet file of values and vectors."""
    columns = [pl.Series("value", values), pl.Series("vector", vectors, dtype=kind)]
    pl.DataFrame(columns).write_parquet(path)
    return path


def weight_name(table: str) -> str:
    set_name, _, field = table.partition(".")
    return f"embeddings.tables.{set_name}.embedding_bags.{field}.weight"


def begun(
    job: Any, data: Path, device: torch.device, work: Path, *words: str, overrides: Any = ()
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Weights before and after, and what is told."""
    experiment = load_experiment(str(job.experiment), tuple(overrides))
    trainer = Trainer(experiment=experiment, data=DataFolder.open(data), device=device, work=work)
    before = gather_state(trainer.sharded, trainer.model)
    told = trainer.take_pretrained(parse_pretrained(words))
    after = gather_state(trainer.sharded, trainer.model)
    assert before is not None and after is not None
    return before, after, told


def test_exported_tables_come_back_bit_for_bit(
    job, exported: Path, alone: torch.device, tmp_path: Path
) -> None:
    tables = ("fields.user", "fields.tags", "linear.item")
    words = [f"{table}={exported}/{table}.safetensors" for table in tables]
    before, after, told = begun(job, job.data, alone, tmp_path, *words, overrides=("train.seed=8",))
    saved = load_file(job.run / "weights.safetensors")
    chosen = {weight_name(table) for table in tables}
    for name in saved:
        assert torch.equal(after[name], (saved if name in chosen else before)[name]), name
    assert not any(torch.equal(before[name], saved[name]) for name in chosen)
    assert told["fields.user"] == {"given": 21, "taken": 21, "unknown": 0}


@pytest.mark.parametrize("sharding", ["table_wise", "data_parallel"])
def test_rows_go_with_their_values_to_another_vocabulary(
    job, later: Path, exported: Path, alone: torch.device, tmp_path: Path, sharding: str
) -> None:
    word = f"user={exported}/fields.user.safetensors"
    overrides = ("train.seed=8", f"train.sharding={sharding}")
    before, after, told = begun(job, later, alone, tmp_path, word, overrides=overrides)
    saved = load_file(job.run / "weights.safetensors")
    old, new = load_encoder(job.run / "encoder"), load_encoder(later)
    ids = dict(old.counts_of("user").select("value", "id").rows())
    name = weight_name("fields.user")
    assert torch.equal(after[name][0], saved[name][0])
    for value, at in new.counts_of("user").select("value", "id").rows():
        source = saved[name][ids[value]] if value in ids else before[name][at]
        assert torch.equal(after[name][at], source), value
    # Users 5 to 19 and id 0 are taken; 0 to 4 are no longer known.
    assert told == {"fields.user": {"given": 21, "taken": 16, "unknown": 5}}
    linear = weight_name("linear.user")
    assert torch.equal(after[linear], before[linear])


def test_the_values_of_a_table_may_be_for_another_field(
    job, exported: Path, alone: torch.device, tmp_path: Path
) -> None:
    _, _, told = begun(job, job.data, alone, tmp_path, f"item={exported}/fields.user.safetensors")
    # Of the users no value is an item; a missing one is missing in both.
    assert told == {"fields.item": {"given": 21, "taken": 1, "unknown": 20}}


@pytest.mark.parametrize(
    "kind", [pl.List(pl.Float64), pl.Array(pl.Float32, 4), pl.List(pl.Int64)], ids=str
)
def test_vectors_of_a_parquet_file_are_taken_by_value(
    job, alone: torch.device, tmp_path: Path, kind: Any
) -> None:
    vectors = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [0, 0, 0, 1]]
    path = vectors_file(tmp_path / "v.parquet", ["i7", "no such item", "i0", None], vectors, kind)
    before, after, told = begun(job, job.data, alone, tmp_path / "work", f"item={path}")
    assert told == {"fields.item": {"given": 4, "taken": 3, "unknown": 1}}
    ids = dict(load_encoder(job.data).counts_of("item").select("value", "id").rows())
    name = weight_name("fields.item")
    expected = before[name].clone()
    expected[ids["i7"]] = torch.tensor([1.0, 2, 3, 4])
    expected[ids["i0"]] = torch.tensor([9.0, 10, 11, 12])
    expected[0] = torch.tensor([0.0, 0, 0, 1])
    assert torch.equal(after[name], expected)


@pytest.mark.parametrize(
    "values", [pl.Series([3, 5], dtype=pl.Int64), pl.Series([3.0, 5.0]), pl.Series(["3", "5"])]
)
def test_numbers_are_the_values_that_rows_would_have(
    job, alone: torch.device, tmp_path: Path, values: pl.Series
) -> None:
    path = vectors_file(tmp_path / "v.parquet", values, [[1.0] * 4, [2.0] * 4])
    _, _, told = begun(job, job.data, alone, tmp_path / "work", f"visits={path}")
    assert told["fields.visits"] == {"given": 2, "taken": 2, "unknown": 0}


def test_two_ranks_begin_with_the_same_rows_as_one(
    job, alone: torch.device, tmp_path: Path
) -> None:
    generator = np.random.default_rng(1)
    words = []
    for field, values in (("user", [f"u{n}" for n in range(2, 20, 3)]), ("item", ["i1", "i4"])):
        vectors = generator.normal(size=(len(values), 6)).tolist()
        path = vectors_file(tmp_path / f"{field}.parquet", values, vectors, pl.List(pl.Float32))
        words.append(f"fields.{field}={path}")
    overrides = ("model.embedding_dim=6", "train.embedding_optimizer=adagrad")
    _, one, told_one = begun(job, job.data, alone, tmp_path / "one", *words, overrides=overrides)
    settled = load_experiment(str(job.experiment), overrides).model_dump(mode="json")
    settled["train"]["sharding"] = {
        "default": "table_wise",
        "tables": {"fields.user": "row_wise", "fields.item": "column_wise"},
    }
    note, out = tmp_path / "experiment.json", tmp_path / "weights"
    note.write_text(json.dumps(settled))
    launch_forked(RANKS, note, job.data, tmp_path / "two", out, *words, world_size=2)
    found = json.loads(out.with_suffix(".json").read_text())
    two = load_file(out)
    assert found["told"] == told_one
    assert told_one["fields.user"] == {"given": 6, "taken": 6, "unknown": 0}
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    # Width 6 is padded to 8 and cut at 4; users lie by rows.
    second = {name: (offset, shape) for name, offset, shape in found["places"][1]}
    assert second[weight_name("fields.item")] == ([0, 4], [11, 4])
    assert second[weight_name("fields.user")][0] == [11, 0]
    users = pl.read_parquet(tmp_path / "user.parquet")
    ids = dict(load_encoder(job.data).counts_of("user").select("value", "id").rows())
    for value, vector in users.rows():
        row = one[weight_name("fields.user")][ids[value]]
        assert torch.equal(row, torch.tensor(vector)), value


def test_a_training_tells_what_it_took_over_a_warm_start(
    cli, job, exported: Path, tmp_path: Path
) -> None:
    path = vectors_file(tmp_path / "v.parquet", ["i7", "gone"], [[50.0] * 4, [1.0] * 4])
    words = ("train", job.experiment, "--data", job.data, "--no-tracking", "train.epochs=1")
    given = ("--warm-start", job.run, "--pretrained", f"item={path}")
    # At a rate of next to nothing the rows stay what they begin as.
    slow = ("train.learning_rate=1e-12", "--json")
    done = cli(*words, "--out", tmp_path / "run", *given, *slow)
    assert done.code == 0, done.err
    assert done.json["pretrained"] == {"fields.item": {"given": 2, "taken": 1, "unknown": 1}}
    assert done.json["warm_start"]["tables"]["fields.item"]["kept"] == 11
    ids = dict(load_encoder(job.data).counts_of("item").select("value", "id").rows())
    saved, warm = (
        load_file(run / "weights.safetensors")[weight_name("fields.item")]
        for run in (tmp_path / "run", job.run)
    )
    expected = warm.clone()
    expected[ids["i7"]] = 50.0
    torch.testing.assert_close(saved, expected, rtol=0, atol=1e-6)
    text = cli(*words, "--out", tmp_path / "text", "--pretrained", f"item={path}").out
    assert "fields.item pretrained: 1 of 2 rows taken, 1 of unknown values" in text
    assert cli(*words, "--out", tmp_path / "none", "--json").json["pretrained"] is None


def test_a_resumed_training_does_not_take_the_rows_again(
    cli, job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = vectors_file(tmp_path / "v.parquet", ["i7"], [[1.0] * 4])
    words = ("train", job.experiment, "--data", job.data, "--no-tracking", "--json")
    words = (*words, "--pretrained", f"item={path}", "--out")
    whole = cli(*words, tmp_path / "whole").json
    step = Trainer.step
    with monkeypatch.context() as patch:

        def interrupted(self: Trainer, *steps: Any, coming: Any) -> Tensor:
            if self.progress.step == 7:
                os.kill(os.getpid(), signal.SIGINT)
            return step(self, *steps, coming=coming)

        patch.setattr(Trainer, "step", interrupted)
        assert cli(*words, tmp_path / "run").code == 130
    resumed = cli(*words, tmp_path / "run", "--resume")
    assert resumed.code == 0, resumed.err
    assert resumed.json["weights_digest"] == whole["weights_digest"]
    assert resumed.json["pretrained"] == whole["pretrained"]


def test_a_training_begun_with_other_vectors_is_not_gone_on_with(
    cli, job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = vectors_file(tmp_path / "v.parquet", ["i7"], [[1.0] * 4])
    words = ("train", job.experiment, "--data", job.data, "--out", tmp_path / "run")
    words = (*words, "--no-tracking", "--pretrained", f"item={path}")
    with monkeypatch.context() as patch:
        patch.setattr("recsys_had.run_folder.save_file", _full)
        assert cli(*words).code == 2
    vectors_file(path, ["i7"], [[1.5] * 4])
    refused = cli(*words, "--resume")
    assert refused.code == 2
    assert "holds unfinished work. It was begun with other settings." in refused.err
    vectors_file(path, ["i7"], [[1.0] * 4])
    assert cli(*words, "--resume").code == 0


def _full(*arguments: object, **options: object) -> None:
    raise OSError(28, "No space left on device")


GOOD = [[0.5] * 4, [1.5] * 4]


@pytest.mark.parametrize(
    ("values", "vectors", "told"),
    [
        (["i1", "i2"], [[1.0] * 3] * 2, ": vectors must have the table's width, 4; got 3."),
        (["i1", "i2"], [[1.0] * 4, [1.0]], ": vectors must have the table's width, 4; got 1."),
        (["i1", "i2"], [[1.0] * 4, None], ": vectors must have the table's width, 4; got 0."),
        (
            ["i1", "i2"],
            [[1.0] * 4, [1.0, float("inf"), 0.0, 0.0]],
            ": vectors must be finite; got 1 of 2 that are not, the first of value 'i2'. "
            "Leave them out.",
        ),
        (
            ["i1", "new"],
            [[1.0, None, 0.0, 0.0], [float("nan")] * 4],
            ": vectors must be finite; got 2 of 2 that are not, the first of value 'i1'. "
            "Leave them out.",
        ),
        # Beyond what float32 holds.
        (
            ["i1", "i2"],
            [[1e300] * 4, [1.0] * 4],
            ": vectors must be finite; got 1 of 2 that are not, the first of value 'i1'. "
            "Leave them out.",
        ),
        (["i1", "i1"], GOOD, ": value 'i1' is given twice. Give it once."),
        ([None, None], GOOD, ": value null is given twice. Give it once."),
        ([1.0, 1.0], GOOD, ": value '1' is given twice. Give it once."),
        (
            ["i1", "i2"],
            [["a"], ["b"]],
            ": column vector must hold lists of numbers; got List(String).",
        ),
        (["i1", "i2"], [1.0, 2.0], ": column vector must hold lists of numbers; got Float64."),
        (
            [["i1"], ["i2"]],
            GOOD,
            ": column value must hold text or numbers; got List(String).",
        ),
    ],
)
def test_vectors_that_do_not_fit_are_refused(
    cli, job, tmp_path: Path, values: Any, vectors: Any, told: str
) -> None:
    path = vectors_file(tmp_path / "v.parquet", values, vectors)
    assert refused(cli, job, tmp_path, f"item={path}") == [f"{path}{told}"]


def test_vectors_beyond_a_half_table_are_refused(cli, job, tmp_path: Path) -> None:
    path = vectors_file(tmp_path / "v.parquet", ["i1", "i2"], [[1.0] * 4, [1e5] * 4])
    told = (
        f"{path}: vectors must be finite as float16; got 1 of 2 that are not, the first of value "
        "'i2'. Leave them out."
    )
    settings = ("train.table_precision=fp16",)
    assert refused(cli, job, tmp_path, f"item={path}", settings=settings) == [told]


def refused(
    cli: Any, job: Any, tmp_path: Path, *words: str, settings: tuple[str, ...] = ()
) -> list[str]:
    """What a training is refused with; it leaves nothing behind."""
    out = tmp_path / "refused"
    given = [part for word in words for part in ("--pretrained", word)]
    names = (job.experiment, *settings, "--data", job.data, "--out", out)
    done = cli("train", *names, "--no-tracking", *given)
    assert done.code == 2, done.err
    assert not out.exists()
    return done.err.splitlines()


def test_names_that_are_no_tables_are_refused_all_at_once(cli, job, tmp_path: Path) -> None:
    path = vectors_file(tmp_path / "v.parquet", ["i1"], [[1.0] * 4])
    bad = vectors_file(tmp_path / "bad.parquet", ["i1"], [[1.0] * 5])
    words = (f"itm={path}", f"linear.usr={path}", f"user={bad}", f"age={path}")
    assert refused(cli, job, tmp_path, *words) == [
        "--pretrained fields.itm: no such table. Did you mean 'fields.item'?",
        "--pretrained linear.usr: no such table. Did you mean 'linear.user'?",
        f"{bad}: vectors must have the table's width, 4; got 5.",
        # A numeric column has no table, though it is a field of the model.
        "--pretrained fields.age: no such table. Did you mean 'fields.tags'?",
    ]


def test_words_that_are_no_name_and_file_are_refused(cli, job, tmp_path: Path) -> None:
    words = ("item", "=x.parquet", "item=", "user=a.parquet", "fields.user=b.parquet")
    form = "must be NAME=FILE, NAME a field or SET.FIELD."
    assert refused(cli, job, tmp_path, *words) == [
        f"--pretrained item: {form}",
        f"--pretrained =x.parquet: {form}",
        f"--pretrained item=: {form}",
        "--pretrained fields.user=b.parquet: names fields.user again. Give it one file.",
    ]


def test_files_that_are_not_there_or_cannot_be_read_are_refused(
    cli, job, exported: Path, tmp_path: Path
) -> None:
    lone = tmp_path / "fields.item.safetensors"
    lone.write_bytes((exported / "fields.item.safetensors").read_bytes())
    words = (f"user={tmp_path}/nowhere.parquet", f"item={lone}", "tags=tags.csv")
    assert refused(cli, job, tmp_path, *words) == [
        f"{tmp_path}/nowhere.parquet: no such file.",
        f"{tmp_path}/item.values.parquet: no such file. It must tell the values of "
        "fields.item.safetensors; a hashed or managed field has none to tell.",
        "tags.csv: must end in .safetensors or .parquet.",
    ]
    values = tmp_path / "item.values.parquet"
    values.write_bytes((exported / "item.values.parquet").read_bytes())
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 nothing")
    (only,) = refused(cli, job, tmp_path, f"item={broken}")
    assert only.startswith(f"{broken}: cannot be read: ")
    lone.write_bytes(b"nothing")
    (only,) = refused(cli, job, tmp_path, f"item={lone}")
    assert only.startswith(f"{lone}: cannot be read: ")
    save_file({"rows": torch.zeros(11, 4)}, lone)
    assert refused(cli, job, tmp_path, f"item={lone}") == [
        f"{lone}: holds no tensor 'weight'. Give a file that `recsys-had export` wrote."
    ]
    save_file({"weight": torch.zeros(12, 4)}, lone)
    assert refused(cli, job, tmp_path, f"item={lone}") == [
        f"{values}: its ids must be those of the rows of fields.item.safetensors, (12, 4), in "
        "order. Export both again."
    ]


def test_missing_columns_and_another_width_are_refused(
    cli, job, exported: Path, tmp_path: Path
) -> None:
    path = tmp_path / "v.parquet"
    pl.DataFrame({"vectors": [[1.0]], "name": ["i1"]}).write_parquet(path)
    assert refused(cli, job, tmp_path, f"item={path}") == [
        f"{path}: has no column 'value'. Known: name, vectors.",
        f"{path}: has no column 'vector'. Did you mean 'vectors'?",
    ]
    table = exported / "linear.item.safetensors"
    assert refused(cli, job, tmp_path, f"item={table}") == [
        f"{table}: vectors must have the table's width, 4; got 1."
    ]
