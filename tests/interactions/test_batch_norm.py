"""Batch normalisation over all ranks: alone it is torch's."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions._batch_norm import DistributedBatchNorm

SEEDS = range(5)
NUM_STEPS = 3


def take_step(norm: nn.Module, x_BC: Tensor, pull_BC: Tensor) -> tuple[Tensor, Tensor]:
    """Gives the output and the input's gradient of a weighted sum of outputs."""
    x_BC = x_BC.clone().requires_grad_()
    y_BC = norm(x_BC)
    (y_BC * pull_BC).sum().backward()
    assert x_BC.grad is not None
    return y_BC.detach(), x_BC.grad


def fill(norm: nn.Module, values_2C: Tensor) -> None:
    with torch.no_grad():
        for parameter, value in zip(norm.parameters(), values_2C, strict=True):
            parameter.copy_(value)


def two_norms(values_2C: Tensor) -> tuple[nn.BatchNorm1d, DistributedBatchNorm]:
    channels = values_2C.shape[1]
    theirs, ours = nn.BatchNorm1d(channels).double(), DistributedBatchNorm(channels).double()
    fill(theirs, values_2C)
    fill(ours, values_2C)
    return theirs, ours


# The one difference that is documented, a step of a single row, has a test of its own below.
@pytest.mark.parametrize("num_rows", [2, 8])
@pytest.mark.parametrize("seed", SEEDS)
def test_alone_it_equals_torch_to_the_last_bit(
    draw: Callable[..., Tensor], seed: int, num_rows: int
) -> None:
    theirs, ours = two_norms(draw(2, 3, seed=seed))
    for step in range(NUM_STEPS):
        x_BC, pull_BC = draw(2, num_rows, 3, seed=100 * (seed + 1) + step)
        for expected, found in zip(
            take_step(theirs, x_BC, pull_BC), take_step(ours, x_BC, pull_BC), strict=True
        ):
            assert torch.equal(found, expected)
    for parameter, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(parameter.grad, expected.grad)  # type: ignore[arg-type]
    for name, value in theirs.named_buffers():
        assert torch.equal(ours.get_buffer(name), value), name
    x_BC = draw(4, 3, seed=seed)
    assert torch.equal(ours.eval()(x_BC), theirs.eval()(x_BC))


@pytest.mark.parametrize("num_rows", [1, 8])
@pytest.mark.parametrize("seed", SEEDS)
def test_several_numbers_a_channel_are_normalised_together_as_torch_does(
    draw: Callable[..., Tensor], seed: int, num_rows: int
) -> None:
    theirs, ours = two_norms(draw(2, 3, seed=seed))
    for step in range(NUM_STEPS):
        x_BCL, pull_BCL = draw(2, num_rows, 3, 4, seed=100 * (seed + 1) + step)
        for expected, found in zip(
            take_step(theirs, x_BCL, pull_BCL), take_step(ours, x_BCL, pull_BCL), strict=True
        ):
            assert torch.equal(found, expected)
    for name, value in theirs.named_buffers():
        assert torch.equal(ours.get_buffer(name), value), name
    x_BCL = draw(4, 3, 4, seed=seed)
    assert torch.equal(ours.eval()(x_BCL), theirs.eval()(x_BCL))


# One row of one number a channel has no variance.
@pytest.mark.parametrize("shape", [(0, 3, 4), (1, 3, 1)])
def test_a_single_number_a_channel_leaves_the_running_moments_alone(
    draw: Callable[..., Tensor], shape: tuple[int, int, int]
) -> None:
    _, ours = two_norms(draw(2, 3, seed=0))
    ours(draw(8, 3, 4, seed=1))
    before = {name: value.clone() for name, value in ours.named_buffers()}
    x_BCL = draw(*shape, seed=2)
    assert torch.equal(ours(x_BCL), ours.eval()(x_BCL))
    for name, value in ours.named_buffers():
        assert torch.equal(value, before[name]), name


@pytest.mark.usefixtures("alone")
def test_half_precision_is_summed_over_ranks_in_full(
    draw: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    x_BC = 10 + draw(513, 3, seed=0).bfloat16()  # bfloat16 has no 513
    theirs, ours = nn.BatchNorm1d(3), DistributedBatchNorm(3)
    expected = theirs(x_BC)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    found = ours(x_BC)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.get_buffer("running_mean"), theirs.get_buffer("running_mean"))
    torch.testing.assert_close(ours.get_buffer("running_var"), theirs.get_buffer("running_var"))


@pytest.mark.usefixtures("alone")
def test_in_a_group_of_one_it_equals_torch_to_the_last_bit(draw: Callable[..., Tensor]) -> None:
    theirs, ours = two_norms(draw(2, 3, seed=0))
    x_BC = draw(8, 3, seed=1)
    assert torch.equal(ours(x_BC), theirs(x_BC))
    assert torch.equal(ours.get_buffer("running_var"), theirs.get_buffer("running_var"))


def test_two_rows_of_one_channel() -> None:
    norm = DistributedBatchNorm(1, eps=0.75).double()
    fill(norm, torch.tensor([[2.0], [10.0]]))
    # mean (1 + 2) / 2 = 1.5; variance (0.25 + 0.25) / 2 = 0.25; sqrt(0.25 + 0.75) = 1
    # -0.5 * 2 + 10 = 9; 0.5 * 2 + 10 = 11
    assert norm(torch.tensor([[1.0], [2.0]]).double()).tolist() == [[9.0], [11.0]]
    # 0.9 * 0 + 0.1 * 1.5 = 0.15; unbiased variance 0.5, 0.9 * 1 + 0.1 * 0.5 = 0.95
    assert norm.get_buffer("running_mean").tolist() == pytest.approx([0.15], abs=1e-15)
    assert norm.get_buffer("running_var").tolist() == pytest.approx([0.95], abs=1e-15)


def test_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], check_gradients: Callable[[nn.Module, Tensor], bool]
) -> None:
    _, ours = two_norms(draw(2, 3, seed=0))
    assert check_gradients(ours, draw(5, 3, seed=1))


# Torch refuses a single row in training; here the running moments stand in, and stay.
@pytest.mark.parametrize("num_rows", [0, 1])
def test_a_single_row_or_none_is_normalised_by_the_running_moments(
    draw: Callable[..., Tensor], num_rows: int
) -> None:
    theirs, ours = two_norms(draw(2, 3, seed=0))
    warm_up = draw(8, 3, seed=1)
    theirs(warm_up)
    ours(warm_up)
    before = {name: value.clone() for name, value in ours.named_buffers()}
    x_BC, pull_BC = draw(2, num_rows, 3, seed=2)
    for expected, found in zip(
        take_step(theirs.eval(), x_BC, pull_BC), take_step(ours, x_BC, pull_BC), strict=True
    ):
        assert torch.equal(found, expected)
    for name, value in ours.named_buffers():
        assert torch.equal(value, before[name]), name
