"""``recsys-had predict --explain`` and ``recsys-had interactions``, as a user runs them."""

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_had.data.folder import DataFolder
from recsys_had.errors import ConfigError
from recsys_had.explanation import Explainer, explainer_of_run, look_at_split
from recsys_had.frame_scorer import FrameScorer
from recsys_had.scoring import BatchPredictor
from recsys_had.tracking import store_client
from tests.pipelines.test_predict import raw_frame

FIELDS = {"visits", "user", "item", "tags", "age"}


@pytest.fixture(scope="module")
def few(job, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("few") / "few.tsv"
    path.write_text("\n".join(job.raw.read_text().splitlines()[:60]) + "\n")
    return path


def table(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(part) for part in sorted(folder.glob("part-*.parquet"))])


def explained(cli, job, few, out, *words):
    done = cli("predict", job.run, "--input", few, "--out", out, "--json", "--explain", *words)
    assert done.code == 0, done.err
    return table(out)


def test_each_row_lists_what_moved_it_most(cli, job, few, tmp_path) -> None:
    found = explained(cli, job, few, tmp_path / "s", 3)
    assert found.schema.names == ["row_id", "score", "explanation"]
    assert str(found.schema.field("explanation").type) == (
        "list<element: struct<fields: list<element: string>, effect: float>>"
    )
    for listed in found["explanation"].to_pylist():
        sizes = [abs(entry["effect"]) for entry in listed]
        assert len(listed) == 3 and sizes == sorted(sizes, reverse=True)
        assert all(set(entry["fields"]) <= FIELDS for entry in listed)
        assert all(len(entry["fields"]) in (1, 2) for entry in listed)


def test_all_of_them_and_the_rest_sum_to_the_logit(cli, job, few, tmp_path) -> None:
    found = explained(cli, job, few, tmp_path / "s", 100)
    predictor = BatchPredictor.load(job.run)
    explainer = explainer_of_run(predictor)
    frame = [line.split("\t") for line in few.read_text().splitlines()]
    names = ["label", "age", "visits", "user", "item", "tags", "session"]
    raw = pl.DataFrame(frame, schema=names, orient="row")
    effects = explainer.of_rows(predictor.read_frame(raw).rows)
    listed = [sum(e["effect"] for e in row) for row in found["explanation"].to_pylist()]
    score = found["score"].to_numpy()
    logit = np.log(score) - np.log1p(-score)
    np.testing.assert_allclose(effects.logit, logit, atol=1e-5)
    np.testing.assert_allclose(listed + effects.rest() + effects.baseline, logit, atol=1e-5)


def test_the_batch_size_changes_no_number(cli, job, few, tmp_path) -> None:
    columns = [
        explained(cli, job, few, tmp_path / str(size), 4, "--batch-size", size)["explanation"]
        for size in (1, 7, 4096)
    ]
    assert columns[0].equals(columns[1]) and columns[0].equals(columns[2])


def test_another_baseline_gives_other_effects(cli, job, few, tmp_path) -> None:
    mean, other = (
        explained(cli, job, few, tmp_path / name, 3, "--baseline", name)["explanation"]
        for name in ("mean", "unseen")
    )
    assert not mean.equals(other)


