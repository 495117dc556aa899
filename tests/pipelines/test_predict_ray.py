"""``recsys-had predict --engine ray``: the same parts as one process writes, to the byte."""

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recsys_had.engines import ray_tasks
from recsys_had.errors import CheckpointError, DataError
from recsys_had.scoring import BatchPredictor, predict_files
from recsys_had.whole_files import file_digest
from tests.ingestion.test_ray import processes_with
from tests.pipelines.conftest import Job
from tests.pipelines.test_predict import raw_frame

for name, value in ray_tasks.SETTINGS.items():
    os.environ.setdefault(name, value)
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'recsys_had[ray]'")

# Workers import torch, on a cluster that is begun for this file.
pytestmark = pytest.mark.slow

BLOCK_BYTES = 10_000


@pytest.fixture(scope="module")
def predictor(job: Job) -> BatchPredictor:
    return BatchPredictor.load(job.run)


def parts_of(folder: Path) -> dict[str, str]:
    """Every file but the manifest, by its digest."""
    return {
        path.name: file_digest(path) for path in folder.iterdir() if path.name != "manifest.json"
    }


def test_ray_writes_the_bytes_of_one_process(
    job: Job, predictor: BatchPredictor, cluster: None, tmp_path: Path
) -> None:
    """Of a plain file, read where it is scored, and of a compressed one with wrong rows."""
    lines = job.raw.read_text().splitlines()
    lines[7], lines[2500] = "1\t2", "0\told" + lines[2500][lines[2500].index("\t") :]
    zipped = tmp_path / "zipped.tsv.gz"
    zipped.write_bytes(gzip.compress("\n".join(lines).encode()))
    for source, rejected in ((job.raw, 0), (zipped, 2)):
        reports, digests = [], []
        for engine in ("local", "ray"):
            out = tmp_path / f"{engine}-{rejected}"
            report = predict_files(
                predictor,
                [source],
                out,
                keep=["user"],
                engine=engine,  # type: ignore[arg-type]
                num_workers=1 if engine == "local" else 2,
                on_error="reject",
                block_bytes=BLOCK_BYTES,
            )
            assert len(report.parts) > 5
            assert (report.rows_read, report.rows_rejected) == (3000, rejected)
            reports.append((report.digest, report.parts, report.oov))
            digests.append(parts_of(out))
        assert reports[0] == reports[1]
        assert digests[0] == digests[1]
        assert ("rejects.parquet" in digests[1]) == bool(rejected)


def test_the_command_scores_a_stream_on_ray(
    cli: Any, job: Job, predictor: BatchPredictor, cluster: None, tmp_path: Path
) -> None:
    table = pa.Table.from_pandas(raw_frame(job), preserve_index=False)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=250)
    words = ("predict", job.run, "--out", tmp_path / "ray", "--engine", "ray", "--json", "--input")
    done = cli(*words, "-", given=sink.getvalue())
    assert done.code == 0, done.err
    local = cli("predict", job.run, "--input", "-", "--out", tmp_path / "local", "--json",
                given=sink.getvalue())  # fmt: skip
    assert done.json["digest"] == local.json["digest"]
    assert parts_of(tmp_path / "ray") == parts_of(tmp_path / "local")


def test_wrong_rows_are_told_as_one_process_tells_them(
    job: Job, predictor: BatchPredictor, cluster: None, tmp_path: Path
) -> None:
    raw = tmp_path / "wrong.tsv"
    raw.write_text(job.raw.read_text() + "1\told\t3\tu1\ti1\tt1\ts\n" + "1\t2\n" * 30)
    told = []
    for engine in ("local", "ray"):
        with pytest.raises(DataError) as error:
            predict_files(predictor, [raw], tmp_path / "s", engine=engine, num_workers=1)  # type: ignore[arg-type]
        told.append((error.value.problems, error.value.total))
        assert not (tmp_path / "s").exists()
    lines = [f"{raw}:{3002 + row}: holds 2 columns; 7 are expected." for row in range(20)]
    assert told == [(tuple(lines), 30)] * 2


def test_a_run_that_is_another_meanwhile_is_told(job: Job, cluster: None, tmp_path: Path) -> None:
    """Workers load the run by its path: what was looked at must still lie there."""
    shutil.copytree(job.run, tmp_path / "run")
    predictor = BatchPredictor.load(tmp_path / "run")
    predictor.run.add("note", "another")
    with pytest.raises(CheckpointError, match=r"was changed while it was used\. Run it again\.$"):
        predict_files(predictor, [job.raw], tmp_path / "s", engine="ray", num_workers=1)


PROGRAM = f"""
import sys
from pathlib import Path
from recsys_had.scoring import BatchPredictor, predict_files

if __name__ == "__main__":
    predict_files(
        BatchPredictor.load(sys.argv[1]), [sys.argv[2]], Path(sys.argv[3]),
        keep=["user"], engine="ray", num_workers=2, block_bytes={BLOCK_BYTES // 4},
    )
"""


@pytest.mark.parametrize("resumed_by", ["ray", "local"])
def test_a_scoring_on_ray_that_was_killed_goes_on_and_ends_the_same(
    job: Job, predictor: BatchPredictor, tmp_path: Path, resumed_by: str
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    raw, out = tmp_path / "raw.tsv", tmp_path / "scores"
    raw.write_text(job.raw.read_text() * 4)
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        environment = {name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"}
        process = subprocess.Popen(
            [sys.executable, *map(str, [tmp_path / "program.py", job.run, raw, out])],
            env={**environment, "RAY_TMPDIR": folder},
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 240
        while len(list(out.glob(".work/state/part-*.json"))) < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=300)
        while processes_with(folder):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not (out / "_SUCCESS").exists()
        kept = {path.name: path.stat().st_mtime_ns for path in out.glob(".work/publish/part-*.pa*")}
        notes = [json.loads(path.read_text()) for path in out.glob(".work/state/part-*.json")]
        options: dict[str, Any] = {"keep": ["user"], "block_bytes": BLOCK_BYTES // 4}
        predict_files(
            predictor,
            [raw],
            out,
            engine=resumed_by,  # type: ignore[arg-type]
            num_workers=1 if resumed_by == "local" else 2,
            resume=True,
            **options,
        )
    again = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert all(again[note["name"]] == kept[note["name"]] for note in notes)
    assert len(notes) >= 5 and len(again) > len(notes)
    predict_files(predictor, [raw], tmp_path / "whole", **options)
    assert parts_of(out) == parts_of(tmp_path / "whole")
