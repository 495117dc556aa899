"""The graph is one expression: what that saves, and what each node is told to cost."""

import copy

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from recsys_had.errors import ConfigError
from recsys_had.experiment_file import bundled_experiments, load_experiment
from recsys_had.interactions.algebra import streaming
from recsys_had.model.graph import InteractionGraph, table_widths
from recsys_had.nodes import NodeConfig

B, F, D = 32, 24, 4
NUM_PAIRS = F * (F - 1) // 2


def graph_of(**nodes: dict[str, object]) -> InteractionGraph:
    torch.manual_seed(5)
    config = {name: NodeConfig.model_validate(node) for name, node in nodes.items()}
    return InteractionGraph(nodes=config, sources={"fields": (F, D)})


def fibinet(kind: str = "field_interaction") -> InteractionGraph:
    return graph_of(
        pairs={"layer": "bilinear", "kind": kind},
        gate={"layer": "senet"},
        gated={"layer": "bilinear", "inputs": ["gate"], "kind": kind},
        deep={"layer": "mlp", "inputs": ["pairs", "gated"], "hidden_units": [16]},
    )


def step(graph: InteractionGraph) -> tuple[list[Tensor], int]:
    """Logits and all gradients, and numbers of the largest tensor kept for the backward pass."""
    x = torch.randn(B, F, D, generator=torch.Generator().manual_seed(1)).requires_grad_()
    largest = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal largest
        if tensor.dim() and len(tensor) == B:
            largest = max(largest, tensor.numel())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logit = graph({"fields": x})
    logit.pow(2).sum().backward()
    grads = [weight.grad for weight in graph.parameters() if weight.grad is not None]
    assert x.grad is not None
    return [logit.detach(), x.grad, *grads], largest


@pytest.mark.parametrize("kind", ["field_all", "field_each", "field_interaction"])
def test_a_node_that_maps_pairs_of_other_nodes_never_holds_them(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = fibinet(kind)
    monkeypatch.setattr(streaming, "_PART_BYTES", {"cpu": 1 << 40})
    whole, held = step(copy.deepcopy(graph))
    assert held >= B * NUM_PAIRS * D
    monkeypatch.setattr(streaming, "_PART_BYTES", {"cpu": B * 8 * D * 4})
    parts, held = step(copy.deepcopy(graph))
    assert held < B * NUM_PAIRS * D / 2
    assert len(whole) == len(parts) == 2 + len(list(graph.parameters()))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_pairs_that_are_a_head_are_not_held_either(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(pairs={"layer": "bilinear"})
    monkeypatch.setattr(streaming, "_PART_BYTES", {"cpu": B * 8 * D * 4})
    _, held = step(graph)
    assert held < B * NUM_PAIRS * D / 2


def test_weights_are_named_after_their_nodes() -> None:
    names = {name.rpartition(".")[0] for name, _ in fibinet().named_parameters()}
    assert names == {
        "",
        "layers.pairs.lin_0",
        "layers.gate.lin_0",
        "layers.gate.lin_1",
        "layers.gated.lin_0",
        "layers.deep.lin_0",
        "heads.deep.lin_0",
    }


def test_every_number_is_counted_with_one_node() -> None:
    graph = fibinet()
    counted = sum(node.parameters for node in graph.summaries())
    assert counted + 1 == sum(weight.numel() for weight in graph.parameters())
    by_name = {node.name: node for node in graph.summaries()}
    assert by_name["pairs"].parameters == NUM_PAIRS * D * D
    assert by_name["pairs"].flops_per_row == NUM_PAIRS * (2 * D * D + D)
    # Both lists of pairs to 16 units, the activation, the head.
    assert by_name["deep"].flops_per_row == 2 * (2 * NUM_PAIRS * D) * 16 + 16 + 2 * 16
    assert by_name["deep"].input_shapes == ((2 * NUM_PAIRS, D),)


def test_the_degree_of_a_node_is_that_of_all_it_is_made_of() -> None:
    graph = graph_of(
        crossed={"layer": "hadamard_cross", "num_layers": 2},
        maps={"layer": "cin", "hidden_units": [3]},
        both={"layer": "formula", "inputs": ["crossed", "maps"], "formula": "lin(x)"},
        product={
            "layer": "formula",
            "inputs": ["crossed", "maps"],
            "formula": "lin(crossed, out=2) * lin(maps, out=2)",
        },
    )
    degrees = {node.name: node.degree for node in graph.summaries()}
    assert degrees == {"crossed": 3, "maps": 2, "both": 3, "product": 5}


def test_what_a_node_refuses_is_told_with_its_name() -> None:
    with pytest.raises(ConfigError, match=r"^model\.nodes\.pairs: fm: needs two fields or more"):
        graph_of(crossed={"layer": "hadamard_cross"}, pairs={"layer": "fm", "inputs": ["crossed"]})


def test_a_copy_shares_nothing_with_the_original() -> None:
    graph = fibinet()
    other = copy.deepcopy(graph)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    x = torch.ones(2, F, D)
    assert other({"fields": x}).abs().sum() == 0
    assert graph({"fields": x}).abs().sum() > 0


@pytest.mark.parametrize("name", [name for name in bundled_experiments() if "frappe_" in name])
def test_derived_operations_are_those_that_torch_counts(name: str) -> None:
    """Torch's counter sees matrix products alone: in a model with a network they are nearly all."""
    config = load_experiment(name).model
    widths = table_widths(config, 10)
    graph = InteractionGraph(
        nodes=config.nodes,
        sources={source: (10, width) for source, width in widths.items()},
        groups={group: range(len(fields)) for group, fields in config.groups.items()},
    ).eval()
    with FlopCounterMode(display=False) as counter:
        graph({source: torch.ones(1, 10, width) for source, width in widths.items()})
    derived = sum(node.flops_per_row for node in graph.summaries())
    counted = counter.get_total_flops()
    has_network = any(node.layer in ("mlp", "mask_net") for node in config.nodes.values())
    if has_network:
        assert abs(derived - counted) <= 0.05 * counted
    else:
        # Pairs of these run as one product.
        assert derived >= counted or name in ("frappe_fwfm", "frappe_hfm")
