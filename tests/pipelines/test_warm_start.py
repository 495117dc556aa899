"""``train --warm-start``: rows of tables go with their values, whatever ids those have now."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recsys_had.config import Experiment
from recsys_had.data.encode import Encoder
from recsys_had.data.encoder_files import load_encoder
from recsys_had.data.folder import DataFolder
from recsys_had.experiment_file import load_experiment
from recsys_had.run_folder import RunFolder
from recsys_had.training.loop import Trainer


def begun(job: Any, data: Path, device: torch.device, work: Path, **model: Any) -> tuple[Any, Any]:
    """A trainer that began with the job's run, and what was told of it."""
    experiment = load_experiment(str(job.experiment))
    settings = experiment.model.model_copy(update=model)
    experiment = Experiment(**{**dict(experiment), "model": settings})
    trainer = Trainer(experiment=experiment, data=DataFolder.open(data), device=device, work=work)
    return trainer, trainer.warm_start(RunFolder.open(job.run))


@pytest.mark.parametrize("sharding", ["table_wise", "data_parallel"])
def test_rows_go_with_their_values(
    job, later: Path, alone: torch.device, tmp_path: Path, sharding: str
) -> None:
    from recsys_had.training.pieces import gather_state

    experiment = load_experiment(str(job.experiment), (f"train.sharding={sharding}",))
    data = DataFolder.open(later)
    trainer = Trainer(experiment=experiment, data=data, device=alone, work=tmp_path)
    fresh = gather_state(trainer.sharded, trainer.model)
    told = trainer.warm_start(RunFolder.open(job.run))
    state = gather_state(trainer.sharded, trainer.model)
    assert state is not None and fresh is not None
    before = load_file(job.run / "weights.safetensors")
    old, new = load_encoder(job.run / "encoder"), load_encoder(later)
    for set_name in ("fields", "linear"):
        name = f"embeddings.tables.{set_name}.embedding_bags.user.weight"
        ids = dict(old.counts_of("user").select("value", "id").rows())
        assert torch.equal(state[name][0], before[name][0])
        for value, at in new.counts_of("user").select("value", "id").rows():
            source = before[name][ids[value]] if value in ids else fresh[name][at]
            assert torch.equal(state[name][at], source), value
        # Users 5 to 19 and id 0 stay, 20 to 24 are new, 0 to 4 gone.
        assert told["tables"][f"{set_name}.user"] == {"kept": 16, "new": 5, "gone": 5}
    assert told["fresh"] == []
    for name, tensor in before.items():
        if ".tables." not in name:
            assert torch.equal(state[name], tensor), name
    moved = [at for at in range(1, 16) if new.carried_ids("user", old)[at] != at]
    assert len(moved) > 5, "ids are others, so rows did move"


def test_what_has_another_shape_begins_anew(
    job, later: Path, alone: torch.device, tmp_path: Path
) -> None:
    _, told = begun(job, later, alone, tmp_path, embedding_dim=8)
    assert {name.rsplit(".", 2)[-2] for name in told["fresh"] if ".tables.fields." in name} == {
        *("visits", "user", "item", "tags")
    }
    assert "graph.layers.deep.lin_0.weight" in told["fresh"]
    assert "graph.bias" not in told["fresh"]
    assert set(told["tables"]) == {f"linear.{name}" for name in ("visits", "user", "item", "tags")}


def test_hashed_ids_are_carried_where_the_buckets_are_as_many() -> None:
    import polars as pl

    from recsys_had.schema import parse_card

    def encoder(buckets: int) -> Encoder:
        card = parse_card(
            "name: clicks\nformat: {type: csv}\nsplit: {by: given}\n"
            "columns:\n  click: {kind: label}\n"
            f"  C1: {{kind: categorical, hash_buckets: {buckets}}}\n"
        )
        return Encoder.fit_frame(card, pl.DataFrame({"click": [1, 0], "C1": ["a", "b"]}))

    np.testing.assert_array_equal(encoder(3).carried_ids("C1", encoder(3)), [0, 1, 2, 3])
    np.testing.assert_array_equal(encoder(3).carried_ids("C1", encoder(4)), [-1, -1, -1, -1])


def test_a_warm_start_from_the_command_line(cli, job, later: Path, tmp_path: Path) -> None:
    words = ("train", job.experiment, "--data", later, "--no-tracking", "--json")
    cold = cli(*words, "--out", tmp_path / "cold").json
    warm = cli(*words, "--out", tmp_path / "warm", "--warm-start", job.run)
    assert warm.code == 0, warm.err
    told = warm.json["warm_start"]
    assert told["run"] == str(job.run)
    assert told["tables"]["fields.user"] == {"kept": 16, "new": 5, "gone": 5}
    assert cold["warm_start"] is None
    # It knows three quarters of the users from the first.
    first, anew = (one["history"][0]["valid"]["logloss"] for one in (warm.json, cold))
    assert first < anew
    text = cli(*words[:-1], "--out", tmp_path / "text", "--warm-start", job.run).out
    assert f"begun with {job.run}: " in text
    assert " rows of tables kept, 10 new, " in text
    wrong = cli(*words, "--out", tmp_path / "wrong", "--warm-start", tmp_path / "nowhere")
    assert wrong.code == 2
    assert "nowhere: is not a run folder: manifest.json is missing." in wrong.err
