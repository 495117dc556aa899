"""Circular correlations and convolutions of a holographic factorization machine."""

import re
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build

SEEDS = range(5)
KINDS = ("correlation", "convolution")


def plain_pair(left: list[float], right: list[float], kind: str) -> list[float]:
    """Tay et al. 2019: the sums of the outer product's diagonals, which go on at the other end."""
    width = len(left)
    out = [0.0] * width
    for m in range(width):
        for n in range(width):
            k = (n - m if kind == "correlation" else m + n) % width
            out[k] += left[m] * right[n]
    return out


def plain_holographic(row: list[list[float]], kind: str) -> list[list[float]]:
    return [plain_pair(left, right, kind) for left, right in combinations(row, 2)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 1), (3, 4), (5, 2), (4, 7)])
@pytest.mark.parametrize("kind", KINDS)
def test_holographic_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor], kind: str, num_fields: int, embedding_dim: int, seed: int
) -> None:
    layer = build("holographic", num_fields=num_fields, embedding_dim=embedding_dim, kind=kind)
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_holographic(row, kind) for row in x_BFD.tolist()], dtype=torch.float64
    )
    # A single pair is flat.
    expected = expected.flatten(1) if num_fields == 2 else expected
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("embedding_dim", [1, 4, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_holographic_equals_the_products_of_fourier_transforms(
    draw: Callable[..., Tensor], kind: str, embedding_dim: int, seed: int
) -> None:
    x_BFD = draw(4, 5, embedding_dim, seed=seed)
    left, right = torch.triu_indices(5, 5, offset=1)
    first, second = torch.fft.fft(x_BFD[:, left]), torch.fft.fft(x_BFD[:, right])
    first = first.conj() if kind == "correlation" else first
    expected = torch.fft.ifft(first * second)
    assert expected.imag.abs().max() < 1e-12
    found = build("holographic", num_fields=5, embedding_dim=embedding_dim, kind=kind)(x_BFD)
    torch.testing.assert_close(found, expected.real, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # a = (1, 2, 3), b = (1, 0, -1), c = (0, 2, 0)
        # a, b: c_0 = 1 + 0 - 3; c_1 = a . (0, -1, 1) = -2 + 3; c_2 = a . (-1, 1, 0) = -1 + 2
        # a, c: a . (0, 2, 0), a . (2, 0, 0), a . (0, 0, 2) = 4, 2, 6
        # b, c: b . (0, 2, 0), b . (2, 0, 0), b . (0, 0, 2) = 0, 2, -2
        ("correlation", [[-2.0, 1.0, 1.0], [4.0, 2.0, 6.0], [0.0, 2.0, -2.0]]),
        # c_k turns the second one round: (b_0, b_2, b_1), (b_1, b_0, b_2), (b_2, b_1, b_0)
        # a, b: a . (1, -1, 0), a . (0, 1, -1), a . (-1, 0, 1) = -1, -1, 2
        # a, c: a . (0, 0, 2), a . (2, 0, 0), a . (0, 2, 0) = 6, 2, 4
        # b, c: b . (0, 0, 2), b . (2, 0, 0), b . (0, 2, 0) = -2, 2, 0
        ("convolution", [[-1.0, -1.0, 2.0], [6.0, 2.0, 4.0], [-2.0, 2.0, 0.0]]),
    ],
)
def test_holographic_of_three_fields_of_three_numbers(
    kind: str, expected: list[list[float]]
) -> None:
    layer = build("holographic", num_fields=3, embedding_dim=3, kind=kind)
    row = torch.tensor([[[1.0, 2.0, 3.0], [1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]])
    assert layer(row).tolist() == [expected]


@pytest.mark.parametrize("kind", KINDS)
def test_holographic_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], check_gradients: Callable[[nn.Module, Tensor], bool], kind: str
) -> None:
    layer = build("holographic", num_fields=4, embedding_dim=3, kind=kind)
    assert check_gradients(layer, draw(2, 4, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_numbers_of_the_correlations_add_up_to_fm(
    draw: Callable[..., Tensor], seed: int
) -> None:
    x_BFD = draw(4, 6, 5, seed=seed)
    pairs_BPD = build("holographic", num_fields=6, embedding_dim=5)(x_BFD)
    fm = build("fm", num_fields=6, embedding_dim=5)(x_BFD)
    torch.testing.assert_close(pairs_BPD[:, :, :1].sum(dim=1), fm, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_all_numbers_of_a_pair_add_up_to_the_product_of_the_fields_sums(
    draw: Callable[..., Tensor], kind: str, seed: int
) -> None:
    x_BFD = draw(4, 6, 5, seed=seed)
    sums = build("holographic", num_fields=6, embedding_dim=5, kind=kind)(x_BFD).sum(dim=2)
    left, right = torch.triu_indices(6, 6, offset=1)
    totals_BF = x_BFD.sum(dim=2)
    expected = totals_BF[:, left] * totals_BF[:, right]
    torch.testing.assert_close(sums, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_convolution_ignores_the_order_of_a_pair_and_a_correlation_runs_backwards(
    draw: Callable[..., Tensor], seed: int
) -> None:
    x_BFD = draw(4, 2, 5, seed=seed)
    convolve, correlate = (
        build("holographic", num_fields=2, embedding_dim=5, kind=kind)
        for kind in ("convolution", "correlation")
    )
    swapped = x_BFD.flip(1)
    torch.testing.assert_close(convolve(swapped), convolve(x_BFD), rtol=1e-12, atol=1e-12)
    backwards = correlate(x_BFD)[:, [0, 4, 3, 2, 1]]
    torch.testing.assert_close(correlate(swapped), backwards, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_holographic_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    kind: str,
    seed: int,
) -> None:
    layer = build("holographic", num_fields=5, embedding_dim=3, kind=kind)
    assert measure_degree(layer, draw(2, 5, 3, seed=seed)) == layer.degree == 2


@pytest.mark.parametrize(
    ("num_fields", "options", "line"),
    [
        (3, {"kind": "product"}, "kind must be correlation or convolution; got 'product'."),
        (
            1,
            {},
            "needs two fields or more to form a pair; got 1. "
            "Let it read a node of shape (B, F, D).",
        ),
    ],
)
def test_holographic_refuses_an_unknown_kind_and_a_single_field(
    num_fields: int, options: dict[str, Any], line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('holographic: ' + line)}$"):
        build("holographic", num_fields=num_fields, embedding_dim=4, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_holographic_counts_its_operations_and_has_no_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    kind: str,
) -> None:
    layer = build("holographic", num_fields=5, embedding_dim=3, kind=kind)
    # Each of 10 pairs has 3 numbers, each of 3 products and 2 sums.
    assert layer.flops_per_row == layer.flops.other == 10 * 3 * (3 + 2)
    # It runs as 3 products of all 5 fields with all, the price of holding no pair.
    assert count_matmul_flops(layer, 5, 3) == 3 * (2 * 5 * 5 * 3)
    assert count_parameters(layer) == 0
