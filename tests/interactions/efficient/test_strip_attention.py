"""Attention of all fields to a few mixed ones."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build

SEEDS = range(3)
Randomise = Callable[[nn.Module, int], nn.Module]


def layer_of(num_fields: int, width: int, strips: int, dim: int) -> nn.Module:
    return build(
        "strip_attention",
        num_fields=num_fields,
        embedding_dim=width,
        num_strips=strips,
        attention_dim=dim,
    )


def weights(layer: nn.Module) -> dict[str, list[list[float]]]:
    """Wq, P, Wk, Wv and W, told apart by the order in which they are read."""
    names = ("q", "p", "k", "v", "out")
    return {
        name: layer.get_parameter(f"ops.lin_{number}.weight").tolist()
        for number, name in enumerate(names)
    }


def apply(matrix: list[list[float]], vector: list[float]) -> list[float]:
    return [sum(w * v for w, v in zip(line, vector, strict=True)) for line in matrix]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("strips", "dim"), [(1, 1), (2, 3), (4, 2)])
def test_strip_attention_equals_its_formula_written_with_loops(
    draw: Callable[..., Tensor], randomise: Randomise, strips: int, dim: int, seed: int
) -> None:
    layer = randomise(layer_of(5, 3, strips, dim), seed)
    w = weights(layer)
    x = draw(3, 5, 3, seed=seed)
    expected = []
    for row in x.tolist():
        mixed = [
            [sum(p * e[c] for p, e in zip(line, row, strict=True)) for c in range(3)]
            for line in w["p"]
        ]
        keys, values = ([apply(w[name], strip) for strip in mixed] for name in ("k", "v"))
        out = []
        for e in row:
            query = apply(w["q"], e)
            powers = [
                math.exp(sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(dim))
                for key in keys
            ]
            mean = [
                sum(p * v[c] for p, v in zip(powers, values, strict=True)) / sum(powers)
                for c in range(3)
            ]
            out.append([a + b for a, b in zip(e, apply(w["out"], mean), strict=True)])
        expected.append(out)
    torch.testing.assert_close(
        layer(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


def test_strip_attention_of_two_fields_and_one_strip() -> None:
    layer = layer_of(2, 1, 1, 1)
    with torch.no_grad():
        for number, value in enumerate(([[5.0]], [[1.0, 2.0]], [[7.0]], [[3.0]], [[0.5]])):
            layer.get_parameter(f"ops.lin_{number}.weight").copy_(torch.tensor(value))
    # e = 1, 4: the strip is 1*1 + 2*4 = 9, its value 27; one strip has all the weight, whatever
    # the query: y = 1 + 27/2, 4 + 27/2
    assert layer(torch.tensor([[[1.0], [4.0]]])).tolist() == [[[14.5], [17.5]]]


def test_strip_attention_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    assert check_gradients(randomise(layer_of(3, 2, 2, 2), 0), draw(2, 3, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_strip_attention_whose_values_are_zero_gives_its_input(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(layer_of(5, 3, 2, 4), seed)
    with torch.no_grad():
        layer.get_parameter("ops.lin_3.weight").zero_()
    x = draw(3, 5, 3, seed=seed)
    torch.testing.assert_close(layer(x), x, rtol=0, atol=0)


@pytest.mark.parametrize("option", ["num_strips", "attention_dim"])
def test_strip_attention_refuses_what_it_cannot_build(option: str) -> None:
    line = f"strip_attention: {option} must be at least 1; got 0."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("strip_attention", num_fields=3, embedding_dim=4, **{option: 0})


def test_strip_attention_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = layer_of(5, 3, 2, 4)
    # Queries of 5 fields, 2 strips of 3 channels, keys and values of 2 strips, products with them
    # and means of them, the last map.
    matmul = 2 * (5 * 3 * 4 + 2 * 5 * 3 + 2 * 3 * 4 + 2 * 3 * 3 + 5 * 2 * 4 + 5 * 2 * 3 + 5 * 3 * 3)
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 3) == matmul
    # Scaling and softmax of 5 x 2 weights, the sum with the input.
    assert layer.flops.other == 6 * 10 + 15
    assert count_parameters(layer) == 4 * 3 + 2 * 5 + 4 * 3 + 3 * 3 + 3 * 3
