"""How the time of each interaction grows with the number of fields, beside what is derived.

Forward and backward at F = 10 ... 160 fields, median of some rounds in which all sizes alternate.
The exponent is that of the last doubling; the derived one is of the operations a row, which the
expression knows. Prints one JSON object a line, and with --out adds it to a file and writes a
table of all that the file holds: a stopped run goes on with the names that are not there.

    python tests/benchmarks/growth.py --names fm senet star
    python tests/benchmarks/growth.py --out docs/results/growth
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from recsys_had.allocator import keep_freed_memory
from recsys_had.interactions import build, catalog, names
from recsys_had.interactions.algebra import Interaction

WIDTH = 16
# Some hold all pairs, and their gradients too: sizes at which the forward pass moves more than this
# are left out, and those after one whose step takes too long.
MOST_BYTES, MOST_SECONDS = 6 << 30, 4.0


def seconds(layer: Interaction, inputs: list[torch.Tensor]) -> float:
    """CPU seconds of one forward and backward pass."""
    begin = time.process_time()
    layer(*inputs).sum().backward()
    return time.process_time() - begin


def measure(name: str, fields: list[int], batch_size: int, rounds: int) -> dict[str, Any]:
    """Median seconds by number of fields, and the exponents of the last doubling."""
    sizes: dict[int, tuple[Interaction, list[torch.Tensor]]] = {}
    times: dict[int, list[float]] = {}
    for num_fields in fields:
        layer = build(name, num_fields=num_fields, embedding_dim=WIDTH)
        if batch_size * layer.bytes_per_row > MOST_BYTES:
            break
        inputs = [
            torch.randn(batch_size, *shape, requires_grad=True) for shape in layer.input_shapes
        ]
        sizes[num_fields] = layer, inputs
        times[num_fields] = []
        if seconds(layer, inputs) > MOST_SECONDS:
            break
    for _ in range(rounds):
        for num_fields, (layer, inputs) in sizes.items():
            times[num_fields].append(seconds(layer, inputs))
    median = {f: statistics.median(found) for f, found in times.items()}
    *_, before, last = sorted(sizes)
    operations = [sizes[f][0].flops_per_row for f in (before, last)]
    scale = math.log(last / before)
    return {
        "name": name,
        "measured_exponent": round(math.log(median[last] / median[before]) / scale, 2),
        "derived_exponent": round(math.log(operations[1] / operations[0]) / scale, 2),
        "cpu_seconds": {f: round(value, 4) for f, value in median.items()},
        "batch_size": batch_size,
        "torch": torch.__version__,
    }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: the exponents, the derived growth and the milliseconds."""
    fields = sorted({int(f) for entry in found for f in entry["cpu_seconds"]})
    known = catalog()
    lines = [
        "| interaction | derived | exponent derived | measured | "
        + " | ".join(f"F {f}, ms" for f in fields)
        + " |",
        "| --- |" + " --- |" * (3 + len(fields)),
    ]
    for entry in sorted(found, key=lambda entry: (entry["derived_exponent"], entry["name"])):
        times = {int(f): value for f, value in entry["cpu_seconds"].items()}
        cells = [f"{1000 * times[f]:.1f}" if f in times else "" for f in fields]
        lines.append(
            f"| {entry['name']} | {known[entry['name']].cost} | {entry['derived_exponent']:.2f} | "
            f"{entry['measured_exponent']:.2f} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures the named interactions, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="*", default=names())
    parser.add_argument("--fields", nargs="*", type=int, default=[10, 20, 40, 80, 160])
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # Pages mapped anew would be counted as an interaction's growth.
    keep_freed_memory()
    lines: list[str] = []
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        report = arguments.out / "growth.jsonl"
        lines = report.read_text().splitlines() if report.is_file() else []
    done = {json.loads(line)["name"] for line in lines}
    for name in arguments.names:
        if name in done:
            continue
        entry = measure(name, arguments.fields, arguments.batch_size, arguments.rounds)
        lines.append(json.dumps(entry))
        print(lines[-1], flush=True)
        if arguments.out is not None:
            report.write_text("\n".join(lines) + "\n")
            (arguments.out / "growth.md").write_text(table([json.loads(line) for line in lines]))


if __name__ == "__main__":
    main()
