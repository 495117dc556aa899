"""``recsys-had benchmark``: models and seeds side by side, gone on with after a stop."""

import json
from pathlib import Path

import pytest

from recsys_had.data.synthetic import PlantedModel

WORDS = ("--experiments", "synthetic_lr", "synthetic_fm", "--override", "train.epochs=1")


@pytest.fixture(scope="module")
def data(cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    PlantedModel(seed=3).write_tsv(folder / "raw.tsv", 3000, seed=4)
    made = cli("ingest", "synthetic", "--raw", folder / "raw.tsv", "--out", folder / "data")
    assert made.code == 0, made.err
    return folder / "data"


@pytest.fixture(scope="module")
def report(cli, data: Path) -> Path:
    out = data.parent / "report"
    done = cli("benchmark", "synthetic", "--data", data, "--out", out, *WORDS, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == json.loads((out / "report.json").read_text())
    return out


def test_every_model_has_a_row_over_every_seed(report: Path) -> None:
    found = json.loads((report / "report.json").read_text())
    assert found["seeds"] == [1, 2]
    assert {row["experiment"] for row in found["models"]} == {"synthetic_lr", "synthetic_fm"}
    for row in found["models"]:
        aucs = [
            json.loads((report / "runs" / f"{row['experiment']}-{seed}.json").read_text())["auc"]
            for seed in (1, 2)
        ]
        assert row["seeds"] == 2
        assert row["auc_mean"] == pytest.approx(sum(aucs) / 2)
        assert aucs[0] != aucs[1]
    assert "| synthetic_fm |" in (report / "report.md").read_text()
    assert (report / "auc.png").is_file()
    assert not list((report / ".work").glob("*"))


def test_what_is_finished_is_not_trained_again(cli, data: Path, report: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (report / "runs").iterdir()}
    (report / "runs" / "synthetic_lr-2.json").unlink()
    done = cli("benchmark", "synthetic", "--data", data, "--out", report, *WORDS)
    assert done.code == 0, done.err
    assert [line for line in done.err.splitlines() if ", seed " in line] == [
        "synthetic_lr, seed 2 ..."
    ]
    for path, changed in before.items():
        assert (path.stat().st_mtime_ns == changed) == (path.name != "synthetic_lr-2.json")
    # Other settings are another result.
    again = cli("benchmark", "synthetic", "--data", data, "--out", report, *WORDS[:-1],
                "train.batch_size=1000")  # fmt: skip
    assert again.err.count(", seed ") == 4


def test_work_left_behind_does_not_stand_in_the_way(cli, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    words = ("benchmark", "synthetic", "--data", data, "--out", out, "--seeds", 1)
    words = (*words, "--experiments", "synthetic_lr", "--override", "train.epochs=1")
    with pytest.MonkeyPatch.context() as patch:
        # Killed when the run was finished and its result not yet written.
        patch.setattr("recsys_had.comparison.Measured.save", interrupt)
        assert cli(*words).code == 130
    assert list((out / ".work").glob("*/manifest.json"))
    with pytest.MonkeyPatch.context() as patch:
        # Killed in the middle, then other settings.
        patch.setattr("recsys_had.training.session.write_run_folder", interrupt)
        assert cli(*words).code == 130
    assert list((out / ".work").glob("*/.work/state/checkpoint"))
    done = cli(*words, "train.batch_size=1000")
    assert done.code == 0, done.err
    assert cli(*words).code == 0


def test_tuning_gives_every_model_the_same_number_of_trials(
    cli, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    words = ("benchmark", "synthetic", "--data", data, "--out", out, *WORDS, "--tune", 3)
    done = cli(*words, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    for row in found["models"]:
        name = row["experiment"]
        trials = {
            number: json.loads((out / "runs" / f"{name}-trial{number}.json").read_text())
            for number in range(3)
        }
        assert {trial["seed"] for trial in trials.values()}.isdisjoint(found["seeds"])
        assert len({trial["settings_digest"] for trial in trials.values()}) == 3
        best = max(trials, key=lambda number: trials[number]["auc"])
        assert (row["overrides"] == ["train.epochs=1"]) == (best == 0)
        assert row["trials"] == 3
        assert row["seeds"] == 2
    assert "Settings chosen among 3 trials each:" in (out / "report.md").read_text()
    again = cli(*words, "--json")
    assert ", trial" not in again.err
    assert json.loads(again.out) == found


def test_a_trial_that_diverges_has_lost_and_the_others_go_on(
    cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [(), ("train.learning_rate=1e30", "train.embedding_l2=0.1", "train.regime=published")]
    monkeypatch.setattr("recsys_had.tuning.trials", lambda experiment, count: given)
    out = tmp_path / "report"
    words = ("--experiments", "synthetic_fm", "--seeds", 1, "--override", "train.epochs=1")
    done = cli("benchmark", "synthetic", "--data", data, "--out", out, *words, "--tune", 2)
    assert done.code == 0, done.err
    assert "synthetic_fm, trial1: step " in done.err
    assert ": the loss is nan. " in done.err
    told = (out / "report.md").read_text()
    assert "- synthetic_fm (1 came to an end): train.epochs=1\n" in told


def test_a_seed_that_diverges_is_told_and_the_others_are_reported(
    cli, data: Path, tmp_path: Path
) -> None:
    words = ("benchmark", "synthetic", "--data", data, "--out", tmp_path / "report", "--seeds", 1)
    words = (*words, "--experiments", "synthetic_fm", "--override", "train.epochs=1")
    done = cli(*words, "train.learning_rate=1e30", "train.regime=published")
    assert done.code == 2
    assert "synthetic_fm, seed 1: " in done.err
    assert done.err.endswith("report: has no result to report: every training diverged.\n")


def test_what_is_finished_can_be_reported_without_training_the_rest(
    cli, data: Path, tmp_path: Path
) -> None:
    words = ("benchmark", "synthetic", "--data", data, *WORDS, "--seeds")
    out = ("--out", tmp_path / "report")
    assert cli(*words, 1, *out).code == 0
    done = cli(*words, 1, 3, *out, "--finished", "--json")
    assert done.code == 0, done.err
    assert [row["seeds"] for row in json.loads(done.out)["models"]] == [1, 1]
    nothing = cli(*words, 3, "--out", tmp_path / "none", "--finished")
    assert nothing.code == 2
    assert "holds no finished result of these. Run it without --finished." in nothing.err


def interrupt(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_rows_to_compare_by_are_needed(cli, data: Path, tmp_path: Path) -> None:
    raw, out = data.parent / "raw.tsv", tmp_path / "data"
    assert cli("ingest", "synthetic", "--raw", f"train={raw}", "--out", out).code == 0
    done = cli("benchmark", "synthetic", "--data", out, "--out", tmp_path / "report", *WORDS)
    assert done.code == 2
    assert "has no row in split 'valid', by which models are compared." in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("synthetik",), "synthetik: no bundled experiment is on a dataset of this name. Did you"),
        (
            ("synthetic", "--experiments", "synthetic_fn"),
            "--experiments synthetic_fn: is not one of synthetic. Did you mean 'synthetic_fm'?",
        ),
    ],
)
def test_what_is_not_bundled_is_refused(
    cli, data: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    done = cli("benchmark", *words, "--data", data, "--out", tmp_path / "report")
    assert done.code == 2
    assert told in done.err
    assert not (tmp_path / "report").exists()


def test_a_folder_it_did_not_make_is_left_alone(cli, data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = cli("benchmark", "synthetic", "--data", data, "--out", tmp_path)
    assert done.code == 2
    assert "is not empty and was not made by a benchmark." in done.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]


def test_losses_that_differ_by_their_kind_alone_are_other_results(
    cli, data: Path, tmp_path: Path
) -> None:
    words = ("benchmark", "synthetic", "--data", data, "--out", tmp_path / "report")
    words = (*words, "--experiments", "synthetic_fm", "--seeds", 1, "--override")
    aucs = []
    for kind in ("bce", "focal", "self_distillation"):
        done = cli(*words, "train.epochs=1", f"train.loss={kind}", "--json")
        assert done.code == 0, done.err
        assert "synthetic_fm, seed 1 ..." in done.err
        aucs.append(json.loads(done.out)["models"][0]["auc_mean"])
    assert len(set(aucs)) == 3
