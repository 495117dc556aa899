"""Batch normalisation over two processes: it is that of one, however the rows are shared out."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys_had.interactions._batch_norm import DistributedBatchNorm

NUM_STEPS = 3
# Rows of either rank, and numbers of a channel in a row where there are several.
CASES: dict[str, tuple[list[int], list[int]]] = {
    "5+3": ([5, 3], []),
    "8+0": ([8, 0], []),
    "0+8": ([0, 8], []),
    "1+1": ([1, 1], []),
    "1+0": ([1, 0], []),
    "5+3 of 4": ([5, 3], [4]),
    "0+2 of 4": ([0, 2], [4]),
    "1+0 of 4": ([1, 0], [4]),
    "1+0 of 1": ([1, 0], [1]),
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def make_cases(draw: Callable[..., Tensor]) -> dict[str, Any]:
    cases = {}
    for seed, (name, (rows, numbers)) in enumerate(CASES.items()):
        # Far from zero: moments of two large sums would cancel and be seen.
        steps = 1000 + draw(NUM_STEPS, sum(rows), 3, *numbers, seed=10 * seed)
        pulls = draw(NUM_STEPS, sum(rows), 3, *numbers, seed=10 * seed + 1)
        weight, bias = draw(2, 3, seed=10 * seed + 2).tolist()
        cases[name] = {
            "rows": rows,
            "steps": steps.tolist(),
            "pulls": pulls.tolist(),
            "weight": weight,
            "bias": bias,
        }
    return cases


@pytest.fixture(scope="module")
def two_ranks(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """Runs ``batch_norm_ranks.py`` once a rank and all cases, the first time it is asked."""
    folder = tmp_path_factory.mktemp("two_ranks")
    found: list[dict[str, Any]] = []

    def run(cases: dict[str, Any]) -> list[dict[str, Any]]:
        if found:
            return found
        (folder / "cases.json").write_text(json.dumps(cases))
        shared = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
        }
        script = Path(__file__).with_name("batch_norm_ranks.py")
        ranks = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", script, folder / "cases.json", folder],
                env={**shared, "RANK": str(rank)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        told = [rank.communicate(timeout=300)[1] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], told
        found.extend(json.loads((folder / f"{rank}.json").read_text()) for rank in range(2))
        return found

    return run


@pytest.mark.parametrize("name", CASES)
def test_two_processes_normalise_as_one_does(
    draw: Callable[..., Tensor],
    two_ranks: Callable[[dict[str, Any]], list[dict[str, Any]]],
    name: str,
) -> None:
    cases = make_cases(draw)
    case = cases[name]
    first, second = (found[name] for found in two_ranks(cases))
    one = DistributedBatchNorm(3).double()
    with torch.no_grad():
        one.weight.copy_(torch.tensor(case["weight"], dtype=torch.float64))
        one.bias.copy_(torch.tensor(case["bias"], dtype=torch.float64))

    def check(found: Any, expected: Tensor | None) -> None:
        assert expected is not None
        found = torch.tensor(found, dtype=expected.dtype).reshape(expected.shape)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)

    for step in range(NUM_STEPS):
        x_BC = torch.tensor(case["steps"][step], dtype=torch.float64, requires_grad=True)
        output_BC = one(x_BC)
        (output_BC * torch.tensor(case["pulls"][step], dtype=torch.float64)).sum().backward()
        check(first["output"][step] + second["output"][step], output_BC.detach())
        check(first["input_gradient"][step] + second["input_gradient"][step], x_BC.grad)
    for key, parameter in (("weight_gradient", one.weight), ("bias_gradient", one.bias)):
        check([a + b for a, b in zip(first[key], second[key], strict=True)], parameter.grad)
    for key, value in one.named_buffers():
        assert first["moments"][key] == second["moments"][key], key
        check(first["moments"][key], value)
