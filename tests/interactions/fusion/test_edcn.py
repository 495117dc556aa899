"""EDCN: a cross and a deep stream, joined after every layer."""

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
KINDS = ("hadamard", "add", "concat", "attention")
MAPS = {"hadamard": 0, "add": 0, "concat": 1, "attention": 4}
Randomise = Callable[[nn.Module, int], Interaction]


def names_of(layer: int, num_layers: int, kind: str) -> dict[str, str]:
    """Of a layer, counted from 0: its gates, norms and maps.

    A gate is named before what it gates, and an attention right after the stream it reads, but for
    the last layer, whose streams are both named before they are joined.
    """
    gate = 0 if layer == 0 else num_layers - layer
    bias, maps = num_layers + 2 * layer, (2 + MAPS[kind]) * layer
    apart = kind == "attention" and layer < num_layers - 1
    return {
        "cross gate": f"constant_{gate}",
        "cross norm": f"batchnorm_{2 * layer}",
        "cross map": f"lin_{maps}",
        "cross bias": f"constant_{bias}",
        "cross bridge": f"lin_{maps + (1 if apart else 2)}",
        "deep gate": f"constant_{bias + 1}",
        "deep norm": f"batchnorm_{2 * layer + 1}",
        "deep map": f"lin_{maps + (3 if apart else 1)}",
        "deep bridge": f"lin_{maps + 4}",
    }


def affine(op: Any, numbers: list[float]) -> list[float]:
    shifts = [0.0] * len(op.weight) if op.bias is None else op.bias.tolist()
    return [
        sum(w * number for w, number in zip(line, numbers, strict=True)) + shift
        for line, shift in zip(op.weight.tolist(), shifts, strict=True)
    ]


def softmax(numbers: list[float]) -> list[float]:
    powers = [math.exp(z) for z in numbers]
    return [power / sum(powers) for power in powers]


