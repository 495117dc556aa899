"""FinalMLP's feature selection without a context: gates that are the same for every row."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build, express
from recsys_had.interactions.algebra import Interaction, source

SEEDS = range(5)
CONTEXT = "ops.constant_0.weight"
Row = list[list[float]]
Randomise = Callable[[nn.Module, int], Interaction]


def affine(layer: nn.Module, op: str, numbers: list[float]) -> list[float]:
    weight = layer.get_parameter(f"ops.{op}.weight").tolist()
    bias = layer.get_parameter(f"ops.{op}.bias").tolist()
    return [
        sum(w * number for w, number in zip(line, numbers, strict=True)) + shift
        for line, shift in zip(weight, bias, strict=True)
    ]


def plain_learned_gate(row: Row, layer: nn.Module, num_hidden: int) -> Row:
    """Mao et al. 2023: twice the sigmoid of a network of a learned vector, times the features."""
    (hidden,) = layer.get_parameter(CONTEXT).tolist()
    for number in range(num_hidden):
        hidden = [max(z, 0.0) for z in affine(layer, f"lin_{number}", hidden)]
    gates = iter(2 / (1 + math.exp(-z)) for z in affine(layer, f"lin_{num_hidden}", hidden))
    return [[next(gates) * number for number in field] for field in row]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("num_fields", "embedding_dim", "hidden_units"),
    [(1, 1, (1,)), (3, 4, (5,)), (5, 2, (3, 4)), (4, 1, (2, 3, 4))],
)
def test_learned_gate_equals_its_formula_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    hidden_units: tuple[int, ...],
    seed: int,
) -> None:
    layer = randomise(
        build(
            "learned_gate",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            hidden_units=hidden_units,
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_learned_gate(row, layer, len(hidden_units)) for row in x_BFD.tolist()],
        dtype=torch.float64,
    )
    # A single field is flat.
    expected = expected.flatten(1) if num_fields == 1 else expected
    torch.testing.assert_close(layer(x_BFD), expected, rtol=0, atol=1e-12)


def test_learned_gate_of_two_numbers() -> None:
    layer = build("learned_gate", num_fields=2, embedding_dim=1, hidden_units=(1,)).double()
    ln3 = math.log(3)
    values: list[Any] = [[[2.0]], [[1.5]], [-1.0], [[ln3 / 2], [-ln3]], [0.0, 2 * ln3]]
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            numbers = torch.tensor(value, dtype=torch.float64)
            assert parameter.shape == numbers.shape
            parameter.copy_(numbers)
    # c = 2: relu(1.5 * 2 - 1) = 2; (ln 3, -2 ln 3 + 2 ln 3) = (ln 3, 0), gates (3/2, 1)
    # so (3/2 * 4, 1 * 5) = (6, 5), and (-3, 7) for (-2, 7)
    x = torch.tensor([[[4.0], [5.0]], [[-2.0], [7.0]]], dtype=torch.float64)
    expected = torch.tensor([[[6.0], [5.0]], [[-3.0], [7.0]]], dtype=torch.float64)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-13)


def test_learned_gate_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = build("learned_gate", num_fields=3, embedding_dim=2, hidden_units=(4, 3))
    assert check_gradients(randomise(layer, 2), draw(3, 3, 2, seed=2))


@pytest.mark.parametrize("seed", SEEDS)
def test_gates_of_learned_gate_are_the_same_for_every_row(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("learned_gate", num_fields=3, embedding_dim=4, hidden_units=(6,)), seed)
    x_BFD = draw(20, 3, 4, seed=seed)
    gates = layer(x_BFD) / x_BFD
    torch.testing.assert_close(gates, gates[:1].expand_as(gates), rtol=1e-12, atol=0)
    assert ((gates >= 0) & (gates <= 2)).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_learned_gate_is_feature_selection_of_the_learned_vector(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("learned_gate", num_fields=3, embedding_dim=4), seed)
    x, context = source(3, 4), source(1, 4)
    chosen = Interaction(express("feature_selection", x, context), [x, context]).double()
    for number in range(2):
        chosen.ops[f"lin_{number}"].load_state_dict(layer.ops[f"lin_{number}"].state_dict())
    x_BFD = draw(5, 3, 4, seed=seed)
    learned = layer.get_parameter(CONTEXT).detach().expand(5, 1, 4)
    torch.testing.assert_close(layer(x_BFD), chosen(x_BFD, learned), rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_learned_gate_is_linear_as_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = randomise(build("learned_gate", num_fields=3, embedding_dim=4), seed)
    x_BFD, more = draw(5, 3, 4, seed=seed), draw(5, 3, 4, seed=100 + seed)
    assert measure_degree(layer, x_BFD) == layer.degree == 1
    torch.testing.assert_close(layer(x_BFD + more), layer(x_BFD) + layer(more), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_gates_of_a_new_learned_gate_are_near_one_and_learn_at_once(
    draw: Callable[..., Tensor], seed: int
) -> None:
    torch.manual_seed(seed)
    layer = build("learned_gate", num_fields=6, embedding_dim=8).double()
    x_BFD = draw(50, 6, 8, seed=seed)
    out = layer(x_BFD)
    torch.testing.assert_close(out / x_BFD, torch.ones_like(out), rtol=0, atol=0.1)
    out.square().sum().backward()
    gradient = layer.get_parameter(CONTEXT).grad
    assert gradient is not None
    assert gradient.all()


@pytest.mark.parametrize(("hidden_units", "told"), [((), "[]"), ((8, 0), "[8, 0]")])
def test_learned_gate_refuses_a_network_without_width(
    hidden_units: tuple[int, ...], told: str
) -> None:
    line = f"learned_gate: hidden_units must be one positive width or more; got {told}."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("learned_gate", num_fields=3, embedding_dim=4, hidden_units=hidden_units)


def test_learned_gate_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("learned_gate", num_fields=6, embedding_dim=8, hidden_units=(5,))
    # A vector of 8 to 5, those to 48, 2 operations a weight; 5 relus, and a sigmoid, a doubling and
    # a product for each of 48 numbers.
    weights = 8 * 5 + 5 * 48
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8) == 2 * weights
    assert layer.flops.other == 5 + 3 * 48
    assert layer.flops_per_row == 2 * weights + 5 + 3 * 48
    assert count_parameters(layer) == 8 + weights + 5 + 48
