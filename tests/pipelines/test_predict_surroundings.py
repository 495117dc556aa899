"""What surrounds a prediction: the run, the folder, the disk, the user, an object store."""

import gzip
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_had.run_folder import sealed
from recsys_had.scoring import BatchPredictor
from recsys_had.store_path import StorePath
from tests.pipelines.every_kind import right_rows
from tests.pipelines.mistaken_inputs import (
    KINDS,
    ROWS,
    Predict,
    csv,
    parquet,
    table,
    told_of,
    without,
    wrong_rows,
)


def spoil_weights(run: Path) -> str:
    (run / "weights.safetensors").unlink()
    return f"{run}/weights.safetensors: is missing. Restore it or train again."


def spoil_manifest(run: Path) -> str:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "dataset": "another"}))
    return f"{run}/manifest.json: was changed after training."


def spoil_card(run: Path) -> str:
    card = run / "encoder" / "card.json"
    card.write_text(card.read_text().replace("age", "eon"))
    return f"{run}/encoder/card.json: was changed after training. Restore it."


def spoil_json(run: Path) -> str:
    (run / "manifest.json").write_bytes(b"\xff{")
    return f"{run}/manifest.json: cannot be read: "


def spoil_kind(run: Path) -> str:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(sealed({**manifest, "kind": "scores"})))
    return f"{run}: is a scores folder. Give a run folder."


@pytest.mark.parametrize(
    "spoil", [spoil_weights, spoil_manifest, spoil_card, spoil_json, spoil_kind]
)
def test_a_run_that_is_not_whole_is_refused(
    predict: Predict, kind_runs: dict[str, Path], cli: Any, spoil: Callable[[Path], str]
) -> None:
    run = predict.folder / "run"
    shutil.copytree(kind_runs["csv"], run)
    told = spoil(run)
    (predict.folder / "rows.csv").write_bytes(csv(ROWS))
    words = ("predict", run, "--input", predict.folder / "rows.csv", "--out", predict.out)
    done = cli(*words)
    assert done.err.startswith(told)
    predict.refused(done, done.err.strip("\n"))


@pytest.mark.parametrize("name", ["csv", "stream"])
def test_a_folder_that_is_not_ours_is_left_as_it_is(predict: Predict, name: str) -> None:
    kind = KINDS[name]
    predict.out.mkdir()
    (predict.out / "thesis.txt").write_text("mine")
    for words in ((), ("--overwrite",), ("--resume",)):
        done = predict(kind, kind.write(ROWS), *words)
        assert done.code == 2
        assert done.err == (
            f"{predict.out}: the output folder is not empty and holds no _SUCCESS, so it is not "
            "ours to replace. Choose another folder.\n"
        )
    assert [path.name for path in predict.out.rglob("*")] == ["thesis.txt"]


@pytest.mark.parametrize(
    "words, told",
    [
        (["--inptu", "x"], "No such option '--inptu'. Did you mean '--input'?"),
        (["--on-error", "ignore"], "'ignore' is not one of 'stop', 'reject'"),
        (["--workers", "0"], "0 is not in the range"),
        (["--batch-size", "many"], "'many' is not a valid integer"),
        (["--engine", "spark"], "'spark' is not one of 'local', 'ray'"),
    ],
)
def test_an_unknown_option_is_told(predict: Predict, words: list[str], told: str) -> None:
    done = predict(KINDS["csv"], csv(ROWS), *words)
    assert (done.code, done.out) == (2, "")
    assert told in done.err and "Traceback" not in done.err
    assert not predict.out.exists()


