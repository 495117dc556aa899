"""Scoring raw rows beside the model alone, and its memory as rows grow.

    python -P tests/benchmarks/scoring.py RUN ROWS [--rounds 3]

In alternation, in one process: ``predict_files`` from the raw file to finished parts, and the bare
forward pass of the same model over the same rows, encoded and in memory, with all of torch's
threads. Prints wall and CPU seconds, medians of the rounds and their ratios, in Markdown. Then the
peak memory of the command on these rows, and on three times as many.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from recsys_had.batch import Batch
from recsys_had.data.raw import RawSource
from recsys_had.scoring import BatchPredictor, predict_files
from recsys_had.scoring.reading import read_rows

_BATCH = 8192


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("rows", type=Path, help="raw rows, as many as are to be scored")
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    predictor = BatchPredictor.load(words.run)
    batches = list(encoded(predictor, words.rows))
    num_rows = sum(len(batch.row_id) for batch in batches)
    with tempfile.TemporaryDirectory() as folder:

        def predict() -> None:
            predict_files(predictor, [words.rows], Path(folder) / "scores", overwrite=True)

        def bare() -> None:
            with torch.inference_mode():
                for batch in batches:
                    predictor.model(batch)

        jobs: dict[str, Callable[[], None]] = {"bare forward": bare, "predict": predict}
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
        for job in jobs.values():
            job()
        for _ in range(words.rounds):
            for name, job in jobs.items():
                seen[name].append(timed(job))
        print(f"{num_rows:,} rows, {words.rounds} rounds\n\n| job | wall s | CPU s |")
        print("| --- | ---: | ---: |")
        medians = {}
        for name, found in seen.items():
            medians[name] = tuple(statistics.median(each) for each in zip(*found, strict=True))
            print(f"| {name} | {medians[name][0]:.2f} | {medians[name][1]:.2f} |")
        ratios = [a / b for a, b in zip(medians["bare forward"], medians["predict"], strict=True)]
        print(f"| bare / predict | {ratios[0]:.2f} | {ratios[1]:.2f} |\n")
        for times in (1, 3):
            inputs = [word for _ in range(times) for word in ("--input", str(words.rows))]
            command = [
                str(Path(sys.executable).with_name("recsys-had")), "predict", str(words.run),
                *inputs, "--out", str(Path(folder) / f"scores-{times}"), "--json",
            ]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            told = json.loads(done.stdout)
            peak = told["peak_rss_bytes"] / 1e6
            print(
                f"{told['rows']:,} rows: {peak:,.0f} MB at most, {told['rows_per_s']:,.0f} rows/s"
            )


def encoded(predictor: BatchPredictor, path: Path) -> list[Batch]:
    """The rows as the model reads them."""
    source = RawSource([path], predictor.run.card, label="optional")
    batches = []
    for block in source.blocks():
        rows = read_rows(block, predictor.encoder).rows
        for first in range(0, len(rows), _BATCH):
            index = np.arange(first, min(first + _BATCH, len(rows)))
            batches.append(rows.take(index).to_batch())
    return batches


def timed(job: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
