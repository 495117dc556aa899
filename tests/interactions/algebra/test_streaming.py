"""Linear maps of pairs that never hold all pairs: equal to those that do."""

import copy
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from recsys_had.interactions.algebra import (
    Expr,
    Interaction,
    act,
    cat,
    constant,
    flatten,
    lin,
    outer,
    pairs,
    pool,
    source,
    stop_gradient,
    streaming,
)

F, D, H = 17, 3, 5
# No multiple of the pairs made at a time here.
P = F * (F - 1) // 2
AT_A_TIME = 25
LEFT, RIGHT = zip(*combinations(range(F), 2), strict=True)


def held_pairs(x_BFD: Tensor) -> Tensor:
    """All pairs' products, ``(B, P, D)``."""
    return torch.stack([x_BFD[:, i] * x_BFD[:, j] for i, j in combinations(range(F), 2)], dim=1)


def squeeze_and_excite(x: Expr) -> Expr:
    """FiBiNET's field weights."""
    hidden = act(lin(pool(x, "C", "mean"), "T", out=5), "relu")
    return x * act(lin(hidden, "T", out=F), "relu")


def over_tokens(x: Expr) -> Expr:
    return lin(outer(x, x, "upper"), "T", out=H, bias=True)


def over_tokens_formula(op: dict[str, Any], x: Tensor) -> Tensor:
    mapped = torch.einsum("bpd,hp->bhd", held_pairs(x), op["lin_0"].weight)
    return mapped + op["lin_0"].bias.unsqueeze(1)


def over_tokens_per_channel(x: Expr) -> Expr:
    return lin(outer(x[:-1], x, "upper"), "T", out=H, per="C", bias=True)


def over_tokens_per_channel_formula(op: dict[str, Any], x: Tensor) -> Tensor:
    mapped = torch.einsum("bpd,dhp->bhd", held_pairs(x), op["lin_0"].weight)
    return mapped + op["lin_0"].bias.T


def over_sums(x: Expr) -> Expr:
    # One channel: what is mapped are inner products.
    return lin(pool(outer(x, x, "upper"), "C"), "T", out=H, bias=True)


def over_sums_formula(op: dict[str, Any], x: Tensor) -> Tensor:
    sums = held_pairs(x).sum(2)
    return (sums @ op["lin_0"].weight.T + op["lin_0"].bias).unsqueeze(2)


def over_both(x: Expr) -> Expr:
    return lin(flatten(outer(x, x, "upper")), out=H, bias=True)


def over_both_formula(op: dict[str, Any], x: Tensor) -> Tensor:
    weight = op["lin_0"].weight.view(H, P, D)
    return torch.einsum("bpd,hpd->bh", held_pairs(x), weight) + op["lin_0"].bias


def over_both_with_a_rank(x: Expr) -> Expr:
    return lin(outer(x, x), "TC", out=H, rank=2)


def over_both_with_a_rank_formula(op: dict[str, Any], x: Tensor) -> Tensor:
    products = torch.einsum("bid,bjd->bijd", x, x).flatten(1)
    return products @ op["lin_0"].weight.T @ op["lin_1"].weight.T


def field_wise(x: Expr) -> Expr:
    left, right = pairs(x)
    return lin(flatten(lin(left, per="T", bias=True) * right), out=H)


def field_wise_formula(op: dict[str, Any], x: Tensor) -> Tensor:
    left = torch.einsum("bpd,pod->bpo", x[:, LEFT], op["lin_0"].weight) + op["lin_0"].bias
    return (left * x[:, RIGHT]).flatten(1) @ op["lin_1"].weight.T


def through_functions(x: Expr) -> Expr:
    # Scaled, shifted and gated by what is whole: a single token, a token for each pair.
    products = 0.5 * outer(x, x, "upper") + pool(x, "T") - constant(P, D)
    return lin(act(products, "tanh") * pool(lin(products), "C"), "T", out=H)


def through_functions_formula(op: dict[str, Any], x: Tensor) -> Tensor:
    fixed = op["constant_0"].weight
    products = 0.5 * held_pairs(x) + x.sum(1, keepdim=True) - fixed
    gates = (products @ op["lin_0"].weight.T).sum(2, keepdim=True)
    return torch.einsum("bpd,hp->bhd", products.tanh() * gates, op["lin_1"].weight)


