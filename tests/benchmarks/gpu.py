"""What there is to know of a machine's GPUs: do the tests pass, and how fast is a training step.

Runs the tests marked ``gpu`` and counts them, then trains DCN-V2 on 26 fields (three full crosses,
a 400x3 network; log-uniform ids) in every combination of width, batch size, table optimizer and
pace, on rows that lie on the GPU already. Those of one width and batch size take turns, round by
round, so that whatever slows the machine slows all alike; the median is told, of rounds that end
when the GPU has done its work. Writes everything as JSON and prints a table.

    python tests/benchmarks/gpu.py --out docs/results/gpu.json
    torchrun --nproc-per-node 8 tests/benchmarks/gpu.py --out docs/results/gpu-8.json
    python tests/benchmarks/gpu.py --out /tmp/try.json --device cpu --steps 2 --batch-sizes 256 \
      --rows 10000                                            # tries the script out
"""

import argparse
import gc
import itertools
import json
import logging
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional

from recsys_had.batch import Batch, EncodedRows
from recsys_had.config import ModelConfig, TrainConfig
from recsys_had.layout import Layout
from recsys_had.model.ctr import CTRModel
from recsys_had.model.tables import FieldSpec
from recsys_had.model.torchrec_tables import TORCHREC
from recsys_had.training.distributed import process_group
from recsys_had.training.optimizers import Optimizers
from recsys_had.training.sharding import shard
from recsys_had.versions import library_versions

ROOT = Path(__file__).resolve().parents[2]
NUM_FIELDS = 26
WIDTHS = (16, 128)
BATCH_SIZES = (4096, 8192, 16_384, 32_768, 65_536)
OPTIMIZERS = ("rowwise_adagrad", "lazy_adam")
PACES: dict[str, dict[str, bool]] = {
    "fp32": {"half": False, "compiled": False},
    "bf16": {"half": True, "compiled": False},
    "bf16-compiled": {"half": True, "compiled": True},
}
# Steps before the first round: the allocator's, cuBLAS's and the compiler's first times.
WARM_UP = 3
# Ranks wait so long for the first, which runs the tests.
TIMEOUT_S = 7200.0
NODES = {
    "cross": {"layer": "hadamard_cross", "num_layers": 3},
    "deep": {"layer": "mlp", "hidden_units": (400, 400, 400)},
}


@dataclass(frozen=True)
class Speed:
    """One row of the table.

    Args:
        embedding_dim: width of the tables.
        batch_size: rows a rank.
        optimizer: of the tables.
        pace: precision, and whether the step is compiled.
        rows_per_s: of all ranks together, median of the rounds; None where it does not fit.
        rows_per_s_least: the slowest round's.
        rows_per_s_most: the fastest round's.
        peak_bytes: most of the first rank's GPU memory that tables, network and a step took at a
            time; None on a CPU.
    """

    embedding_dim: int
    batch_size: int
    optimizer: str
    pace: str
    rows_per_s: float | None
    rows_per_s_least: float | None
    rows_per_s_most: float | None
    peak_bytes: int | None


