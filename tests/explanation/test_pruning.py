"""A model without some pairs: its weights are those of the rest, in their places."""

from itertools import combinations

import pytest
import torch

from recsys_had import interactions
from recsys_had.config import ModelConfig
from recsys_had.errors import ConfigError
from recsys_had.explanation.pruning import prunable_nodes, pruned_graph, pruned_weights
from recsys_had.model.ctr import CTRModel
from tests.explanation.models import FIELDS, LAYOUT, rows_of
from tests.explanation.test_effects import spelled

KEEP = ((0, 3), (1, 2), (2, 5), (3, 4))
EVERY = list(combinations(range(6), 2))
GATED = """
gates = relu(lin(pool(fields, "C", "mean"), "T", out=num_tokens(fields)))
pairs * outer(gates, gates, "upper")
"""
MODELS = {
    "fwfm": {"linear": None, "fwfm": None},
    "fmfm": {"fmfm": None},
    "fmfm by vectors": {"pairs": {"layer": "fmfm", "kind": "vector"}},
    "pair_mask": {"pair_mask": None},
    "ipnn": {
        "products": "inner_product",
        "deep": {"layer": "mlp", "inputs": ["fields", "products"], "hidden_units": (8,)},
    },
    # The first to read the fields has tables of its own, of width 1.
    "ipnn beside a linear part": {
        "linear": None,
        "products": "inner_product",
        "deep": {"layer": "mlp", "inputs": ["fields", "products"], "hidden_units": (8,)},
    },
    "pairs as a head": {"bilinear": None},
    "pairs of one matrix": {
        "pairs": {"layer": "bilinear", "kind": "field_each"},
        "deep": {"layer": "mlp", "inputs": ["pairs"], "hidden_units": (8,)},
    },
    "fibinet": {
        "linear": None,
        "pairs": "bilinear",
        "gated_pairs": {"layer": "formula", "formula": GATED, "inputs": ["fields", "pairs"]},
        "deep": {"layer": "mlp", "inputs": ["pairs", "gated_pairs"], "hidden_units": (8,)},
    },
    "fibinet++": {"bilinear_plus": None},
}


def made(config: ModelConfig) -> CTRModel:
    return CTRModel(
        fields=FIELDS, dense=LAYOUT.dense, config=config, vectors=LAYOUT.vectors, seed=3
    ).eval()


