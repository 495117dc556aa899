"""``recsys-had export``: every table as the run has it, and the value of each row."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recsys_had.data.encoder_files import load_encoder
from recsys_had.run_folder import file_digest

FIELDS = ("visits", "user", "item", "tags")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_every_table_is_written_as_the_run_has_it(cli, job, tmp_path: Path) -> None:
    out = tmp_path / "tables"
    done = cli("export", job.run, "--out", out, "--json")
    assert done.code == 0, done.err
    weights = load_file(job.run / "weights.safetensors")
    for set_name, width in (("fields", 4), ("linear", 1)):
        for field in FIELDS:
            found = load_file(out / f"{set_name}.{field}.safetensors")
            assert set(found) == {"weight"}
            assert found["weight"].dtype == torch.float32
            saved = weights[f"embeddings.tables.{set_name}.embedding_bags.{field}.weight"]
            assert torch.equal(found["weight"], saved)
            rows = job.ingested["num_embeddings"][field]
            assert done.json["tables"][f"{set_name}.{field}"] == {"rows": rows, "width": width}
    tables = {f"{name}.{field}.safetensors" for name in ("fields", "linear") for field in FIELDS}
    values = {f"{field}.values.parquet" for field in FIELDS}
    assert names_in(out) == {*tables, *values, "manifest.json"}


def test_values_are_those_of_the_ids(cli, job, tmp_path: Path) -> None:
    assert cli("export", job.run, "--out", tmp_path / "tables").code == 0
    encoder = load_encoder(job.run / "encoder")
    for field in FIELDS:
        frame = pl.read_parquet(tmp_path / "tables" / f"{field}.values.parquet")
        assert frame.schema == {"id": pl.Int32, "value": pl.String}
        vocabulary = dict(encoder.counts_of(field).select("id", "value").rows())
        assert frame.rows() == [(0, None), *sorted(vocabulary.items())]


def test_the_manifest_tells_whose_tables_they_are_and_guards_each_file(
    cli, job, tmp_path: Path
) -> None:
    out = tmp_path / "tables"
    assert cli("export", job.run, "--out", out).code == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kind"] == "tables"
    assert manifest["weights_digest"] == job.trained["weights_digest"]
    assert manifest["tables"]["fields.user"] == {"rows": 21, "width": 4}
    assert set(manifest["files"]) == names_in(out) - {"manifest.json"}
    assert all(file_digest(out / name) == told for name, told in manifest["files"].items())


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (("item",), {"fields.item.safetensors", "linear.item.safetensors", "item.values.parquet"}),
        (
            ("linear.user", "fields.item"),
            {"linear.user.safetensors", "user.values.parquet"}
            | {"fields.item.safetensors", "item.values.parquet"},
        ),
    ],
)
def test_some_tables_alone_are_written(
    cli, job, tmp_path: Path, names: tuple[str, ...], files: set[str]
) -> None:
    out = tmp_path / "tables"
    done = cli("export", job.run, "--out", out, "--table", *names)
    assert done.code == 0, done.err
    assert names_in(out) == {*files, "manifest.json"}
    assert done.out.splitlines()[-1] == f"tables: {out}"


def test_a_hashed_field_has_no_values(cli, job, tmp_path: Path) -> None:
    card, experiment = tmp_path / "hashed.yaml", tmp_path / "e.yaml"
    card.write_text(
        job.card.read_text().replace("{kind: categorical}", "{kind: categorical, hash_buckets: 9}")
    )
    experiment.write_text(job.experiment.read_text().replace(str(job.card), str(card)))
    data, run, out = (tmp_path / name for name in ("data", "run", "tables"))
    assert cli("ingest", card, "--raw", job.raw, "--out", data).code == 0
    words = ("--data", data, "--out", run, "--no-tracking", "train.epochs=1")
    assert cli("train", experiment, *words).code == 0
    done = cli("export", run, "--out", out, "--table", "user", "item", "--json")
    assert done.code == 0, done.err
    assert done.json["tables"]["fields.user"]["rows"] == 10
    assert "item.values.parquet" in names_in(out)
    assert "user.values.parquet" not in names_in(out)
    refused = cli(
        *("train", experiment, "--data", data, "--out", tmp_path / "other", "--no-tracking"),
        *("--pretrained", f"user={out}/fields.user.safetensors"),
    )
    assert refused.code == 2
    assert "user.values.parquet: no such file. It must tell the values of fields." in refused.err
    vectors = tmp_path / "users.parquet"
    pl.DataFrame({"value": ["u1"], "vector": [[0.0] * 4]}).write_parquet(vectors)
    refused = cli(
        *("train", experiment, "--data", data, "--out", tmp_path / "other", "--no-tracking"),
        *("--pretrained", f"user={vectors}"),
    )
    assert refused.code == 2
    assert refused.err.startswith("--pretrained fields.user: user is hashed or managed, and the")
    assert len(refused.err.splitlines()) == 1


def test_unknown_tables_are_refused_with_the_nearest_name(cli, job, tmp_path: Path) -> None:
    out = tmp_path / "tables"
    done = cli("export", job.run, "--out", out, "--table", "itm", "linear.usr", "item")
    assert done.code == 2
    assert done.err.splitlines() == [
        "--table itm: the run has no such table. Did you mean 'item'?",
        "--table linear.usr: the run has no such table. Did you mean 'linear.user'?",
    ]
    assert not out.exists()


def test_only_tables_are_replaced_and_only_if_told(cli, job, tmp_path: Path) -> None:
    out, run = tmp_path / "tables", tmp_path / "run"
    assert cli("export", job.run, "--out", out).code == 0
    words = ("export", job.run, "--out", out, "--table", "user")
    assert "holds a finished result. Add --overwrite" in cli(*words).err
    assert cli(*words, "--overwrite").code == 0
    assert "fields.item.safetensors" not in names_in(out)
    # --overwrite must not cost the run itself.
    shutil.copytree(job.run, run)
    done = cli("export", run, "--out", run, "--overwrite")
    assert done.code == 2
    assert done.err == f"{run}: holds a result that is no export. Choose another folder.\n"
    assert names_in(run) == names_in(job.run)
