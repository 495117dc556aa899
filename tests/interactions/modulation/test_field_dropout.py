"""Whole fields dropped in training, the others scaled up."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)


def layer_of(num_fields: int, embedding_dim: int, dropout: float) -> Interaction:
    return build(
        "field_dropout", num_fields=num_fields, embedding_dim=embedding_dim, dropout=dropout
    )


def plain_field_dropout(
    row: list[list[float]], luck: list[float], dropout: float
) -> list[list[float]]:
    """The mask of a row, and the scaled sum of Liu et al. 2018, field by field."""
    mask = [1.0 if number >= dropout else 0.0 for number in luck]
    if sum(mask) == 0:
        mask[luck.index(max(luck))] = 1.0
    scale = len(mask) / sum(mask)
    return [[m * number * scale for number in field] for m, field in zip(mask, row, strict=True)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (3, 4), (10, 2)])
def test_field_dropout_equals_its_formula_written_with_loops(
    draw: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
    num_fields: int,
    embedding_dim: int,
    dropout: float,
    seed: int,
) -> None:
    luck = torch.rand(30, num_fields, 1, generator=torch.Generator().manual_seed(seed))
    monkeypatch.setattr(torch, "rand", lambda *shape, device: luck)
    x_BFD = draw(30, num_fields, embedding_dim, seed=seed)
    rows = zip(x_BFD.tolist(), luck.flatten(1).tolist(), strict=True)
    expected = torch.tensor(
        [plain_field_dropout(row, own, dropout) for row, own in rows], dtype=torch.float64
    )
    layer = layer_of(num_fields, embedding_dim, dropout).train()
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=0)


def test_field_dropout_of_four_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    luck = torch.tensor([[0.1, 0.6, 0.3, 0.9], [0.1, 0.2, 0.45, 0.05], [0.5, 0.6, 0.7, 0.8]])
    monkeypatch.setattr(torch, "rand", lambda *shape, device: luck.unsqueeze(2))
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0]]).expand(3, 4, 1)
    # Half are dropped. First row: 0.6 and 0.9 stay, times 4 / 2. Second: none would, so the
    # luckiest does, times 4 / 1. Third: all stay.
    expected = [[0.0, 4.0, 0.0, 8.0], [0.0, 0.0, 12.0, 0.0], [1.0, 2.0, 3.0, 4.0]]
    assert layer_of(4, 1, 0.5).train()(x).flatten(1).tolist() == expected


@pytest.mark.parametrize("training", [True, False])
def test_field_dropout_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], training: bool
) -> None:
    layer = layer_of(4, 3, 0.5).train(training)

    def apply(x: Tensor) -> Tensor:
        # The same mask every time.
        torch.manual_seed(0)
        out: Tensor = layer(x)
        return out

    assert torch.autograd.gradcheck(apply, (draw(3, 4, 3, seed=0).requires_grad_(),))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_field_dropout_changes_nothing_in_evaluation(
    draw: Callable[..., Tensor], dropout: float
) -> None:
    x_BFD = draw(5, 4, 3, seed=0)
    assert torch.equal(layer_of(4, 3, dropout).eval()(x_BFD), x_BFD)


def test_field_dropout_of_no_field_changes_nothing_in_training(draw: Callable[..., Tensor]) -> None:
    x_BFD = draw(5, 4, 3, seed=0)
    assert torch.equal(layer_of(4, 3, 0.0).train()(x_BFD), x_BFD)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dropout", [0.2, 0.7, 0.99])
def test_field_dropout_takes_fields_whole_and_never_all_and_keeps_their_sum_of_ones(
    dropout: float, seed: int
) -> None:
    torch.manual_seed(seed)
    scaled = layer_of(6, 3, dropout).train()(torch.ones(500, 6, 3))
    assert torch.equal(scaled, scaled[:, :, :1].expand_as(scaled))
    kept = scaled[:, :, 0] != 0
    assert kept.any(dim=1).all()
    expected = kept * 6 / kept.sum(dim=1, keepdim=True)
    torch.testing.assert_close(scaled[:, :, 0], expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(scaled[:, :, 0].sum(dim=1), torch.full((500,), 6.0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dropout", [0.2, 0.6])
def test_field_dropout_takes_the_share_it_is_told(dropout: float, seed: int) -> None:
    torch.manual_seed(seed)
    scaled = layer_of(10, 1, dropout).train()(torch.ones(2000, 10, 1))
    dropped = (scaled == 0).double().mean().item()
    # Five standard deviations of 20000 draws; a row of none, 0.6**10 = 0.6% of them, moves the
    # share by 0.1 * 0.006.
    assert dropped == pytest.approx(
        dropout, abs=5 * (dropout * (1 - dropout) / 20000) ** 0.5 + 7e-4
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mean_of_field_dropout_over_many_masks_is_its_input(
    draw: Callable[..., Tensor], seed: int
) -> None:
    x_FD = draw(4, 2, seed=seed)
    torch.manual_seed(seed)
    mean = layer_of(4, 2, 0.5).train()(x_FD.expand(40000, 4, 2)).mean(dim=0)
    # Of a mask of 4 fields, 15/16 of the 16 masks alike, a scaled number is 0, 1, 4/3, 2 or 4 times
    # itself: its variance is below 2, so five standard deviations of the mean are 0.036.
    torch.testing.assert_close(mean / x_FD, torch.ones(4, 2).double(), rtol=0, atol=0.036)


def test_field_dropout_draws_anew_each_time_and_the_same_from_one_seed() -> None:
    layer, x = layer_of(6, 1, 0.5).train(), torch.ones(50, 6, 1)
    torch.manual_seed(3)
    first, second = layer(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)


def test_field_dropout_keeps_the_type_of_its_input() -> None:
    layer = layer_of(6, 2, 0.5).train()
    for dtype in (torch.float64, torch.bfloat16):
        assert layer(torch.ones(3, 6, 2, dtype=dtype)).dtype == dtype


def test_field_dropout_takes_no_row() -> None:
    assert layer_of(6, 2, 0.5).train()(torch.ones(0, 6, 2)).shape == (0, 6, 2)


@pytest.mark.parametrize("dropout", [1.0, -0.1])
def test_field_dropout_refuses_a_share_that_is_none(dropout: float) -> None:
    line = f"field_dropout: dropout must be at least 0 and below 1; got {dropout}."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        layer_of(6, 4, dropout)


def test_field_dropout_refuses_a_single_field() -> None:
    line = (
        "field_dropout: needs two fields or more, one of which stays; got 1. "
        "Let it read a node of shape (B, F, D)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        layer_of(1, 4, 0.5)


def test_field_dropout_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = layer_of(6, 8, 0.5)
    # 5 sums and a division for the scale, 6 products of it with the mask, one a number.
    assert layer.flops.other == layer.flops_per_row == 5 + 1 + 6 + 48
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8) == 0
    assert count_parameters(layer) == 0
    assert layer.degree == 1
