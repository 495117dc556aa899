"""What holds for every interaction, whatever it computes; each one's own tests stand beside."""

import copy
import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had import interactions
from recsys_had.interactions import build
from recsys_had.interactions.algebra import streaming

F, D = 8, 4
NAMES = interactions.names()
pytestmark = pytest.mark.parametrize("name", NAMES)


def layer_of(name: str, num_fields: int = F) -> nn.Module:
    torch.manual_seed(7)
    return build(name, num_fields=num_fields, embedding_dim=D).double()


def inputs_of(
    name: str, draw: Callable[..., Tensor], rows: int, num_fields: int = F
) -> list[Tensor]:
    shapes = [expr.shape for expr in interactions.sources_of(name, num_fields, D)]
    return [draw(rows, *shape, seed=number) for number, shape in enumerate(shapes)]


def test_a_row_does_not_depend_on_the_rows_beside_it(
    name: str, draw: Callable[..., Tensor]
) -> None:
    layer = layer_of(name).eval()
    inputs = inputs_of(name, draw, 5)
    together = layer(*inputs)
    alone = [layer(*(x[row : row + 1] for x in inputs)) for row in range(5)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-12)


def test_no_row_gives_no_row(name: str, draw: Callable[..., Tensor]) -> None:
    layer = layer_of(name).eval()
    assert layer(*inputs_of(name, draw, 0)).shape == (0, *layer.output_shape)


def test_the_output_has_the_shape_it_tells(name: str, draw: Callable[..., Tensor]) -> None:
    layer = layer_of(name)
    assert layer(*inputs_of(name, draw, 3)).shape == (3, *layer.output_shape)


def test_gradients_reach_every_parameter_and_every_field(
    name: str, draw: Callable[..., Tensor]
) -> None:
    settings: list[dict[str, bool]] = [{}]
    if "batch_norm" in interactions.options(name):
        settings = [{"batch_norm": False}, {"batch_norm": True}]
    for options in settings:
        torch.manual_seed(7)
        layer = build(name, num_fields=F, embedding_dim=D, **options).double()
        inputs = [x.requires_grad_() for x in inputs_of(name, draw, 64)]
        out = layer(*inputs)
        (out * draw(*out.shape, seed=99)).sum().backward()
        reached = [0.0 if p.grad is None else float(p.grad.abs().max()) for p in layer.parameters()]
        for (key, _), gradient in zip(layer.named_parameters(), reached, strict=True):
            # More than rounding, which is all that reaches a bias before a batch norm.
            assert gradient > 1e-10 * max(reached), key
        for x in inputs:
            assert (x.grad.abs().sum(dim=(0, 2)) > 0).all()


def test_pairs_made_a_few_at_a_time_change_nothing(
    name: str, draw: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = layer_of(name, num_fields=24)
    results = []
    for part_bytes in (1 << 40, 1):
        monkeypatch.setattr(streaming, "_PART_BYTES", {"cpu": part_bytes})
        one = copy.deepcopy(layer)
        inputs = [x.requires_grad_() for x in inputs_of(name, draw, 3, num_fields=24)]
        out = one(*inputs)
        (out * draw(*out.shape, seed=99)).sum().backward()
        results.append([out, *(x.grad for x in inputs), *(p.grad for p in one.parameters())])
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-10)


def test_half_precision_is_near_full_precision(name: str, draw: Callable[..., Tensor]) -> None:
    layer = layer_of(name).float().eval()
    inputs = [x.float() for x in inputs_of(name, draw, 16)]
    full = layer(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(*inputs).float()
    assert torch.isfinite(half).all()
    # bfloat16 holds 8 bits; a few layers of products add their errors up.
    assert (half - full).norm() <= 0.05 * full.norm()


def test_a_compiled_layer_gives_the_same_values(name: str, draw: Callable[..., Tensor]) -> None:
    layer = layer_of(name).eval()
    inputs = inputs_of(name, draw, 4)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(*inputs), layer(*inputs), rtol=0, atol=1e-12)
    torch._dynamo.reset()


def test_its_docstring_says_shape_paper_and_difference(name: str) -> None:
    function = interactions._catalog.function_of(name)
    told = inspect.getdoc(function) or ""
    for part in ("Shape: ``(B, ", "Paper: ", "Differs from the paper: ", ">>> "):
        assert part in told, part
    paper = " ".join(told[told.index("Paper: ") :].split())
    assert function.paper.split(",")[-1].strip() in paper
    for option in interactions.options(name):
        assert f"    {option}: " in told, option
