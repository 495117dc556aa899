"""FiLM: channels scaled and shifted by a context."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from recsys_had.interactions import build, express
from recsys_had.interactions.algebra import Interaction, source

SEEDS = range(5)
Shape = tuple[int, int]
Randomise = Callable[[nn.Module, int], Interaction]


def film_of(shape: Shape, context_shape: Shape) -> Interaction:
    x, context = source(*shape), source(*context_shape)
    return Interaction(express("film", x, context), [x, context])


def affine(layer: nn.Module, op: str, numbers: list[float]) -> list[float]:
    weight = layer.get_parameter(f"ops.{op}.weight").tolist()
    bias = layer.get_parameter(f"ops.{op}.bias").tolist()
    return [
        sum(w * number for w, number in zip(line, numbers, strict=True)) + shift
        for line, shift in zip(weight, bias, strict=True)
    ]


def plain_film(
    row: list[list[float]], context: list[list[float]], layer: nn.Module
) -> list[list[float]]:
    """Perez et al. 2018, eq. 1-2."""
    read = [number for field in context for number in field]
    gamma, beta = affine(layer, "lin_0", read), affine(layer, "lin_1", read)
    return [
        [g * number + b for g, number, b in zip(gamma, field, beta, strict=True)] for field in row
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("shape", "context_shape"),
    [((1, 1), (1, 1)), ((3, 4), (3, 4)), ((5, 2), (1, 7)), ((1, 6), (4, 3)), ((4, 1), (2, 5))],
)
def test_film_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    shape: Shape,
    context_shape: Shape,
    seed: int,
) -> None:
    layer = randomise(film_of(shape, context_shape), seed)
    x_BFD, context = draw(4, *shape, seed=seed), draw(4, *context_shape, seed=100 + seed)
    rows = zip(x_BFD.tolist(), context.tolist(), strict=True)
    expected = torch.tensor([plain_film(*row, layer) for row in rows], dtype=torch.float64)
    # A single field is flat.
    expected = expected.flatten(1) if shape[0] == 1 else expected
    torch.testing.assert_close(layer(x_BFD, context), expected, rtol=0, atol=1e-12)


def test_film_of_two_fields_and_a_context_of_one() -> None:
    layer = film_of((2, 2), (1, 2))
    values = [
        [[1.0, 0.0], [2.0, -1.0]],
        [1.0, 1.0],
        [[0.0, 3.0], [1.0, 1.0]],
        [0.0, -2.0],
    ]
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            assert parameter.shape == torch.tensor(value).shape
            parameter.copy_(torch.tensor(value))
    # c = (2, 1): gamma = (2 + 1, 2*2 - 1 + 1) = (3, 4); beta = (3*1 + 0, 2 + 1 - 2) = (3, 1)
    # x = (1, 2): (3*1 + 3, 4*2 + 1) = (6, 9);  x = (-1, 5): (-3 + 3, 20 + 1) = (0, 21)
    out = layer(torch.tensor([[[1.0, 2.0], [-1.0, 5.0]]]), torch.tensor([[[2.0, 1.0]]]))
    assert out.tolist() == [[[6.0, 9.0], [0.0, 21.0]]]


def test_film_gradients_equal_finite_differences(
    draw: Callable[..., Tensor], randomise: Randomise
) -> None:
    layer = randomise(film_of((3, 2), (2, 4)), 0)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def apply(x: Tensor, context: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = functional_call(layer, dict(zip(names, values, strict=True)), (x, context))
        return out

    inputs = (draw(2, 3, 2, seed=0), draw(2, 2, 4, seed=1), *parameters)
    assert torch.autograd.gradcheck(apply, [v.detach().clone().requires_grad_() for v in inputs])


@pytest.mark.parametrize("seed", SEEDS)
def test_film_whose_maps_are_zero_and_scale_is_one_gives_its_input(
    draw: Callable[..., Tensor], seed: int
) -> None:
    layer = film_of((4, 3), (2, 5)).double()
    with torch.no_grad():
        layer.get_parameter("ops.lin_0.weight").zero_()
        layer.get_parameter("ops.lin_1.weight").zero_()
    # The biases are what a new layer has: 1 of the scale, 0 of the shift.
    x_BFD = draw(6, 4, 3, seed=seed)
    out = layer(x_BFD, draw(6, 2, 5, seed=100 + seed))
    torch.testing.assert_close(out, x_BFD, rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_new_film_leaves_its_input_alone_where_the_context_is_zero(
    draw: Callable[..., Tensor], seed: int
) -> None:
    layer = film_of((4, 3), (2, 5)).double()
    x_BFD = draw(6, 4, 3, seed=seed)
    out = layer(x_BFD, torch.zeros(6, 2, 5, dtype=torch.float64))
    torch.testing.assert_close(out, x_BFD, rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_film_permutes_its_fields_as_the_input_does(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(film_of((6, 3), (2, 5)), seed)
    x_BFD, context = draw(4, 6, 3, seed=seed), draw(4, 2, 5, seed=100 + seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    permuted = layer(x_BFD[:, order], context)
    torch.testing.assert_close(permuted, layer(x_BFD, context)[:, order], rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_film_of_a_fixed_context_maps_each_channel_by_a_line(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(film_of((4, 3), (2, 5)), seed)
    first, second = draw(4, 4, 3, seed=seed), draw(4, 4, 3, seed=200 + seed)
    context = draw(4, 2, 5, seed=100 + seed)
    between = layer(0.25 * first + 0.75 * second, context)
    expected = 0.25 * layer(first, context) + 0.75 * layer(second, context)
    torch.testing.assert_close(between, expected, rtol=0, atol=1e-12)
    # A number moves no channel but its own.
    moved = first.clone()
    moved[:, 1, 2] += 1.0
    change = layer(moved, context) - layer(first, context)
    assert change.nonzero()[:, 1:].unique(dim=0).tolist() == [[1, 2]]


def test_film_refuses_to_be_without_a_context() -> None:
    line = "film: reads 2 inputs; got 1."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        express("film", source(3, 4))


def test_film_has_no_option() -> None:
    line = "film: option 'hidden_units' is unknown. It has none."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("film", num_fields=3, embedding_dim=4, hidden_units=8)


def test_film_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int, int], int],
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("film", num_fields=6, embedding_dim=8)
    # Two maps of 48 numbers of context to 8, 2 operations a weight, the bias among them. Beside
    # these a product and a sum for each of 6 * 8 numbers.
    assert layer.flops.matmul == count_matmul_flops(layer, 6, 8, 2) == 2 * 2 * 48 * 8
    assert layer.flops.other == 2 * 6 * 8
    assert layer.flops_per_row == 2 * 2 * 48 * 8 + 2 * 6 * 8
    assert count_parameters(layer) == 2 * (48 * 8 + 8)


def test_film_counts_the_width_of_the_context_and_the_channels_of_the_input(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = film_of((6, 8), (2, 5))
    # The maps read 2 * 5 numbers, and give 8.
    assert layer.flops.matmul == 2 * 2 * 10 * 8
    assert layer.flops.other == 2 * 6 * 8
    assert count_parameters(layer) == 2 * (10 * 8 + 8)
