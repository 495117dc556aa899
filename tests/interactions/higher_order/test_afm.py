"""The attention over pairs of fields of AFM."""

import math
import re
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
Randomise = Callable[[nn.Module, int], Interaction]


def plain_afm(row: list[list[float]], layer: Interaction) -> list[float]:
    """Xiao et al. 2017, eq. 4-5."""
    weight = layer.get_parameter("ops.lin_0.weight").tolist()
    bias = layer.get_parameter("ops.lin_0.bias").tolist()
    (head,) = layer.get_parameter("ops.lin_1.weight").tolist()
    products, exponentials = [], []
    for i, j in combinations(range(len(row)), 2):
        product = [left * right for left, right in zip(row[i], row[j], strict=True)]
        score = 0.0
        for line, start, factor in zip(weight, bias, head, strict=True):
            hidden = start
            for entry, number in zip(line, product, strict=True):
                hidden += entry * number
            score += factor * max(hidden, 0.0)
        products.append(product)
        exponentials.append(math.exp(score))
    out = [0.0] * len(row[0])
    for product, exponential in zip(products, exponentials, strict=True):
        for d, number in enumerate(product):
            out[d] += exponential / sum(exponentials) * number
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("attention_dim", [1, 5])
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (3, 4), (6, 3)])
def test_afm_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    attention_dim: int,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "afm", num_fields=num_fields, embedding_dim=embedding_dim, attention_dim=attention_dim
        ),
        seed,
    )
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor([plain_afm(row, layer) for row in x_BFD.tolist()], dtype=torch.float64)
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-11, atol=1e-12)


def test_afm_attends_to_three_pairs_by_half_three_eighths_and_one_eighth() -> None:
    layer = build("afm", num_fields=3, embedding_dim=2, attention_dim=2).double()
    values = {
        "ops.lin_0.weight": [[0.0, 1.0], [-1.0, 0.0]],
        "ops.lin_0.bias": [0.0, 3.0],
        "ops.lin_1.weight": [[math.log(2), math.log(3)]],
    }
    with torch.no_grad():
        for name, value in values.items():
            layer.get_parameter(name).copy_(torch.tensor(value, dtype=torch.float64))
    # e = (1, 2), (3, 1), (2, 0); e0 * e1 = (3, 2), e0 * e2 = (2, 0), e1 * e2 = (6, 0)
    # relu(W (a, b) + b) = relu(b, 3 - a) = (2, 0), (0, 1), (0, 0)
    # exp(h^T of it) = 2^2, 3^1, 1 = 4, 3, 1, of 8 together
    # y = (4 (3, 2) + 3 (2, 0) + 1 (6, 0)) / 8 = (12 + 6 + 6, 8) / 8 = (3, 1)
    row = torch.tensor([[[1.0, 2.0], [3.0, 1.0], [2.0, 0.0]]], dtype=torch.float64)
    assert layer(row).tolist() == [pytest.approx([3.0, 1.0], rel=1e-14)]


