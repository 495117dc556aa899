"""Attention whose weights are inner products as they are."""

import re
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(3)
Row = list[list[float]]
Randomise = Callable[[nn.Module, int], Interaction]
KINDS = [("2a", 1), ("2e", 1), ("3a", 1), ("3a", 3), ("3e", 1), ("3e", 2)]
kinds = pytest.mark.parametrize(("kind", "num_layers"), KINDS)


def apply(matrix: Row, vector: list[float]) -> list[float]:
    return [sum(w * v for w, v in zip(line, vector, strict=True)) for line in matrix]


def dot(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def plain_pairs(row: Row, kind: str, learned: Row) -> Row:
    """Cheng & Xue 2021: a vector for each pair, of a field with itself too."""
    out = []
    for i, left in enumerate(row):
        for j, right in enumerate(row):
            products = [a * b for a, b in zip(left, right, strict=True)]
            values = learned[i * len(row) + j] if kind == "2a" else products
            out.append([dot(left, right) * value for value in values])
    return out


def plain_layer(row: Row, kind: str, key: Row, vectors: Any, kept: Row | None) -> Row:
    """Cheng & Xue 2021: every field gathers from all, weighed by inner products."""
    out = []
    for i, asking in enumerate(row):
        total = apply(kept, asking) if kept else [0.0] * len(asking)
        for j, asked in enumerate(row):
            weight = dot(asking, apply(key, asked))
            for d in range(len(asking)):
                value = vectors[i][d][j] if kind == "3a" else asking[d] * asked[d]
                total[d] += weight * value
        out.append(total)
    return out


def plain_sam(row: Row, layer: Interaction, kind: str, num_layers: int, residual: bool) -> Row:
    maps = iter([op.weight.tolist() for name, op in layer.ops.items() if name.startswith("lin")])
    if kind.startswith("2"):
        learned = layer.ops["constant_0"].weight.tolist() if kind == "2a" else []
        return plain_pairs(row, kind, learned)
    for _ in range(num_layers):
        key = next(maps)
        vectors = next(maps) if kind == "3a" else None
        row = plain_layer(row, kind, key, vectors, next(maps) if residual else None)
    assert next(maps, None) is None
    return row


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(1, 2), (2, 1), (4, 3)])
@kinds
def test_sam_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    kind: str,
    num_layers: int,
    num_fields: int,
    embedding_dim: int,
    residual: bool,
    seed: int,
) -> None:
    options: dict[str, Any] = {"kind": kind, "num_layers": num_layers, "residual": residual}
    made = build("sam", num_fields=num_fields, embedding_dim=embedding_dim, **options)
    layer = randomise(made, seed)
    x = draw(3, num_fields, embedding_dim, seed=seed)
    expected = [plain_sam(row, layer, kind, num_layers, residual) for row in x.tolist()]
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(layer(x).view(wanted.shape), wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Inner products of 2 and 3: 4, 6, 6, 9, times ones, or times the product once more.
        ("2a", [4.0, 6.0, 6.0, 9.0]),
        ("2e", [16.0, 36.0, 36.0, 81.0]),
        # Keys 2 * 2 and 2 * 3: 2 * 4 + 2 * 6 = 20 and 3 * 4 + 3 * 6 = 30, less the fields.
        ("3a", [18.0, 27.0]),
        # 8 * (2 * 2) + 12 * (2 * 3) = 104 and 12 * (3 * 2) + 18 * (3 * 3) = 234, less the fields.
        ("3e", [102.0, 231.0]),
    ],
)
def test_sam_of_two_fields_of_one_number(kind: str, expected: list[float]) -> None:
    layer = build("sam", num_fields=2, embedding_dim=1, kind=kind, num_layers=1)
    maps = [op for name, op in layer.ops.items() if name.startswith("lin")]
    with torch.no_grad():
        if maps:
            maps[0].weight.fill_(2.0)
            maps[-1].weight.fill_(-1.0)
    found = layer(torch.tensor([[[2.0], [3.0]]]))
    assert found.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["2a", "3a"])
