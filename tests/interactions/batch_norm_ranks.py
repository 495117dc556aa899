"""Normalises this rank's rows of several cases and writes what came of them as JSON.

Started as a program of its own, once a rank: ``python batch_norm_ranks.py CASES.json OUT``.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from recsys_had.interactions._batch_norm import DistributedBatchNorm


def main(cases: Path, out: Path) -> None:
    """Runs every case on this rank's share of its rows."""
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo")
    found = {}
    for name, case in json.loads(cases.read_text()).items():
        first = sum(case["rows"][:rank])
        found[name] = normalise(case, first, first + case["rows"][rank])
    (out / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def normalise(case: dict[str, Any], first: int, last: int) -> dict[str, Any]:
    """Output, gradients and moments after every step; the loss is a weighted sum of outputs."""
    norm = DistributedBatchNorm(len(case["weight"])).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(case["weight"], dtype=torch.float64))
        norm.bias.copy_(torch.tensor(case["bias"], dtype=torch.float64))
    found: dict[str, Any] = {"output": [], "input_gradient": []}
    for step, pull in zip(case["steps"], case["pulls"], strict=True):
        x_BC = torch.tensor(step, dtype=torch.float64)[first:last].clone().requires_grad_()
        pull_BC = torch.tensor(pull, dtype=torch.float64)[first:last]
        y_BC = norm(x_BC)
        (y_BC * pull_BC).sum().backward()
        assert x_BC.grad is not None
        found["output"].append(y_BC.tolist())
        found["input_gradient"].append(x_BC.grad.tolist())
    assert norm.weight.grad is not None and norm.bias.grad is not None
    found["weight_gradient"] = norm.weight.grad.tolist()
    found["bias_gradient"] = norm.bias.grad.tolist()
    found["moments"] = {name: value.tolist() for name, value in norm.named_buffers()}
    return found


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
