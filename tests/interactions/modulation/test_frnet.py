"""FRNet: embeddings blended with what the row makes of them."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(4)
KINDS = ("bit", "vector")
Row = list[list[float]]
Randomise = Callable[[nn.Module, int], Interaction]


def affine(op: Any, numbers: list[float]) -> list[float]:
    shifts = [0.0] * len(op.weight) if op.bias is None else op.bias.tolist()
    return [
        sum(w * number for w, number in zip(line, numbers, strict=True)) + shift
        for line, shift in zip(op.weight.tolist(), shifts, strict=True)
    ]


def plain_unit(row: Row, layer: Interaction, first: int) -> Row:
    """What a unit makes of the row: its network times what each field gathers."""
    read, last, query, key, value, back = (layer.ops[f"lin_{first + n}"] for n in range(6))
    hidden = [max(z, 0.0) for z in affine(read, [number for field in row for number in field])]
    context = [max(z, 0.0) for z in affine(last, hidden)]
    queries, keys, values = ([affine(op, field) for field in row] for op in (query, key, value))
    out = []
    for asking in queries:
        products = [sum(a * b for a, b in zip(asking, asked, strict=True)) for asked in keys]
        powers = [math.exp(product - max(products)) for product in products]
        weights = [power / sum(powers) for power in powers]
        gathered = [0.0] * len(values[0])
        for weight, vector in zip(weights, values, strict=True):
            gathered = [g + weight * v for g, v in zip(gathered, vector, strict=True)]
        out.append([c * g for c, g in zip(context, affine(back, gathered), strict=True)])
    return out


def plain_frnet(row: Row, layer: Interaction, kind: str) -> Row:
    """Wang et al. 2022: ``g * E + (1 - g) * E'``."""
    second, said = plain_unit(row, layer, 0), plain_unit(row, layer, 6)
    out = []
    for field, other, numbers in zip(row, second, said, strict=True):
        told = numbers if kind == "bit" else [sum(numbers)] * len(numbers)
        gates = [1 / (1 + math.exp(-z)) for z in told]
        out.append([g * a + (1 - g) * b for g, a, b in zip(gates, field, other, strict=True)])
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("num_fields", "embedding_dim", "attention_dim", "hidden_units"),
    [(1, 3, 2, 4), (3, 4, 5, 6), (5, 2, 1, 3), (4, 1, 3, 2)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_frnet_equals_its_formula_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    kind: str,
    num_fields: int,
    embedding_dim: int,
    attention_dim: int,
    hidden_units: int,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "frnet",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            kind=kind,
            attention_dim=attention_dim,
            hidden_units=hidden_units,
        ),
        seed,
    )
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(0.5)
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_frnet(row, layer, kind) for row in x_BFD.tolist()], dtype=torch.float64
    )
    # A single field is flat.
    expected = expected.flatten(1) if num_fields == 1 else expected
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_frnet_of_two_fields_of_one_number(kind: str) -> None:
    layer = build(
        "frnet", num_fields=2, embedding_dim=1, kind=kind, attention_dim=1, hidden_units=1
    ).double()
    # E = 1, 2.
    # First unit: relu(1 + 2 - 1) = 2, relu(0.5 * 2) = 1. q = 1, 2; k = ln 2, 2 ln 2; v = 3, 6
    #   field 1: exp(1 ln 2), exp(2 ln 2) = 2, 4: (2*3 + 4*6) / 6 = 5; doubled and times 1, 10
    #   field 2: exp(2 ln 2), exp(4 ln 2) = 4, 16: (4*3 + 16*6) / 20 = 5.4; doubled, 10.8
    # Second unit: relu(1 + 2 - 2) = 1, relu(3 * 1 - 1) = 2. q = 0: both fields count alike,
    #   v = 1, 2: (1 + 2) / 2 = 1.5; times ln(3) / 3 and 2: ln 3. Its sigmoid is 3/4, in both kinds.
    # y = 3/4 * 1 + 1/4 * 10 = 3.25; 3/4 * 2 + 1/4 * 10.8 = 4.2
    values: list[Any] = [
        ([[1.0, 1.0]], [-1.0]),
        ([[0.5]], [0.0]),
        ([[1.0]],),
        ([[math.log(2)]],),
        ([[3.0]],),
        ([[2.0]],),
        ([[1.0, 1.0]], [-2.0]),
        ([[3.0]], [-1.0]),
        ([[0.0]],),
        ([[5.0]],),
        ([[1.0]],),
        ([[math.log(3) / 3]],),
    ]
    with torch.no_grad():
        for number, chosen in enumerate(values):
            parameters = layer.ops[f"lin_{number}"].parameters()
            for parameter, value in zip(parameters, chosen, strict=True):
                numbers = torch.tensor(value, dtype=torch.float64)
                assert parameter.shape == numbers.shape
                parameter.copy_(numbers)
    out = layer(torch.tensor([[[1.0], [2.0]]], dtype=torch.float64))
    expected = torch.tensor([[[3.25], [4.2]]], dtype=torch.float64)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_frnet_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    kind: str,
) -> None:
    layer = randomise(
        build("frnet", num_fields=3, embedding_dim=2, kind=kind, attention_dim=2, hidden_units=4),
        1,
    )
    assert check_gradients(layer, draw(3, 3, 2, seed=1))


