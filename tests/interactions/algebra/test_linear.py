"""Linear maps over channels, tokens or both."""

import math
import re
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from recsys_had.interactions.algebra import Flops, Interaction, lin, source
from recsys_had.interactions.algebra.linear import ChannelMap, TokenMap
from recsys_had.interactions.algebra.program import definition

Rows = list[list[list[float]]]


def plain_map(op: torch.nn.Module, rows: Rows, on: str) -> Rows:
    """``y_o = sum_i W_oi x_i + b_o`` over the channels of each token or the tokens of each channel.

    A matrix for each of the others where the weight has a third axis.
    """
    weight, bias = op.weight.tolist(), None if op.bias is None else op.bias.tolist()
    own = op.weight.dim() == 3
    out = []
    for row in rows:
        lines = row if on == "C" else [list(column) for column in zip(*row, strict=True)]
        mapped = []
        for place, line in enumerate(lines):
            matrix = weight[place] if own else weight
            offsets = bias[place] if own and bias else bias
            sums = []
            for o, entries in enumerate(matrix):
                total = offsets[o] if offsets else 0.0
                for entry, number in zip(entries, line, strict=True):
                    total += entry * number
                sums.append(total)
            mapped.append(sums)
        out.append(mapped if on == "C" else [list(column) for column in zip(*mapped, strict=True)])
    return out


def plain_lin(layer: Interaction, rows: Rows, on: str) -> Rows:
    """The maps of a layer one after the other; over both axes, as one token."""
    shape = (len(rows[0]), len(rows[0][0]))
    if on == "TC":
        rows = [[[number for token in row for number in token]] for row in rows]
    for op in layer.ops.values():
        if hasattr(op, "weight"):
            rows = plain_map(op, rows, "C" if on == "TC" else on)
    if on == "TC" and layer.output_shape == shape:
        width = shape[1]
        rows = [
            [token[first : first + width] for first in range(0, len(token), width)]
            for (token,) in rows
        ]
    return rows


@pytest.mark.parametrize(
    ("on", "options"),
    [
        ("C", {}),
        ("C", {"out": 5, "bias": True}),
        ("C", {"out": 5, "per": "T"}),
        ("C", {"per": "T", "bias": True}),
        ("C", {"rank": 2, "bias": True}),
        ("C", {"rank": 2, "out": 5, "per": "T", "bias": True}),
        ("T", {}),
        ("T", {"out": 5, "bias": True}),
        ("T", {"out": 1}),
        ("T", {"out": 5, "per": "C"}),
        ("T", {"per": "C", "bias": True}),
        ("T", {"rank": 2, "bias": True}),
        ("T", {"rank": 2, "out": 5, "per": "C", "bias": True}),
        ("TC", {}),
        ("TC", {"out": 5, "bias": True}),
        ("TC", {"rank": 2, "bias": True}),
        ("TC", {"rank": 2, "out": 1}),
    ],
)
@pytest.mark.parametrize("shape", [(3, 4), (3, 1), (1, 4), (1, 1)])
def test_a_linear_map_equals_loops(
    draw: Callable[..., Tensor],
    make: Callable[..., Interaction],
    gradients_agree: Callable[..., bool],
    shape: tuple[int, int],
    on: Any,
    options: dict[str, Any],
) -> None:
    x = source(*shape)
    root = lin(x, on, **options)
    layer = make(root, x)
    x_BTC = draw(2, *shape, seed=0)
    expected = torch.tensor(plain_lin(layer, x_BTC.tolist(), on), dtype=torch.float64)
    assert tuple(expected.shape[1:]) == root.shape
    torch.testing.assert_close(layer(x_BTC).view(2, *root.shape), expected, rtol=0, atol=1e-12)
    assert gradients_agree(layer, x_BTC)


def test_maps_agree_with_a_case_worked_out_by_hand() -> None:
    x = source(2, 2)
    row = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    layers = {on: Interaction(lin(x, on, out=1, bias=True), [x]) for on in ("C", "T", "TC")}
    for layer in layers.values():
        with torch.no_grad():
            (op,) = [op for op in layer.ops.values() if hasattr(op, "weight")]
            op.weight.copy_(torch.arange(1.0, 1 + op.weight.numel()))
            op.bias.fill_(10)
    # (1, 2) over the channels: 1 + 4 + 10, 3 + 8 + 10; over the tokens: 1 + 6 + 10, 2 + 8 + 10;
    # (1, 2, 3, 4) over both: 1 + 4 + 9 + 16 + 10
    assert layers["C"](row).tolist() == [[[15.0], [21.0]]]
    assert layers["T"](row).tolist() == [[17.0, 20.0]]
    assert layers["TC"](row).tolist() == [[40.0]]


