"""Products of learned real powers of the fields, as complex numbers."""

import cmath
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
Randomise = Callable[[nn.Module, int], Interaction]
Row = list[list[float]]


def smaller(layer: Interaction) -> Interaction:
    """Brings standard normal powers down, lest an exponential of an exponential overflows."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("ops.lin"):
                parameter.mul_(0.5)
    return layer


def plain_layer_norm(numbers: list[float], op: nn.Module) -> list[float]:
    mean = sum(numbers) / len(numbers)
    variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
    weight, bias = (value.tolist() for value in op.parameters())
    return [
        (number - mean) / math.sqrt(variance + 1e-5) * w + b
        for number, w, b in zip(numbers, weight, bias, strict=True)
    ]


def plain_layer(z: list[list[complex]], layer: Interaction, number: int) -> list[list[complex]]:
    """Tian et al. 2023: the explicit and the implicit part of one layer."""
    alpha = layer.get_parameter(f"ops.lin_{2 * number}.weight").tolist()
    delta = layer.get_parameter(f"ops.constant_{number + 1}.weight").tolist()
    weight = layer.get_parameter(f"ops.lin_{2 * number + 1}.weight").tolist()
    bias = layer.get_parameter(f"ops.lin_{2 * number + 1}.bias").tolist()
    width = len(z[0])
    out = []
    for k, powers in enumerate(alpha):
        order = []
        for d in range(width):
            log_size, angle = delta[k][d], delta[k][width + d]
            for power, field in zip(powers, z, strict=True):
                log_size += power * 0.5 * math.log(abs(field[d]) ** 2 + 1e-8)
                angle += power * cmath.phase(field[d])
            real = imaginary = bias[k * width + d]
            flat = [part for field in z for part in field]
            for entry, part in zip(weight[k * width + d], flat, strict=True):
                real += entry * part.real
                imaginary += entry * part.imag
            implicit = complex(max(0.0, real), max(0.0, imaginary))
            order.append(cmath.rect(math.exp(log_size), angle) + implicit)
        out.append(order)
    return out


def plain_euler(row: Row, layer: Interaction, num_layers: int, layer_norm: bool) -> Row:
    """Tian et al. 2023, from the fields to real and imaginary parts."""
    mu = layer.get_parameter("ops.constant_0.weight").flatten().tolist()
    z = [[m * cmath.exp(1j * e) for e in field] for m, field in zip(mu, row, strict=True)]
    for number in range(num_layers):
        z = plain_layer(z, layer, number)
        if layer_norm:
            first, second = (layer.ops[f"layernorm_{2 * number + part}"] for part in range(2))
            real = [plain_layer_norm([part.real for part in order], first) for order in z]
            imaginary = [plain_layer_norm([part.imag for part in order], second) for order in z]
            z = [
                [complex(*parts) for parts in zip(*both, strict=True)]
                for both in zip(real, imaginary, strict=True)
            ]
    real = [[part.real for part in order] for order in z]
    return real + [[part.imag for part in order] for order in z]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(("num_layers", "num_orders"), [(1, 1), (1, 4), (2, 3), (3, 2)])
def test_euler_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_layers: int,
    num_orders: int,
    layer_norm: bool,
    seed: int,
) -> None:
    options = {"num_layers": num_layers, "num_orders": num_orders, "layer_norm": layer_norm}
    layer = smaller(randomise(build("euler", num_fields=4, embedding_dim=2, **options), seed))
    x_BFD = draw(3, 4, 2, seed=seed)
    expected = [plain_euler(row, layer, num_layers, layer_norm) for row in x_BFD.tolist()]
    torch.testing.assert_close(
        layer(x_BFD), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("parts", "expected"), [("both", [-15.5, 0.0]), ("sum", [-15.5])])
def test_euler_of_two_fields_of_one_number(parts: str, expected: list[float]) -> None:
    layer = build("euler", num_fields=2, embedding_dim=1, num_orders=1, parts=parts).double()
    with torch.no_grad():
        layer.get_parameter("ops.constant_0.weight").copy_(torch.tensor([[2.0], [3.0]]))
        layer.get_parameter("ops.lin_0.weight").copy_(torch.tensor([[1.0, 2.0]]))
        layer.get_parameter("ops.constant_1.weight").zero_()
        layer.get_parameter("ops.lin_1.weight").copy_(torch.tensor([[1.0, -1.0]]))
        layer.get_parameter("ops.lin_1.bias").fill_(0.5)
    # z = 2 e^0 = 2, and 3 e^(i pi/2) = 3i; 2 * (3i)^2 = -18
    # relu(2 - 0 + 0.5) = 2.5 for the real parts, relu(0 - 3 + 0.5) = 0 for the imaginary ones
    # -18 + 2.5 = -15.5, and 0
    out = layer(torch.tensor([[[0.0], [math.pi / 2]]], dtype=torch.float64))
    assert out.flatten().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_euler_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    layer_norm: bool,
) -> None:
    options = {"num_layers": 2, "num_orders": 2, "layer_norm": layer_norm}
    layer = smaller(randomise(build("euler", num_fields=3, embedding_dim=2, **options), 0))
    assert check_gradients(layer, draw(2, 3, 2, seed=0))


@pytest.mark.parametrize("num_layers", [1, 3])
def test_euler_gradients_are_finite_where_a_number_is_zero(num_layers: int) -> None:
    layer = build("euler", num_fields=3, embedding_dim=2, num_layers=num_layers, num_orders=3)
    nn.init.zeros_(layer.get_parameter("ops.constant_0.weight"))
    x_BFD = torch.zeros(4, 3, 2, requires_grad=True)
    layer(x_BFD).square().sum().backward()
    for value in (x_BFD, *layer.parameters()):
        assert value.grad is not None
        assert value.grad.isfinite().all()


def explicit_alone(layer: Interaction, powers: Tensor) -> None:
    """Sets the powers, and all that is added to nothing."""
    with torch.no_grad():
        layer.get_parameter("ops.lin_0.weight").copy_(powers)
        for name in ("constant_1.weight", "lin_1.weight", "lin_1.bias"):
            layer.get_parameter(f"ops.{name}").zero_()


@pytest.mark.parametrize("seed", SEEDS)
def test_whole_powers_multiply_complex_numbers(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("euler", num_fields=3, embedding_dim=4, num_orders=2).double()
    explicit_alone(layer, torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, -1.0]]))
    with torch.no_grad():
        layer.get_parameter("ops.constant_0.weight").copy_(draw(3, 1, seed=seed))
    x_BFD = 3 * draw(5, 3, 4, seed=100 + seed)
    a, b, c = (layer.get_parameter("ops.constant_0.weight") * torch.exp(1j * x_BFD)).unbind(1)
    products = torch.stack([a * b * c, a * a / c], dim=1)
    expected = torch.cat([products.real, products.imag], dim=1)
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_product_turns_by_the_weighted_sum_of_the_fields(
    draw: Callable[..., Tensor], seed: int
) -> None:
    layer = build("euler", num_fields=3, embedding_dim=4, num_orders=2).double()
    powers = draw(2, 3, seed=seed)
    explicit_alone(layer, powers)
    # Within half a turn, the angle of a field is its embedding.
    x_BFD = 3 * torch.tanh(draw(5, 3, 4, seed=100 + seed))
    angles = torch.einsum("kf,bfd->bkd", powers, x_BFD)
    expected = torch.cat([angles.cos(), angles.sin()], dim=1)
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sum_is_that_of_both_parts(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    size = {"num_fields": 4, "embedding_dim": 3, "num_orders": 2}
    both = smaller(randomise(build("euler", **size), seed))
    total = smaller(randomise(build("euler", **size, parts="sum"), seed))
    x_BFD = draw(3, 4, 3, seed=seed)
    real, imaginary = both(x_BFD).chunk(2, dim=1)
    assert torch.equal(total(x_BFD), real + imaginary)


def test_an_order_begins_as_the_field_of_its_place_or_near_one_of_them() -> None:
    torch.manual_seed(0)
    same = build("euler", num_fields=4, embedding_dim=2, num_orders=4)
    assert same.get_parameter("ops.lin_0.weight").equal(torch.eye(4))
    other = build("euler", num_fields=4, embedding_dim=2, num_orders=100)
    powers = other.get_parameter("ops.lin_0.weight")
    torch.testing.assert_close(powers.sum(dim=1), torch.ones(100))
    assert (powers.max(dim=1).values > 0.9).sum() > 90


@pytest.mark.parametrize("option", ["explicit_dropout", "implicit_dropout"])
def test_dropout_works_in_training_alone(draw: Callable[..., Tensor], option: str) -> None:
    torch.manual_seed(0)
    layer = build("euler", num_fields=4, embedding_dim=3, **{option: 0.5}).double()
    plain = build("euler", num_fields=4, embedding_dim=3).double()
    plain.load_state_dict(layer.state_dict())
    x_BFD = draw(3, 4, 3, seed=0)
    assert not torch.equal(layer(x_BFD), plain(x_BFD))
    assert torch.equal(layer.eval()(x_BFD), plain.eval()(x_BFD))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        ({"num_orders": 0}, "num_orders must be at least 1; got 0."),
        ({"explicit_dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0."),
        ({"implicit_dropout": -0.5}, "dropout must be at least 0 and below 1; got -0.5."),
        ({"parts": "real"}, "parts must be both or sum; got 'real'."),
    ],
)
def test_euler_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('euler: ' + line)}$"):
        build("euler", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_euler_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    layer_norm: bool,
) -> None:
    options = {"num_layers": 2, "num_orders": 4, "layer_norm": layer_norm}
    layer = build("euler", num_fields=5, embedding_dim=3, **options)
    # From 5 fields, then from 4 products: powers of sizes and angles in 3 channels each, and a map
    # of real and of imaginary parts.
    matmul = sum(2 * n * 4 * 6 + 2 * 2 * (n * 3) * (4 * 3) for n in (5, 4))
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 3) == matmul
    # Cosine, sine and a product with each of 15 numbers; a logarithm's 6 operations and an angle
    # of 15, then 12 numbers. Of 12 numbers each: two constants, an exponential, cosine, sine, a
    # product with each, two relu, two sums, and layer norms of 7 operations.
    each = 2 + 1 + 4 + 2 + 2 + layer_norm * 2 * 7
    assert layer.flops.other == 4 * 15 + 7 * (15 + 12) + 2 * 12 * each
    # Sizes of 5 fields; powers, constants, map and bias of each layer.
    learned = 5 + sum(n * 4 + 4 * 6 + (n * 3) * 12 + 12 for n in (5, 4))
    assert count_parameters(layer) == learned + layer_norm * 2 * 2 * 2 * 3