class Network:
    """DCN-V2 under one optimizer of its tables, which lie row-wise; stepped at any pace.

    Args:
        width: of the tables.
        num_rows: of all tables together.
        batch_size: rows a rank.
        optimizer: of the tables.
        device: this rank's.
    """

    def __init__(
        self, *, width: int, num_rows: int, batch_size: int, optimizer: str, device: torch.device
    ) -> None:
        before = _held_bytes(device)
        self._device = device
        config = TrainConfig.model_validate(
            {"embedding_optimizer": optimizer, "batch_size": batch_size, "sharding": "row_wise"}
        )
        model = CTRModel(
            fields=[FieldSpec(f"C{n}", max(2, num_rows // NUM_FIELDS)) for n in range(NUM_FIELDS)],
            dense=[],
            config=ModelConfig.model_validate({"embedding_dim": width, "nodes": NODES}),
            tables_on="meta",
            backend=TORCHREC,
        )
        self._paced = {}
        for name, pace in PACES.items():
            rows = batch_size if pace["compiled"] else None
            model.graph.train_with(compiled_rows=rows, half=pace["half"])
            self._paced[name] = model.graph._in_training
        self._graph = model.graph
        self._sharded = shard(model, config, device=device)
        self._optimizers = Optimizers(self._sharded, config, widths=model.embeddings.widths)
        self._steps = 0
        self.held_bytes = _held_bytes(device) - before

    def step(self, batch: Batch, *, pace: str) -> None:
        """One update, as a training's."""
        self._graph._in_training = self._paced[pace]
        self._optimizers.prepare(self._steps, done=0.0)
        losses = functional.binary_cross_entropy_with_logits(self._sharded(batch), batch.label)
        losses.backward()
        self._optimizers.apply([batch])
        self._steps += 1


def draw(*, batch_size: int, num_rows: int, seed: int) -> Batch:
    """Rows whose ids' logarithms are uniform: few ids are frequent, most are rare."""
    generator = np.random.default_rng(seed)
    layout = Layout(tuple(f"C{n}" for n in range(NUM_FIELDS)))
    size = max(2, num_rows // NUM_FIELDS)
    ids = np.exp(generator.uniform(0, np.log(size), (batch_size, NUM_FIELDS))).astype(np.int32)
    return EncodedRows(
        layout,
        np.arange(batch_size),
        (generator.random(batch_size) < 0.25).astype(np.float32),
        np.minimum(ids, size - 1),
        {},
        np.zeros((batch_size, 0), np.float32),
    ).to_batch()


def measure(
    words: argparse.Namespace, *, width: int, batch_size: int, device: torch.device
) -> Iterator[Speed]:
    """Every optimizer and pace at one width and batch size, in turns."""
    torch._dynamo.reset()
    batches = [
        draw(batch_size=batch_size, num_rows=words.rows, seed=4 * dist.get_rank() + n).to(device)
        for n in range(4)
    ]
    networks = {
        name: Network(
            width=width, num_rows=words.rows, batch_size=batch_size, optimizer=name, device=device
        )
        for name in OPTIMIZERS
    }
    cases = list(itertools.product(OPTIMIZERS, words.paces))
    taken: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    peak: dict[tuple[str, str], int] = dict.fromkeys(cases, 0)
    for optimizer, pace in cases:
        for n in range(WARM_UP):
            networks[optimizer].step(batches[n % 4], pace=pace)
    for _ in range(words.rounds):
        for optimizer, pace in cases:
            network = networks[optimizer]
            others = _held_bytes(device) - network.held_bytes
            _forget_peak(device)
            _wait_for_all(device)
            begin = time.perf_counter()
            for n in range(words.steps):
                network.step(batches[n % 4], pace=pace)
            _wait(device)
            taken[optimizer, pace].append(_slowest(time.perf_counter() - begin))
            peak[optimizer, pace] = max(peak[optimizer, pace], _peak_bytes(device) - others)
    rows = words.steps * batch_size * dist.get_world_size()
    for optimizer, pace in cases:
        speeds = sorted(rows / seconds for seconds in taken[optimizer, pace])
        yield Speed(
            width,
            batch_size,
            optimizer,
            pace,
            round(statistics.median(speeds)),
            round(speeds[0]),
            round(speeds[-1]),
            peak[optimizer, pace] if device.type == "cuda" else None,
        )


def measured(words: argparse.Namespace, device: torch.device) -> Iterator[Speed]:
    """Every width and batch size; what one GPU has no room for is told as such."""
    for width, batch_size in itertools.product(words.widths, words.batch_sizes):
        try:
            yield from measure(words, width=width, batch_size=batch_size, device=device)
        except torch.OutOfMemoryError:
            if dist.get_world_size() > 1:
                # The other ranks wait where this one has left.
                raise
            for optimizer, pace in itertools.product(OPTIMIZERS, words.paces):
                yield Speed(width, batch_size, optimizer, pace, None, None, None, None)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _held_bytes(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _peak_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _wait_for_all(device: torch.device) -> None:
    _wait(device)
    dist.barrier()


def _slowest(seconds: float) -> float:
    """The time of the rank that took longest."""
    most = torch.tensor(seconds, dtype=torch.float64)
    if dist.get_world_size() > 1:
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return float(most)


def run_tests() -> dict[str, int]:
    """Counts of the tests marked gpu, run in a process of its own."""
    # Torchrun's: the tests are no ranks of ours.
    launched = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(launched)}
    # The repository's folder `datasets` must not shadow a library.
    environment["PYTHONSAFEPATH"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/gpu", f"--junitxml={told}"]
        subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=False)
        if not told.is_file():
            sys.exit("pytest came to no result; what it says stands above.")
        suite = ElementTree.parse(told).getroot().find("testsuite")
    assert suite is not None
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    return {"passed": passed, "failed": failed, "skipped": counts["skipped"]}


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures are of."""
    found: dict[str, Any] = {
        "device": device.type,
        "ranks": dist.get_world_size(),
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "libraries": library_versions(),
        "commit": "".join(_said("git", "-C", str(ROOT), "rev-parse", "HEAD")) or None,
        "changed_files": len(_said("git", "-C", str(ROOT), "status", "--short")),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "gpus_of_host": torch.cuda.device_count(),
            "gpu_bytes": properties.total_memory,
            "drivers": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
            "cuda": torch.version.cuda,
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        }
    return found


def _said(*command: str) -> list[str]:
    """The lines a program prints, none where there is no such program."""
    if shutil.which(command[0]) is None:
        return []
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.splitlines()


def table(speeds: list[Speed]) -> str:
    """The figures in Markdown."""
    lines = [
        "| D | rows a batch | optimizer | pace | rows/s | rounds | GPU memory |",
        "| ---: | ---: | --- | --- | ---: | --- | ---: |",
    ]
    for one in speeds:
        speed = "does not fit" if one.rows_per_s is None else f"{one.rows_per_s:,.0f}"
        rounds = ""
        if one.rows_per_s_least is not None and one.rows_per_s_most is not None:
            rounds = f"{one.rows_per_s_least:,.0f} to {one.rows_per_s_most:,.0f}"
        memory = "" if one.peak_bytes is None else f"{one.peak_bytes / 2**30:.1f} GiB"
        lines.append(
            f"| {one.embedding_dim} | {one.batch_size:,} | {one.optimizer} | {one.pace} "
            f"| {speed} | {rounds} | {memory} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Writes the file and prints the table; ends with 1 where a test failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rows", type=int, default=10_000_000, help="of all tables together")
    told = "of the tables; if left out 16 and 128, on a CPU 16 alone"
    parser.add_argument("--widths", type=int, nargs="+", help=told)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=BATCH_SIZES)
    parser.add_argument("--paces", choices=PACES, nargs="+", default=list(PACES))
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-tests", action="store_true")
    words = parser.parse_args()
    if words.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        sys.exit("there is no GPU. --device cpu tries the script out on a CPU.")
    words.widths = words.widths or (WIDTHS if words.device == "cuda" else WIDTHS[:1])
    logging.getLogger("torchrec").setLevel(logging.ERROR)
    is_first = os.environ.get("RANK", "0") == "0"
    tests = run_tests() if is_first and not words.skip_tests else None
    with process_group(TIMEOUT_S) as device:
        speeds = []
        for one in measured(words, device):
            speeds.append(one)
            if is_first:
                print(table([one]).splitlines()[-1], file=sys.stderr, flush=True)
        found = {
            "machine": machine(device),
            "tests": tests,
            "settings": {
                "table_rows": words.rows,
                "fields": NUM_FIELDS,
                "steps": words.steps,
                "rounds": words.rounds,
                "warm_up_steps": WARM_UP,
            },
            "steps": [asdict(one) for one in speeds],
        }
    if is_first:
        words.out.parent.mkdir(parents=True, exist_ok=True)
        words.out.write_text(json.dumps(found, indent=1) + "\n")
        if tests is not None:
            told = ", ".join(f"{count} {what}" for what, count in tests.items())
            print(f"tests marked gpu: {told}\n")
        print(table(speeds))
    sys.exit(1 if tests is not None and tests["failed"] else 0)


if __name__ == "__main__":
    main()
