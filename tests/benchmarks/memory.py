"""Memory and time of a FiBiNET step, pairs made a few at a time against all held.

Each way runs in a process of its own, since peak memory cannot be reset; the ways alternate.
Prints one JSON object a line: 39 fields of width 16, batch 8192, as on Criteo.

    python tests/benchmarks/memory.py --kind field_interaction
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from recsys_had.experiment_file import load_experiment
from recsys_had.interactions.algebra import streaming
from recsys_had.model.graph import InteractionGraph

NUM_FIELDS, WIDTH, BATCH_SIZE = 39, 16, 8192
STEPS = 4


def measure(kind: str, way: str) -> dict[str, float]:
    """Peak memory above the start and median seconds of a step, in this process."""
    if way == "held":
        streaming._PART_BYTES = {"cpu": 1 << 60}
    settings = [f"model.nodes.pairs.kind={kind}", "model.nodes.deep.hidden_units=[400, 400, 400]"]
    nodes = dict(load_experiment("criteo_x4_fibinet", settings).model.nodes)
    nodes.pop("linear")
    graph = InteractionGraph(nodes=nodes, sources={"fields": (NUM_FIELDS, WIDTH)})
    x = torch.randn(BATCH_SIZE, NUM_FIELDS, WIDTH, requires_grad=True)
    wall, cpu = [], []
    for _ in range(STEPS):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        graph({"fields": x}).sum().backward()
        wall.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - begin_cpu)
    return {
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "step_s": round(statistics.median(wall[1:]), 2),
        "step_cpu_s": round(statistics.median(cpu[1:]), 2),
    }


def main() -> None:
    """Measures both ways, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="field_interaction")
    parser.add_argument("--way", choices=("streamed", "held"))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.kind, arguments.way)))
        return
    for _ in range(arguments.rounds):
        for way in ("held", "streamed"):
            words = [sys.executable, __file__, "--kind", arguments.kind, "--way", way]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            print(json.dumps({"kind": arguments.kind, "way": way, **json.loads(done.stdout)}))


if __name__ == "__main__":
    main()
