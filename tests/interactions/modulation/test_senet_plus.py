"""FiBiNet++'s SENET+: every number weighted by what the row says of it."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
SQUEEZE, EXCITE = "ops.lin_0.weight", "ops.lin_1.weight"
SCALE, SHIFT = "ops.layernorm_0.weight", "ops.layernorm_0.bias"
Randomise = Callable[[nn.Module, int], Interaction]


def plain_senet_plus(
    row: list[list[float]], layer: Interaction, num_groups: int
) -> list[list[float]]:
    """Zhang et al. 2022, SENET+; ``num_groups`` divides the width of a field."""
    squeeze, excite = (layer.get_parameter(name).tolist() for name in (SQUEEZE, EXCITE))
    scale, shift = (layer.get_parameter(name).tolist() for name in (SCALE, SHIFT))
    width = len(row[0]) // num_groups
    # All fields' first groups, all fields' second groups and so on.
    groups = [field[g * width : (g + 1) * width] for g in range(num_groups) for field in row]
    squeezed = [max(group) for group in groups] + [sum(group) / width for group in groups]
    hidden = []
    for weights in squeeze:
        total = sum(weight * z for weight, z in zip(weights, squeezed, strict=True))
        hidden.append(max(total, 0.0))
    out = []
    for f, field in enumerate(row):
        weighted = []
        for d, number in enumerate(field):
            line = excite[f * len(field) + d]
            weight = sum(w * unit for w, unit in zip(line, hidden, strict=True))
            weighted.append(number * weight + number)
        mean = sum(weighted) / len(weighted)
        variance = sum((z - mean) ** 2 for z in weighted) / len(weighted)
        deviation = math.sqrt(variance + 1e-5)
        out.append(
            [(z - mean) / deviation * a + b for z, a, b in zip(weighted, scale, shift, strict=True)]
        )
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("num_fields", "embedding_dim", "num_groups", "used_groups"),
    [(1, 4, 2, 2), (3, 6, 3, 3), (5, 3, 2, 1), (2, 6, 4, 2), (4, 4, 1, 1), (3, 4, 4, 4)],
)
@pytest.mark.parametrize("reduction_ratio", [1, 3, 100])
def test_senet_plus_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    num_groups: int,
    used_groups: int,
    reduction_ratio: int,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "senet_plus",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            reduction_ratio=reduction_ratio,
            num_groups=num_groups,
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_senet_plus(row, layer, used_groups) for row in x_BFD.tolist()], dtype=torch.float64
    )
    # A single token is flat.
    expected = expected.flatten(1) if num_fields == 1 else expected
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-11, atol=1e-11)


def test_senet_plus_quadruples_some_numbers_and_turns_one_around() -> None:
    layer = build(
        "senet_plus", num_fields=2, embedding_dim=4, reduction_ratio=4, num_groups=2
    ).double()
    # e = (1, 4 | 2, -4), (1, 1 | 7, 1); Z = maxima (4, 1 | 2, 7), means (2.5, 1 | -1, 4)
    # W1 Z = (4 - 1 + 2*2 - 7 - 1 + 4, -1 + 2 - 2*2.5) = (3, -4); relu (3, 0)
    # 1 + W2 (3, 0) = (4, 1, -2, 1), (7, 1, 1, 1)
    # E A + E = (4, 4, -4, -4), (7, 1, 7, 1); normalised (1, 1, -1, -1), (1, -1, 1, -1)
    # times (1, 2, 1, 1) plus (0, 0, 0.5, -1) = (1, 2, -0.5, -2), (1, -2, 1.5, -2)
    values = {
        SQUEEZE: [
            [1.0, -1.0, 2.0, -1.0, 0.0, 0.0, 1.0, 1.0],
            [0.0, -1.0, 1.0, 0.0, -2.0, 0.0, 0.0, 0.0],
        ],
        EXCITE: [[1.0, 5.0], [0, 5], [-1, 5], [0, 5], [2, 5], [0, 5], [0, 5], [0, 5]],
        SCALE: [1.0, 2.0, 1.0, 1.0],
        SHIFT: [0.0, 0.0, 0.5, -1.0],
    }
    with torch.no_grad():
        for name, value in values.items():
            parameter = layer.get_parameter(name)
            assert parameter.shape == torch.tensor(value).shape
            parameter.copy_(torch.tensor(value))
    row = torch.tensor([[[1.0, 4, 2, -4], [1, 1, 7, 1]]], dtype=torch.float64)
    # The norm adds 1e-5 to variances of 16 and 9.
    expected = torch.tensor([[[1, 2, -0.5, -2], [1, -2, 1.5, -2]]], dtype=torch.float64)
    torch.testing.assert_close(layer(row), expected, rtol=0, atol=1e-5)


def test_senet_plus_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = randomise(build("senet_plus", num_fields=4, embedding_dim=4), 2)
    x_BFD = draw(3, 4, 4, seed=2)
    assert check_gradients(layer, x_BFD)


@pytest.mark.parametrize("seed", SEEDS)
def test_senet_plus_gives_fields_of_mean_zero_and_variance_one_at_its_initial_norm(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("senet_plus", num_fields=5, embedding_dim=6), seed)
    with torch.no_grad():
        layer.get_parameter(SCALE).fill_(1.0)
        layer.get_parameter(SHIFT).zero_()
    x_BFD = draw(4, 5, 6, seed=seed)
    out_BFD = layer(x_BFD)
    zeros_BF = torch.zeros(4, 5, dtype=torch.float64)
    torch.testing.assert_close(out_BFD.mean(dim=2), zeros_BF, rtol=0, atol=1e-12)
    # A field of variance v comes out with v / (v + 1e-5).
    variance_BF = out_BFD.var(dim=2, unbiased=False)
    torch.testing.assert_close(variance_BF, zeros_BF + 1, rtol=0, atol=1e-3)
    built = build("senet_plus", num_fields=5, embedding_dim=6)
    assert (built.get_parameter(SCALE) == 1).all()
    assert not built.get_parameter(SHIFT).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_senet_plus_without_excitation_normalises_each_field(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("senet_plus", num_fields=5, embedding_dim=6), seed)
    with torch.no_grad():
        layer.get_parameter(EXCITE).zero_()
    x_BFD = draw(4, 5, 6, seed=seed)
    scale, shift = layer.get_parameter(SCALE), layer.get_parameter(SHIFT)
    centred_BFD = x_BFD - x_BFD.mean(dim=2, keepdim=True)
    deviation_BF1 = (centred_BFD.square().mean(dim=2, keepdim=True) + 1e-5).sqrt()
    expected = centred_BFD / deviation_BF1 * scale + shift
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_senet_plus_of_maxima_and_means_ignores_the_order_within_a_group(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("senet_plus", num_fields=4, embedding_dim=6, num_groups=2), seed)
    with torch.no_grad():
        # One weight for all numbers of a group, and one norm for all numbers of a field.
        excite = layer.get_parameter(EXCITE)
        excite.copy_(excite[::3].repeat_interleave(3, dim=0))
        layer.get_parameter(SCALE).fill_(1.5)
        layer.get_parameter(SHIFT).fill_(-0.5)
    x_BFD = draw(4, 4, 6, seed=seed)
    order = [2, 0, 1, 4, 5, 3]
    torch.testing.assert_close(layer(x_BFD[:, :, order]), layer(x_BFD)[:, :, order])


@pytest.mark.parametrize("value", [0, -2])
@pytest.mark.parametrize("option", ["reduction_ratio", "num_groups"])
def test_senet_plus_refuses_an_option_below_one(option: str, value: int) -> None:
    line = f"senet_plus: {option} must be at least 1; got {value}."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("senet_plus", num_fields=6, embedding_dim=4, **{option: value})


@pytest.mark.parametrize(
    ("num_groups", "reduction_ratio", "used_groups", "hidden"),
    [(2, 3, 2, 6), (3, 1, 1, 10), (4, 7, 4, 5), (1, 50, 1, 1)],
)
def test_senet_plus_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    num_groups: int,
    reduction_ratio: int,
    used_groups: int,
    hidden: int,
) -> None:
    layer = build(
        "senet_plus",
        num_fields=5,
        embedding_dim=4,
        num_groups=num_groups,
        reduction_ratio=reduction_ratio,
    )
    # Z has a maximum and a mean of each group of 5 fields, and a hidden unit for every so many.
    squeezed = 5 * 2 * used_groups
    assert hidden == max(1, squeezed // reduction_ratio)
    weights = squeezed * hidden + hidden * 20
    # n numbers in g groups: n - g comparisons, n - g sums and g divisions; a relu a hidden unit;
    # a product, a sum and a norm (7) a number.
    groups = 5 * used_groups
    beside = (20 - groups) + (20 - groups + groups) + hidden + (1 + 1 + 7) * 20
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 4) == 2 * weights
    assert layer.flops.other == beside
    assert layer.flops_per_row == 2 * weights + beside
    assert count_parameters(layer) == weights + 2 * 4
