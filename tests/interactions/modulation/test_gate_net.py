"""GateNet's gates on embeddings, both kinds."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
WEIGHT = "ops.lin_0.weight"
KINDS = ("bit", "vector")
Randomise = Callable[[nn.Module, int], Interaction]
pytestmark = pytest.mark.parametrize("kind", KINDS)


def plain_gate_net(row: list[list[float]], weight: Tensor, kind: str) -> list[list[float]]:
    """Huang et al. 2020, the feature embedding gate."""
    out = []
    for field, matrix in zip(row, weight.tolist(), strict=True):
        gates = []
        for line in matrix:
            mapped = sum(w * number for w, number in zip(line, field, strict=True))
            gates.append(1 / (1 + math.exp(-mapped)))
        gates = gates * len(field) if kind == "vector" else gates
        out.append([number * gate for number, gate in zip(field, gates, strict=True)])
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(1, 3), (2, 1), (3, 4), (6, 2)])
def test_gate_net_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    kind: str,
    seed: int,
) -> None:
    layer = randomise(
        build("gate_net", num_fields=num_fields, embedding_dim=embedding_dim, kind=kind), seed
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    weight = layer.get_parameter(WEIGHT).detach()
    expected = torch.tensor(
        [plain_gate_net(row, weight, kind) for row in x_BFD.tolist()], dtype=torch.float64
    )
    # A single field is flat.
    expected = expected.flatten(1) if num_fields == 1 else expected
    torch.testing.assert_close(layer(x_BFD), expected, rtol=0, atol=1e-12)


def test_gate_net_of_two_fields_of_two_numbers(kind: str) -> None:
    layer = build("gate_net", num_fields=2, embedding_dim=2, kind=kind).double()
    ln3 = math.log(3)
    values: dict[str, list[Any]] = {
        "bit": [[[ln3, 0.0], [0.0, -ln3]], [[0.0, 0.0], [ln3, -ln3]]],
        "vector": [[[ln3, 0.0]], [[-ln3, ln3]]],
    }
    # sigmoid(ln 3) = 3 / (3 + 1) = 3/4, sigmoid(-ln 3) = 1/4, sigmoid(0) = 1/2
    # bit, e = (1, 1): W e = (ln 3, -ln 3), gates (3/4, 1/4), so (3/4, 1/4)
    #      e = (4, 3): W e = (0, 4 ln 3 - 3 ln 3) = (0, ln 3), gates (1/2, 3/4), so (2, 9/4)
    # vector, e = (1, 1): w e = ln 3, gate 3/4, so (3/4, 3/4)
    #         e = (4, 3): w e = -4 ln 3 + 3 ln 3 = -ln 3, gate 1/4, so (1, 3/4)
    expected = {"bit": [[0.75, 0.25], [2.0, 2.25]], "vector": [[0.75, 0.75], [1.0, 0.75]]}
    with torch.no_grad():
        weight = layer.get_parameter(WEIGHT)
        chosen = torch.tensor(values[kind], dtype=torch.float64)
        assert weight.shape == chosen.shape
        weight.copy_(chosen)
    row = torch.tensor([[[1.0, 1.0], [4.0, 3.0]]], dtype=torch.float64)
    wanted = torch.tensor([expected[kind]], dtype=torch.float64)
    torch.testing.assert_close(layer(row), wanted, rtol=0, atol=1e-14)


def test_gate_net_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    kind: str,
) -> None:
    layer = randomise(build("gate_net", num_fields=3, embedding_dim=2, kind=kind), 0)
    assert check_gradients(layer, draw(3, 3, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_gate_net_keeps_fields_apart(
    draw: Callable[..., Tensor], randomise: Randomise, kind: str, seed: int
) -> None:
    layer = randomise(build("gate_net", num_fields=5, embedding_dim=3, kind=kind), seed)
    x_BFD = draw(4, 5, 3, seed=seed)
    before = layer(x_BFD)
    for field in range(5):
        moved = x_BFD.clone()
        moved[:, field] = draw(4, 3, seed=100 + seed)
        changed = (layer(moved) != before).any(dim=2)
        assert changed.any(dim=0).nonzero().flatten().tolist() == [field]


@pytest.mark.parametrize("seed", SEEDS)
def test_gate_net_lets_a_share_of_each_number_pass(
    draw: Callable[..., Tensor], randomise: Randomise, kind: str, seed: int
) -> None:
    layer = randomise(build("gate_net", num_fields=5, embedding_dim=3, kind=kind), seed)
    x_BFD = draw(20, 5, 3, seed=seed)
    gates = layer(x_BFD) / x_BFD
    assert ((gates > 0) & (gates < 1)).all()
    # Of the numbers of a field it is the same share, or not.
    same = torch.isclose(gates, gates[..., :1], rtol=1e-12, atol=0).all()
    assert same == (kind == "vector")


@pytest.mark.parametrize("seed", SEEDS)
def test_gate_net_whose_weights_are_zero_halves_its_input(
    draw: Callable[..., Tensor], kind: str, seed: int
) -> None:
    layer = build("gate_net", num_fields=5, embedding_dim=3, kind=kind).double()
    with torch.no_grad():
        layer.get_parameter(WEIGHT).zero_()
    x_BFD = draw(4, 5, 3, seed=seed)
    torch.testing.assert_close(layer(x_BFD), x_BFD / 2, rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_gate_net_of_an_input_and_of_its_negative_differ_by_the_input(
    draw: Callable[..., Tensor], randomise: Randomise, kind: str, seed: int
) -> None:
    # sigmoid(z) + sigmoid(-z) = 1
    layer = randomise(build("gate_net", num_fields=5, embedding_dim=3, kind=kind), seed)
    x_BFD = draw(4, 5, 3, seed=seed)
    torch.testing.assert_close(layer(x_BFD) - layer(-x_BFD), x_BFD, rtol=0, atol=1e-12)


def test_gate_net_refuses_an_unknown_kind(kind: str) -> None:
    line = f"gate_net: kind must be bit or vector; got '{kind.upper()}'."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("gate_net", num_fields=3, embedding_dim=4, kind=kind.upper())


def test_gate_net_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    kind: str,
) -> None:
    layer = build("gate_net", num_fields=6, embedding_dim=8, kind=kind)
    # Each of 6 fields is mapped to 8 gates or to one, 2 operations a weight. Beside these a
    # sigmoid a gate, and a product for each of 6 * 8 numbers.
    gates = {"bit": 8, "vector": 1}[kind]
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8) == 6 * 2 * 8 * gates
    assert layer.flops.other == 6 * gates + 6 * 8
    assert layer.flops_per_row == 6 * 2 * 8 * gates + 6 * gates + 6 * 8
    assert count_parameters(layer) == 6 * 8 * gates
