"""What regime ``published`` does as the public boards' torch did."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from recsys_had.data.folder import DataFolder
from recsys_had.training.published import adam_eps, draw_scales
from tests.training.plain_loop import ROWS, block, trainer

MakeData = Callable[..., DataFolder]


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


@pytest.mark.parametrize(("regime", "least"), [("scale", 1e-11), ("published", 1e-6)])
def test_a_published_rate_does_not_fall_below_a_millionth(
    tmp_path: Path, alone: torch.device, make_small_data: MakeData, regime: str, least: float
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = trainer(data, tmp_path / "work", alone, regime=regime, schedule="plateau", patience=2)
    one.optimizers.plateau_scale = 1e-9
    one.optimizers.prepare(0, done=0)
    rates = [group["lr"] for group in one.optimizers.adam.param_groups]
    assert rates == pytest.approx([least] * len(rates))


LEGACY = [
    ({"regime": "scale"}, False),
    ({"regime": "published"}, True),
    ({"regime": "published", "legacy_defaults": False}, False),
]


@pytest.mark.parametrize(("settings", "legacy"), LEGACY)
def test_batch_normalisation_begins_where_the_regime_says(
    tmp_path: Path,
    alone: torch.device,
    make_small_data: MakeData,
    settings: dict[str, Any],
    legacy: bool,
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = trainer(data, tmp_path / "work", alone, **settings)
    scales = [
        module.weight
        for module in one.model.graph.modules()
        if isinstance(module, torch.nn.BatchNorm1d)
    ]
    assert len(scales) == 1
    assert bool((scales[0] == 1).all()) != legacy
    assert bool((scales[0] >= 0).all() and (scales[0] <= 1).all())


@pytest.mark.parametrize(("settings", "legacy"), LEGACY)
def test_adam_adds_eps_where_the_regime_says(
    tmp_path: Path,
    alone: torch.device,
    make_small_data: MakeData,
    settings: dict[str, Any],
    legacy: bool,
) -> None:
    """Gradients as small as eps tell; by hand, three steps of one weight."""
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = trainer(data, tmp_path / "work", alone, **settings)
    weight = one.optimizers.named["graph.bias"]
    first = found = weight.item()
    mean = square = 0.0
    for step, gradient in enumerate((1e-8, -3e-8, 2e-8)):
        one.optimizers.prepare(step, done=0)
        for other in one.optimizers.named.values():
            other.grad = torch.zeros_like(other)
        weight.grad = torch.full_like(weight, gradient)
        one.optimizers.apply([])
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        corrected = mean / (1 - 0.9 ** (step + 1))
        shrink = math.sqrt(1 - 0.999 ** (step + 1))
        if legacy:
            found -= 0.01 * corrected * shrink / (math.sqrt(square) + 1e-8)
        else:
            found -= 0.01 * corrected / (math.sqrt(square) / shrink + 1e-8)
        assert weight.item() - first == pytest.approx(found - first, rel=1e-4)


@pytest.mark.parametrize(("regime", "best"), [("scale", 2), ("published", 3)])
def test_a_published_gain_below_a_millionth_does_not_count(
    tmp_path: Path,
    alone: torch.device,
    make_small_data: MakeData,
    monkeypatch: pytest.MonkeyPatch,
    regime: str,
    best: int,
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = trainer(data, tmp_path / "work", alone, regime=regime, monitor="auc_minus_logloss")
    # From the first epoch on: half a millionth more, then two millionths.
    found = iter([(0.75, 0.5), (0.75 + 5e-7, 0.5), (0.75, 0.5 - 2e-6)])
    monkeypatch.setattr(one, "evaluate", lambda split: (block(*next(found)), None))
    best_epochs = []
    for _ in range(3):
        one._end_epoch()
        best_epochs.append(one.progress.best_epoch)
    assert best_epochs == [1, 2 if best == 2 else 1, 3]
    assert one.progress.best == pytest.approx(0.25 + 2e-6, abs=1e-12)
