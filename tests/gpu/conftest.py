"""The GPU the tests of this folder ask for."""

import os

import pytest
import torch

from tests.gpu.cases import TRY_ON_CPU


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """This machine's GPU; the test skips, saying so, where there is none."""
    if os.environ.get(TRY_ON_CPU):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip(f"there is no GPU; {TRY_ON_CPU}=1 tries this test's own code on a CPU")
    return torch.device("cuda", 0)
