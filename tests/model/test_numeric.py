"""Numeric columns as fields: order, groups, initial weights, parameters and cost."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys_had.batch import Batch, EncodedRows
from recsys_had.config import ModelConfig
from recsys_had.errors import ConfigError
from recsys_had.experiment_file import load_experiment
from recsys_had.layout import Layout
from recsys_had.model.ctr import CTRModel, weights_digest
from recsys_had.model.embeddings import is_table
from recsys_had.model.numeric import NumericFields
from recsys_had.model.tables import FieldSpec
from recsys_had.numeric_config import NumericConfig

NAMES = ("a", "b", "c", "d")
FM = {"linear": {"layer": "linear"}, "fm": {"layer": "fm"}}
MIXED = {
    "kind": "autodis",
    "num_meta_embeddings": 4,
    "columns": {
        "a": "none",
        "b": {"kind": "mlp", "hidden_units": [5]},
        "c": "scale",
        "d": {"kind": "mlp", "hidden_units": [5]},
    },
}


def fields_of(numeric: Any, *names: str, seed: int = 3) -> NumericFields:
    config = NumericConfig.model_validate(numeric)
    return NumericFields(dense=names or NAMES, config=config, embedding_dim=3, seed=seed)


def model_of(numeric: Any, nodes: Any = None, *, dense: Any = NAMES, **options: Any) -> CTRModel:
    config = ModelConfig.model_validate(
        {"embedding_dim": 3, "nodes": nodes or FM, "numeric": numeric, **options}
    )
    return CTRModel(fields=[FieldSpec("A", 5)], dense=dense, config=config, seed=7)


def batch(dense: Any) -> Batch:
    values = np.array(dense, np.float32)
    layout = Layout(("A",), dense=NAMES[: values.shape[1]])
    ids = np.arange(1, 1 + len(values), dtype=np.int32)[:, None]
    return EncodedRows(layout, np.arange(len(values)), None, ids, {}, values).to_batch()


def test_without_a_word_each_column_is_scaled_as_ever() -> None:
    """Names, weights and logits to the last bit, as commit 8eba869 gave them."""
    for numeric in (None, "scale", {"columns": {"age": "scale"}}):
        model = model_of(numeric, dense=("price", "age"), embedding_init_std=1.0)
        assert sorted(model.state_dict()) == [
            "embeddings.numeric.fields",
            "embeddings.numeric.linear",
            "embeddings.tables.fields.embedding_bags.A.weight",
            "embeddings.tables.linear.embedding_bags.A.weight",
            "graph.bias",
        ]
        digest = "867edae3ed470dd44aa3b9af1863137ce17b2c01926d68ce7271fa4b75caca38"
        assert weights_digest(model.export_state()) == digest
        layout = Layout(("A",), dense=("price", "age"))
        values = np.array([[0.5, 2.0], [-1.5, 0.0]], np.float32)
        ids = np.array([[1], [4]], np.int32)
        rows = EncodedRows(layout, np.arange(2), None, ids, {}, values).to_batch()
        # Weights are the same bit for bit; a sum of products may round otherwise elsewhere.
        assert model(rows).tolist() == pytest.approx([4.2694525718, 3.7102341652], abs=1e-6)
        assert (model.num_parameters(), model.flops_per_row()) == (29, 40)


def test_fields_stand_in_the_order_of_columns_joined_ones_where_their_first_would() -> None:
    fields = fields_of(MIXED | {"columns": {**MIXED["columns"], "e": "autodis"}}, *NAMES, "e")
    assert fields.field_names == ("b+d", "c", "e")
    x, vectors = torch.randn(6, 5), torch.randn(1, 3)
    found = fields(x, vectors)
    groups = fields.groups
    assert set(groups) == {"mlp", "scale", "autodis"}
    torch.testing.assert_close(found[:, 0], groups["mlp"].encoder(x[:, [1, 3]])[:, 0])
    torch.testing.assert_close(found[:, 1], x[:, 2:3] * vectors)
    torch.testing.assert_close(found[:, 2], groups["autodis"].encoder(x[:, [4]])[:, 0])


def test_columns_of_a_kind_and_its_options_are_one_group() -> None:
    numeric = {"kind": "periodic", "columns": {"b": {"sigma": 0.5}, "d": {"sigma": 0.5}}}
    fields = fields_of(numeric)
    assert [group.columns for group in fields.summaries()] == [("a", "c"), ("b", "d")]
    assert set(fields.groups) == {"periodic", "periodic_2"}
    assert fields.field_names == NAMES
    x = torch.randn(2, 4)
    second = fields.groups["periodic_2"].encoder(x[:, [1, 3]])
    torch.testing.assert_close(fields(x, None)[:, [1, 3]], second)


@pytest.mark.parametrize("kind", ["periodic", "autodis", "piecewise_linear"])
def test_a_columns_initial_weights_depend_on_seed_kind_and_name_alone(kind: str) -> None:
    together = dict(fields_of(kind).groups[kind].encoder.named_parameters())
    alone = fields_of({"kind": kind, "columns": {"a": "mlp", "d": "none"}}, seed=3)
    other = dict(fields_of(kind, seed=4).groups[kind].encoder.named_parameters())
    for name, weight in alone.groups[kind].encoder.named_parameters():
        assert torch.equal(weight, together[name][1:3]), name
        assert not torch.equal(weight, other[name][1:3]), name
        assert not torch.equal(weight[0], weight[1]), name


def test_a_scaled_column_keeps_its_vector_whatever_others_choose() -> None:
    whole = model_of(None).state_dict()["embeddings.numeric.fields"]
    found = model_of(MIXED).state_dict()
    assert torch.equal(found["embeddings.numeric.fields"], whole[2:3])
    linear = model_of(None).state_dict()["embeddings.numeric.linear"]
    assert torch.equal(found["embeddings.numeric.linear"], linear)


def test_torchs_own_stream_is_left_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    fields_of(MIXED)
    assert torch.equal(torch.get_rng_state(), before)


def test_sets_of_a_nodes_own_scale_every_column() -> None:
    model = model_of(MIXED)
    sets = model.embeddings(batch(np.ones((2, 4))))
    assert sets["fields"].shape == (2, 3, 3)
    assert sets["linear"].shape == (2, 5, 1)
    own = model.state_dict()["embeddings.numeric.linear"]
    torch.testing.assert_close(sets["linear"][0, 1:], own)


def test_a_bias_is_added_to_what_is_scaled() -> None:
    model = model_of({"kind": "scale", "bias": True})
    plain = model_of(None)
    rows = batch(np.random.default_rng(1).normal(size=(3, 4)))
    torch.testing.assert_close(
        model.embeddings(rows)["fields"], plain.embeddings(rows)["fields"], rtol=0, atol=0
    )
    bias = model.embeddings.numeric_fields.groups["scale"].encoder.bias
    assert not is_table("embeddings.numeric_fields.groups.scale.encoder.bias")
    with torch.no_grad():
        bias.fill_(2.0)
    after = model.embeddings(rows)["fields"]
    torch.testing.assert_close(after[:, 1:], plain.embeddings(rows)["fields"][:, 1:] + 2.0)


def test_normalised_values_are_those_of_the_batch_and_later_of_the_training() -> None:
    fields = fields_of({"kind": "scale", "normalise": "batch"})
    x = 100 + 30 * torch.randn(50, 4)
    ones = torch.ones(4, 3)
    found = fields(x, ones)[..., 0]
    expected = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    fields.eval()
    norm = fields.groups["scale"].norm
    expected = (x - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
    torch.testing.assert_close(fields(x, ones)[..., 0], expected)


def test_parameters_and_operations_are_counted_by_hand() -> None:
    """D = 3; four columns: none, two of an mlp of 5, one scaled; the first-order set scales all.

    mlp 2 -> 5 -> 3: 10 + 5 + 15 + 3 = 33 numbers; 2*10 + 5 + 2*15 + 3 = 58 operations.
    Tables: A has 5 rows of 3 and of 1; vectors 1 of 3, and 4 of 1. One bias.
    """
    model = model_of(MIXED)
    (mlp, scale) = model.embeddings.numeric_fields.summaries()
    assert (mlp.kind, mlp.parameters, mlp.flops_per_row, mlp.num_fields) == ("mlp", 33, 58, 1)
    assert (scale.kind, scale.parameters, scale.flops_per_row) == ("scale", 0, 3)
    assert model.num_parameters() == 33 + 5 * 3 + 5 + 3 + 4 + 1
    nodes = sum(node.flops_per_row for node in model.node_summaries())
    assert model.flops_per_row() == nodes + 58 + 3 + 4


def test_columns_that_are_no_field_are_read_from_the_dense_source() -> None:
    nodes = {"fm": {"layer": "fm"}, "deep": {"layer": "mlp", "inputs": ("dense",)}}
    tokens = {"columns": {"a": "none", "b": "none", "c": "none"}}
    model = model_of(tokens, nodes)
    shapes = {node.name: node.input_shapes for node in model.node_summaries()}
    assert shapes == {"fm": ((2, 3),), "deep": ((1, 4),)}
    rows = np.zeros((2, 4))
    rows[1, 0] = 3.0
    assert model.embeddings(batch(rows))["fields"].shape == (2, 2, 3)
    assert not model(batch(rows))[1].equal(model(batch(np.zeros((2, 4))))[1])


def test_everything_is_trained() -> None:
    numeric = {
        "kind": "autodis",
        "normalise": "batch",
        "columns": {"a": "mlp", "b": {"kind": "scale", "bias": True}, "c": "periodic"},
    }
    model = model_of(numeric)
    model(batch(np.random.default_rng(0).normal(size=(4, 4)))).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_state_goes_out_and_in_with_bins() -> None:
    numeric = {"kind": "piecewise_linear", "num_bins": 3, "columns": {"a": "autodis"}}
    source, target = model_of(numeric), model_of(numeric, embedding_init_std=0.5)
    for column in source.embeddings.numeric_fields.bins:
        source.embeddings.numeric_fields.set_edges(column, torch.tensor([0.0, 1.0]))
    rows = batch(np.random.default_rng(0).normal(size=(4, 4)))
    assert target(rows).isnan().all()
    target.import_state(copy.deepcopy(source.export_state()))
    assert torch.equal(source(rows), target(rows))
    name = "embeddings.numeric_fields.groups.piecewise_linear.encoder.edges"
    assert source.export_state()[name].tolist() == [[0.0, 1.0, 1.0, 1.0]] * 3


def test_dlrm_is_a_definition() -> None:
    """Bottom network, inner products of all pairs of fields, top network, written out."""
    config = load_experiment("synthetic_dlrm").model
    model = CTRModel(fields=[FieldSpec("A", 5), FieldSpec("B", 4)], dense=NAMES, config=config)
    layout = Layout(("A", "B"), dense=NAMES)
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    ids = np.array([[1, 2], [0, 3], [4, 0]], np.int32)
    rows = EncodedRows(layout, np.arange(3), None, ids, {}, values).to_batch()
    state = model.state_dict()

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    bottom = torch.from_numpy(values)
    for layer in range(3):
        at = f"embeddings.numeric_fields.groups.mlp.encoder.layers.{layer}"
        bottom = torch.relu(linear(bottom, at))
    tables = [state[f"embeddings.tables.fields.embedding_bags.{name}.weight"] for name in "AB"]
    vectors = [table[ids[:, n]] for n, table in enumerate(tables)] + [bottom]
    dots = [(vectors[i] * vectors[j]).sum(1) for i in range(3) for j in range(i + 1, 3)]
    top = torch.cat([bottom, torch.stack(dots, 1)], dim=1)
    weights = {name: value for name, value in state.items() if name.startswith("graph.layers.top")}
    shapes = sorted(tuple(weight.shape) for weight in weights.values())
    assert shapes == [(256,), (256, 512), (512,), (512, config.embedding_dim + 3)]
    for layer in ("lin_0", "lin_1"):
        top = torch.relu(linear(top, f"graph.layers.top.{layer}"))
    expected = top @ state["graph.heads.top.lin_0.weight"].flatten() + state["graph.bias"]
    torch.testing.assert_close(model(rows), expected, rtol=1e-5, atol=1e-6)


def test_joint_is_the_field_of_the_columns_that_share_one_wherever_it_stands() -> None:
    config = load_experiment("synthetic_dlrm", ["model.numeric.columns.price=scale"]).model
    dense = ("age", "price")
    model = CTRModel(fields=[FieldSpec("A", 5)], dense=dense, config=config)
    assert model.embeddings.field_names == ("A", "age", "price")
    layout, row = Layout(("A",), dense=dense), np.ones((1, 2), np.float32)
    rows = EncodedRows(layout, np.arange(1), None, np.zeros((1, 1), np.int32), {}, row).to_batch()
    read: list[Tensor] = []
    model.graph.layers["top"]["lin_0"].register_forward_pre_hook(
        lambda module, given: read.append(given[0])
    )
    fields = model.embeddings(rows)["fields"]
    model(rows)
    found = read[0].flatten()[: config.embedding_dim]
    torch.testing.assert_close(found, fields[0, 1])
    assert not torch.allclose(found, fields[0, 2])


@pytest.mark.parametrize("numeric", ["scale", "none"])
def test_joint_is_refused_where_no_columns_share_a_field(numeric: str) -> None:
    config = load_experiment("synthetic_dlrm", [f"model.numeric={numeric}"]).model
    with pytest.raises(ConfigError) as told:
        CTRModel(fields=[FieldSpec("A", 5), FieldSpec("B", 5)], dense=NAMES, config=config)
    assert list(told.value.problems) == [
        "model.nodes: a node reads 'joint', and no numeric columns make a field together. Give "
        "them kind mlp in model.numeric, or read 'fields'."
    ]


@pytest.mark.parametrize(
    ("numeric", "dense", "problems"),
    [
        (
            {"columns": {"a": "none", "prize": "autodis", "zzz": "mlp"}},
            ("a", "price"),
            [
                "model.numeric.columns.prize: is no numeric column. Did you mean 'price'?",
                "model.numeric.columns.zzz: is no numeric column. Known: a, price.",
            ],
        ),
        (
            {"columns": {"price": "autodis"}},
            (),
            ["model.numeric.columns.price: is no numeric column. The dataset card has none."],
        ),
        (
            {"columns": {"b": {"kind": "autodis", "temperature": 0}}},
            NAMES,
            ["model.numeric.columns.b: autodis: temperature must be above 0; got 0.0."],
        ),
        (
            {"kind": "periodic", "num_frequencies": 0},
            NAMES,
            ["model.numeric: periodic: num_frequencies must be at least 1; got 0."],
        ),
        (
            {"kind": "mlp"},
            (),
            [
                "model.numeric: kind 'mlp' makes a field of the numeric columns, and the dataset "
                "card has none. Choose another model, or another dataset."
            ],
        ),
    ],
)
def test_what_does_not_fit_the_card_is_told(
    numeric: Any, dense: tuple[str, ...], problems: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        model_of(numeric, dense=dense)
    assert list(caught.value.problems) == problems


def test_a_section_that_no_node_reads_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model\.numeric: no node reads 'fields', so no num"):
        model_of("autodis", {"linear": {"layer": "linear"}})


def test_a_model_without_a_field_is_refused() -> None:
    config = ModelConfig.model_validate({"nodes": {"fm": {"layer": "fm"}}, "numeric": "none"})
    with pytest.raises(ConfigError, match=r"^model\.numeric: leaves the model without a field\."):
        CTRModel(fields=[], dense=NAMES, config=config)
