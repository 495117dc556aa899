"""Running expressions: order, reading, forgetting; an interaction as a module."""

import copy
import re
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recsys_had.interactions import build
from recsys_had.interactions.algebra import (
    Expr,
    Flops,
    Interaction,
    act,
    cat,
    constant,
    dropout,
    flatten,
    lin,
    norm,
    outer,
    pool,
    source,
)
from recsys_had.interactions.algebra.expression import Op
from recsys_had.interactions.algebra.program import Program, definition


class Spy(Op):
    """Adds one; counts its calls and knows whether its last result is still held."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.result: Callable[[], Tensor | None] = lambda: None
        self.watched: list[Spy] = []
        self.held: list[bool] = []

    def forward(self, *read: Tensor) -> Tensor:
        self.calls += 1
        self.held = [spy.result() is not None for spy in self.watched]
        out = torch.stack(read).sum(0) + 1
        self.result = weakref.ref(out)
        return out


def spied(*args: Expr) -> tuple[Expr, Spy]:
    spy = Spy()
    return Expr(spy, args, args[0].shape, 1), spy


def test_a_value_read_many_times_is_computed_once() -> None:
    x = source(2, 2)
    shared, spy = spied(x)
    layer = Interaction(shared * shared + lin(shared) - pool(shared, "T"), [x])
    layer(torch.zeros(1, 2, 2))
    assert spy.calls == 1
    layer(torch.zeros(1, 2, 2))
    assert spy.calls == 2


def test_what_nobody_reads_is_not_computed() -> None:
    x = source(2, 2)
    wanted, wanted_spy = spied(x)
    _, unread_spy = spied(wanted)
    Program(2 * wanted, [x])(torch.zeros(1, 2, 2))
    assert (wanted_spy.calls, unread_spy.calls) == (1, 0)


def test_what_only_a_longer_way_would_read_is_not_computed() -> None:
    x = source(2, 2)
    first, first_spy = spied(x)
    long_way, long_spy = spied(first)
    short_way, short_spy = spied(x)
    end = Expr(Spy(), (long_way,), x.shape, 1, shortcut=short_way)
    out = Program(3 * end, [x])(torch.zeros(1, 2, 2))
    assert out.eq(3).all()
    assert (first_spy.calls, long_spy.calls, short_spy.calls) == (0, 0, 1)


def test_a_value_is_forgotten_after_its_last_use() -> None:
    x = source(2, 2)
    first, first_spy = spied(x)
    second, second_spy = spied(first)
    third, third_spy = spied(second, first)
    fourth, fourth_spy = spied(third)
    for spy in (third_spy, fourth_spy):
        spy.watched = [first_spy, second_spy, third_spy]
    with torch.no_grad():
        out = Program(fourth, [x])(torch.zeros(1, 2, 2))
    # The third reads the first two; the fourth reads the third alone.
    assert third_spy.held == [True, True, False]
    assert fourth_spy.held == [False, False, True]
    # x = 0: 1; 2; 1 + 2 + 1 = 4; 5
    assert out.eq(5).all()


def test_a_result_that_is_read_on_the_way_is_not_forgotten() -> None:
    x = source(2, 2)
    assert Program(x, [x])(torch.full((1, 2, 2), 3.0)).eq(3).all()
    square = x * x
    program = Program(square, [x])
    assert [program(torch.full((1, 2, 2), t)).max().item() for t in (2.0, 3.0)] == [4.0, 9.0]


def test_sources_are_told_apart_by_their_order() -> None:
    x, y = source(2, 2), source(2, 2)
    x_BTC, y_BTC = torch.full((1, 2, 2), 5.0), torch.full((1, 2, 2), 3.0)
    assert Interaction(x - y, [x, y])(x_BTC, y_BTC).eq(2).all()
    assert Interaction(x - y, [y, x])(x_BTC, y_BTC).eq(-2).all()
    # One that is given and not read.
    assert Interaction(y + y, [x, y])(x_BTC, y_BTC).eq(6).all()


def test_a_source_that_is_not_given_is_refused() -> None:
    x, y = source(2, 2), source(2, 2)
    line = "program: the expression reads a source that is not given."
    for made in (Interaction, Program):
        with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
            made(x + lin(y), [x])


def test_a_definition_lists_each_expression_once_and_what_is_read_first() -> None:
    x = source(3, 4)
    left, right = lin(x), lin(x)
    product = left * right
    root = product + left
    assert definition(root) == [x, left, right, product, root]
    assert definition(root, until=[x]) == [left, right, product, root]
    assert definition(root, until=[x, product]) == [left, root]
    sums = pool(outer(x, x), "C")
    # By what it is, not by how it is run.
    assert definition(sums) == [x, sums.args[0], sums]


def every_kind() -> Interaction:
    x = source(12, 2)
    hidden = dropout(act(norm(lin(outer(x, x, "upper"), "TC", out=6, bias=True)), "relu"), 0.5)
    batch = norm(lin(x * constant(12, 2, std=1.0), "T", out=3, rank=2), "batch")
    return Interaction(cat(hidden, flatten(batch)), [x])


NAMES = [
    "ops.lin_0.weight",
    "ops.lin_0.bias",
    "ops.layernorm_0.weight",
    "ops.layernorm_0.bias",
    "ops.constant_0.weight",
    "ops.lin_1.weight",
    "ops.lin_2.weight",
    "ops.batchnorm_0.norm.weight",
    "ops.batchnorm_0.norm.bias",
    "ops.batchnorm_0.norm.running_mean",
    "ops.batchnorm_0.norm.running_var",
    "ops.batchnorm_0.norm.num_batches_tracked",
]


def test_states_have_names_that_number_the_operations_of_a_kind() -> None:
    assert list(every_kind().state_dict()) == NAMES


def test_a_loaded_state_gives_the_same_values(draw: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    first, second = every_kind(), every_kind()
    x_BTC = draw(4, 12, 2, seed=0).float()
    # Moments of its own.
    first(x_BTC)
    first.eval(), second.eval()
    assert not first(x_BTC).allclose(second(x_BTC))
    second.load_state_dict(first.state_dict())
    assert first(x_BTC).equal(second(x_BTC))


def test_a_copy_is_independent(draw: Callable[..., Tensor]) -> None:
    layer = every_kind().eval()
    x_BTC = draw(4, 12, 2, seed=0).float()
    before = layer(x_BTC)
    twin = copy.deepcopy(layer)
    assert twin(x_BTC).equal(before)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(1)
    layer.train()(x_BTC)
    assert twin(x_BTC).equal(before)
    assert not layer.eval()(x_BTC).allclose(before)
    twin(x_BTC).sum().backward()
    assert all(weight.grad is None for weight in layer.parameters())
    assert all(weight.grad is not None for weight in twin.parameters())


def test_training_and_scoring_reach_dropout(draw: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    x = source(12, 2)
    layer = Interaction(dropout(2 * x, 0.5), [x])
    x_BTC = draw(4, 12, 2, seed=0)
    assert (layer(x_BTC) == 0).any()
    assert layer.eval()(x_BTC).equal(2 * x_BTC)
    assert (layer.train()(x_BTC) == 0).any()


def test_training_and_scoring_reach_batch_norm(draw: Callable[..., Tensor]) -> None:
    x = source(2, 2)
    layer = Interaction(norm(x, "batch"), [x]).double()
    x_BTC = 5 + draw(50, 2, 2, seed=0)
    torch.testing.assert_close(layer(x_BTC).mean(0), torch.zeros(2, 2, dtype=torch.float64))
    # After one step the running mean is a tenth of the batch's, the variance near 1.
    mean = layer.eval()(x_BTC).mean(0)
    variance = 0.9 + 0.1 * x_BTC.var(0)
    torch.testing.assert_close(mean, 0.9 * x_BTC.mean(0) / (variance + 1e-5).sqrt())


# The first trace alone takes a second.
@pytest.mark.parametrize("num_rows", [1, 4])
def test_a_compiled_module_gives_the_same_values_and_gradients(
    draw: Callable[..., Tensor], num_rows: int
) -> None:
    torch.manual_seed(0)
    layer = every_kind().double().eval()
    x_BTC = draw(num_rows, 12, 2, seed=0)
    results = []
    for function in (layer, torch.compile(layer, backend="eager")):
        read = x_BTC.clone().requires_grad_()
        out = function(read)
        grads = torch.autograd.grad(out.sin().sum(), [read, *layer.parameters()])
        results.append([out, *grads])
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)


def test_a_double_module_computes_in_double(draw: Callable[..., Tensor]) -> None:
    layer = every_kind().eval()
    x_BTC = draw(4, 12, 2, seed=0)
    single = layer(x_BTC.float())
    double = layer.double()(x_BTC)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def test_one_token_is_given_flat_and_several_as_they_are() -> None:
    x = source(3, 4)
    for root, shape in ((pool(x, "T"), (4,)), (pool(x, "C"), (3, 1)), (2 * x, (3, 4))):
        layer = Interaction(root, [x])
        assert layer.output_shape == shape
        for num_rows in (0, 1, 5):
            assert tuple(layer(torch.ones(num_rows, 3, 4)).shape) == (num_rows, *shape)


def test_cost_adds_up_over_what_is_used_once() -> None:
    x = source(3, 4)
    square = x * x
    layer = Interaction(pool(square * square, "T") + lin(pool(square, "T")), [x])
    # 12 for each product, 8 for each pool, 4 for the sum; 2 * 4 * 4 for the map
    assert layer.flops == Flops(matmul=32, other=12 + 12 + 8 + 8 + 4)
    assert layer.flops_per_row == 76
    # square 24 + 12, its square 24 + 12, pools 12 + 4 each, map 4 + 4, sum 8 + 4
    assert layer.bytes_per_row == 4 * (36 + 36 + 16 + 16 + 8 + 12)
    assert layer.degree == 4


def test_an_expression_reads_what_another_module_gives() -> None:
    x = source(3, 4)
    square = x * x
    # What stands before a source is somebody else's and costs this module nothing.
    assert [expr.flops.total for expr in definition(pool(square, "C"), until=[square])] == [9]


def test_an_input_of_another_shape_is_refused() -> None:
    layer = build("linear", num_fields=3, embedding_dim=4)
    with pytest.raises(ValueError, match=r"^input must be \(B, 3, 1\); got \(2, 3, 4\)\.$"):
        layer(torch.zeros(2, 3, 4))