def plain_gate(
    joined: list[float], layer: Interaction, gate: str, norm: str, temperature: float, width: int
) -> list[float]:
    logits = layer.get_parameter(f"ops.{gate}.weight").flatten().tolist()
    gates = softmax([logit / temperature for logit in logits])
    passed = [number * gates[place // width] for place, number in enumerate(joined)]
    if norm not in layer.ops:
        return passed
    own: Any = layer.ops[norm].norm
    columns = (own.running_mean, own.running_var, own.weight, own.bias)
    affine_maps = zip(*(column.tolist() for column in columns), strict=True)
    return [
        (number - mean) / math.sqrt(variance + 1e-5) * scale + shift
        for number, (mean, variance, scale, shift) in zip(passed, affine_maps, strict=True)
    ]


def plain_bridge(
    a: list[float], b: list[float], layer: Interaction, kind: str, own: dict[str, str]
) -> list[float]:
    ops: Any = layer.ops
    if kind == "hadamard":
        return [p * q for p, q in zip(a, b, strict=True)]
    if kind == "add":
        return [p + q for p, q in zip(a, b, strict=True)]
    if kind == "concat":
        return [max(z, 0.0) for z in affine(ops[own["cross bridge"]], a + b)]
    out = [0.0] * len(a)
    for stream, first in ((a, own["cross bridge"]), (b, own["deep bridge"])):
        second = f"lin_{int(first.removeprefix('lin_')) + 1}"
        hidden = [max(z, 0.0) for z in affine(ops[first], stream)]
        weights = softmax(affine(ops[second], hidden))
        out = [o + w * p for o, w, p in zip(out, weights, stream, strict=True)]
    return out


def plain_edcn(
    row: list[list[float]], layer: Interaction, num_layers: int, kind: str, temperature: float
) -> list[float]:
    """Chen et al. 2021: gates, a cross, a dense layer and a bridge, layer by layer."""
    ops: Any = layer.ops
    width = len(row[0])
    joined = [number for field in row for number in field]
    first: list[float] = []
    for number in range(num_layers):
        own = names_of(number, num_layers, kind)
        cross, deep = (
            plain_gate(joined, layer, own[f"{s} gate"], own[f"{s} norm"], temperature, width)
            for s in ("cross", "deep")
        )
        first = first or cross
        (scale,) = affine(ops[own["cross map"]], cross)
        biases = layer.get_parameter(f"ops.{own['cross bias']}.weight")[0].tolist()
        cross = [f * scale + b + c for f, b, c in zip(first, biases, cross, strict=True)]
        deep = [max(z, 0.0) for z in affine(ops[own["deep map"]], deep)]
        joined = plain_bridge(cross, deep, layer, kind, own)
    return cross + deep + joined


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("num_fields", "embedding_dim", "num_layers", "temperature"),
    [(1, 3, 1, 1.0), (3, 2, 2, 0.5), (2, 2, 3, 2.0), (4, 1, 4, 1.0)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_edcn_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    kind: str,
    num_fields: int,
    embedding_dim: int,
    num_layers: int,
    temperature: float,
    batch_norm: bool,
    seed: int,
) -> None:
    layer = randomise(
        build(
            "edcn",
            num_fields=num_fields,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
            kind=kind,
            temperature=temperature,
            dropout=0.5,
            batch_norm=batch_norm,
        ),
        seed,
    ).eval()
    for number, (name, running) in enumerate(layer.named_buffers()):
        if name.endswith(("running_mean", "running_var")):
            running.copy_(draw(*running.shape, seed=500 + number).abs() + 0.1)
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = torch.tensor(
        [plain_edcn(row, layer, num_layers, kind, temperature) for row in x_BFD.tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-10, atol=1e-10)


def test_edcn_of_two_fields_of_one_number() -> None:
    layer = build("edcn", num_fields=2, embedding_dim=1, num_layers=1, temperature=2.0)
    # Cross gate: logits (2 ln 3, 0) halved are (ln 3, 0), softmax (3/4, 1/4); deep gate (1/2, 1/2).
    # x = (4, 8): u = (3, 2), v = (2, 4)
    # w^T u = 3 - 2 = 1; c = (3 + 0.5 + 3, 2 - 1 + 2) = (6.5, 3)
    # W v + b' = (2 + 4, 2 - 4 + 1) = (6, -1), relu d = (6, 0)
    # c * d = (39, 0)
    values = {
        "constant_0.weight": [[2 * math.log(3)], [0.0]],
        "lin_0.weight": [[1.0, -1.0]],
        "constant_1.weight": [[0.5, -1.0]],
        "constant_2.weight": [[0.0], [0.0]],
        "lin_1.weight": [[1.0, 1.0], [1.0, -1.0]],
        "lin_1.bias": [0.0, 1.0],
    }
    assert {name.removeprefix("ops.") for name, _ in layer.named_parameters()} == set(values)
    with torch.no_grad():
        for name, value in values.items():
            parameter = layer.get_parameter(f"ops.{name}")
            assert parameter.shape == torch.tensor(value).shape
            parameter.copy_(torch.tensor(value))
    out = layer(torch.tensor([[[4.0], [8.0]]]))[0].tolist()
    assert out == pytest.approx([6.5, 3.0, 6.0, 0.0, 39.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_edcn_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    kind: str,
) -> None:
    layer = randomise(build("edcn", num_fields=3, embedding_dim=2, num_layers=2, kind=kind), 0)
    assert check_gradients(layer, draw(3, 3, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["hadamard", "add"])
def test_the_last_third_of_edcn_is_the_bridge_of_the_others(
    draw: Callable[..., Tensor], randomise: Randomise, kind: str, seed: int
) -> None:
    layer = randomise(build("edcn", num_fields=3, embedding_dim=4, kind=kind), seed)
    crossed, deep, joined = layer(draw(5, 3, 4, seed=seed)).chunk(3, dim=1)
    met = build("bridge", num_fields=1, embedding_dim=12, kind=kind)
    torch.testing.assert_close(joined, met(crossed.unsqueeze(1), deep.unsqueeze(1)), rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_gates_of_edcn_pass_one_field_alone_where_the_temperature_is_low(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(
        build("edcn", num_fields=4, embedding_dim=3, num_layers=1, temperature=1e-3), seed
    )
    with torch.no_grad():
        for gate, field in (("constant_0", 2), ("constant_2", 1)):
            layer.get_parameter(f"ops.{gate}.weight").copy_(
                torch.nn.functional.one_hot(torch.tensor(field), 4).double().unsqueeze(1)
            )
    x_BFD = draw(5, 4, 3, seed=seed)
    before = layer(x_BFD)
    for field in range(4):
        moved = x_BFD.clone()
        moved[:, field] += 1.0
        changed = (layer(moved) != before).view(5, 3, 12).any(dim=2).any(dim=0)
        # The cross stream sees field 2, the deep one field 1, their bridge both.
        assert changed.tolist() == [field == 2, field == 1, field in (1, 2)]


@pytest.mark.parametrize("seed", SEEDS)
def test_edcn_whose_logits_grow_with_the_temperature_stays_the_same(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("edcn", num_fields=3, embedding_dim=2), seed)
    warm = randomise(build("edcn", num_fields=3, embedding_dim=2, temperature=4.0), seed)
    with torch.no_grad():
        for number in range(3):
            own = names_of(number, 3, "hadamard")
            for gate in (own["cross gate"], own["deep gate"]):
                warm.get_parameter(f"ops.{gate}.weight").mul_(4.0)
    x_BFD = draw(4, 3, 2, seed=seed)
    torch.testing.assert_close(warm(x_BFD), layer(x_BFD), rtol=1e-11, atol=1e-12)


def test_a_new_edcn_gates_all_fields_alike() -> None:
    layer = build("edcn", num_fields=4, embedding_dim=1, num_layers=1)
    nn.init.zeros_(layer.get_parameter("ops.lin_0.weight"))
    # No cross, a bias of zero: what is left is the gated input, a quarter each.
    out = layer(torch.tensor([[[4.0], [8.0], [-4.0], [0.0]]]))
    assert out[0, :4].tolist() == [1.0, 2.0, -1.0, 0.0]


def test_edcn_normalises_both_gated_streams_over_the_batch(
    draw: Callable[..., Tensor], randomise: Randomise
) -> None:
    layer = randomise(
        build("edcn", num_fields=4, embedding_dim=3, num_layers=1, batch_norm=True), 0
    )
    streams: list[Tensor] = []
    for number in range(2):
        layer.ops[f"batchnorm_{number}"].register_forward_hook(
            lambda module, given, out: streams.append(out[:, 0])
        )
        nn.init.ones_(layer.get_parameter(f"ops.batchnorm_{number}.norm.weight"))
        nn.init.zeros_(layer.get_parameter(f"ops.batchnorm_{number}.norm.bias"))
    layer(100 * draw(60, 4, 3, seed=0))
    assert len(streams) == 2
    for stream in streams:
        torch.testing.assert_close(stream.mean(dim=0), torch.zeros(12).double(), atol=1e-10, rtol=0)
        spread = stream.var(dim=0, unbiased=False)
        torch.testing.assert_close(spread, torch.ones(12).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_edcn_drops_deep_units_in_training_alone_and_scales_the_rest(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("edcn", num_fields=5, embedding_dim=8, num_layers=1, dropout=0.2), seed)
    x_BFD = draw(40, 5, 8, seed=seed)
    whole = layer.eval()(x_BFD)
    torch.manual_seed(seed)
    dropped = layer.train()(x_BFD)
    torch.testing.assert_close(dropped[:, :40], whole[:, :40], rtol=0, atol=0)
    live, kept = whole[:, 40:80] != 0, dropped[:, 40:80] != 0
    assert not (kept & ~live).any()
    torch.testing.assert_close(
        dropped[:, 40:80][kept], whole[:, 40:80][kept] / 0.8, rtol=1e-12, atol=0
    )
    # Five standard deviations of the share kept of 500 units or more: 5 * sqrt(0.2 * 0.8 / 500)
    assert live.sum() > 500
    assert kept[live].double().mean().item() == pytest.approx(0.8, abs=0.09)


@pytest.mark.parametrize("seed", SEEDS)
def test_edcn_is_no_polynomial_as_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = randomise(build("edcn", num_fields=3, embedding_dim=4), seed)
    assert measure_degree(layer, draw(3, 3, 4, seed=seed)) is None
    assert layer.degree is None


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        ({"kind": "mean"}, "kind must be one of hadamard, add, concat, attention; got 'mean'."),
        ({"temperature": 0.0}, "temperature must be above 0; got 0.0."),
        ({"temperature": -1.0}, "temperature must be above 0; got -1.0."),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0."),
    ],
)
def test_edcn_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('edcn: ' + line)}$"):
        build("edcn", num_fields=3, embedding_dim=4, **options)


def test_edcn_has_the_parameters_of_the_published_frappe_run(
    count_parameters: Callable[[nn.Module], int],
) -> None:
    layer = build("edcn", num_fields=10, embedding_dim=10, num_layers=3, batch_norm=True)
    # A layer: a cross of 100 weights and 100 biases, a dense layer of 100 * 100 + 100, two gates of
    # 10 logits and two norms of 200 numbers.
    assert count_parameters(layer) == 3 * (200 + 10100 + 2 * (10 + 200))
    # 5389 rows of width 10, and the map of 300 numbers to one with its bias.
    tables, head = 53890, layer.output_shape[0] + 1
    assert tables + count_parameters(layer) + head == 86351


@pytest.mark.parametrize(
    ("kind", "weights", "biases", "beside"),
    [
        ("hadamard", 0, 0, 48),
        ("add", 0, 0, 48),
        ("concat", 96 * 48, 48, 48),
        ("attention", 4 * 48 * 48, 2 * 48, 2 * (1 + 5 + 1) * 48 + 48),
    ],
)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_edcn_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    kind: str,
    weights: int,
    biases: int,
    beside: int,
    batch_norm: bool,
) -> None:
    layer = build(
        "edcn", num_fields=6, embedding_dim=8, num_layers=2, kind=kind, batch_norm=batch_norm
    )
    # 48 numbers. Each of 2 layers: a map to 1, one of 48 to 48 and those of the bridge, 2
    # operations a weight, a bias among them. Two gates: 6 logits divided, a softmax (5 each), a
    # product a number and, with norms, 2 more; the cross takes a product and two sums a number, the
    # dense layer a relu; then what the bridge takes beside its maps.
    maps = 48 + 48 * 48 + weights
    gates = 2 * (6 + 5 * 6 + 48 + (2 * 48 if batch_norm else 0))
    other = gates + 3 * 48 + 48 + beside
    assert layer.flops.matmul == count_matmul_flops(layer.eval(), 6, 8) == 2 * 2 * maps
    assert layer.flops.other == 2 * other
    assert layer.flops_per_row == 2 * 2 * maps + 2 * other
    learned = maps + 48 + 48 + biases + 2 * 6 + (2 * 2 * 48 if batch_norm else 0)
    assert count_parameters(layer) == 2 * learned