def test_afm_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = randomise(build("afm", num_fields=4, embedding_dim=3, attention_dim=2), 0)
    assert check_gradients(layer, draw(3, 4, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_fields", [2, 3, 6])
def test_afm_without_attention_weights_is_the_mean_of_the_pairs(
    draw: Callable[..., Tensor], randomise: Randomise, num_fields: int, seed: int
) -> None:
    layer = randomise(build("afm", num_fields=num_fields, embedding_dim=3), seed)
    nn.init.zeros_(layer.get_parameter("ops.lin_1.weight"))
    x_BFD = draw(4, num_fields, 3, seed=seed)
    sums = build("bi_interaction", num_fields=num_fields, embedding_dim=3)(x_BFD)
    num_pairs = num_fields * (num_fields - 1) / 2
    torch.testing.assert_close(layer(x_BFD), sums / num_pairs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_afm_ignores_the_order_of_fields(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("afm", num_fields=5, embedding_dim=3), seed)
    x_BFD = draw(4, 5, 3, seed=seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(layer(x_BFD[:, order]), layer(x_BFD), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_afm_stays_between_the_least_and_the_greatest_product(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("afm", num_fields=5, embedding_dim=3), seed)
    x_BFD = draw(8, 5, 3, seed=seed)
    left, right = zip(*combinations(range(5), 2), strict=True)
    products = x_BFD[:, left] * x_BFD[:, right]
    out = layer(x_BFD)
    assert (out >= products.amin(dim=1) - 1e-12).all()
    assert (out <= products.amax(dim=1) + 1e-12).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_afm_drops_coordinates_of_the_sum_in_training_alone(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    plain = randomise(build("afm", num_fields=4, embedding_dim=8), seed)
    layer = randomise(build("afm", num_fields=4, embedding_dim=8, dropout=0.75), seed)
    x_BFD = draw(256, 4, 8, seed=seed)
    kept = plain(x_BFD)
    assert torch.equal(layer.eval()(x_BFD), kept)
    torch.manual_seed(seed)
    out = layer.train()(x_BFD)
    # What is left is 4 times as large; a quarter of 2048 numbers is, within 5 deviations.
    torch.testing.assert_close(out, torch.where(out == 0, 0.0, 4 * kept), rtol=1e-12, atol=0)
    share = (out == 0).double().mean().item()
    assert share == pytest.approx(0.75, abs=5 * math.sqrt(0.75 * 0.25 / 2048))


@pytest.mark.parametrize("seed", SEEDS)
def test_afm_drops_pairs_in_training_alone(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    plain = randomise(build("afm", num_fields=4, embedding_dim=8), seed)
    layer = randomise(build("afm", num_fields=4, embedding_dim=8, attention_dropout=0.5), seed)
    # The same six pairs in every row, one coordinate each, so that the sum tells which are kept.
    row_FD = torch.zeros(4, 8, dtype=torch.float64)
    for d, (i, j) in enumerate(combinations(range(4), 2)):
        row_FD[i, d] = row_FD[j, d] = 1.0 + d
    x_BFD = row_FD.expand(256, 4, 8).contiguous()
    whole = plain(x_BFD)
    assert torch.equal(layer.eval()(x_BFD), whole)
    torch.manual_seed(seed)
    out = layer.train()(x_BFD)
    # A pair's coordinate is dropped as a whole, or twice as large; 6 x 256 times even odds.
    torch.testing.assert_close(out, torch.where(out == 0, 0.0, 2 * whole), rtol=1e-12, atol=0)
    share = (out[:, :6] == 0).double().mean().item()
    assert share == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / 1536))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"attention_dim": 0}, "afm: attention_dim must be at least 1; got 0."),
        ({"dropout": 1.0}, "afm: dropout must be at least 0 and below 1; got 1.0."),
        ({"attention_dropout": 1.0}, "afm: dropout must be at least 0 and below 1; got 1.0."),
        ({"dropout": -0.1}, "afm: dropout must be at least 0 and below 1; got -0.1."),
    ],
)
def test_afm_refuses_no_width_and_a_dropout_of_all(options: dict[str, float], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("afm", num_fields=3, embedding_dim=4, **options)


def test_afm_refuses_an_input_without_a_pair() -> None:
    line = (
        "afm: needs two fields or more to form a pair; got 1. "
        "Let it read a node of shape (B, F, D)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("afm", num_fields=1, embedding_dim=4)


def test_afm_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("afm", num_fields=4, embedding_dim=3, attention_dim=5)
    # Each of 6 pairs is mapped from 3 numbers to 5 and from 5 to 1, 2 operations a weight.
    matmul = 6 * 2 * (3 * 5 + 5)
    assert layer.flops.matmul == count_matmul_flops(layer, 4, 3) == matmul
    # Of each pair: 3 products, 5 times relu, 5 operations of the softmax, 3 weighted numbers.
    # Then 5 sums of 3 numbers.
    assert layer.flops.other == 6 * (3 + 5 + 5 + 3) + 5 * 3
    assert layer.flops_per_row == 351
    assert count_parameters(layer) == 3 * 5 + 5 + 5
