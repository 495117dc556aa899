"""How well each method of novelty tells shifted rows from rows like those of training.

AUROC of the novelty of shifted rows against that of held-out rows, for every method, on:

- field-shuffled: the values of each field permuted among the held-out rows, so that every value is
  as frequent as before and no two belong together;
- foreign, unseen: rows of Criteo in Frappe's schema, field by field: no value has an id;
- foreign, in range: the same rows with each value given one of the field's ids by its hash: every
  value is known, and they keep the ties among Criteo's columns;
- later: MovieLens ratings of the last fifth of the time, with a model of the four fifths before,
  against held-out rows of those. (The Avazu sample holds a single hour.)

Trains what it needs below --out, reads raw samples of RECSYS_HAD_SAMPLES, prints Markdown.

    python tests/benchmarks/novelty.py --data DATA/frappe --out build/novelty
    python tests/benchmarks/novelty.py --data DATA/frappe --overhead RUN
"""

import argparse
import csv
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import xxhash
from recsys_had.pipelines.ingest import ingest
from recsys_had.pipelines.train import train
from sklearn.metrics import roc_auc_score

from recsys_had.batch import EncodedRows
from recsys_had.bundled import datasets_dir
from recsys_had.data.folder import DataFolder, layout_of
from recsys_had.data.parquet import SplitReader
from recsys_had.novelty import METHODS, Method, fit
from recsys_had.scoring import BatchPredictor, NoveltyColumn
from recsys_had.scoring.novelty import fitting_of, training_rows

SAMPLES = Path(os.environ.get("RECSYS_HAD_SAMPLES", "samples"))
MODELS = ("dcn_v2", "deepfm")
# Enough for a model that ranks well; the published settings go on for some ten.
EPOCHS = {"frappe": 4, "movielens": 4}
MOST_ROWS = 1 << 18
SHIFTS = ("field-shuffled", "foreign, unseen", "foreign, in range", "later", "shuffled MovieLens")


def rows_of(data: DataFolder, split: str) -> EncodedRows:
    """All rows of a split."""
    return SplitReader(data.path / split, layout=layout_of(data.card), batch_size=1).every(1)


def shuffled(rows: EncodedRows, seed: int) -> EncodedRows:
    """Each field's values permuted among the rows, whole lists of several values too."""
    generator = np.random.default_rng(seed)
    ids = np.stack([generator.permutation(column) for column in rows.ids.T], axis=1)
    lists = {
        name: ragged.take(generator.permutation(len(rows))) for name, ragged in rows.lists.items()
    }
    return replace(rows, ids=ids, lists=lists)


def criteo_texts(num_fields: int) -> list[list[str]]:
    """The first columns of Criteo's categories, row by row."""
    with (SAMPLES / "criteo" / "train_head_8000.tsv").open(newline="") as file:
        return [line[14 : 14 + num_fields] for line in csv.reader(file, delimiter="\t")]


def foreign(rows: EncodedRows, num_embeddings: list[int], *, in_range: bool) -> EncodedRows:
    """Criteo's rows as rows of this schema."""
    texts = criteo_texts(rows.ids.shape[1])
    ids = np.zeros((len(texts), rows.ids.shape[1]), rows.ids.dtype)
    if in_range:
        for row, line in enumerate(texts):
            for place, (text, size) in enumerate(zip(line, num_embeddings, strict=True)):
                ids[row, place] = 1 + xxhash.xxh64_intdigest(text.encode(), seed=place) % (size - 1)
    few = rows.take(np.arange(len(texts)))
    return replace(few, ids=ids)


def auroc(column: NoveltyColumn, held_out: EncodedRows, shift: EncodedRows) -> float:
    """Of the shifted rows' novelty against the held-out ones'."""
    novelty = [column.of(held_out), column.of(shift)]
    is_shifted = np.repeat([0, 1], [len(part) for part in novelty])
    return float(roc_auc_score(is_shifted, np.concatenate(novelty)))


def fitted(
    predictor: BatchPredictor, data: DataFolder, names: Sequence[str] = tuple(METHODS)
) -> dict[str, Method]:
    """Methods on the run's training rows."""
    rows = training_rows(predictor, data, MOST_ROWS)
    fitting = fitting_of(predictor, rows, place=str(data.path))
    return {name: fit(name, fitting) for name in names}


def trained(dataset: str, model: str, seed: int, data: Path, out: Path) -> BatchPredictor:
    """A short training, unless it is there."""
    run = out / f"{dataset}_{model}_{seed}"
    if not (run / "manifest.json").is_file():
        overrides = (f"train.epochs={EPOCHS[dataset]}", f"train.seed={seed}", "train.novelty=none")
        name = f"{dataset}_{model}"
        train(name, overrides=overrides, data=data, out=run, tracking=False, overwrite=True)
    return BatchPredictor.load(run)


def movielens(out: Path) -> tuple[Path, Path]:
    """The data folder of the first four fifths of the ratings, and the raw rows of the last."""
    raw = out / "movielens_raw"
    if not (out / "movielens" / "manifest.json").is_file():
        raw.mkdir(parents=True, exist_ok=True)
        lines = (SAMPLES / "movielens" / "u.data").read_text().splitlines(keepends=True)
        lines.sort(key=lambda line: int(line.split("\t")[3]))
        cut = len(lines) * 4 // 5
        (raw / "earlier.tsv").write_text("".join(lines[:cut]))
        (raw / "later.tsv").write_text("".join(lines[cut:]))
        for name in ("u.item", "u.user"):
            (raw / name).write_bytes((SAMPLES / "movielens" / name).read_bytes())
        card = str(datasets_dir() / "movielens" / "dataset.yaml")
        ingest(card, raw=(str(raw / "earlier.tsv"),), out=out / "movielens", overwrite=True)
    return out / "movielens", raw / "later.tsv"


