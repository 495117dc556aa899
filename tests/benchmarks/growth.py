"""How the time of each interaction grows with the number of fields, beside what is derived.

Forward and backward at F = 10 ... 160 fields, median of some rounds in which all sizes alternate.
The exponent is that of the last doubling; the derived one is of the operations a row, which the
expression knows. Prints one JSON object a line.

    python tests/benchmarks/growth.py --names fm senet star
"""

import argparse
import json
import math
import statistics
import time

import torch

from recsys_had.interactions import build, names

WIDTH = 16
# An interaction that gives all pairs holds them: sizes beyond this are left out.
MOST_BYTES = 1 << 30


def seconds(layer: torch.nn.Module, x: torch.Tensor) -> float:
    """CPU seconds of one forward and backward pass."""
    begin = time.process_time()
    layer(x).sum().backward()
    return time.process_time() - begin


def main() -> None:
    """Measures the named interactions, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="*", default=names())
    parser.add_argument("--fields", nargs="*", type=int, default=[10, 20, 40, 80, 160])
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.names:
        layers = {}
        for num_fields in arguments.fields:
            layer = build(name, num_fields=num_fields, embedding_dim=WIDTH)
            if 4 * arguments.batch_size * math.prod(layer.output_shape) <= MOST_BYTES:
                x = torch.randn(arguments.batch_size, num_fields, WIDTH, requires_grad=True)
                layers[num_fields] = (layer, x)
        times: dict[int, list[float]] = {num_fields: [] for num_fields in layers}
        for _ in range(arguments.rounds + 1):
            for num_fields, (layer, x) in layers.items():
                times[num_fields].append(seconds(layer, x))
        median = {f: statistics.median(found[1:]) for f, found in times.items()}
        *_, before, last = sorted(layers)
        operations = [layers[f][0].flops_per_row for f in (before, last)]
        scale = math.log(last / before)
        print(
            json.dumps(
                {
                    "name": name,
                    "measured_exponent": round(math.log(median[last] / median[before]) / scale, 2),
                    "derived_exponent": round(math.log(operations[1] / operations[0]) / scale, 2),
                    "cpu_seconds": {f: round(value, 4) for f, value in median.items()},
                    "batch_size": arguments.batch_size,
                    "torch": torch.__version__,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
