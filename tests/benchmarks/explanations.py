"""Are the fields that are told to move a score those that do? On clicks whose law is known.

Trains FM and DCN-V2 on the demo's rows, in which six pairs of 741 are planted, and FiBiNET, which
holds two vectors for every pair, on their columns C1 to C16, where the six are of 120. It tells

- precision at 6 of `recsys-had interactions`: the share of the six strongest pairs that is planted;
- of single rows that no model has seen, by the run folder alone as `predict --explain` does:
  precision at 3 of their pairs, how often the row's truly strongest pair is among them, and the
  correlation of what a planted pair is told to move with what it does;
- the share of the three strongest pairs of a row that 12 fields of it find of what all find;
- rows a second with and without explanations.

    python tests/benchmarks/explanations.py --out /tmp/explanations
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys_had.data.folder import DataFolder
from recsys_had.data.synthetic import PlantedModel
from recsys_had.explanation import (
    Explainer,
    explainer_of_run,
    look_at_split,
    strength_of,
)
from recsys_had.scoring import BatchPredictor

SEED = 2024
CARD = """\
name: synthetic_16
format: {type: tsv, header: false}
columns:
  label: {kind: label}
  I1..I13: {kind: ignored}
  C1..C16: {kind: categorical, min_count: 2}
  C17..C26: {kind: ignored}
split: {by: content_hash, seed: 2024, ratios: {train: 0.9, valid: 0.1}}
"""
# Products of small embeddings have small gradients: it begins with larger ones.
FIBINET = """\
description: FiBiNET on synthetic.
dataset: CARD
model:
  definition: fibinet
  embedding_dim: 8
  embedding_init_std: 0.3
  nodes:
    deep: {hidden_units: [64, 32]}
train:
  regime: published
  epochs: 4
  batch_size: 512
  learning_rate: 0.003
  embedding_l2: 0.0005
  schedule: cosine
  seed: 2024
"""


def main() -> None:
    """Trains what is not trained yet, and prints one line of JSON a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--look-at", type=int, default=300, help="rows of the split, and fresh")
    parser.add_argument(
        "--models", nargs="*", default=["synthetic_fm", "synthetic_dcn_v2", "synthetic_fibinet"]
    )
    arguments = parser.parse_args()
    out: Path = arguments.out
    planted = PlantedModel(seed=SEED)
    out.mkdir(parents=True, exist_ok=True)
    fresh = planted.write_tsv(out / "fresh.tsv", arguments.look_at, seed=SEED + 2)
    truth = planted.pair_effects(fresh.categories)
    for name in arguments.models:
        data = prepare(name, out, arguments.rows)
        trained = train(name, data, out)
        found = measure(BatchPredictor.load(out / "runs" / name), data, out / "fresh.tsv", truth)
        print(json.dumps({"model": name, "valid_auc": trained, **found}), flush=True)


def prepare(name: str, out: Path, rows: int) -> DataFolder:
    """The demo's rows, encoded for a model."""
    from recsys_had.pipelines.ingest import ingest

    card, data = "synthetic", out / "data"
    if name == "synthetic_fibinet":
        (out / "synthetic_16.yaml").write_text(CARD)
        card, data = str(out / "synthetic_16.yaml"), out / "data_16"
    if not (data / "manifest.json").exists():
        PlantedModel(seed=SEED).write_tsv(out / "train.tsv", rows, seed=SEED + 1)
        ingest(card, raw=(str(out / "train.tsv"),), out=data, overwrite=True)
    return DataFolder.open(data)


def train(name: str, data: DataFolder, out: Path) -> float:
    """A model's AUC on the validation rows."""
    from recsys_had.pipelines.train import train

    run, experiment = out / "runs" / name, name
    if name == "synthetic_fibinet":
        text = FIBINET.replace("CARD", str((out / "synthetic_16.yaml").resolve()))
        (out / "synthetic_fibinet.yaml").write_text(text)
        experiment = str(out / "synthetic_fibinet.yaml")
    if not (run / "manifest.json").exists():
        train(experiment, data=data.path, out=run, overwrite=True, tracking=False)
    metrics = json.loads((run / "metrics.json").read_text())
    return round(metrics["valid"]["auc"], 4)


def measure(
    predictor: BatchPredictor, data: DataFolder, fresh: Path, truth: dict[tuple[str, str], Any]
) -> dict[str, Any]:
    """What the docstring says."""
    count = len(next(iter(truth.values())))
    baseline, sources = look_at_split(predictor, data, "valid", num_rows=count)
    every = Explainer(predictor.model, baseline)
    begin = time.perf_counter()
    of_split = every.of_sources(sources)
    seconds = time.perf_counter() - begin
    _, pairs = strength_of(every, of_split)
    k = len(truth)
    precision = np.mean([pair.fields in truth for pair in pairs[:k]])
    names = [f"I{n}" for n in range(1, 14)] + [f"C{n}" for n in range(1, 27)]
    raw = pl.read_csv(
        fresh, separator="\t", has_header=False, new_columns=["label", *names], infer_schema=False
    )
    rows = predictor.read_frame(raw).rows
    told: dict[str, Any] = {}
    for kind in ("mean", "unseen"):
        explainer = explainer_of_run(predictor, kind)
        begin = time.perf_counter()
        effects = explainer.of_rows(rows)
        told[f"rows_per_s_{kind}"] = round(count / (time.perf_counter() - begin), 1)
        told[kind] = of_rows(explainer.pair_names, effects.pair, truth)
    twelve = Explainer(predictor.model, baseline, compared=12).of_sources(sources).pair
    begin = time.perf_counter()
    predictor.score_rows(rows)
    return {
        "exact": every.is_exact,
        "precision_at_6": round(float(precision), 3),
        "weakest_planted_by_strongest_other": round(
            min(p.mean for p in pairs if p.fields in truth)
            / max(p.mean for p in pairs if p.fields not in truth),
            2,
        ),
        "mean_rest": round(float(np.abs(of_split.rest()).mean()), 4),
        "mean_move": round(float(np.abs(of_split.logit - of_split.baseline).mean()), 4),
        "rows_per_s_all_pairs": round(len(of_split.logit) / seconds, 1),
        "found_by_12_fields": round(agreement(of_split.pair, twelve), 4),
        **told,
        "threads": torch.get_num_threads(),
    }


def of_rows(
    names: list[tuple[str, str]],
    effects: NDArray[np.float64],
    truth: dict[tuple[str, str], NDArray[np.float64]],
) -> dict[str, float]:
    """Of single rows: precision at 3, how often the strongest is found, correlation."""
    top = np.argsort(-np.abs(effects), axis=1)[:, :3]
    planted = [names.index(pair) for pair in truth]
    true = np.stack(list(truth.values()), axis=1)
    strongest = np.array(planted)[np.abs(true).argmax(axis=1)]
    return {
        "precision_at_3": round(float(np.isin(top, planted).mean()), 4),
        "strongest_in_3": round(float((top == strongest[:, None]).any(axis=1).mean()), 4),
        "correlation": round(
            float(np.corrcoef(effects[:, planted].ravel(), true.ravel())[0, 1]), 4
        ),
    }


def agreement(every: NDArray[np.float64], some: NDArray[np.float64]) -> float:
    """Share of each row's three strongest pairs that are still among the three strongest."""
    tops = [np.argsort(-np.abs(x), axis=1)[:, :3] for x in (every, some)]
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(*tops, strict=True)]))


if __name__ == "__main__":
    main()