def test_the_learned_vectors_of_pairs_begin_at_ones(kind: str) -> None:
    layer = build("sam", num_fields=3, embedding_dim=2, kind=kind, num_layers=1)
    name = "constant_0" if kind == "2a" else "lin_1"
    assert layer.ops[name].weight.eq(1).all()
    assert layer.ops[name].weight.numel() == 3 * 3 * 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_kind_3e_turns_the_fields_of_its_output_with_those_it_reads(
    draw: Callable[..., Tensor], randomise: Randomise, num_layers: int, seed: int
) -> None:
    made = build("sam", num_fields=4, embedding_dim=3, kind="3e", num_layers=num_layers)
    layer = randomise(made, seed)
    x = draw(2, 4, 3, seed=seed)
    expected = layer(x)
    for order in permutations(range(4)):
        turned = expected[:, order]
        torch.testing.assert_close(layer(x[:, order]), turned, rtol=1e-9, atol=1e-9)


@kinds
def test_sam_s_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    kind: str,
    num_layers: int,
) -> None:
    num_layers = min(num_layers, 2)
    made = build("sam", num_fields=3, embedding_dim=2, kind=kind, num_layers=num_layers)
    assert check_gradients(randomise(made, 0), 0.5 * draw(2, 3, 2, seed=0))


@pytest.mark.parametrize(
    ("kind", "num_layers", "degree"),
    [("2a", 1, 2), ("2e", 1, 4), ("3a", 1, 2), ("3a", 2, 4), ("3e", 1, 4)],
)
def test_sam_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    kind: str,
    num_layers: int,
    degree: int,
) -> None:
    made = build("sam", num_fields=3, embedding_dim=2, kind=kind, num_layers=num_layers)
    layer = randomise(made, 0)
    assert measure_degree(layer, draw(2, 3, 2, seed=0)) == layer.degree == degree


@pytest.mark.parametrize("kind", ["2a", "2e", "3a", "3e"])
def test_dropout_is_of_the_output_of_each_layer_and_in_training_alone(
    draw: Callable[..., Tensor], randomise: Randomise, kind: str
) -> None:
    options: dict[str, Any] = {"num_fields": 8, "embedding_dim": 16, "num_layers": 1, "kind": kind}
    layer = randomise(build("sam", dropout=0.25, **options), 0)
    without = randomise(build("sam", **options), 0)
    x = draw(64, 8, 16, seed=0)
    torch.manual_seed(0)
    dropped, expected = layer(x), without(x)
    kept = dropped != 0
    # 8192 numbers or more: the share is known to 0.5%.
    assert kept.double().mean().item() == pytest.approx(0.75, abs=0.02)
    torch.testing.assert_close(dropped[kept], expected[kept] / 0.75)
    torch.testing.assert_close(layer.eval()(x), expected)


def test_a_matrix_product_of_the_row_runs_compiled_and_in_half_precision(
    draw: Callable[..., Tensor], randomise: Randomise
) -> None:
    layer = randomise(build("sam", num_fields=5, embedding_dim=4, kind="3e", num_layers=1), 0)
    x = 0.5 * draw(4, 5, 4, seed=0)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(x), layer(x), rtol=0, atol=1e-12)
    torch._dynamo.reset()
    layer, x = layer.float(), x.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(x).float()
    assert (half - layer(x)).norm() <= 0.05 * layer(x).norm()


def test_sam_counts_its_parameters_and_operations(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("sam", num_fields=5, embedding_dim=3, kind="3a", num_layers=2)
    # Of a layer: keys, a vector of each pair, and the map of what is kept.
    assert count_parameters(layer) == 2 * (9 + 5 * 5 * 3 + 9)
    assert layer.flops.matmul == 2 * (2 * 5 * 9 + 2 * 5 * 5 * 3 + 2 * 5 * 9)
    # Products of all pairs and their sums, then what is kept is added.
    assert layer.flops.other == 2 * (25 * 3 + 25 * 2 + 15)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"kind": "1"}, "kind must be 2a, 2e, 3a or 3e; got '1'."),
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0."),
    ],
)
def test_sam_refuses_what_it_cannot_be(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'sam: {line}')}$"):
        build("sam", num_fields=3, embedding_dim=4, **options)