def random_model(nodes) -> tuple[ModelConfig, CTRModel]:
    config = ModelConfig.model_validate({"embedding_dim": 4, "nodes": spelled(nodes)})
    model = made(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.4 * torch.randn(weight.shape, generator=generator)
    return config, model


def silenced(name: str, model: CTRModel) -> None:
    """Makes the left-out pairs of a whole model worth nothing, where they are weighted last."""
    gone = [place for place, pair in enumerate(EVERY) if pair not in KEEP]
    weights = dict(model.graph.named_parameters())
    with torch.no_grad():
        if name in ("fwfm", "fmfm by vectors", "fibinet++"):
            (weight,) = (w for w in weights.values() if w.dim() == 2 and w.shape[1] % 15 == 0)
            weight.view(len(weight), 15, -1)[:, gone] = 0
        elif name in ("fmfm", "pair_mask"):
            key = "layers.fmfm.lin_0.weight" if name == "fmfm" else "layers.pair_mask.constant_0"
            (weight,) = (w for k, w in weights.items() if k.startswith(key))
            weight.view(15, -1)[gone] = 0
        elif name.startswith("ipnn"):
            # Behind the 6 fields of width 4.
            weights["layers.deep.lin_0.weight"][:, [24 + place for place in gone]] = 0
        elif name == "pairs as a head":
            weights["heads.bilinear.lin_0.weight"].view(1, 15, 4)[:, gone] = 0
        else:
            first = weights["layers.deep.lin_0.weight"]
            first.view(len(first), -1, 15, 4)[:, :, gone] = 0


@pytest.mark.parametrize("name", MODELS)
def test_a_pruned_model_is_the_whole_one_with_the_other_pairs_worth_nothing(name) -> None:
    config, model = random_model(MODELS[name])
    graph = pruned_graph(config, KEEP)
    smaller = made(graph.config)
    smaller.import_state(pruned_weights(model.export_state(), model, smaller, KEEP))
    batch = rows_of(9).to_batch()
    with torch.no_grad():
        whole = model(batch)
        silenced(name, model)
        expected = model(batch)
        assert (whole - expected).abs().max() > 1e-3
        torch.testing.assert_close(smaller(batch), expected, atol=1e-5, rtol=1e-5)
    assert smaller.num_parameters() <= model.num_parameters()
    assert smaller.flops_per_row() < model.flops_per_row()


def test_attention_is_over_the_pairs_that_are_left() -> None:
    config, model = random_model({"afm": {"layer": "afm", "attention_dim": 5}})
    smaller = made(pruned_graph(config, KEEP).config)
    smaller.import_state(pruned_weights(model.export_state(), model, smaller, KEEP))
    batch = rows_of(4).to_batch()
    layer = {name: w.double() for name, w in model.graph.named_parameters()}
    with torch.no_grad():
        x = model.embeddings(batch)["fields"].double()
        for row in range(4):
            products = [x[row, i] * x[row, j] for i, j in KEEP]
            hidden = [
                torch.relu(layer["layers.afm.lin_0.weight"] @ p + layer["layers.afm.lin_0.bias"])
                for p in products
            ]
            attention = torch.stack([(layer["layers.afm.lin_1.weight"] @ h)[0] for h in hidden])
            shares = torch.softmax(attention, dim=0)
            pooled = sum(share * p for share, p in zip(shares, products, strict=True))
            expected = layer["heads.afm.lin_0.weight"] @ pooled + layer["bias"]
            assert float(smaller(batch)[row]) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ({"linear": None, "fm": None}, r"node fm \(fm\) sums all pairs at once"),
        ({"ffm": None}, r"node ffm \(ffm\) has tables with a vector for every other field"),
        ({"cross": "hadamard_cross"}, r"node cross \(hadamard_cross\) does not hold the pairs"),
        ({"fwfm": {"layer": "fwfm", "keep": ((0, 1),)}}, r"node fwfm leaves out pairs already"),
    ],
)
def test_models_without_pairs_to_leave_out_are_refused(nodes, told) -> None:
    config = ModelConfig.model_validate({"nodes": spelled(nodes)})
    with pytest.raises(ConfigError, match=told):
        prunable_nodes(config)


def test_a_node_that_mixes_the_pairs_is_refused() -> None:
    nodes = {
        "pairs": "bilinear",
        "mixed": {"layer": "formula", "formula": "flatten(pairs)", "inputs": ["pairs"]},
        "deep": {"layer": "mlp", "inputs": ["mixed"], "hidden_units": (8,)},
    }
    config, model = random_model(nodes)
    smaller = made(pruned_graph(config, KEEP).config)
    with pytest.raises(ConfigError, match=r"node deep reads pairs in a way of which it is not"):
        pruned_weights(model.export_state(), model, smaller, KEEP)


LAYERS = [name for name in interactions.names() if "keep" in interactions.options(name)]


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_with_pairs_refuses_places_that_are_no_pair(name) -> None:
    for keep, told in [
        ((), "keep must name a pair or more; got none"),
        (((1, 1),), r"0 <= i < j < 4, each once; got \(1, 1\)"),
        (((0, 4),), r"got \(0, 4\)"),
        (((0, 1), (0, 1)), r"got \(0, 1\)"),
    ]:
        with pytest.raises(ValueError, match=told):
            interactions.build(name, num_fields=4, embedding_dim=3, keep=keep)


@pytest.mark.parametrize("name", LAYERS)
def test_all_pairs_named_are_all_pairs(name) -> None:
    x = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(1))
    found = []
    for keep in (None, tuple(combinations(range(4), 2))):
        torch.manual_seed(2)
        layer = interactions.build(name, num_fields=4, embedding_dim=3, keep=keep).eval()
        found.append(layer(x))
    torch.testing.assert_close(*found)
