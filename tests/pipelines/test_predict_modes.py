"""``recsys-had predict`` in modes that are not exact: what is told of their error is true."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from recsys_had.data.folder import DataFolder
from recsys_had.errors import CheckpointError, DataError
from recsys_had.explanation import explainer_of_run
from recsys_had.model.int8_tables import Int8Tables, quantised
from recsys_had.run_folder import RunFolder
from recsys_had.scoring import (
    BatchPredictor,
    MakeNovelty,
    Mode,
    error_of_drawn_rows,
    fit_novelty,
    predict_files,
    score_error,
)
from recsys_had.scoring.novelty import ADDITION
from tests.pipelines.conftest import Job
from tests.pipelines.test_predict import raw_frame, scores_of
from tests.training.compiler import needs_compiler

BOTH = ("--precision", "bf16", "--tables", "int8")
MODE = {"precision": "bf16", "tables": "int8", "compile": False}
# Parts of some 250 rows.
BLOCK_BYTES = 8000
KEYS = {
    *("largest_score_difference", "mean_score_difference", "rows"),
    *("largest_logit_difference", "mean_logit_difference", "rows_not_finite"),
}


@pytest.fixture(scope="module")
def exact(job: Job) -> np.ndarray[Any, Any]:
    """The exact scores of the raw rows."""
    return BatchPredictor.load(job.run).score_frame(raw_frame(job))


def measured(found: pd.Series, exact: np.ndarray[Any, Any], rows: int) -> dict[str, float]:
    """Differences, from scores alone: the run has no calibrator, so a logit is ln(p / (1 - p))."""
    one, two = (np.asarray(x, np.float64)[:rows] for x in (found, exact))
    apart, logits = np.abs(one - two), np.abs(np.log(one / (1 - one)) - np.log(two / (1 - two)))
    return {
        "largest_score_difference": apart.max(),
        "mean_score_difference": apart.mean(),
        "largest_logit_difference": logits.max(),
        "mean_logit_difference": logits.mean(),
    }


def require_true(told: dict[str, Any], expected: dict[str, float], rows: int) -> None:
    assert set(told) == KEYS
    assert (told["rows"], told["rows_not_finite"]) == (rows, 0)
    for name, value in expected.items():
        # Scores as the manifest's; logits are found anew, from float32 scores.
        rel = 1e-9 if "score" in name else 1e-2
        assert told[name] == pytest.approx(value, rel=rel, abs=1e-15 if rel < 1e-6 else 1e-6), name
        assert value > 0


def test_the_command_tells_the_mode_and_its_error(cli, job: Job, exact, tmp_path: Path) -> None:
    out = tmp_path / "s"
    done = cli("predict", job.run, "--input", job.raw, "--out", out, "--json", *BOTH)
    assert done.code == 0, done.err
    scores = scores_of(out)["score"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert done.json["mode"] == manifest["mode"] == MODE
    assert done.json["score_error"] == manifest["score_error"]
    assert all("score_error" not in part for part in manifest["parts"])
    require_true(done.json["score_error"], measured(scores, exact, 3000), 3000)
    # Near, and not the same.
    assert 0 < np.abs(scores - exact).max() < 0.01
    told = cli("predict", job.run, "--input", job.raw, "--out", out, "--overwrite", *BOTH)
    error = done.json["score_error"]
    assert told.out.splitlines()[-1].startswith(
        "mode bf16, int8 tables: scores differ from the exact ones by "
        f"{error['largest_score_difference']:.2g} at most, "
    )
    assert told.out.splitlines()[-1].endswith("measured on the first 3,000 rows")


def test_the_exact_mode_is_told_and_has_no_error(cli, job: Job, exact, tmp_path: Path) -> None:
    done = cli("predict", job.run, "--input", job.raw, "--out", tmp_path / "s", "--json")
    assert done.json["mode"] == {"precision": "fp32", "tables": "saved", "compile": False}
    assert done.json["score_error"] is None
    np.testing.assert_array_equal(scores_of(tmp_path / "s")["score"], exact)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_is_that_of_the_first_part_by_any_workers(
    job: Job, exact: Any, tmp_path: Path, workers: int
) -> None:
    predictor = BatchPredictor.load(job.run, mode=Mode("bf16", "int8"))
    report = predict_files(
        predictor, [job.raw], tmp_path / "s", num_workers=workers, block_bytes=BLOCK_BYTES
    )
    assert len(report.parts) > 5
    scores = scores_of(tmp_path / "s")["score"]
    first = len(pl.read_parquet(tmp_path / "s" / report.parts[0]))
    assert first < 1000 and report.score_error is not None
    require_true(report.score_error, measured(scores, exact, first), first)
    # The same scores by any workers: those of one predictor.
    table = pl.read_csv(job.raw, separator="\t", has_header=False, infer_schema=False)
    names = ["label", "age", "visits", "user", "item", "tags", "session"]
    frame = table.rename(dict(zip(table.columns, names, strict=True)))[:first]
    np.testing.assert_array_equal(
        scores[:first], predictor.score_frame(frame.with_columns(pl.all().replace("", None)))
    )


def stopped(predictor: BatchPredictor, job: Job, out: Path, monkeypatch: Any) -> None:
    """Leaves unfinished work: some parts are written, then the process is interrupted."""
    calls, before = [], BatchPredictor.score_rows

    def some(self: BatchPredictor, *words: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return before(self, *words, **named)

    monkeypatch.setattr(BatchPredictor, "score_rows", some)
    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor, [job.raw], out, block_bytes=BLOCK_BYTES)
    monkeypatch.undo()
    assert (out / ".work" / "state" / "part-00000.json").is_file()


def test_a_resumed_job_tells_the_error_without_measuring_it_again(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = BatchPredictor.load(job.run, mode=Mode(precision="bf16"))
    whole = predict_files(predictor, [job.raw], tmp_path / "w", block_bytes=BLOCK_BYTES)
    out = tmp_path / "s"
    stopped(predictor, job, out, monkeypatch)

    def never(self: BatchPredictor) -> BatchPredictor:
        raise AssertionError

    monkeypatch.setattr(BatchPredictor, "exact", never)
    again = predict_files(predictor, [job.raw], out, resume=True, block_bytes=BLOCK_BYTES)
    assert again.score_error == whole.score_error is not None
    assert again.digest == whole.digest


def test_a_job_is_not_resumed_in_another_mode(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "s"
    stopped(BatchPredictor.load(job.run), job, out, monkeypatch)
    other = BatchPredictor.load(job.run, mode=Mode(tables="int8"))
    with pytest.raises(DataError, match=r"holds unfinished work\. It was begun with other settin"):
        predict_files(other, [job.raw], out, resume=True, block_bytes=BLOCK_BYTES)


def test_no_row_has_no_error(cli, job: Job, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.tsv"
    wrong.write_text("1\told\t3\tu1\ti1\tt1\ts\n")
    words = ("--input", wrong, "--out", tmp_path / "s", "--on-error", "reject", *BOTH)
    done = cli("predict", job.run, *words, "--json")
    assert done.code == 0, done.err
    error = done.json["score_error"]
    assert error["rows"] == 0 and error["largest_score_difference"] is None
    done = cli("predict", job.run, *words, "--overwrite")
    assert done.out.splitlines()[-1] == "mode bf16, int8 tables: no row to measure its error by"


def test_a_run_that_is_another_meanwhile_is_no_measure(job: Job, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(job.run, run)
    predictor = BatchPredictor.load(run, mode=Mode(tables="int8"))
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "weights_digest": "other"}))
    with pytest.raises(CheckpointError, match=r"run: was changed while it was used\."):
        score_error(predictor, predictor.read_frame(pl.from_pandas(raw_frame(job)[:5])).rows)


def test_without_a_compiler_the_command_says_what_to_do(
    cli, job: Job, tmp_path: Path, no_compiler: None
) -> None:
    done = cli("predict", job.run, "--input", job.raw, "--out", tmp_path / "s", "--compile")
    told = "--compile: there is no C++ compiler. Install g++, or leave the option out."
    assert done.code != 0 and told in done.err and "Traceback" not in done.err
    assert not (tmp_path / "s").exists()


@needs_compiler
@pytest.mark.slow
def test_compiled_jobs_score_as_others_do_by_any_workers(
    cli, job: Job, exact: Any, tmp_path: Path
) -> None:
    found = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        words = ("--compile", "--batch-size", 1000, "--workers", workers, "--json")
        done = cli("predict", job.run, "--input", job.raw, "--out", out, *words)
        assert done.code == 0, done.err
        assert done.json["mode"] == {"precision": "fp32", "tables": "saved", "compile": True}
        assert done.json["score_error"]["largest_score_difference"] < 1e-6
        found.append(scores_of(out)["score"])
    np.testing.assert_allclose(found[0], exact, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found[0], found[1])


def test_novelty_and_explanations_of_half_precision(job: Job, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(job.run, run)
    plain = BatchPredictor.load(run)
    plain.run.add(ADDITION, fit_novelty(plain, DataFolder.open(job.data), "costarr").text)
    plain, half = BatchPredictor.load(run), BatchPredictor.load(run, mode=Mode("bf16"))
    rows = plain.read_frame(pl.from_pandas(raw_frame(job)[:300])).rows
    novelty, near = (MakeNovelty()(p).of(rows) for p in (plain, half))
    assert near.dtype == np.float32
    np.testing.assert_allclose(near, novelty, rtol=0.05)
    # The pass that gives terms gives the same logits.
    watched: list[np.ndarray[Any, Any]] = []

    class Watch:
        needs_terms = True

        def __call__(self, rows: Any, logit: np.ndarray[Any, Any], terms: Any) -> None:
            assert all(term.dtype == torch.float32 for term in terms)
            watched.append(logit)

    half.logits(rows, watchers=[Watch()])
    np.testing.assert_array_equal(np.concatenate(watched), half.logits(rows))
    # Effects are differences: they are those of the exact model, to the last digit.
    effects, told = (explainer_of_run(p).of_rows(rows.take(np.arange(20))) for p in (half, plain))
    np.testing.assert_array_equal(effects.pair, told.pair)


def test_int8_tables_are_explained_as_they_are_scored(job: Job) -> None:
    predictor = BatchPredictor.load(job.run, mode=Mode(tables="int8"))
    rows = predictor.read_frame(pl.from_pandas(raw_frame(job)[:20])).rows
    effects = explainer_of_run(predictor).of_rows(rows)
    np.testing.assert_allclose(effects.logit, predictor.logits(rows), rtol=0, atol=1e-5)


def test_rows_drawn_at_random_measure_a_mode_too(job: Job) -> None:
    found = error_of_drawn_rows(BatchPredictor.load(job.run, mode=Mode(precision="bf16")))
    assert found["rows"] == 4096 and 0 < found["mean_score_difference"] < 0.01
    assert found["mean_score_difference"] < found["largest_score_difference"] < 0.05


def test_tables_saved_in_half_precision_become_8_bit_ones(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = RunFolder.weights

    def halved(self: RunFolder) -> dict[str, torch.Tensor]:
        found = before(self)
        return {name: w.half() if ".tables." in name else w for name, w in found.items()}

    monkeypatch.setattr(RunFolder, "weights", halved)
    predictor = BatchPredictor.load(job.run, mode=Mode(tables="int8"))
    tables = predictor.model.embeddings.tables["fields"]
    assert isinstance(tables, Int8Tables)
    name = "embeddings.tables.fields.embedding_bags.item.weight"
    expected = quantised(halved(predictor.run)[name])
    place = [field.name for field in predictor.model.embeddings.fields].index("item")
    first = int(tables.firsts[place])
    assert torch.equal(tables.packed[first : first + len(expected)], expected)
    found = score_error(predictor, predictor.read_frame(pl.from_pandas(raw_frame(job))).rows)
    assert 0 < found["largest_score_difference"] < 0.01
