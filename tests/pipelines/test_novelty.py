"""The command ``novelty``, the key ``train.novelty``, and the column beside the score."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys_had.data.folder import DataFolder
from recsys_had.errors import CheckpointError
from recsys_had.novelty import METHODS, Seen, from_text, to_text
from recsys_had.run_folder import RunFolder
from recsys_had.scoring import BatchPredictor, NoveltyColumn, fit_novelty, load_novelty
from recsys_had.scoring.novelty import fitting_of, training_rows
from tests.pipelines.conftest import Done, Job

Cli = Callable[..., Done]
FITTED = ("likelihood", "costarr", "mahalanobis")


@pytest.fixture(scope="module")
def run(job: Job, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run with every method that learns something, likelihood given last."""
    copy = tmp_path_factory.mktemp("novelty") / "run"
    shutil.copytree(job.run, copy)
    for name in FITTED[::-1]:
        done = cli("novelty", copy, "--data", job.data, "--method", name, "--json")
        assert done.code == 0, done.err
        assert done.json["method"] == name
        assert done.json["rows"] == DataFolder.open(job.data).rows("train")
    return copy


def _scores(cli: Cli, run: Path, raw: Path, out: Path, *words: object) -> pl.DataFrame:
    done = cli("predict", run, "--input", raw, "--out", out, "--json", *words)
    assert done.code == 0, done.err
    return pl.read_parquet(sorted(out.glob("part-*.parquet")))


def test_a_training_ends_with_the_default_method(job: Job, cli: Cli, tmp_path: Path) -> None:
    found = _scores(cli, job.run, job.raw, tmp_path / "s", "--novelty")
    predictor = BatchPredictor.load(job.run)
    assert load_novelty(predictor)[0] == "likelihood"
    # The command fits what the training fitted.
    text = fit_novelty(predictor, DataFolder.open(job.data), "likelihood").text(None)
    assert (
        json.loads(text)["methods"]
        == json.loads(predictor.run.addition("novelty") or "")["methods"]
    )
    assert found.columns == ["row_id", "score", "novelty"]
    assert found["novelty"].dtype == pl.Float32 and found["novelty"].std() > 0.1
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["extras"] == [["novelty", "likelihood"]]


def test_methods_that_two_commands_fit_meanwhile_are_both_kept(job: Job, tmp_path: Path) -> None:
    run = shutil.copytree(job.run, tmp_path / "run")
    predictors = [BatchPredictor.load(run) for _ in range(2)]
    fitted = [
        fit_novelty(predictor, DataFolder.open(job.data), name)
        for predictor, name in zip(predictors, ("costarr", "mahalanobis"), strict=True)
    ]
    for predictor, each in zip(predictors, fitted, strict=True):
        predictor.run.add("novelty", each.text)
    now = BatchPredictor.load(run)
    assert load_novelty(now)[0] == "mahalanobis"
    for name in ("likelihood", "costarr", "mahalanobis"):
        assert load_novelty(now, name)[0] == name


@pytest.mark.parametrize("name", METHODS)
def test_the_score_is_the_same_beside_it(
    run: Path, job: Job, cli: Cli, tmp_path: Path, name: str
) -> None:
    bare = _scores(cli, run, job.raw, tmp_path / "bare")
    found = _scores(cli, run, job.raw, tmp_path / "s", "--novelty", name)
    assert found.drop("novelty").equals(bare)
    assert found["novelty"].is_finite().all()
    if name != "unseen":
        assert found["novelty"].n_unique() > 100


@pytest.mark.parametrize("name", METHODS)
def test_batches_of_any_size_give_the_same(run: Path, job: Job, name: str) -> None:
    found = []
    for size in (1, 7, 4096):
        predictor = BatchPredictor.load(run, batch_size=size)
        rows = training_rows(predictor, DataFolder.open(job.data), 100)
        column = NoveltyColumn(predictor, load_novelty(predictor, name)[1], how=name)
        found.append(column.of(rows))
        assert len(rows) <= 100
    for other in found[:2]:
        if name in ("likelihood", "unseen"):
            assert other.tobytes() == found[2].tobytes()
        else:
            np.testing.assert_allclose(other, found[2], rtol=1e-4, atol=1e-6)


