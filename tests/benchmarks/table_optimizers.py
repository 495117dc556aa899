"""CPU time of a step of embedding tables by their optimizer: lookup, backward pass, update.

26 tables of 10 million rows together, log-uniform ids, one thread. The optimizers take turns, so
that a noisy machine slows all alike; what is told is the median and its ratio to the fused row-wise
Adagrad's. Dense Adam, which reads every row at every step, is asked for with ``--dense``.

    python tests/benchmarks/table_optimizers.py
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The processor's time is told: that of a GPU's steps would not be seen.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import torch

from recsys_had.batch import EncodedRows
from recsys_had.config import ModelConfig, TrainConfig
from recsys_had.layout import Layout
from recsys_had.model.ctr import CTRModel
from recsys_had.model.tables import FieldSpec
from recsys_had.model.torchrec_tables import TORCHREC
from recsys_had.training.distributed import process_group
from recsys_had.training.optimizers import Optimizers
from recsys_had.training.sharding import shard

NUM_FIELDS = 26
OPTIMIZERS = ("rowwise_adagrad", "adagrad", "lazy_adam")


def tables(optimizer: str, *, num_rows: int, width: int, device: torch.device) -> "Tables":
    """The sharded tables with their optimizer."""
    regime = "published" if optimizer == "adam" else "scale"
    config = TrainConfig.model_validate({"regime": regime, "embedding_optimizer": optimizer})
    model = CTRModel(
        fields=[FieldSpec(f"C{n}", num_rows // NUM_FIELDS) for n in range(NUM_FIELDS)],
        dense=[],
        config=ModelConfig.model_validate(
            {"embedding_dim": width, "nodes": {"fm": {"layer": "fm"}}, "embedding_init_std": 0.01}
        ),
        # Their values make no difference to the time: they are not drawn.
        tables_on="meta",
        backend=TORCHREC,
    )
    return Tables(model, config, device)


class Tables:
    """Tables of one optimizer, stepped on given rows."""

    def __init__(self, model: CTRModel, config: TrainConfig, device: torch.device) -> None:
        self._model = model
        self._sharded = shard(model, config, device=device)
        self._optimizers = Optimizers(self._sharded, config, widths=model.embeddings.widths)
        self._steps = 0

    def step(self, rows: EncodedRows, grad: torch.Tensor) -> float:
        """CPU seconds of a step whose gradient is given."""
        begin = time.process_time()
        batch = rows.to_batch()
        self._optimizers.prepare(self._steps, done=0.0)
        self._model.embeddings(batch)["fields"].backward(grad)
        self._optimizers.apply([batch.sparse])
        self._steps += 1
        return time.process_time() - begin


def draw(generator: np.random.Generator, *, batch_size: int, num_rows: int) -> EncodedRows:
    """Rows whose ids' logarithms are uniform: few ids are frequent, most are rare."""
    layout = Layout(tuple(f"C{n}" for n in range(NUM_FIELDS)))
    size = num_rows // NUM_FIELDS
    ids = np.exp(generator.uniform(0, np.log(size), (batch_size, NUM_FIELDS))).astype(np.int32)
    none = np.zeros((batch_size, 0), np.float32)
    return EncodedRows(
        layout, np.arange(batch_size), np.zeros(batch_size, np.float32), ids, {}, none
    )


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--dense", action="store_true", help="dense Adam too")
    words = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    names = [*OPTIMIZERS, *(["adam"] if words.dense else [])]
    with process_group() as device:
        held = {
            name: tables(name, num_rows=words.rows, width=words.width, device=device)
            for name in names
        }
        taken: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(words.steps + 2):
            rows = draw(generator, batch_size=words.batch_size, num_rows=words.rows)
            grad = torch.randn(words.batch_size, NUM_FIELDS, words.width)
            for name, one in held.items():
                taken[name].append(one.step(rows, grad))
        base = statistics.median(taken["rowwise_adagrad"][2:])
        print("| optimizer | CPU ms a step | of row-wise Adagrad's |\n| --- | ---: | ---: |")
        for name in names:
            median = statistics.median(taken[name][2:])
            print(f"| {name} | {median * 1e3:.1f} | {median / base:.2f} |")
        del held


if __name__ == "__main__":
    main()
