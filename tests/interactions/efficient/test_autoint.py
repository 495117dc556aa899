"""Multi-head self-attention over fields."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build

SEEDS = range(3)
Row = list[list[float]]
Randomise = Callable[[nn.Module, int], nn.Module]


def apply(matrix: Row, vector: list[float]) -> list[float]:
    return [sum(w * v for w, v in zip(line, vector, strict=True)) for line in matrix]


def plain_attention(q: Row, k: Row, v: Row, num_heads: int, scale: float) -> Row:
    """Head by head, field by field."""
    width, out_width = len(q[0]) // num_heads, len(v[0]) // num_heads
    out: Row = [[] for _ in q]
    for head in range(num_heads):
        own = slice(head * width, (head + 1) * width)
        for i, asking in enumerate(q):
            products = [
                scale * sum(a * b for a, b in zip(asking[own], asked[own], strict=True))
                for asked in k
            ]
            weights = [math.exp(product - max(products)) for product in products]
            for c in range(head * out_width, (head + 1) * out_width):
                out[i].append(
                    sum(w * line[c] for w, line in zip(weights, v, strict=True)) / sum(weights)
                )
    return out


def plain_autoint(row: Row, layer: nn.Module, num_layers: int, num_heads: int) -> Row:
    """Song et al. 2019, eq. 5-8."""
    for number in range(num_layers):
        q, k, v, kept = (
            [
                apply(layer.get_parameter(f"ops.lin_{4 * number + m}.weight").tolist(), e)
                for e in row
            ]
            for m in range(4)
        )
        gathered = plain_attention(q, k, v, num_heads, 1.0)
        row = [
            [max(0.0, a + b) for a, b in zip(one, other, strict=True)]
            for one, other in zip(gathered, kept, strict=True)
        ]
    return row


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_layers", "num_heads", "width"), [(1, 1, 3), (2, 2, 4), (3, 4, 4)])
def test_autoint_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_layers: int,
    num_heads: int,
    width: int,
    seed: int,
) -> None:
    options = {"num_layers": num_layers, "num_heads": num_heads, "attention_dim": width}
    layer = randomise(build("autoint", num_fields=5, embedding_dim=3, **options), seed)
    x = draw(3, 5, 3, seed=seed)
    expected = [plain_autoint(row, layer, num_layers, num_heads) for row in x.tolist()]
    torch.testing.assert_close(
        layer(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10
    )


def test_autoint_of_two_fields_of_one_number() -> None:
    layer = build(
        "autoint", num_fields=2, embedding_dim=1, num_layers=1, num_heads=1, attention_dim=1
    )
    with torch.no_grad():
        for number, weight in enumerate((1.0, math.log(2), 3.0, -1.0)):  # q, k, v, kept
            layer.get_parameter(f"ops.lin_{number}.weight").fill_(weight)
    # e = 1, 2; q = 1, 2; k = log 2, 2 log 2; v = 3, 6; kept = -1, -2
    # field 1: exp(1 log 2), exp(2 log 2) = 2, 4: (2*3 + 4*6) / 6 = 5, less 1 = 4
    # field 2: exp(2 log 2), exp(4 log 2) = 4, 16: (4*3 + 16*6) / 20 = 5.4, less 2 = 3.4
    expected = torch.tensor([[[4.0], [3.4]]])
    torch.testing.assert_close(layer(torch.tensor([[[1.0], [2.0]]])), expected)


def test_autoint_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = build(
        "autoint", num_fields=3, embedding_dim=2, num_layers=2, num_heads=2, attention_dim=4
    )
    assert check_gradients(randomise(layer, 0), draw(2, 3, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_autoint_follows_the_order_of_the_fields(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("autoint", num_fields=5, embedding_dim=3), seed)
    x = draw(3, 5, 3, seed=seed)
    order = [3, 0, 4, 1, 2]
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        ({"attention_dim": 0}, "attention_dim must be at least 1; got 0."),
        ({"num_heads": 3}, "num_heads must divide 32 and 32; got 3."),
    ],
)
def test_autoint_refuses_what_it_cannot_build(options: dict[str, int], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('autoint: ' + line)}$"):
        build("autoint", num_fields=3, embedding_dim=4, **options)


def test_autoint_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build(
        "autoint", num_fields=5, embedding_dim=3, num_layers=2, num_heads=2, attention_dim=4
    )
    # Four maps of 5 fields to 4 numbers, from 3 and then from 4; 25 products of 4 numbers, twice.
    matmul = 2 * 5 * 4 * 4 * (3 + 4) + 2 * (2 * 2 * 25 * 4)
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 3) == matmul
    # Softmax of 2 heads of 25 numbers, 5 operations each; a sum and a relu of 5 x 4.
    assert layer.flops.other == 2 * (5 * 2 * 25 + 20 + 20)
    assert count_parameters(layer) == 4 * 4 * (3 + 4)