def test_unseen_values_are_counted_and_more_novel(
    run: Path, job: Job, cli: Cli, tmp_path: Path
) -> None:
    # label, age, visits, user, item, tags, session. Missing values and an empty list are seen.
    rows = [
        "1\t30\t3\tu1\ti1\tt1,t2\ta",
        "1\t\t3\t\ti1\t\ta",
        "1\t30\t3\tnobody\ti1\tt1,no,nay\ta",
    ]
    (tmp_path / "raw.tsv").write_text("\n".join(rows) + "\n")
    raw = tmp_path / "raw.tsv"
    counts = _scores(cli, run, raw, tmp_path / "counts", "--novelty", "unseen")["novelty"]
    assert counts.to_list() == [0.0, 0.0, 3.0]
    one, _, two = _scores(cli, run, raw, tmp_path / "s", "--novelty")["novelty"].to_list()
    assert two > one + 3


def test_the_method_kept_last_is_used_and_others_are_kept(
    run: Path, job: Job, cli: Cli, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    done = cli("novelty", tmp_path / "run", "--data", job.data, "--method", "costarr")
    assert done.code == 0 and "costarr fitted on" in done.out
    last = _scores(cli, tmp_path / "run", job.raw, tmp_path / "a", "--novelty")
    named = _scores(cli, tmp_path / "run", job.raw, tmp_path / "b", "--novelty", "costarr")
    other = _scores(cli, tmp_path / "run", job.raw, tmp_path / "c", "--novelty", "likelihood")
    assert last.equals(named) and not other.equals(named)


def test_option_and_values_may_stand_in_any_order(
    run: Path, job: Job, cli: Cli, tmp_path: Path
) -> None:
    words = ("predict", run, "--out", tmp_path / "s", "--novelty", "--input", job.raw, job.raw)
    done = cli(*words, "--json")
    assert done.code == 0, done.err
    assert done.json["rows"] == 6000


def test_a_run_without_it_says_what_to_do(job: Job, cli: Cli, tmp_path: Path) -> None:
    words = ("train", job.experiment, "train.novelty=none", "train.epochs=1", "--no-tracking")
    done = cli(*words, "--data", job.data, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert RunFolder.open(tmp_path / "run").addition("novelty") is None
    scored = ("predict", tmp_path / "run", "--input", job.raw, "--out", tmp_path / "s")
    done = cli(*scored, "--novelty")
    assert done.code == 2
    assert done.err.strip() == (
        f"{tmp_path}/run: was not given the statistics of novelty. Run `recsys-had novelty "
        f"{tmp_path}/run --data DATA` first."
    )
    done = cli(*scored, "--novelty", "mahalanobis")
    assert done.code == 2
    assert "--data DATA --method mahalanobis` first." in done.err
    # What learns nothing needs no statistics.
    assert cli(*scored, "--novelty", "max_probability").code == 0


def test_an_unknown_method_is_refused(job: Job, cli: Cli, tmp_path: Path) -> None:
    told = r"novelty method 'costar': is unknown. Did you mean 'costarr'?"
    done = cli("novelty", job.run, "--data", job.data, "--method", "costar")
    assert done.code == 2 and told in done.err
    done = cli("predict", job.run, "--input", job.raw, "--out", tmp_path, "--novelty", "costar")
    assert done.code == 2 and told in done.err
    words = ("train", job.experiment, "train.novelty=costar", "--data", job.data)
    done = cli(*words, "--out", tmp_path / "run", "--no-tracking")
    assert done.code == 2 and "train.novelty" in done.err


def test_a_model_without_terms_is_refused_before_it_is_trained(
    job: Job, cli: Cli, tmp_path: Path
) -> None:
    text = job.experiment.read_text()
    head = text[: text.index("  nodes:")] + (
        "  nodes:\n"
        "    largest: {formula: \"pool(flatten(fields), 'C', 'max')\"}\n"
        "train: {epochs: 1, novelty: costarr}\n"
    )
    (tmp_path / "largest.yaml").write_text(head)
    words = ("train", tmp_path / "largest.yaml", "--data", job.data, "--no-tracking")
    done = cli(*words, "--out", tmp_path / "run")
    assert done.code == 2
    assert done.err.startswith("model.nodes: largest gives the logit as a number that is no sum")
    assert not (tmp_path / "run").exists()
    done = cli(*words, "train.novelty=likelihood", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    done = cli("novelty", tmp_path / "run", "--data", job.data, "--method", "mahalanobis")
    assert done.code == 2 and "Choose a method that needs none" in done.err


def test_rows_of_another_vocabulary_are_refused(job: Job, cli: Cli, later: Path) -> None:
    done = cli("novelty", job.run, "--data", later)
    assert done.code == 2
    assert "was encoded with another vocabulary" in done.err


def test_a_job_is_not_gone_on_with_by_another_method(
    run: Path, job: Job, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = BatchPredictor.score_rows
    calls = []

    def stopped(self: BatchPredictor, *arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return before(self, *arguments, **options)  # type: ignore[arg-type]

    words = ("predict", run, "--input", job.raw, job.raw, "--out", tmp_path / "s")
    with monkeypatch.context() as patched:
        patched.setattr(BatchPredictor, "score_rows", stopped)
        assert cli(*words, "--novelty", "costarr").code == 130
    done = cli(*words, "--novelty", "likelihood", "--resume")
    assert done.code == 2
    done = cli(*words, "--novelty", "costarr", "--resume", "--json")
    assert done.code == 0, done.err
    assert done.json["rows"] == 6000


def test_what_is_kept_comes_back_to_the_bit(run: Path, job: Job) -> None:
    predictor = BatchPredictor.load(run)
    rows = training_rows(predictor, DataFolder.open(job.data), 500)
    fitting = fitting_of(predictor, rows, place="here")
    seen = next(fitting.passes(True))
    for name, kind in METHODS.items():
        method = kind.fit(fitting)
        again = from_text(to_text(name, method, rows=5), name, fitting.weights, place="there")
        assert again is not None
        assert again(seen).tobytes() == method(seen).tobytes()


DAMAGE: dict[str, Callable[[str], str]] = {
    "no JSON": lambda text: text[:-20],
    "a list": lambda text: "[]",
    "another shape": lambda text: text.replace('"shape": [2, ', '"shape": [3, ', 1),
    "a huge shape": lambda text: text.replace('"shape": [2, ', '"shape": [2000000, ', 1),
    "another kind": lambda text: text.replace('"uint8"', '"object"', 1),
    "no bytes": lambda text: text.replace('"zlib_base64": "', '"zlib_base64": "!', 1),
    "a part missing": lambda text: text.replace('"num_values"', '"other"', 1),
    "a parent beyond": lambda text: text.replace('"parents": [-1', '"parents": [99', 1),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_addition_is_refused(job: Job, tmp_path: Path, kind: str) -> None:
    shutil.copytree(job.run, tmp_path / "run")
    opened = RunFolder.open(tmp_path / "run")
    text = opened.addition("novelty") or ""
    damaged = DAMAGE[kind](text)
    assert damaged != text
    # Whole by its digest, and damaged all the same.
    opened.add("novelty", damaged)
    with pytest.raises(
        CheckpointError, match=r"novelty-\w+\.json: what was kept of novelty is dama"
    ):
        load_novelty(BatchPredictor.load(tmp_path / "run"))


def test_a_changed_file_is_refused(job: Job, cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(job.run, tmp_path / "run")
    file = tmp_path / "run" / RunFolder.open(job.run).manifest["additions"]["novelty"]
    file.write_text(file.read_text().replace("A", "B", 1))
    done = cli("predict", tmp_path / "run", "--input", job.raw, "--out", tmp_path / "s")
    assert done.code == 2 and "was changed after training" in done.err


def test_novelty_needs_no_second_pass(run: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = BatchPredictor.load(run, num_lanes=1)
    rows = training_rows(predictor, DataFolder.open(job.data), 300)
    calls = []
    embeddings = predictor.model.embeddings
    look_up = embeddings.look_up
    monkeypatch.setattr(embeddings, "look_up", lambda batch: calls.append(1) or look_up(batch))
    column = NoveltyColumn(predictor, load_novelty(predictor, "costarr")[1], how="costarr").watch(
        rows
    )
    predictor.score_rows(rows, watchers=[column])
    assert len(calls) == 1
    assert len(column.values()) == len(rows)


def test_novelty_sees_the_logit_before_anything_is_made_of_it(run: Path, job: Job) -> None:
    predictor = BatchPredictor.load(run)
    rows = training_rows(predictor, DataFolder.open(job.data), 100)
    method = load_novelty(predictor, "max_probability")[1]
    expected = 1 - torch.sigmoid(torch.from_numpy(np.abs(predictor.logits(rows)))).numpy()
    found = method(Seen(rows, predictor.logits(rows)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
