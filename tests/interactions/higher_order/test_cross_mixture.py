"""DCN-V2's mixture of low-rank crosses."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
Randomise = Callable[[nn.Module, int], Interaction]


def product(matrix: list[list[float]], vector: list[float]) -> list[float]:
    out = []
    for line in matrix:
        total = 0.0
        for entry, number in zip(line, vector, strict=True):
            total += entry * number
        out.append(total)
    return out


def plain_mixture(
    row: list[float], layer: Interaction, num_layers: int, num_experts: int
) -> list[float]:
    """Wang et al. 2021, eq. 3-4: each layer's gate, then V, C and U of each expert."""
    weights = iter(
        layer.get_parameter(f"ops.lin_{number}.weight").tolist()
        for number in range(num_layers * (1 + 3 * num_experts))
    )
    x = row
    for number in range(num_layers):
        (bias,) = layer.get_parameter(f"ops.constant_{number}.weight").tolist()
        exponentials = [math.exp(score) for score in product(next(weights), x)]
        after = list(x)
        for exponential in exponentials:
            narrow = x
            for _ in range(2):
                narrow = [math.tanh(entry) for entry in product(next(weights), narrow)]
            wide = product(next(weights), narrow)
            for n in range(len(row)):
                after[n] += exponential / sum(exponentials) * row[n] * (wide[n] + bias[n])
        x = after
    return x


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("num_layers", "num_experts", "rank"), [(1, 1, 1), (1, 3, 2), (3, 1, 2), (3, 4, 3)]
)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(1, 3), (3, 2)])
def test_cross_mixture_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    num_layers: int,
    num_experts: int,
    rank: int,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "cross_mixture",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
            num_experts=num_experts,
            rank=rank,
        ),
        seed,
    )
    rows = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_mixture(row, layer, num_layers, num_experts) for row in rows.flatten(1).tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(rows), expected, rtol=1e-11, atol=1e-12)


def test_a_cross_of_two_numbers_by_two_experts_of_rank_one() -> None:
    layer = build(
        "cross_mixture", num_fields=2, embedding_dim=1, num_layers=1, num_experts=2, rank=1
    ).double()
    ln2, ln3 = math.log(2), math.log(3)
    values = {
        "ops.lin_0.weight": [[0.0, 0.0], [0.0, ln3 / 3]],
        "ops.constant_0.weight": [[1.0, -1.0]],
        "ops.lin_1.weight": [[ln3 / 4, 0.0]],
        "ops.lin_2.weight": [[ln2]],
        "ops.lin_3.weight": [[3.0], [6.0]],
        "ops.lin_4.weight": [[0.0, ln3 / 6]],
        "ops.lin_5.weight": [[-ln2]],
        "ops.lin_6.weight": [[6.0], [-6.0]],
    }
    with torch.no_grad():
        for name, value in values.items():
            layer.get_parameter(name).copy_(torch.tensor(value, dtype=torch.float64))
    # x0 = (2, 3); gates softmax(0, ln 3) = (1/4, 3/4)
    # tanh(ln(3) / 2) = (3 - 1) / (3 + 1) = 1/2; tanh(ln(2) / 2) = (2 - 1) / (2 + 1) = 1/3
    # expert 1: V^T x0 = ln(3) / 2, so 1/2, then 1/3; U (1/3) + b = (1 + 1, 2 - 1) = (2, 1);
    # times x0 (4, 3)
    # expert 2: V^T x0 = ln(3) / 2, so 1/2, then -1/3; U (-1/3) + b = (-2 + 1, 2 - 1) = (-1, 1);
    # times x0 (-2, 3)
    # y = (4, 3) / 4 + 3 (-2, 3) / 4 + (2, 3) = (1 - 1.5 + 2, 0.75 + 2.25 + 3) = (1.5, 6)
    out = layer(torch.tensor([[[2.0], [3.0]]], dtype=torch.float64))
    assert out.tolist() == [pytest.approx([1.5, 6.0], rel=1e-14)]


def test_cross_mixture_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = build(
        "cross_mixture", num_fields=2, embedding_dim=2, num_layers=2, num_experts=2, rank=2
    )
    assert check_gradients(randomise(layer, 0), draw(2, 2, 2, seed=0))


def crossed(x: Tensor, layer: Interaction, expert: int) -> Tensor:
    """The only cross of one expert, without a gate."""
    inward, between, outward = (
        layer.get_parameter(f"ops.lin_{1 + 3 * expert + number}.weight") for number in range(3)
    )
    bias = layer.get_parameter("ops.constant_0.weight")
    return x * (torch.tanh(torch.tanh(x @ inward.T) @ between.T) @ outward.T + bias) + x


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mixture_of_one_expert_is_its_cross_whatever_the_gate(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    options = {"num_layers": 1, "num_experts": 1, "rank": 2}
    layer = randomise(build("cross_mixture", num_fields=3, embedding_dim=2, **options), seed)
    x_BFD = draw(4, 3, 2, seed=seed)
    expected = crossed(x_BFD.flatten(1), layer, 0)
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)
    nn.init.zeros_(layer.get_parameter("ops.lin_0.weight"))
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mixture_with_zero_gate_weights_is_the_mean_of_the_experts(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    options = {"num_layers": 1, "num_experts": 3, "rank": 2}
    layer = randomise(build("cross_mixture", num_fields=3, embedding_dim=2, **options), seed)
    nn.init.zeros_(layer.get_parameter("ops.lin_0.weight"))
    x_BFD = draw(4, 3, 2, seed=seed)
    experts = torch.stack([crossed(x_BFD.flatten(1), layer, expert) for expert in range(3)])
    torch.testing.assert_close(layer(x_BFD), experts.mean(dim=0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_cross_mixture_keeps_a_coordinate_of_zero_zero(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("cross_mixture", num_fields=3, embedding_dim=2), seed)
    x_BFD = draw(4, 3, 2, seed=seed)
    x_BFD[:, 1, 0] = 0
    out = layer(x_BFD)
    assert not out[:, 2].any()
    assert out[:, [0, 1, 3, 4, 5]].all()


@pytest.mark.parametrize("option", ["num_layers", "num_experts", "rank"])
def test_cross_mixture_refuses_no_layer_no_expert_and_no_rank(option: str) -> None:
    line = f"cross_mixture: {option} must be at least 1; got 0."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("cross_mixture", num_fields=3, embedding_dim=4, **{option: 0})


def test_cross_mixture_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build(
        "cross_mixture", num_fields=3, embedding_dim=2, num_layers=2, num_experts=3, rank=4
    )
    # A layer's maps: 6 numbers to 3 gates, and of each of 3 experts 6 to 4, 4 to 4 and 4 to 6.
    weights = 6 * 3 + 3 * (6 * 4 + 4 * 4 + 4 * 6)
    assert layer.flops.matmul == count_matmul_flops(layer, 3, 2) == 2 * 2 * weights
    # Beside them: 5 operations for each gate of the softmax; of each expert 4 + 4 times tanh, then
    # for 6 numbers the bias, the products with x0 and with the gate, and the sum.
    other = 5 * 3 + 3 * (4 + 4 + 4 * 6)
    assert layer.flops.other == 2 * other == 222
    assert layer.flops_per_row == 2 * (2 * weights + other)
    assert count_parameters(layer) == 2 * (weights + 6)
