"""Every interaction gives on a GPU what it gives on a CPU."""

import pytest
import torch
from torch import Tensor

from tests.gpu.cases import LAYERS, inputs, layer

pytestmark = [pytest.mark.gpu, pytest.mark.parametrize("key", LAYERS)]


def _run(key: str, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """What a training step has of it: the output, the gradients of inputs and of weights."""
    one = layer(key).to(device, dtype)
    read = [x.to(device, dtype).requires_grad_() for x in inputs(key, 64)]
    out = one(*read)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
    (out * weights.to(out)).sum().backward()
    grads = [x.grad for x in [*read, *one.parameters()]]
    assert {found.device for found in [out, *grads]} == {device}
    return [found.detach().cpu().double() for found in [out, *grads]]


def test_in_double_precision_it_is_the_same(gpu: torch.device, key: str) -> None:
    there, here = (_run(key, device, torch.float64) for device in (gpu, torch.device("cpu")))
    for found, expected in zip(there, here, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11 * max(1.0, scale))


def test_in_single_precision_it_is_near(gpu: torch.device, key: str) -> None:
    found = _run(key, gpu, torch.float32)
    exact = _run(key, torch.device("cpu"), torch.float64)
    # A gradient that is zero but for rounding is measured by the others.
    most = max(float(one.norm()) for one in exact[1:])
    torch.testing.assert_close(found[0], exact[0], rtol=1e-3, atol=1e-4)
    for one, expected in zip(found[1:], exact[1:], strict=True):
        assert (one - expected).norm() <= 1e-3 * expected.norm() + 1e-4 * most


def test_half_precision_is_near_single_precision(gpu: torch.device, key: str) -> None:
    one = layer(key).to(gpu, torch.float32).eval()
    read = [x.to(gpu, torch.float32) for x in inputs(key, 16)]
    full = one(*read)
    with torch.autocast(gpu.type, dtype=torch.bfloat16):
        half = one(*read).float()
    assert torch.isfinite(half).all()
    # bfloat16 holds 8 bits; a few layers of products add their errors up.
    assert (half - full).norm() <= 0.05 * full.norm()
