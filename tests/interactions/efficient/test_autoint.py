"""Multi-head self-attention over fields."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(3)
Row = list[list[float]]
Randomise = Callable[[nn.Module, int], Interaction]


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


def layer_norm(vector: list[float], norm: nn.Module) -> list[float]:
    mean = sum(vector) / len(vector)
    deviation = math.sqrt(sum((z - mean) ** 2 for z in vector) / len(vector) + 1e-5)
    scales, shifts = norm.weight.tolist(), norm.bias.tolist()
    return [
        (z - mean) / deviation * scale + shift
        for z, scale, shift in zip(vector, scales, shifts, strict=True)
    ]


def plain_autoint(
    row: Row,
    layer: Interaction,
    num_layers: int,
    num_heads: int,
    residual: str = "mapped",
    normed: bool = False,
    scaled: bool = False,
) -> Row:
    """Song et al. 2019, eq. 5-8; a field kept as it is where asked for and its width allows."""
    matrices = iter(op.weight.tolist() for name, op in layer.ops.items() if name.startswith("lin_"))
    for number in range(num_layers):
        q, k, v = ([apply(matrix, e) for e in row] for matrix in [next(matrices) for _ in "qkv"])
        scale = 1 / math.sqrt(len(q[0]) // num_heads) if scaled else 1.0
        sums = plain_attention(q, k, v, num_heads, scale)
        if residual != "none":
            keeps = residual == "kept" and len(row[0]) == len(sums[0])
            kept = row
            if not keeps:
                matrix = next(matrices)
                kept = [apply(matrix, e) for e in row]
            sums = [
                [a + b for a, b in zip(one, other, strict=True)]
                for one, other in zip(sums, kept, strict=True)
            ]
        if normed:
            sums = [layer_norm(e, layer.ops[f"layernorm_{number}"]) for e in sums]
        row = [[max(0.0, z) for z in e] for e in sums]
    assert next(matrices, None) is None
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


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("residual", ["mapped", "kept", "none"])
# The fields come in another width than the layers', and in the same.
@pytest.mark.parametrize("embedding_dim", [3, 4])
def test_autoint_with_each_of_its_options_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    embedding_dim: int,
    residual: str,
    layer_norm: bool,
    scaled: bool,
    seed: int,
) -> None:
    options: dict[str, Any] = {"num_layers": 3, "num_heads": 2, "attention_dim": 4}
    options |= {"residual": residual, "layer_norm": layer_norm, "scaled": scaled}
    layer = randomise(build("autoint", num_fields=5, embedding_dim=embedding_dim, **options), seed)
    x = draw(3, 5, embedding_dim, seed=seed)
    expected = [plain_autoint(row, layer, 3, 2, residual, layer_norm, scaled) for row in x.tolist()]
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


@pytest.mark.parametrize(
    ("residual", "expected"), [("kept", [[6.0], [7.4]]), ("none", [[5.0], [5.4]])]
)
def test_autoint_of_two_fields_of_one_number_that_are_kept_or_left_out(
    residual: str, expected: list[list[float]]
) -> None:
    options: dict[str, Any] = {"num_layers": 1, "num_heads": 1, "attention_dim": 1}
    layer = build("autoint", num_fields=2, embedding_dim=1, residual=residual, **options)
    with torch.no_grad():
        for number, weight in enumerate((1.0, math.log(2), 3.0)):  # q, k, v
            layer.get_parameter(f"ops.lin_{number}.weight").fill_(weight)
    # e = 1, 2: the fields gather 5 and 5.4, as above; kept, they add 1 and 2.
    torch.testing.assert_close(layer(torch.tensor([[[1.0], [2.0]]])), torch.tensor([expected]))


@pytest.mark.parametrize(
    "options", [{}, {"residual": "kept", "layer_norm": True, "scaled": True}, {"residual": "none"}]
)
def test_autoint_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    options: dict[str, Any],
) -> None:
    layer = build(
        "autoint",
        num_fields=3,
        embedding_dim=2,
        num_layers=2,
        num_heads=2,
        attention_dim=4,
        **options,
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
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0."),
        ({"residual": "sum"}, "residual must be mapped, kept or none; got 'sum'."),
    ],
)
def test_autoint_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('autoint: ' + line)}$"):
        build("autoint", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize("seed", SEEDS)
def test_autoint_drops_attention_in_training_alone(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    """With one field all of it is attended to: kept and doubled, or dropped, head by head."""
    options = {"num_layers": 1, "num_heads": 2, "attention_dim": 4, "residual": "none"}
    sizes = {"num_fields": 1, "embedding_dim": 4}
    plain = randomise(build("autoint", **sizes, **options), seed)
    layer = randomise(build("autoint", **sizes, **options, dropout=0.5), seed)
    x_BFD = draw(512, 1, 4, seed=seed)
    kept = plain(x_BFD).view(512, 2, 2)
    assert torch.equal(layer.eval()(x_BFD).view(512, 2, 2), kept)
    torch.manual_seed(seed)
    out = layer.train()(x_BFD).view(512, 2, 2)
    counted = kept.amax(dim=2) > 0
    dropped = (out == 0).all(dim=2)
    torch.testing.assert_close(out, torch.where(dropped.unsqueeze(2), 0.0, 2 * kept))
    share = dropped[counted].double().mean().item()
    assert share == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / int(counted.sum())))


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


@pytest.mark.parametrize(
    ("options", "maps", "beside", "norms"),
    # A matrix of 3 x 4 or 4 x 4 for what is added, a sum and a relu of 20 numbers a layer; a norm
    # takes 7 operations a number and has 8 of its own; a scale is 1 for each of 50 products.
    [
        ({"residual": "kept"}, 3 * (3 + 4) + 3, 40, 0),
        ({"residual": "none"}, 3 * (3 + 4), 20, 0),
        ({"layer_norm": True}, 4 * (3 + 4), 40 + 7 * 20, 8),
        ({"scaled": True}, 4 * (3 + 4), 40 + 50, 0),
    ],
)
def test_autoint_with_each_of_its_options_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    options: dict[str, Any],
    maps: int,
    beside: int,
    norms: int,
) -> None:
    layer = build(
        "autoint",
        num_fields=5,
        embedding_dim=3,
        num_layers=2,
        num_heads=2,
        attention_dim=4,
        **options,
    )
    matmul = 2 * 5 * 4 * maps + 2 * (2 * 2 * 25 * 4)
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 3) == matmul
    assert layer.flops.other == 2 * (5 * 2 * 25 + beside)
    assert count_parameters(layer) == 4 * maps + 2 * norms


def test_autoint_has_the_parameters_of_the_published_frappe_runs(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    sizes = {"num_fields": 10, "embedding_dim": 10, "num_heads": 4, "attention_dim": 128}
    layer = build("autoint", **sizes, num_layers=6, residual="kept")
    # Four matrices of 10 x 128, then three of 128 x 128 a layer: the fields are mapped once.
    assert count_parameters(layer) == 4 * 1280 + 5 * 3 * 16384
    # 5389 rows of width 10, and the map of 1280 numbers to one with its bias.
    assert 53890 + count_parameters(layer) + 1281 == 306051
    plus = build("autoint", **sizes, num_layers=5, residual="kept", layer_norm=True, scaled=True)
    assert count_parameters(plus) == 4 * 1280 + 4 * 3 * 16384 + 5 * 256
    # Beside it a network of 100 to 400, 400, 400 and 1, normalised.
    assert 53890 + count_parameters(plus) + 1281 + 364001 == 622180
