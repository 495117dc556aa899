"""What holds for all kinds: gradients, cost, columns of their own, messages."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from recsys_had import numeric
from recsys_had.numeric._catalog import _class
from recsys_had.numeric._encoder import Encoder

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "periodic": [{"num_frequencies": 3}, {"num_frequencies": 3, "relu": True}],
    "piecewise_linear": [{}, {"relu": True}],
    "autodis": [{"num_meta_embeddings": 4}, {"num_meta_embeddings": 4, "learn_temperature": True}],
    "mlp": [{"hidden_units": (4, 5)}, {"hidden_units": ()}],
}
CASES = [(kind, options) for kind, all_options in OPTIONS.items() for options in all_options]
Make = Callable[..., Encoder]
Draw = Callable[..., Tensor]


def test_all_kinds_are_found() -> None:
    assert numeric.kinds() == ("autodis", "mlp", "none", "periodic", "piecewise_linear", "scale")


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_gradients_are_those_of_finite_differences(
    make: Make, draw: Draw, kind: str, options: dict[str, Any]
) -> None:
    encoder = make(kind, **options)
    names = [name for name, _ in encoder.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in encoder.parameters()]

    def apply(x: Tensor, *weights: Tensor) -> Tensor:
        found: Tensor = functional_call(encoder, dict(zip(names, weights, strict=True)), (x,))
        return found

    assert torch.autograd.gradcheck(apply, (draw(4, 2, seed=3).requires_grad_(), *values))


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_matrix_products_are_counted_as_torch_counts_them(
    make: Make, kind: str, options: dict[str, Any]
) -> None:
    encoder = make(kind, embedding_dim=8, **options)
    x = torch.zeros(1, 2, dtype=torch.float64)
    with FlopCounterMode(display=False) as counter:
        encoder(x)
    counted = counter.get_total_flops()
    # The rest is a few operations a number.
    assert counted <= encoder.flops_per_row <= 1.5 * counted


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_no_row_at_all_is_no_mistake(make: Make, kind: str, options: dict[str, Any]) -> None:
    encoder = make(kind, **options)
    found = encoder(torch.zeros(0, 2, dtype=torch.float64))
    assert found.shape == (0, 1 if numeric.tokens(kind) == "joint" else 2, 3)
    found.sum().backward()
    assert all(weight.grad is not None for weight in encoder.parameters())


@pytest.mark.parametrize("kind", ["periodic", "piecewise_linear", "autodis"])
def test_a_column_reads_itself_alone(make: Make, draw: Draw, kind: str) -> None:
    encoder = make(kind)
    x = draw(4, 2, seed=3)
    other = x.clone()
    other[:, 1] += 1
    before, after = encoder(x), encoder(other)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1])


@pytest.mark.parametrize("kind", ["periodic", "piecewise_linear", "autodis"])
def test_every_weight_counts_the_columns_first(kind: str) -> None:
    encoder = numeric.build(kind, num_columns=7, embedding_dim=3)
    assert {len(weight) for weight in encoder.parameters()} == {7}


@pytest.mark.parametrize("kind", numeric.kinds())
def test_a_docstring_tells_shape_paper_and_difference(kind: str) -> None:
    told = inspect.getdoc(_class(kind)) or ""
    for part in ("Shape: ", "Paper: ", "Differs from the paper: ", "Args:", ">>> "):
        assert part in told
    for option in numeric.options(kind):
        assert f"{option}: " in told


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("periodic", {"num_frequencies": 0}, "num_frequencies must be at least 1; got 0."),
        ("periodic", {"sigma": 0.0}, "sigma must be above 0; got 0.0."),
        ("piecewise_linear", {"num_bins": 0}, "num_bins must be at least 1; got 0."),
        ("autodis", {"temperature": -1.0}, "temperature must be above 0; got -1.0."),
        ("autodis", {"num_meta_embeddings": 0}, "num_meta_embeddings must be at least 1; got 0."),
        ("mlp", {"hidden_units": (4, 0)}, "hidden_units must be positive widths; got [4, 0]."),
    ],
)
def test_what_a_kind_refuses_is_told(kind: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{kind}: {re.escape(told)}$"):
        numeric.build(kind, num_columns=2, embedding_dim=3, **options)


def test_an_unknown_kind_suggests_the_nearest() -> None:
    told = re.escape("no kind 'autodiss'. Did you mean 'autodis'?")
    with pytest.raises(ValueError, match=f"^{told}$"):
        numeric.build("autodiss", num_columns=2, embedding_dim=3)


@pytest.mark.parametrize("edges", [[], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
def test_edges_that_are_none_are_refused(make: Make, edges: list[float]) -> None:
    told = f"edges must be 1 to 4 rising numbers; got {edges}."
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        make("piecewise_linear").set_edges(0, torch.tensor(edges))  # type: ignore[operator]
