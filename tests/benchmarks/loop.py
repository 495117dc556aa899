"""Throughput of the training loop against the bare module on tensors already in memory.

Prints one JSON object: rows a second of both, measured in alternation, and their ratio. The
model is DCN-V2 on 26 fields (D 16, three full crosses, a 400x3 network, batches of 8,192). With
``--paces`` the CPU time of its steps instead, as they stand, in bfloat16, and compiled, in turn.

    python -P tests/benchmarks/loop.py [--steps 12] [--rounds 5] [--paces]
"""

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position
from recsys_had.schema import parse_card
from recsys_had.training.distributed import process_group
from recsys_had.training.loop import Trainer
from recsys_had.versions import library_versions

NUM_FIELDS = 26
BATCH_SIZE = 8192
NUM_EMBEDDINGS = 50_000
CARD = """
name: bench
format: {type: tsv, header: false}
columns:
  label: {kind: label}
  C1..C26: {kind: categorical}
split: {by: given}
"""


def experiment(**train: Any) -> Experiment:
    """DCN-V2 as the acceptance figure asks for it."""
    return Experiment.model_validate(
        {
            "dataset": "bench",
            "model": {
                "embedding_dim": 16,
                "nodes": {
                    "cross": {"layer": "hadamard_cross", "num_layers": 3},
                    "deep": {"layer": "mlp", "hidden_units": (400, 400, 400)},
                },
            },
            "train": {"regime": "scale", "batch_size": BATCH_SIZE, **train},
        }
    )


def write_data(folder: Path, num_rows: int) -> DataFolder:
    """Encoded rows with log-uniform ids, as ingestion would write them."""
    generator = np.random.default_rng(0)
    (folder / "train").mkdir(parents=True)
    columns = {
        "row_id": np.arange(num_rows),
        "label": (generator.random(num_rows) < 0.25).astype(np.float32),
    }
    for field in range(1, NUM_FIELDS + 1):
        ids = np.exp(generator.random(num_rows) * np.log(NUM_EMBEDDINGS)).astype(np.int32)
        columns[f"C{field}"] = np.minimum(ids, NUM_EMBEDDINGS - 1)
    pq.write_table(
        pa.table(columns),
        folder / "train" / "part-00000.parquet",
        compression="zstd",
        row_group_size=65_536,
    )
    card = parse_card(CARD)
    manifest = {
        "num_embeddings": {f"C{field}": NUM_EMBEDDINGS for field in range(1, NUM_FIELDS + 1)},
        "rows": {"train": num_rows},
        "card_digest": card.digest,
    }
    return DataFolder(folder, card, manifest)


PACES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fp32 compiled": {"compile": True},
    "bf16": {"precision": "bf16"},
    "bf16 compiled": {"precision": "bf16", "compile": True},
}


def paces(folder: Path, device: torch.device, *, steps: int, rounds: int) -> dict[str, Any]:
    """CPU milliseconds of a step at each pace, and how many times faster than fp32 it is."""
    data = write_data(folder / "data", steps * BATCH_SIZE)
    trainers = {
        name: Trainer(experiment=experiment(**pace), data=data, device=device, work=folder / name)
        for name, pace in PACES.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in PACES}
    in_memory = list(trainers["fp32"]._read("train", seed=0).steps(Position(0, 0)))
    for trainer in trainers.values():
        trainer.step(in_memory[0])
    for _ in range(rounds):
        for step in in_memory:
            for name, trainer in trainers.items():
                begin = time.process_time()
                trainer.step(step)
                taken[name].append(time.process_time() - begin)
    base = statistics.median(taken["fp32"])
    return {
        name: {
            "cpu_ms": round(statistics.median(times) * 1e3, 1),
            "times_faster": round(base / statistics.median(times), 2),
        }
        for name, times in taken.items()
    }


def main() -> None:
    """Alternates loop and bare module; prints medians and the ratio of paired rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--paces", action="store_true", help="precisions and compilation instead")
    arguments = parser.parse_args()
    if arguments.paces:
        with tempfile.TemporaryDirectory() as folder, process_group() as device:
            found = paces(Path(folder), device, steps=arguments.steps, rounds=arguments.rounds)
            gc.collect()
        print(json.dumps({**found, "threads": torch.get_num_threads()}))
        return
    with tempfile.TemporaryDirectory() as folder, process_group() as device:
        data = write_data(Path(folder) / "data", arguments.steps * BATCH_SIZE)
        trainer = Trainer(
            experiment=experiment(), data=data, device=device, work=Path(folder) / "work"
        )
        reader = trainer._read("train", seed=0)
        in_memory = list(reader.steps(Position(0, 0)))
        trainer.step(in_memory[0])
        loop, bare = [], []
        for epoch in range(arguments.rounds):
            begin = time.perf_counter()
            for step in reader.steps(Position(epoch, 0)):
                trainer._agree(trainer.step(step), None)
            loop.append(data.rows("train") / (time.perf_counter() - begin))
            begin = time.perf_counter()
            for step in in_memory:
                trainer.step(step)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            bare.append(data.rows("train") / (time.perf_counter() - begin))
    ratios = [ours / theirs for ours, theirs in zip(loop, bare, strict=True)]
    print(
        json.dumps(
            {
                "loop_rows_per_s": round(statistics.median(loop)),
                "in_memory_rows_per_s": round(statistics.median(bare)),
                "ratio_median": round(statistics.median(ratios), 3),
                "ratio_min": round(min(ratios), 3),
                "rounds": arguments.rounds,
                "steps": arguments.steps,
                "threads": torch.get_num_threads(),
                "torch": library_versions()["torch"],
            }
        )
    )


if __name__ == "__main__":
    main()
