"""Modes of scoring beside the exact one: speed, error, quality and memory.

    OMP_NUM_THREADS=1 python -P tests/benchmarks/scoring_modes.py RUN ROWS [--labels] [--rounds 5]

The raw rows are encoded once. Then, in alternation, each mode scores all of them from memory, in
one lane: rows a second of wall time and of CPU, medians of the rounds, and the median of their
ratios to the exact mode's of the same round. The first round, which compiles, is not counted; what
it took is told. The error is of all rows; AUC and logloss of rows that are said to have labels.
Memory is that of a process of its own that loads the run in the mode and scores the rows: what is
its own (anonymous pages) and what are pages of files, which other processes may share. In Markdown.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys_had.batch import EncodedRows
from recsys_had.data.raw import RawSource
from recsys_had.metrics import auc, logloss
from recsys_had.scoring import BatchPredictor, Mode
from recsys_had.scoring.reading import read_rows
from recsys_had.scoring.score_error import differences

MODES = {
    "exact": Mode(),
    "bf16": Mode(precision="bf16"),
    "int8 tables": Mode(tables="int8"),
    "compiled": Mode(compile=True),
    "bf16, compiled": Mode(precision="bf16", compile=True),
    "bf16, int8 tables, compiled": Mode("bf16", "int8", compile=True),
}
_BATCH = 4096


def main() -> None:
    """Prints the table, or, as a process of its own, its memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--labels", action="store_true", help="the rows have labels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", choices=MODES, help="print a mode's memory and end")
    words = parser.parse_args()
    if words.memory_of:
        print(json.dumps(memory(words.run, words.rows, MODES[words.memory_of])))
        return
    predictors = {
        name: BatchPredictor.load(words.run, batch_size=_BATCH, num_lanes=1, mode=mode)
        for name, mode in MODES.items()
    }
    rows = encoded(predictors["exact"], words.rows, labels=words.labels)
    logits, first = {}, {}
    for name, predictor in predictors.items():
        begin = time.perf_counter()
        logits[name] = predictor.logits(rows)
        first[name] = time.perf_counter() - begin
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in MODES}
    for _ in range(words.rounds):
        for name, predictor in predictors.items():
            wall, cpu = time.perf_counter(), time.process_time()
            predictor.logits(rows)
            seen[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    print(f"{len(rows):,} rows, batches of {_BATCH:,}, {words.rounds} rounds, ", end="")
    print(f"{torch.backends.cpu.get_cpu_capability()}\n")
    print(
        "| mode | rows/s | over exact, wall | CPU | scores off by at most | mean | AUC | logloss |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    exact = predictors["exact"]
    segments, base = exact.segments(rows), exact.to_scores(logits["exact"], exact.segments(rows))
    for name, found in logits.items():
        scores = exact.to_scores(found, segments)
        apart = differences(found, logits["exact"], scores, base)
        wall = statistics.median(time_s for time_s, _ in seen[name])
        ratios = [
            statistics.median(
                mine[kind] / own[kind] for mine, own in zip(seen["exact"], seen[name], strict=True)
            )
            for kind in (0, 1)
        ]
        largest, mean = apart["largest_score_difference"], apart["mean_score_difference"]
        print(
            f"| {name} | {len(rows) / wall:,.0f} | {ratios[0]:.2f} | {ratios[1]:.2f} "
            f"| {largest:.1e} | {mean:.1e} | {quality(rows, scores, base)} |"
        )
    print("\n| mode | first pass s | tables MB | own memory MB | pages of files MB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, predictor in predictors.items():
        told = json.loads(
            subprocess.run(
                [sys.executable, "-P", __file__, words.run, words.rows, "--memory-of", name],
                check=True, capture_output=True, text=True,
            ).stdout
        )  # fmt: skip
        print(
            f"| {name} | {first[name]:.1f} | {table_bytes(predictor) / 1e6:.1f} "
            f"| {told['RssAnon'] / 1e6:.0f} | {told['RssFile'] / 1e6:.0f} |"
        )


def quality(rows: EncodedRows, scores: np.ndarray[Any, Any], base: np.ndarray[Any, Any]) -> str:
    """AUC and logloss beside the exact ones, as cells of a table."""
    if rows.label is None:
        return "- | -"
    cells = []
    for metric in (auc, logloss):
        own, exact = metric(rows.label, scores), metric(rows.label, base)
        cells.append("-" if own is None or exact is None else f"{own:.5f} ({own - exact:+.1e})")
    return " | ".join(cells)


def encoded(predictor: BatchPredictor, path: Path, *, labels: bool) -> EncodedRows:
    """All rows as the model reads them."""
    source = RawSource([path], predictor.run.card, label="required" if labels else "optional")
    blocks = [read_rows(block, predictor.encoder).rows for block in source.blocks()]
    return EncodedRows.concat(blocks)


def memory(run: Path, path: Path, mode: Mode) -> dict[str, int]:
    """Bytes this process holds after it has scored rows block by block."""
    predictor = BatchPredictor.load(run, batch_size=_BATCH, num_lanes=1, mode=mode)
    for block in RawSource([path], predictor.run.card, label="optional").blocks():
        predictor.score_rows(read_rows(block, predictor.encoder).rows)
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split() for line in lines if line.startswith("Rss")}
    return {name: 1024 * int(words[1]) for name, words in found.items()}


def table_bytes(predictor: BatchPredictor) -> int:
    """Bytes of the embedding tables."""
    tables = predictor.model.embeddings.tables
    held = [*tables.parameters(), *tables.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in held)


if __name__ == "__main__":
    main()