@contextmanager
def disk_of(size_bytes: int) -> Iterator[None]:
    """No file may become longer, as by a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["csv", "parquet", "stream"])
def test_a_full_disk_is_one_line_and_leaves_nothing(predict: Predict, name: str) -> None:
    """Wherever it happens: as many bytes are left as some file of the result needs, but one."""
    kind, words = KINDS[name], ("--on-error", "reject")
    content = kind.write(wrong_rows())
    assert predict(kind, content, *words).code == 0
    sizes = {path.name: path.stat().st_size for path in predict.out.iterdir()}
    assert sizes.keys() == {"part-00000.parquet", "rejects.parquet", "manifest.json", "_SUCCESS"}
    predict.scores()
    limits = {0, 10, *(size - 1 for size in sizes.values() if size)}
    for limit in sorted(limits):
        with disk_of(limit):
            done = predict(kind, None, *words, given=content)
        assert done.err.startswith(f"{predict.out}: ") and "\n" not in done.err.strip("\n")
        predict.refused(done, done.err.strip("\n"))
    with disk_of(max(sizes.values()) + 4096):
        assert predict(kind, None, *words, given=content).code == 0


@pytest.mark.parametrize("name", ["csv", "tsv.gz", "parquet", "stream"])
def test_an_interrupted_prediction_goes_on(predict: Predict, name: str, expected: Any) -> None:
    kind = KINDS[name]

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchPredictor, "score_rows", interrupt)
        done = predict(kind, kind.write(ROWS))
    assert (done.code, done.err) == (130, "interrupted.\n")
    assert not (predict.out / "_SUCCESS").exists()
    refused = predict(kind, kind.write(ROWS))
    assert "holds unfinished work. Add --resume, or add --overwrite" in refused.err
    if name != "stream":
        os.utime(predict.folder / kind.name, ns=(1, 1))
        other = predict(kind, kind.write(ROWS[:5]), "--resume")
        assert "It was begun with other settings." in other.err
        assert predict(kind, kind.write(ROWS), "--overwrite").code == 0
    else:
        assert predict(kind, kind.write(ROWS), "--resume").code == 0
    np.testing.assert_array_equal(predict.scores()["score"], expected)


def test_faulty_objects_of_a_store_are_told_by_url(
    predict: Predict, kind_runs: dict[str, Path], cli: Any, bucket: StorePath
) -> None:
    files = {
        "good.csv": csv(ROWS),
        "wrong.csv": csv(wrong_rows()[:3]),
        "empty.csv": b"",
        "cut.csv.gz": gzip.compress(csv(right_rows(5000)))[:-2000],
        "cut.parquet": parquet(table(ROWS))[:-50],
        "wrong.parquet": parquet(table(wrong_rows()[:3])),
        "short.csv": csv(without("user")),
    }
    for name, content in files.items():
        (predict.folder / name).write_bytes(content)
        (bucket / name).upload(predict.folder / name)
    told = {
        "nowhere.csv": ["there is no such file."],
        "x*.csv": ["no file matches the pattern."],
        "empty.csv": ["is empty. Remove it, or give the file that holds the rows."],
        "cut.csv.gz": ["cannot be decompressed to its end; the file is cut off or damaged"],
        "cut.parquet": ["is not a readable Parquet file: "],
        "short.csv": [":1: column user: is missing. Known: "],
        "wrong.csv": [f":{row + 2}: {told_of(row)}" for row in range(3)],
        "wrong.parquet": [f": row {row}: {told_of(row)}" for row in range(3)],
    }
    command = ("predict", kind_runs["csv"], "--json", "--input")
    for name, lines in told.items():
        words = (*command, bucket / name, "--out", predict.out)
        done = cli(*words)
        for got, wanted in zip(done.err.splitlines(), lines, strict=True):
            assert got.startswith(f"{bucket}/{name}") and wanted in got
        predict.refused(done, *done.err.splitlines())
        if name.startswith("wrong"):
            done = cli(*words, "--on-error", "reject")
            counts = (done.json["rows_read"], done.json["rows"], done.json["rows_rejected"])
            assert counts == (3, 0, 3)
            shutil.rmtree(predict.out)
    done = cli(*command, bucket / "good.csv", "--out", bucket / "out")
    assert done.code == 0, done.err
    assert cli(*command, bucket / "wrong.csv", "--out", bucket / "other").code == 2
    assert not [path for path in bucket.glob("**") if "other" in str(path)]