@pytest.mark.parametrize(
    ("on", "options", "shape", "flops", "bytes_moved"),
    [
        # 2 * in * out a token of 3: 4 -> 5; reads 12, writes 15
        ("C", {"out": 5}, (3, 5), 120, 4 * 27),
        # as many with a matrix for each token, and a bias is in the count
        ("C", {"out": 5, "per": "T", "bias": True}, (3, 5), 120, 4 * 27),
        # 4 -> 2 -> 4; reads 12, writes 6, reads 6, writes 12
        ("C", {"rank": 2}, (3, 4), 96, 4 * 36),
        # 3 -> 2 in each of 4 channels; reads 12, writes 8
        ("T", {"out": 2}, (2, 4), 48, 4 * 20),
        ("T", {"out": 2, "per": "C"}, (2, 4), 48, 4 * 20),
        # 12 -> 5; the flat token is a view
        ("TC", {"out": 5}, (1, 5), 120, 4 * 17),
        # 12 -> 12, cut into 3 tokens again
        ("TC", {}, (3, 4), 288, 4 * 24),
        # 12 -> 2 -> 12
        ("TC", {"rank": 2}, (3, 4), 96, 4 * (12 + 2 + 2 + 12)),
    ],
)
def test_a_map_costs_two_operations_a_weight_and_use_as_torch_counts(
    count_matmuls: Callable[..., int],
    on: Any,
    options: dict[str, Any],
    shape: tuple[int, int],
    flops: int,
    bytes_moved: int,
) -> None:
    x = source(3, 4)
    root = lin(x, on, **options)
    layer = Interaction(root, [x])
    assert root.shape == shape
    assert layer.flops == Flops(matmul=flops)
    assert layer.bytes_per_row == bytes_moved
    assert count_matmuls(layer, (3, 4)) == flops


def test_a_map_leaves_the_degree() -> None:
    x = source(3, 4)
    square = x * x
    assert {lin(square, on, bias=True, rank=2).degree for on in ("C", "T", "TC")} == {2}


@pytest.mark.parametrize(("on", "per"), [("C", None), ("C", "T"), ("T", None), ("T", "C")])
def test_weights_begin_as_xavier_normal_matrix_by_matrix_and_biases_as_zero(
    on: Any, per: Any
) -> None:
    torch.manual_seed(0)
    length, out = 150, 250
    x = source(2, length) if on == "C" else source(length, 2)
    op = lin(x, on, out=out, per=per, bias=True).op
    expected = math.sqrt(2 / (length + out))
    for matrix in op.weight if per else [op.weight]:
        assert matrix.shape == (out, length)
        # 37500 numbers: the standard deviation is known to 0.4%, the mean to 0.5% of it.
        assert matrix.std().item() == pytest.approx(expected, rel=0.02)
        assert matrix.mean().item() == pytest.approx(0, abs=0.03 * expected)
    assert not op.bias.any()


@pytest.mark.parametrize("rank", [None, 150])
@pytest.mark.parametrize(("on", "per"), [("C", None), ("C", "T"), ("T", "C"), ("TC", None)])
def test_weights_begin_as_wide_as_asked(on: Any, per: Any, rank: int | None) -> None:
    torch.manual_seed(0)
    ops = [
        expr.op
        for expr in definition(lin(source(20, 10), on, out=150, std=0.01, per=per, rank=rank))
    ]
    weights = [op.weight for op in ops if hasattr(op, "weight")]
    assert len(weights) == (1 if rank is None else 2)
    for weight in weights:
        # 1500 numbers or more: known to 2%.
        assert weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("bias", "start"), [(True, 0.0), (-3.5, -3.5), (1, 1.0), (0.0, 0.0)])