def silence(layer: Interaction, unit: int) -> None:
    """Makes the vector of the whole row zero, and with it what the unit gives."""
    with torch.no_grad():
        for parameter in layer.ops[f"lin_{6 * unit + 1}"].parameters():
            parameter.zero_()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_frnet_without_a_second_embedding_lets_a_share_of_the_first_pass(
    draw: Callable[..., Tensor], randomise: Randomise, kind: str, seed: int
) -> None:
    layer = randomise(build("frnet", num_fields=5, embedding_dim=3, kind=kind), seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(0.2)
    silence(layer, 0)
    x_BFD = draw(20, 5, 3, seed=seed)
    gates = layer(x_BFD) / x_BFD
    assert ((gates > 0) & (gates < 1)).all()
    # Of the numbers of a field it is the same share, or not.
    same = torch.isclose(gates, gates[..., :1], rtol=1e-10, atol=0).all()
    assert same == (kind == "vector")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_frnet_whose_gates_say_nothing_is_the_mean_of_both_embeddings(
    draw: Callable[..., Tensor], randomise: Randomise, kind: str, seed: int
) -> None:
    layer = randomise(
        build("frnet", num_fields=4, embedding_dim=3, kind=kind, hidden_units=5), seed
    )
    silence(layer, 1)
    x_BFD = draw(4, 4, 3, seed=seed)
    second = torch.tensor(
        [plain_unit(row, layer, 0) for row in x_BFD.tolist()], dtype=torch.float64
    )
    torch.testing.assert_close(layer(x_BFD), (x_BFD + second) / 2, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_field_of_frnet_reads_every_other(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("frnet", num_fields=4, embedding_dim=3), seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(0.2)
    x_BFD = draw(6, 4, 3, seed=seed)
    for field in range(4):
        moved = x_BFD.clone()
        moved[:, field] += 1.0
        assert (layer(moved) != layer(x_BFD)).any(dim=2).any(dim=0).all()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"attention_dim": 0}, "attention_dim must be at least 1; got 0."),
        ({"hidden_units": -3}, "hidden_units must be at least 1; got -3."),
        ({"kind": "field"}, "kind must be bit or vector; got 'field'."),
    ],
)
def test_frnet_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('frnet: ' + line)}$"):
        build("frnet", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_frnet_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    kind: str,
) -> None:
    layer = build(
        "frnet", num_fields=6, embedding_dim=8, kind=kind, attention_dim=5, hidden_units=7
    )
    # Each of two units: 48 numbers to 7 and those to 8; each of 6 fields to 5, three times, and
    # from 5 back to 8, 2 operations a weight; 6 * 6 products of two vectors of 5, twice. Beside
    # these 7 + 8 relus, a softmax of 36 numbers (5 each), a product for each of 48.
    maps = 48 * 7 + 7 * 8 + 6 * (3 * 8 * 5 + 5 * 8)
    unit = 7 + 8 + 5 * 36 + 48
    # A gate a coordinate, or 7 sums and a gate a field; a difference, a product and a sum a number.
    gates = {"bit": 48, "vector": 6 * 7 + 6}[kind] + 3 * 48
    matmul = 2 * (2 * maps + 2 * 2 * 36 * 5)
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8) == matmul
    assert layer.flops.other == 2 * unit + gates
    assert layer.flops_per_row == matmul + 2 * unit + gates
    assert count_parameters(layer) == 2 * (48 * 7 + 7 + 7 * 8 + 8 + 3 * 8 * 5 + 5 * 8)
