"""``recsys-had train``, ``evaluate`` and ``describe`` as a user meets them."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recsys_had.data.folder import DataFolder
from recsys_had.errors import CheckpointError
from recsys_had.run_folder import RunFolder


def test_the_report_holds_what_scripts_rely_on(job) -> None:
    trained = job.trained
    errors = {"ece", "ece_low", "ece_high", "ece_debiased"}
    block = {"auc", "logloss", "normalized_entropy", "calibration", "rows"}
    assert set(trained["valid"]) == block | errors
    assert trained["test"]["rows"] == job.ingested["rows"]["test"]
    assert trained["epochs"] == 2
    assert trained["steps"] == 2 * -(-job.ingested["rows"]["train"] // 128)
    assert trained["world_size"] == 1
    assert trained["mlflow_run_id"] is None
    assert trained["rows_per_s"] > 0
    assert len(trained["weights_digest"]) == 64
    # Clicks follow a planted pair: a model that learned nothing would stay near 0.5.
    assert trained["valid"]["auc"] > 0.6


def test_a_run_folder_holds_what_scoring_needs_and_nothing_unfinished(job) -> None:
    run = RunFolder.open(job.run)
    names = {path.name for path in job.run.iterdir()}
    assert names == {
        run.manifest["additions"]["novelty"],
        "experiment.yaml",
        "manifest.json",
        "encoder",
        "weights.safetensors",
        "metrics.json",
        "plots",
    }
    assert run.card.digest == DataFolder.open(job.data).card.digest
    assert run.manifest["weights_digest"] == job.trained["weights_digest"]


def test_evaluate_measures_what_training_reported(cli, job) -> None:
    for split in ("valid", "test"):
        found = cli("evaluate", job.run, "--data", job.data, "--split", split, "--json")
        assert found.code == 0, found.err
        expected = {**job.trained[split], "calibrated": False}
        assert found.json == pytest.approx(expected, abs=1e-6)


def test_the_same_seed_gives_the_same_weights(cli, job, tmp_path: Path) -> None:
    again = cli(
        "train",
        job.experiment,
        "--data",
        job.data,
        "--out",
        tmp_path / "run",
        "--no-tracking",
        "--json",
    )
    assert again.json["weights_digest"] == job.trained["weights_digest"]
    other = cli(
        "train",
        job.experiment,
        "--data",
        job.data,
        "--out",
        tmp_path / "other",
        "--no-tracking",
        "--json",
        "train.seed=4",
    )
    assert other.json["weights_digest"] != job.trained["weights_digest"]


def test_a_finished_run_is_kept_unless_told_otherwise(cli, job, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(job.run, run)
    words = ("train", job.experiment, "--data", job.data, "--out", run, "--no-tracking", "--json")
    refused = cli(*words)
    assert refused.code == 2
    assert "holds a finished result" in refused.err
    replaced = cli(*words, "--overwrite", "train.epochs=1")
    assert replaced.json["epochs"] == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train.learning_rat=1",), "Did you mean 'train.learning_rate'?"),
        (("train.epochs=0",), "override: train.epochs: must be at least 1; got 0."),
        (
            ("model.nodes.deep.hidden_units=[]",),
            ", with overrides: deep: mlp: hidden_units must",
        ),
    ],
)
def test_a_wrong_override_leaves_nothing_behind(
    cli, job, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    out = tmp_path / "run"
    done = cli("train", job.experiment, "--data", job.data, "--out", out, "--no-tracking", *words)
    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err
    assert not out.exists()


def test_data_of_another_card_is_refused(cli, job, tmp_path: Path) -> None:
    card = tmp_path / "other.yaml"
    card.write_text(job.card.read_text().replace("min_count: 2", "min_count: 3"))
    done = cli(
        "train",
        job.experiment,
        "--data",
        job.data,
        "--out",
        tmp_path / "run",
        "--no-tracking",
        f"dataset={card}",
    )
    assert done.code == 2
    assert "was made with another card" in done.err


def test_rows_of_one_class_cannot_be_trained_on(cli, job, tmp_path: Path) -> None:
    raw = tmp_path / "clicks.tsv"
    clicks = [line for line in job.raw.read_text().splitlines() if line.startswith("1\t")]
    raw.write_text("\n".join(clicks) + "\n")
    data, run = tmp_path / "data", tmp_path / "run"
    assert cli("ingest", job.card, "--raw", raw, "--out", data).code == 0
    done = cli("train", job.experiment, "--data", data, "--out", run, "--no-tracking")
    assert done.code == 2
    assert f"{data}/train: every label is 1, so there is nothing to learn." in done.err
    assert len(done.err.splitlines()) == 1
    assert not run.exists()


def test_a_validation_split_of_one_class_has_no_auc(cli, job, tmp_path: Path) -> None:
    clicks = tmp_path / "clicks.tsv"
    rows = [line for line in job.raw.read_text().splitlines() if line.startswith("1\t")]
    clicks.write_text("\n".join(rows[:50]) + "\n")
    data, run = tmp_path / "data", tmp_path / "run"
    made = cli(
        "ingest", job.card, "--raw", f"train={job.raw}", f"valid={clicks}", "--out", data, "--json"
    )
    assert made.code == 0, made.err
    words = ("--no-tracking", "--json", "train.monitor=logloss")
    done = cli("train", job.experiment, *words, "--data", data, "--out", run)
    assert done.code == 0, done.err
    assert done.json["valid"]["auc"] is None
    assert done.json["valid"]["logloss"] > 0
    told = cli("evaluate", run, "--data", data, "--split", "valid").out
    assert told.split()[:2] == ["auc", "undefined"]


def full(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_full_from_the_start_is_told_and_nothing_is_left(
    cli, job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr("recsys_had.training.piece_files.save_file", full)
    done = cli("train", job.experiment, "--data", job.data, "--out", run, "--no-tracking")
    assert done.code == 2
    assert f"{run}: writing failed. No space is left on the device. Free some space or" in done.err
    assert not run.exists()


def test_a_disk_full_at_the_end_keeps_the_checkpoint_and_resume_finishes(
    cli, job, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("train", job.experiment, "--data", job.data, "--out", run, "--no-tracking", "--json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_had.run_folder.save_file", full)
        done = cli(*words)
    assert done.code == 2
    assert "No space is left on the device. Free some space and add --resume" in done.err
    assert [entry.name for entry in run.iterdir()] == [".work"]
    assert "holds unfinished work. Add --resume" in cli(*words).err
    resumed = cli(*words, "--resume")
    assert resumed.code == 0, resumed.err
    assert resumed.json["weights_digest"] == job.trained["weights_digest"]


def test_a_folder_that_is_no_data_folder_is_refused(cli, job, tmp_path: Path) -> None:
    done = cli("train", job.experiment, "--data", tmp_path, "--out", tmp_path / "run")
    assert done.code == 2
    assert "is not a data folder: manifest.json is missing" in done.err


def test_fields_and_nodes_may_be_named_like_anything(cli, job, tmp_path: Path) -> None:
    """`type`, `items` and `forward` are attributes of the containers that hold tables."""
    card, raw = tmp_path / "odd.yaml", tmp_path / "odd.tsv"
    card.write_text(
        "name: odd\nformat: {type: tsv, header: false}\nsplit: {by: content_hash, ratios: "
        "{train: 0.8, valid: 0.2}}\ncolumns:\n  click: {kind: label}\n"
        + "".join(f"  {name}: {{kind: categorical}}\n" for name in ("type", "items", "forward"))
    )
    raw.write_text("".join(f"{row % 2}\ta{row % 3}\tb{row % 5}\tc{row}\n" for row in range(200)))
    experiment = tmp_path / "odd_fm.yaml"
    experiment.write_text(f"dataset: {card}\nmodel: {{embedding_dim: 4, nodes: {{fm: }}}}\n")
    data, run = tmp_path / "data", tmp_path / "run"
    assert cli("ingest", card, "--raw", raw, "--out", data).code == 0
    words = ("--no-tracking", "train.epochs=1", "--data", data, "--out", run)
    assert cli("train", experiment, *words).code == 0
    assert cli("predict", run, "--input", raw, "--out", tmp_path / "s").code == 0
    experiment.write_text(f"dataset: {card}\nmodel: {{embedding_dim: 4, nodes: {{type: fm}}}}\n")
    done = cli("train", experiment, *words[:-1], tmp_path / "other")
    assert done.code == 2
    assert "odd_fm.yaml:2: type: is a name torch keeps for itself. Rename the node." in done.err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "train.seed=99999999999999999999999",
            "override: train.seed: must be below 9223372036854775808",
        ),
        (
            "model.embedding_dim=1000000000000",
            "more than there is; the largest table is user with 21 rows",
        ),
    ],
)
def test_numbers_beyond_all_bounds_are_told(
    cli, job, tmp_path: Path, override: str, told: str
) -> None:
    words = ("--no-tracking", override, "--data", job.data, "--out", tmp_path / "run")
    done = cli("train", job.experiment, *words)
    assert done.code == 2, done.err
    assert told in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json", "encoder/card.json"])
def test_a_run_folder_without_a_file_is_refused(cli, job, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(job.run, run)
    (run / name).unlink()
    done = cli("evaluate", run, "--data", job.data)
    assert done.code == 2
    assert name.split("/")[-1] in done.err
    assert "missing" in done.err


def test_a_tampered_run_folder_is_refused(job, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(job.run, run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["weights_digest"] = "0" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"manifest\.json: was changed after training\.$"):
        RunFolder.open(run)
    shutil.copy(job.run / "manifest.json", run / "manifest.json")
    weights = bytearray((run / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (run / "weights.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: was changed after"):
        RunFolder.open(run)


def test_a_split_that_has_no_row_is_refused(cli, job) -> None:
    done = cli("evaluate", job.run, "--data", job.data, "--split", "tset")
    assert done.code == 2
    assert "has no row in split 'tset'. Did you mean 'test'?" in done.err


def test_describe_tells_shapes_parameters_and_degrees(cli, job) -> None:
    done = cli("describe", job.experiment, "--data", job.data, "--json")
    nodes = {node["name"]: node for node in done.json["nodes"]}
    # age is dense; visits, user, item, tags are tables: five fields of width 4.
    assert nodes["fm"]["input_shapes"] == [[5, 4]]
    assert nodes["linear"]["degree"] == 1
    assert nodes["fm"]["degree"] == 2
    assert nodes["deep"]["degree"] is None
    assert nodes["deep"]["parameters"] == 5 * 4 * 8 + 8 + 8
    ids = sum(job.ingested["num_embeddings"].values())
    assert done.json["parameters"] == (ids + 1) * (4 + 1) + nodes["deep"]["parameters"] + 1
    assert done.json["flops_per_row"] > sum(node["flops_per_row"] for node in nodes.values())
    outside = f"{nodes['deep']['parameters'] + 1:,}"
    told = cli("describe", job.experiment, "--data", job.data).out
    assert f"{done.json['parameters']:,} parameters, {outside} of them outside the tables; " in told
    told = cli("describe", job.experiment).out
    assert "not polynomial" in told
    assert f"{outside} parameters outside the tables (give --data to count theirs too); " in told


def test_a_dataset_that_is_not_there_is_told_where_the_experiment_names_it(
    cli, job, tmp_path: Path
) -> None:
    experiment = tmp_path / "e.yaml"
    experiment.write_text("model: {nodes: [fm]}\ndataset: shop\n")
    for words in (("train", "--data", job.data, "--out", tmp_path / "run"), ("describe",)):
        done = cli(words[0], experiment, *words[1:])
        assert done.code == 2
        assert done.err.startswith(f"{experiment}:2: dataset: no bundled dataset 'shop'. Known: ")
    assert not (tmp_path / "run").exists()


def test_an_experiment_may_name_the_card_beside_it_and_go_on_with_it(
    cli, job, tmp_path: Path
) -> None:
    (tmp_path / "card.yaml").write_text(job.card.read_text())
    experiment, run = tmp_path / "e.yaml", tmp_path / "run"
    experiment.write_text(job.experiment.read_text().replace(str(job.card), "card.yaml"))
    words = ("train", experiment, "--data", job.data, "--out", run, "--no-tracking", "--json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_had.run_folder.save_file", full)
        assert cli(*words).code == 2
    done = cli(*words, "--resume")
    assert done.code == 0, done.err
    assert done.json["weights_digest"] == job.trained["weights_digest"]
    (tmp_path / "card.yaml").unlink()
    found = cli("evaluate", run, "--data", job.data, "--json")
    assert found.json == pytest.approx({**job.trained["test"], "calibrated": False}, abs=1e-6)


def test_an_interrupted_training_exits_130_and_resumes_to_the_same_weights(
    job, tmp_path: Path
) -> None:
    """A process of its own, interrupted for real by a signal."""
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "recsys_had.pipelines.cli",
        "train",
        str(job.experiment),
        "train.epochs=20",
        "train.patience=20",
        "--data",
        str(job.data),
        "--out",
        str(out),
        "--no-tracking",
        "--json",
    ]
    whole = subprocess.run(
        [word if word != str(out) else str(tmp_path / "whole") for word in command],
        capture_output=True,
        text=True,
        check=True,
    )
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / ".work" / "state" / "checkpoint").exists():
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGINT)
    told = first.communicate(timeout=300)
    assert first.returncode == 130, told
    assert not (out / "manifest.json").exists()
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "holds unfinished work. Add --resume" in refused.stderr
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=True)
    digests = [json.loads(done.stdout)["weights_digest"] for done in (whole, resumed)]
    assert digests[0] == digests[1]
    assert not (out / ".work").exists()