@pytest.mark.parametrize(("on", "per"), [("C", None), ("C", "T"), ("T", "C"), ("TC", None)])
def test_a_bias_begins_at_the_number_given(on: Any, per: Any, bias: float, start: float) -> None:
    x = source(3, 4)
    layer = Interaction(lin(x, on, out=2, per=per, bias=bias), [x])
    out = layer(torch.zeros(1, 3, 4))
    assert out.numel() == {"C": 6, "T": 8, "TC": 2}[on]
    assert out.eq(start).all()
    assert len(list(layer.parameters())) == 2


def test_a_map_without_a_bias_has_none() -> None:
    x = source(3, 4)
    assert [name for name, _ in Interaction(lin(x), [x]).named_parameters()] == ["ops.lin_0.weight"]


def test_a_map_with_a_rank_is_two_maps_of_which_the_last_has_the_bias() -> None:
    x = source(3, 4)
    first, last = [expr.op for expr in definition(lin(x, rank=2, bias=True)) if expr.op]
    assert (first.bias, tuple(first.weight.shape)) == (None, (2, 4))
    assert (tuple(last.bias.shape), tuple(last.weight.shape)) == ((4,), (4, 2))


@pytest.mark.parametrize("option", ["out", "rank"])
@pytest.mark.parametrize("on", ["C", "T", "TC"])
@pytest.mark.parametrize("width", [0, -3])
def test_a_width_below_one_is_refused(on: Any, option: str, width: int) -> None:
    hint = " Leave it out for a full matrix." if option == "rank" else ""
    line = f"{option} must be at least 1; got {width}.{hint}"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        lin(source(3, 4), on, **{option: width})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("on", "per", "line"),
    [
        ("TC", "T", "lin: a map over both axes is one matrix; per must be left out."),
        ("TC", "C", "lin: a map over both axes is one matrix; per must be left out."),
        ("C", "C", "lin: a map over 'C' cannot have one matrix per 'C'."),
        ("T", "T", "lin: a map over 'T' cannot have one matrix per 'T'."),
        ("F", None, "lin: a map over 'F' cannot have one matrix per None."),
    ],
)
def test_axes_that_do_not_go_together_are_refused(on: Any, per: Any, line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        lin(source(3, 4), on, per=per)


@pytest.mark.parametrize("on", ["C", "T"])
def test_uniform_weights_and_bias_fill_the_range_of_a_torch_layer(on: Literal["C", "T"]) -> None:
    torch.manual_seed(3)
    mapped = lin(source(25, 25), on, out=2000, bias=True, uniform=True)
    assert isinstance(mapped.op, ChannelMap | TokenMap)
    assert mapped.op.bias is not None
    for drawn in (mapped.op.weight, mapped.op.bias):
        # 1 / sqrt(25) either way; a uniform number's deviation is its range's over sqrt(12).
        assert 0.19 < drawn.max() <= 0.2
        assert -0.2 <= drawn.min() < -0.19
        assert drawn.std().item() == pytest.approx(0.4 / math.sqrt(12), rel=0.1)


@pytest.mark.parametrize(("on", "per"), [("C", None), ("C", "T"), ("T", "C"), ("TC", None)])
def test_weights_begin_around_the_mean_given(on: Any, per: Any) -> None:
    torch.manual_seed(0)
    mapped = lin(source(20, 10), on, out=150, per=per, std=0.1, mean=2.5)
    (weight,) = (op.weight for expr in definition(mapped) if hasattr(op := expr.op, "weight"))
    # 22500 numbers or more: the mean is known to 0.0007, the deviation to 0.5%.
    assert weight.mean().item() == pytest.approx(2.5, abs=0.01)
    assert weight.std().item() == pytest.approx(0.1, rel=0.05)
    exact = lin(source(3, 4), on, per=per, std=0.0, mean=2.5)
    (weight,) = (op.weight for expr in definition(exact) if hasattr(op := expr.op, "weight"))
    assert weight.eq(2.5).all()


def test_a_map_with_a_rank_takes_no_mean() -> None:
    line = "lin: a map with a rank is two matrices and takes no mean; got 1.0."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        lin(source(3, 4), rank=2, mean=1.0)


@pytest.mark.parametrize("options", [{"std": 0.1}, {"mean": 0.1}, {"bias": 0.5}])
def test_what_begins_uniform_begins_at_nothing_else(options: dict[str, float]) -> None:
    line = "lin: what begins uniform has no std, no mean and no number its bias begins at."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        lin(source(3, 4), uniform=True, **options)
