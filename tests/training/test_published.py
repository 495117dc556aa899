"""What regime ``published`` does as the public boards' torch did."""

import pytest
import torch
from torch import nn

from recsys_had.training.published import adam_eps, draw_scales


def network() -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(4000), nn.LayerNorm(4000), nn.BatchNorm1d(4000))


def test_scales_are_uniform_between_0_and_1_and_nothing_else_changes() -> None:
    drawn, fresh = network(), network()
    draw_scales(drawn, seed=3)
    for number in (0, 2):
        scales = drawn[number].weight
        assert 0 <= scales.min() < 0.002
        assert 0.998 < scales.max() < 1
        # Standard errors of 4,000 draws: mean .0046, variance .0012.
        assert scales.mean().item() == pytest.approx(0.5, abs=0.02)
        assert scales.var().item() == pytest.approx(1 / 12, abs=0.005)
    for name, value in fresh.state_dict().items():
        if name not in ("0.weight", "2.weight"):
            torch.testing.assert_close(drawn.state_dict()[name], value, rtol=0, atol=0)


def test_scales_depend_on_seed_and_name_alone() -> None:
    one, two, other = network(), network(), network()
    draw_scales(one, seed=3)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    draw_scales(two, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    draw_scales(other, seed=4)
    assert torch.equal(one[0].weight, two[0].weight)
    assert not torch.equal(one[0].weight, one[2].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    alone = nn.Sequential(nn.BatchNorm1d(4000))
    draw_scales(alone, seed=3)
    assert torch.equal(alone[0].weight, one[0].weight)


@pytest.mark.parametrize("step", [0, 1, 49, 999])
def test_an_adam_step_with_its_eps_is_the_step_of_the_old_form(step: int) -> None:
    rate, moment, square, eps = 1e-3, 3e-9, 1e-17, 1e-8
    c1, c2 = 1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)
    today = rate * (moment / c1) / ((square / c2) ** 0.5 + adam_eps(eps, beta2=0.999, step=step))
    old = rate * moment * c2**0.5 / c1 / (square**0.5 + eps)
    assert today == pytest.approx(old, rel=1e-12)
