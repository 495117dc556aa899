"""Products of learned real powers of the fields."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction
from recsys_had.model.graph import InteractionGraph
from recsys_had.nodes import NodeConfig

SEEDS = range(5)
NAME = "logarithmic_transformation"
Rows = list[list[list[float]]]
Randomise = Callable[[nn.Module, int], Interaction]


def plain_norm(rows: Rows, layer: Interaction, number: int) -> Rows:
    """Ioffe and Szegedy 2015, algorithm 1, over the batch and D of each token."""
    norm = layer.get_submodule(f"ops.tokenbatchnorm_{number}.norm")
    values = {name: value.tolist() for name, value in norm.state_dict().items()}
    out: Rows = [[] for _ in rows]
    for token in range(len(rows[0])):
        numbers = [number for row in rows for number in row[token]]
        mean = sum(numbers) / len(numbers)
        variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
        if not layer.training:
            mean, variance = values["running_mean"][token], values["running_var"][token]
        scale, shift = values["weight"][token], values["bias"][token]
        for row, found in zip(rows, out, strict=True):
            found.append(
                [(n - mean) / math.sqrt(variance + 1e-5) * scale + shift for n in row[token]]
            )
    return out


def plain_transformation(rows: Rows, layer: Interaction, batch_norm: bool) -> Rows:
    """Cheng et al. 2020, the logarithmic transformation layer."""
    weights = layer.get_parameter("ops.lin_0.weight").tolist()
    logs = [[[math.log(max(abs(e), 1e-5)) for e in field] for field in row] for row in rows]
    if batch_norm:
        logs = plain_norm(logs, layer, 0)
    out: Rows = []
    for row in logs:
        neurons = []
        for powers in weights:
            neuron = []
            for d in range(len(row[0])):
                total = 0.0
                for power, field in zip(powers, row, strict=True):
                    total += power * field[d]
                neuron.append(math.exp(total))
            neurons.append(neuron)
        out.append(neurons)
    return plain_norm(out, layer, 1) if batch_norm else out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_it_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor], randomise: Randomise, batch_norm: bool, training: bool, seed: int
) -> None:
    options = {"num_neurons": 4, "batch_norm": batch_norm}
    layer = randomise(build(NAME, num_fields=5, embedding_dim=3, **options), seed)
    # Moments other than 0 and 1, for scoring.
    layer(draw(7, 5, 3, seed=100 + seed))
    layer.train(training)
    x_BFD = draw(6, 5, 3, seed=seed)
    expected = plain_transformation(x_BFD.tolist(), layer, batch_norm)
    torch.testing.assert_close(
        layer(x_BFD), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10
    )


def test_two_fields_to_powers_worked_out_by_hand() -> None:
    layer = build(NAME, num_fields=2, embedding_dim=2, num_neurons=3, batch_norm=False).double()
    with torch.no_grad():
        layer.get_parameter("ops.lin_0.weight").copy_(
            torch.tensor([[0.5, 0.5], [1.0, -1.0], [0.0, 2.0]])
        )
    # e = (-4, 2), (9, 0); sizes 4, 2 and 9, 1e-5
    # roots of the products: sqrt(36) = 6, sqrt(2e-5); quotients: 4/9, 2e5; squares: 81, 1e-10
    out = layer(torch.tensor([[[-4.0, 2.0], [9.0, 0.0]]], dtype=torch.float64))
    expected = [[[6.0, math.sqrt(2e-5)], [4 / 9, 2e5], [81.0, 1e-10]]]
    torch.testing.assert_close(out, torch.tensor(expected, dtype=torch.float64))


def test_two_rows_normalised_by_hand() -> None:
    layer = build(NAME, num_fields=1, embedding_dim=1, num_neurons=1).double()
    with torch.no_grad():
        layer.get_parameter("ops.lin_0.weight").fill_(math.log(3))
        layer.get_parameter("ops.tokenbatchnorm_1.norm.weight").fill_(2.0)
        layer.get_parameter("ops.tokenbatchnorm_1.norm.bias").fill_(5.0)
    # ln of 1 and e^2 is 0 and 2: mean 1, variance 1, so -1 and 1
    # 3^-1 = 1/3 and 3: mean 5/3, variance (4/3)^2, so -1 and 1; 2 * -1 + 5 = 3 and 2 + 5 = 7
    out = layer(torch.tensor([[[1.0]], [[math.exp(2)]]], dtype=torch.float64))
    # The variances are 1e-5 larger.
    assert out.flatten().tolist() == pytest.approx([3.0, 7.0], abs=1e-4)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    batch_norm: bool,
) -> None:
    options = {"num_neurons": 2, "batch_norm": batch_norm}
    layer = randomise(build(NAME, num_fields=3, embedding_dim=2, **options), 0)
    assert check_gradients(layer, draw(4, 3, 2, seed=0))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("num_rows", [1, 3])
def test_gradients_of_zeros_are_finite(num_rows: int, batch_norm: bool) -> None:
    layer = build(NAME, num_fields=3, embedding_dim=2, num_neurons=4, batch_norm=batch_norm)
    x_BFD = torch.zeros(num_rows, 3, 2, requires_grad=True)
    layer(x_BFD).square().sum().backward()
    for value in (x_BFD, *layer.parameters()):
        assert value.grad is not None
        assert value.grad.isfinite().all()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_factor_comes_out_to_the_sum_of_the_powers(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build(NAME, num_fields=5, embedding_dim=3, batch_norm=False), seed)
    x_BFD = draw(4, 5, 3, seed=seed)
    powers = layer.get_parameter("ops.lin_0.weight").sum(dim=1)
    expected = layer(x_BFD) * 2.5 ** powers.view(1, -1, 1)
    torch.testing.assert_close(layer(-2.5 * x_BFD), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_ignores_signs_and_normalised_sizes(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build(NAME, num_fields=5, embedding_dim=3), seed)
    x_BFD = draw(8, 5, 3, seed=seed)
    sizes = torch.tensor([1.0, 0.5, 2.0, 3.0, 7.0], dtype=torch.float64).view(5, 1)
    torch.testing.assert_close(layer(-sizes * x_BFD), layer(x_BFD), rtol=1e-9, atol=1e-9)


def test_no_neuron_is_refused() -> None:
    line = f"{NAME}: num_neurons must be at least 1; got 0."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build(NAME, num_fields=3, embedding_dim=4, num_neurons=0)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_it_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    batch_norm: bool,
) -> None:
    layer = build(NAME, num_fields=5, embedding_dim=3, num_neurons=4, batch_norm=batch_norm)
    # A map of 5 fields to 4 neurons in 3 channels.
    assert layer.flops.matmul == count_matmul_flops(layer, 5, 3) == 2 * 5 * 4 * 3
    # Size, clip and logarithm of 15 numbers, an exponential of 12; a scale and a shift of each.
    assert layer.flops.other == 3 * 15 + 12 + batch_norm * 2 * (15 + 12)
    assert count_parameters(layer) == 5 * 4 + batch_norm * 2 * (5 + 4)


def test_afn_has_the_published_number_of_parameters_on_frappe(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    nodes = {
        "products": NodeConfig(layer=NAME, options={"num_neurons": 1000}),
        "deep": NodeConfig(layer="mlp", inputs=("products",), options={"hidden_units": (400,)}),
    }
    graph = InteractionGraph(nodes=nodes, sources={"fields": (10, 10)})
    # 5,389 ids of 10 numbers; two a field; 10 powers and two a neuron; the network and its head.
    tables = 5389 * 10
    products, deep = 2 * 10 + 1000 * 10 + 2 * 1000, 10_000 * 400 + 400
    assert tables + products + deep + 400 + 1 == 4_066_711
    assert tables + count_parameters(graph) == 4_066_711