def fibinet(x: Expr) -> Expr:
    # Both lists of pairs beside each other, then the first dense layer.
    excited = squeeze_and_excite(x)
    lists = [lin(left, per="T") * right for left, right in (pairs(x), pairs(excited))]
    return lin(flatten(cat(*lists)), out=H, bias=True)


def fibinet_formula(op: dict[str, Any], x: Tensor) -> Tensor:
    plain_map, squeeze, excite, excited_map, dense = [op[f"lin_{number}"] for number in range(5)]
    weights = (x.mean(2) @ squeeze.weight.T).relu() @ excite.weight.T
    excited = x * weights.relu().unsqueeze(2)
    lists = [
        torch.einsum("bpd,pod->bpo", read[:, LEFT], each.weight) * read[:, RIGHT]
        for read, each in ((x, plain_map), (excited, excited_map))
    ]
    return torch.cat(lists, dim=1).flatten(1) @ dense.weight.T + dense.bias


def beside_others(x: Expr) -> Expr:
    # Parts that are no pairs before, between and after two lists of pairs.
    products = outer(x, x, "upper")
    joined = cat(constant(2, D), products, cat(x, stop_gradient(products)), x * x)
    return cat(lin(joined, "T", out=H), lin(joined, "TC", out=D))


def beside_others_formula(op: dict[str, Any], x: Tensor) -> Tensor:
    products = held_pairs(x)
    fixed = op["constant_0"].weight.expand(len(x), -1, -1)
    joined = torch.cat([fixed, products, x, products.detach(), x * x], dim=1)
    mapped = torch.einsum("bpd,hp->bhd", joined, op["lin_0"].weight)
    return torch.cat([mapped, (joined.flatten(1) @ op["lin_1"].weight.T).unsqueeze(1)], dim=1)


