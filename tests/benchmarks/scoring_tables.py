"""Plain torch's tables against TorchRec's and FBGEMM's, as scoring looks rows up on a CPU.

Prints one JSON object: CPU milliseconds of a batch, the median over the rounds, measured in
alternation, of the lookups alone and of FM's and DCN-V2's whole forward pass (39 fields, D 16,
batches of 8,192, tables of 50,000 rows). ``torchrec`` are its unsharded tables, as a model holds
them, ``fbgemm`` its sharded ones, FBGEMM's kernels, as training runs them on one rank, and ``int8``
plain torch's as 8-bit rows.

    OMP_NUM_THREADS=1 python -P tests/benchmarks/scoring_tables.py [--rounds 31]
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from safetensors.torch import save_file

from recsys_had.batch import Batch, EncodedRows
from recsys_had.config import ModelConfig, TrainConfig
from recsys_had.layout import Layout
from recsys_had.mapped_tensors import mapped_tensors
from recsys_had.model.ctr import CTRModel
from recsys_had.model.int8_tables import quantise_tables
from recsys_had.model.plain_tables import PLAIN
from recsys_had.model.tables import FieldSpec
from recsys_had.model.torchrec_tables import TORCHREC
from recsys_had.training.distributed import process_group
from recsys_had.training.sharding import shard
from recsys_had.versions import library_versions

NUM_FIELDS = 39
BATCH_SIZE = 8192
NUM_EMBEDDINGS = 50_000
NODES = {
    "fm": {"linear": {"layer": "linear"}, "fm": {"layer": "fm"}},
    "dcn_v2": {
        "cross": {"layer": "hadamard_cross", "num_layers": 3},
        "deep": {"layer": "mlp", "hidden_units": (400, 400, 400)},
    },
}
Forward = Callable[[Batch], object]


def batch() -> Batch:
    """Ids that are frequent as often as in a log: log-uniform."""
    generator = np.random.default_rng(0)
    drawn = generator.random((BATCH_SIZE, NUM_FIELDS))
    ids = np.floor(np.exp(drawn * np.log(NUM_EMBEDDINGS))).astype(np.int64) - 1
    fields = tuple(f"C{n}" for n in range(NUM_FIELDS))
    dense = np.empty((BATCH_SIZE, 0), np.float32)
    rows = EncodedRows(Layout(fields), np.arange(BATCH_SIZE), None, ids, {}, dense)
    return rows.to_batch()


def contenders(name: str, device: torch.device) -> dict[str, CTRModel]:
    """The same model with each kind of tables."""
    config = ModelConfig.model_validate({"embedding_dim": 16, "nodes": NODES[name]})
    fields = [FieldSpec(f"C{n}", NUM_EMBEDDINGS) for n in range(NUM_FIELDS)]
    made = {
        kind: CTRModel(
            fields=fields, dense=[], config=config, seed=1, backend=backend, tables_on=tables_on
        ).eval()
        for kind, backend, tables_on in (
            ("plain", PLAIN, "meta"),
            ("int8", PLAIN, "cpu"),
            ("torchrec", TORCHREC, "cpu"),
            ("fbgemm", TORCHREC, "cpu"),
        )
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file(made["torchrec"].export_state(), path)
        # As scoring holds them: the pages of a file.
        made["plain"].import_state(mapped_tensors(path))
    quantise_tables(made["int8"].embeddings)
    shard(made["fbgemm"], TrainConfig(), device=device)
    return made


def measured(work: dict[str, Forward], given: Batch, rounds: int) -> dict[str, float]:
    """Milliseconds of CPU, the median of each."""
    found: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, forward in work.items():
            begin = time.process_time()
            forward(given)
            found[name].append(1e3 * (time.process_time() - begin))
    return {name: round(statistics.median(times[1:]), 2) for name, times in found.items()}


def compared(models: dict[str, CTRModel], given: Batch, rounds: int) -> dict[str, object]:
    """How far logits are apart, and what they cost."""
    logits = {kind: model(given) for kind, model in models.items()}
    apart = {kind: float((x - logits["plain"]).abs().max()) for kind, x in logits.items()}
    lookups: dict[str, Forward] = {kind: model.embeddings.look_up for kind, model in models.items()}
    return {
        "int8_logit_difference": apart.pop("int8"),
        "largest_logit_difference": max(apart.values()),
        "lookups_ms": measured(lookups, given, rounds),
        "forward_ms": measured(dict(models), given, rounds),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    given = batch()
    report: dict[str, object] = {}
    with process_group() as device:
        for name in NODES:
            models = contenders(name, device)
            with torch.no_grad():
                report[name] = compared(models, given, rounds)
    print(json.dumps({**report, "versions": library_versions()}))


if __name__ == "__main__":
    main()