def compare(data: Path, out: Path, seeds: list[int]) -> str:
    """Every method on every shift, for two models and some seeds: a table."""
    frappe, (ratings, later_raw) = DataFolder.open(data), movielens(out)
    films = DataFolder.open(ratings)
    found: dict[tuple[str, str, str], list[float]] = {}

    def add(dataset: str, model: str, seed: int, data: DataFolder) -> None:
        predictor = trained(dataset, model, seed, Path(str(data.path)), out)
        held_out = rows_of(data, "valid" if dataset == "frappe" else "test")
        if dataset == "frappe":
            sizes = [data.num_embeddings[name] for name in held_out.layout.single]
            shifts = {
                "field-shuffled": shuffled(held_out, seed),
                "foreign, unseen": foreign(held_out, sizes, in_range=False),
                "foreign, in range": foreign(held_out, sizes, in_range=True),
            }
        else:
            frame = pl.read_csv(later_raw, separator="\t", has_header=False, infer_schema=False)
            raw = frame.rename(dict(zip(frame.columns, data.card.columns, strict=True)))
            shifts = {
                "later": predictor.read_frame(raw).rows,
                "shuffled MovieLens": shuffled(held_out, seed),
            }
        for name, method in fitted(predictor, data).items():
            column = NoveltyColumn(predictor, method, how=name)
            for shift, rows in shifts.items():
                value = auroc(column, held_out, rows)
                print(f"{dataset}_{model}_{seed} {shift} {name} {value:.5f}", file=sys.stderr)
                found.setdefault((shift, model, name), []).append(value)

    for seed in seeds:
        for model in MODELS:
            add("frappe", model, seed, frappe)
            add("movielens", model, seed, films)
    lines = [
        f"| shift | model | {' | '.join(METHODS)} |",
        "| --- | --- |" + " ---: |" * len(METHODS),
    ]
    for shift in SHIFTS:
        for model in MODELS:
            cells = [_cell(found[shift, model, name]) for name in METHODS]
            lines.append(f"| {shift} | {model} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    spread = (max(values) - min(values)) / 2
    return f"{statistics.mean(values):.4f} +- {spread:.4f}"


class Timed:
    """A column's watcher that takes its own CPU time.

    Args:
        column: the column.
        rows: what is to be scored.
    """

    def __init__(self, column: NoveltyColumn, rows: EncodedRows) -> None:
        self._watcher = column.watch(rows)
        self.needs_terms = self._watcher.needs_terms
        self.seconds = 0.0

    def __call__(
        self, rows: EncodedRows, logit: "np.ndarray[Any, Any]", terms: Sequence[torch.Tensor]
    ) -> None:
        """Takes a batch."""
        begin = time.process_time()
        self._watcher(rows, logit, terms)
        self.seconds += time.process_time() - begin


def overhead(run: Path, data: Path, names: list[str], rounds: int, batch_size: int) -> str:
    """CPU time of scoring encoded rows with each method's column over that without, a table.

    Encoding and files, which cost as much with a column as without, are left out.
    """
    predictor = BatchPredictor.load(run, batch_size=batch_size)
    folder = DataFolder.open(data)
    methods = fitted(predictor, folder, names)
    rows = rows_of(folder, "train").take(np.arange(min(folder.rows("train"), batch_size)))
    columns = {name: NoveltyColumn(predictor, method, how=name) for name, method in methods.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ("", *columns)}
    own: dict[str, list[float]] = {name: [] for name in columns}
    for number in range(rounds + 1):
        for name in seconds:
            watchers = [Timed(columns[name], rows)] if name else []
            begin = time.process_time()
            predictor.score_rows(rows, watchers=watchers)
            if number:
                seconds[name].append(time.process_time() - begin)
                for watcher in watchers:
                    own[name].append(watcher.seconds)
    bare = seconds.pop("")
    lines = [
        "| method | CPU ms per 1,000 rows | overhead | of that, its own computation |",
        "| --- | ---: | ---: | ---: |",
    ]
    per_1000 = 1e6 / len(rows)
    lines.append(f"| none | {statistics.median(bare) * per_1000:.2f} | | |")
    for name, times in seconds.items():
        ratio = statistics.median([one / other for one, other in zip(times, bare, strict=True)]) - 1
        alone = statistics.median(own[name]) / statistics.median(bare)
        told = f"{statistics.median(times) * per_1000:.2f} | {ratio:.1%} | {alone:.1%}"
        lines.append(f"| {name} | {told} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compares the methods, or measures what they cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="encoded Frappe, or RUN's data")
    parser.add_argument("--out", type=Path, default=Path("build/novelty"))
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--overhead", type=Path, metavar="RUN", help="measure the cost instead")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help="to be measured")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.overhead is not None:
        found = overhead(
            arguments.overhead,
            arguments.data,
            arguments.methods,
            arguments.rounds,
            arguments.batch_size,
        )
    else:
        arguments.out.mkdir(parents=True, exist_ok=True)
        found = compare(arguments.data, arguments.out, arguments.seeds)
    print(found)


if __name__ == "__main__":
    main()