@pytest.mark.parametrize("words", [("--explain", 2), ("--explain", 3, "--baseline", "unseen")])
def test_a_scoring_is_not_resumed_with_other_explanations(
    cli, job, few, tmp_path, words, monkeypatch
) -> None:
    def killed(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("recsys_had.scoring.parts.PartScorer.write", killed)
    given = ("predict", job.run, "--input", few, "--out", tmp_path / "s")
    assert cli(*given, "--explain", 3).code == 130
    monkeypatch.undo()
    refused = cli(*given, *words, "--resume")
    assert refused.code == 2
    assert cli(*given, "--explain", 3, "--resume").code == 0


@pytest.mark.parametrize("words", [("--explain", 0), ("--explain", 2, "--baseline", "median")])
def test_what_cannot_be_explained_is_refused(cli, job, few, tmp_path, words) -> None:
    done = cli("predict", job.run, "--input", few, "--out", tmp_path / "s", *words)
    assert done.code == 2
    assert words[-2] in done.err


def test_a_frame_is_explained_by_a_baseline_that_there_is(job) -> None:
    """MLflow passes any text on, where the commands have a choice."""
    score = FrameScorer(job.run)
    frame = raw_frame(job).head(2)
    with pytest.raises(ConfigError, match=r"^baseline 'unsen': is unknown\. Did you mean 'unseen'"):
        score(frame, {"explain": 2, "baseline": "unsen"})
    assert len(score(frame, {"explain": 2, "baseline": "unseen"})) == 2


def test_interactions_tells_mean_absolute_effects_the_strongest_first(cli, job, tmp_path) -> None:
    words = ("--data", job.data, "--json", "--rows", 80, "--out", tmp_path / "pairs.png")
    done = cli("interactions", job.run, *words)
    assert done.code == 0, done.err
    found = done.json
    assert (found["rows"], found["exact"], len(found["pairs"])) == (80, False, 10)
    predictor = BatchPredictor.load(job.run)
    baseline, sources = look_at_split(predictor, DataFolder.open(job.data), "valid", num_rows=80)
    explainer = Explainer(predictor.model, baseline)
    effects = explainer.of_sources(sources)
    strongest = found["pairs"][0]
    place = explainer.pair_names.index(tuple(strongest["fields"]))
    size = np.abs(effects.pair[:, place])
    assert strongest["strength"] == pytest.approx(size.mean())
    assert strongest["standard_error"] == pytest.approx(size.std(ddof=1) / 80**0.5)
    sizes = [pair["strength"] for pair in found["pairs"]]
    assert sizes == sorted(sizes, reverse=True)
    assert (tmp_path / "pairs.png").read_bytes()[1:4] == b"PNG"
    assert found["mlflow_uri"] is None
    text = cli("interactions", job.run, *words[:2], "--rows", 80).out
    assert " x ".join(strongest["fields"]) in text


def test_a_kept_mean_row_is_what_single_rows_are_compared_with(cli, job, few, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(job.run, run)
    done = cli("interactions", run, "--data", job.data, "--rows", 20, "--keep-mean", "--json")
    assert done.code == 0, done.err
    explainer = explainer_of_run(BatchPredictor.load(run))
    effects = explainer.of_rows(_first_rows(job, few))
    assert explainer.baseline.kind == "rows"
    assert effects.baseline == pytest.approx(done.json["baseline_logit"], abs=1e-12)
    before = explainer_of_run(BatchPredictor.load(job.run))
    assert before.baseline.kind == "vocabularies"
    assert before.of_rows(_first_rows(job, few)).baseline != effects.baseline


def _first_rows(job, few):
    predictor = BatchPredictor.load(job.run)
    names = ["label", "age", "visits", "user", "item", "tags", "session"]
    frame = [line.split("\t") for line in few.read_text().splitlines()[:2]]
    return predictor.read_frame(pl.DataFrame(frame, names, orient="row")).rows


@pytest.mark.slow
def test_a_picture_is_recorded_where_the_run_is(cli, job, tmp_path) -> None:
    experiment = tmp_path / "quick.yaml"
    experiment.write_text(job.experiment.read_text().replace("epochs: 2", "epochs: 1"))
    runs = tmp_path / "runs"
    for name in ("one", "two"):
        done = cli("train", experiment, "--data", job.data, "--out", runs / name, "--json")
        assert done.code == 0, done.err
        # Both in the store beside them: training sets no variable that the next one would obey.
        assert done.json["mlflow_uri"] == f"sqlite:///{runs.resolve() / 'mlflow.db'}"
        assert "MLFLOW_TRACKING_URI" not in os.environ
    words = ("--data", job.data, "--rows", 5, "--out", tmp_path / "pairs.png", "--json")
    shown = cli("interactions", runs / "two", *words)
    assert shown.json["mlflow_uri"] == done.json["mlflow_uri"], shown.err
    client = store_client(shown.json["mlflow_uri"])
    stored = {entry.path for entry in client.list_artifacts(done.json["mlflow_run_id"], "plots")}
    assert "plots/pairs.png" in stored


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--split", "tset"), "has no row in split 'tset'. Did you mean 'test'?"),
        (("--out", "pairs.svg"), "pairs.svg: must end in .png."),
        (("--out", "no/such/folder.png"), "no/such/folder.png: cannot be written"),
    ],
)
def test_interactions_refuses_what_it_cannot_do(cli, job, words, told) -> None:
    done = cli("interactions", job.run, "--data", job.data, "--rows", 2, *words)
    assert done.code == 2
    assert told in done.err


def test_interactions_refuses_rows_that_mean_something_else(cli, job, later, tmp_path) -> None:
    done = cli("interactions", job.run, "--data", later)
    assert done.code == 2
    assert "was encoded with another vocabulary" in done.err
    other = tmp_path / "other.yaml"
    other.write_text(job.card.read_text().replace("name: shop", "name: other\ndescription: x"))
    cli("ingest", other, "--raw", job.raw, "--out", tmp_path / "data")
    done = cli("interactions", job.run, "--data", tmp_path / "data")
    assert done.code == 2
    assert "was made with another card" in done.err


def test_a_model_of_one_field_is_refused_with_the_reason(cli, job, tmp_path) -> None:
    experiment = tmp_path / "one.yaml"
    experiment.write_text(
        f"dataset: {job.card}\nmodel:\n  tables: {{own: {{fields: [user]}}}}\n  nodes:\n"
        "    one: {formula: 'lin(flatten(own), out=1)', inputs: [own]}\n"
        "train: {epochs: 1, batch_size: 512}\n"
    )
    words = ("--data", job.data, "--out", tmp_path / "run", "--no-tracking")
    trained = cli("train", experiment, *words)
    assert trained.code == 0, trained.err
    done = cli("interactions", tmp_path / "run", "--data", job.data)
    assert done.code == 2
    assert "reads one field alone, user" in done.err