MAPS = {
    express.__name__: (express, formula)
    for express, formula in [
        (over_tokens, over_tokens_formula),
        (over_tokens_per_channel, over_tokens_per_channel_formula),
        (over_sums, over_sums_formula),
        (over_both, over_both_formula),
        (over_both_with_a_rank, over_both_with_a_rank_formula),
        (field_wise, field_wise_formula),
        (through_functions, through_functions_formula),
        (fibinet, fibinet_formula),
        (beside_others, beside_others_formula),
    ]
}
maps = pytest.mark.parametrize("name", MAPS)


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes batches this small be streamed too."""
    monkeypatch.setattr(streaming, "_PART_BYTES", {"cpu": 1})
    monkeypatch.setattr(streaming, "_FEWEST_TOKENS", AT_A_TIME)


@pytest.fixture
def build(make: Callable[..., Interaction]) -> Callable[[str], tuple[Interaction, Any]]:
    """Gives a streamed layer and the formula of its weights that holds the pairs."""

    def build(name: str) -> tuple[Interaction, Any]:
        express, formula = MAPS[name]
        x = source(F, D)
        layer = make(express(x), x)

        def held(x_BFD: Tensor) -> Tensor:
            out: Tensor = formula(layer.ops, x_BFD)
            return out.flatten(1) if len(layer.output_shape) == 1 else out

        return layer, held

    return build


Build = Callable[[str], tuple[Interaction, Any]]


@pytest.mark.parametrize("num_rows", [0, 1, 4])
@maps
def test_a_streamed_map_equals_that_of_held_pairs_in_value_and_all_gradients(
    draw: Callable[..., Tensor],
    build: Build,
    assert_same: Callable[..., None],
    name: str,
    num_rows: int,
) -> None:
    layer, formula = build(name)
    assert_same(layer, formula, draw(num_rows, F, D, seed=7))


@maps
def test_scoring_streams_to_the_same_values(
    draw: Callable[..., Tensor], build: Build, name: str
) -> None:
    layer, formula = build(name)
    x_BFD = draw(4, F, D, seed=7)
    with torch.no_grad():
        torch.testing.assert_close(layer(x_BFD), formula(x_BFD), rtol=1e-12, atol=1e-12)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x_BFD), formula(x_BFD), rtol=1e-12, atol=1e-12)


@maps
def test_bfloat16_streams_to_nearly_the_values_and_gradients_of_float32(
    draw: Callable[..., Tensor], build: Build, name: str
) -> None:
    layer, _ = build(name)
    layer.float()
    x_BFD = draw(4, F, D, seed=7).float()
    found: list[list[Tensor]] = []
    for enabled in (False, True):
        read = x_BFD.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = layer(read)
        grads = torch.autograd.grad(out.float().square().sum(), [read, *layer.parameters()])
        assert all(grad.dtype == torch.float32 for grad in grads)
        found.append([out.float(), *grads])
    for exact, rounded in zip(*found, strict=True):
        # bfloat16 has 8 bits: each rounding is off by 0.4% at most.
        assert (exact - rounded).norm() <= 0.05 * exact.norm()


@pytest.mark.parametrize(
    "name",
    # The others hold pairs by definition, or save none even if they hold them.
    [name for name in MAPS if name not in ("beside_others", "over_sums")],
)
def test_no_pairs_are_kept_for_the_backward_pass_nor_made_at_once(
    draw: Callable[..., Tensor],
    build: Build,
    largest_bytes: Callable[[], Any],
    name: str,
) -> None:
    layer, formula = build(name)
    num_rows = 1000
    token_bytes = 8 * num_rows * D
    kept, made = {}, {}
    for kind, function in (("streamed", layer), ("held", formula)):
        x_BFD = draw(num_rows, F, D, seed=7).requires_grad_()
        # A tensor saved twice is held once.
        storages: dict[int, int] = {}

        def keep(value: Tensor, storages: dict[int, int] = storages) -> Tensor:
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        with largest_bytes() as largest:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
                out = function(x_BFD)
            out.sum().backward()
        kept[kind], made[kind] = storages.values(), largest.bytes
    assert max(kept["held"]) >= P * token_bytes
    # No more than a list of fields at once, and less than one list of pairs in all.
    assert max(kept["streamed"]) <= F * token_bytes
    assert sum(kept["streamed"]) < P * token_bytes
    # In neither pass is there more than the pairs made at a time.
    assert made["held"] >= P * token_bytes
    assert made["streamed"] <= AT_A_TIME * token_bytes


def test_of_a_large_batch_no_more_than_16_mebibytes_of_pairs_are_made_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
    draw: Callable[..., Tensor],
    largest_bytes: Callable[[], Any],
) -> None:
    monkeypatch.undo()
    x = source(F, 16)
    layer = Interaction(over_both(x), [x])
    x_BFD = draw(4096, F, 16, seed=7).float().requires_grad_()
    with largest_bytes() as made:
        layer(x_BFD).sum().backward()
    # 64 pairs of 4096 rows are 16 MiB, all 136 are 34.
    assert made.bytes <= 16 << 20
    assert x_BFD.grad is not None and x_BFD.grad.any()


def test_few_pairs_are_made_at_once_and_kept_for_the_backward_pass(
    monkeypatch: pytest.MonkeyPatch,
    draw: Callable[..., Tensor],
    build: Build,
    assert_same: Callable[..., None],
    largest_bytes: Callable[[], Any],
) -> None:
    monkeypatch.undo()
    layer, formula = build("over_both")
    x_BFD = draw(4, F, D, seed=7).requires_grad_()
    saved: list[int] = []

    def keep(value: Tensor) -> Tensor:
        saved.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        layer(x_BFD)
    assert 4 * P * D in saved
    assert_same(layer, formula, x_BFD)


def test_a_constant_beside_the_pairs_does_not_make_them_be_made_at_once(
    monkeypatch: pytest.MonkeyPatch,
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    largest_bytes: Callable[[], Any],
) -> None:
    # Room for this many pairs of 1000 rows.
    monkeypatch.setattr(streaming, "_PART_BYTES", {"cpu": 8 * 1000 * AT_A_TIME * D})
    x = source(F, D)
    layer = make(lin(cat(constant(2, D), outer(x, x, "upper")), "T", out=H), x)
    with largest_bytes() as made:
        layer(draw(1000, F, D, seed=7)).sum().backward()
    assert made.bytes <= 8 * 1000 * AT_A_TIME * D


def test_a_map_of_sums_of_pairs_makes_no_pairs(
    draw: Callable[..., Tensor], make: Callable[..., Interaction], largest_bytes: Callable[[], Any]
) -> None:
    x = source(F, 32)
    layer = make(over_sums(x), x)
    with largest_bytes() as made:
        layer(draw(100, F, 32, seed=7)).sum().backward()
    assert made.bytes <= 8 * 100 * F * 32


def test_a_streamed_map_costs_what_its_definition_says() -> None:
    x = source(F, D)
    layer = Interaction(over_both(x), [x])
    # 136 pairs of 3 channels: a product each, then a map of 408 to 5
    assert (layer.flops.other, layer.flops.matmul) == (408, 2 * 408 * 5)
    # reads 51 + 51 and writes 408, reads 408 and writes 5
    assert layer.bytes_per_row == 4 * (51 + 51 + 408 + 408 + 5)


@maps
def test_a_copy_streams_through_weights_of_its_own(
    draw: Callable[..., Tensor], build: Build, name: str
) -> None:
    layer, formula = build(name)
    x_BFD = draw(4, F, D, seed=7)
    before = layer(x_BFD).detach()
    twin = copy.deepcopy(layer)
    torch.testing.assert_close(twin(x_BFD).detach(), before, rtol=0, atol=0)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.mul_(2)
    torch.testing.assert_close(twin(x_BFD).detach(), before, rtol=0, atol=0)
    torch.testing.assert_close(layer(x_BFD), formula(x_BFD), rtol=1e-11, atol=1e-11)
    assert not layer(x_BFD).allclose(before)


def test_a_single_pair_stands_for_all_pairs_of_a_streamed_map(
    draw: Callable[..., Tensor], make: Callable[..., Interaction], assert_same: Callable[..., None]
) -> None:
    x = source(F, D)
    layer = make(lin(outer(x[:2], x[:2], "upper") * outer(x, x, "upper"), "T", out=H), x)

    def formula(x_BFD: Tensor) -> Tensor:
        products = held_pairs(x_BFD) * (x_BFD[:, :1] * x_BFD[:, 1:2])
        return torch.einsum("bpd,hp->bhd", products, layer.ops["lin_0"].weight)

    assert_same(layer, formula, draw(4, F, D, seed=7))


def test_a_matrix_of_its_own_for_the_one_flat_token_streams_too(
    draw: Callable[..., Tensor], make: Callable[..., Interaction], assert_same: Callable[..., None]
) -> None:
    x = source(F, D)
    layer = make(lin(flatten(outer(x, x, "upper")), out=H, per="T", bias=True), x)

    def formula(x_BFD: Tensor) -> Tensor:
        (op,) = [op for op in layer.ops.values() if hasattr(op, "weight")]
        return held_pairs(x_BFD).flatten(1) @ op.weight.view(H, P * D).T + op.bias.view(H)

    assert_same(layer, formula, draw(4, F, D, seed=7))


def test_weights_given_for_a_call_are_those_of_its_backward_pass_too(
    draw: Callable[..., Tensor], build: Build
) -> None:
    layer, _ = build("field_wise")
    x_BFD = draw(4, F, D, seed=7)
    given = {
        name: draw(*weight.shape, seed=8).requires_grad_()
        for name, weight in layer.named_parameters()
    }
    found = torch.autograd.grad(functional_call(layer, given, (x_BFD,)).sum(), list(given.values()))
    layer.load_state_dict({name: weight.detach() for name, weight in given.items()})
    expected = torch.autograd.grad(layer(x_BFD).sum(), list(layer.parameters()))
    torch.testing.assert_close(found, expected)


def test_what_deep_pairs_are_made_of_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each product reads the one before twice: walked as a tree they are 2^60.
    x = source(F, D)
    made = outer(x, x, "upper")
    for _ in range(60):
        made = made * made
    layer = Interaction(lin(made, "T", out=H), [x])
    calls: list[int] = []
    part = type(made.op).part

    def counted(self: Any, tokens: slice, *read: Tensor) -> Tensor:
        calls.append(tokens.stop - tokens.start)
        return part(self, tokens, *read)

    monkeypatch.setattr(type(made.op), "part", counted)
    monkeypatch.setattr(streaming, "_PART_BYTES", {"cpu": 1})
    assert layer(torch.zeros(2, F, D)).shape == (2, H, D)
    assert sum(calls) == 60 * P


def test_a_very_deep_expression_can_be_built_and_run() -> None:
    x = source(F, D)
    made = outer(x, x, "upper")
    for _ in range(2000):
        made = made + made
    assert Interaction(lin(made, "T", out=H), [x])(torch.zeros(2, F, D)).shape == (2, H, D)
