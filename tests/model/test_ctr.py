"""CTRModel: tables, padding, initial rows."""

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys_had.batch import Batch, EncodedRows, Ragged
from recsys_had.config import ModelConfig
from recsys_had.errors import ConfigError
from recsys_had.layout import Layout
from recsys_had.model.ctr import CTRModel, InitialRows, weights_digest
from recsys_had.model.tables import FieldSpec
from recsys_had.model.torchrec_tables import TORCHREC

LAYOUT = Layout(("A", "tags", "B"), multi=frozenset({"tags"}), dense=("price",))
FIELDS = [FieldSpec("A", 5), FieldSpec("tags", 4, is_multi=True), FieldSpec("B", 3)]


def model_of(nodes: dict[str, object], *, embedding_dim: int = 3, seed: int = 0) -> CTRModel:
    config = ModelConfig.model_validate({"embedding_dim": embedding_dim, "nodes": nodes})
    return CTRModel(fields=FIELDS, dense=["price"], config=config, seed=seed, backend=TORCHREC)


def batch() -> Batch:
    return EncodedRows(
        LAYOUT,
        np.arange(2),
        np.array([0, 1], np.float32),
        np.array([[1, 2], [4, 0]], np.int32),
        {"tags": Ragged(np.array([0, 2, 3]), np.array([1, 3, 2], np.int32))},
        np.array([[0.5], [-2.0]], np.float32),
    ).to_batch()


def table(model: CTRModel, node: str, field: str) -> Tensor:
    return model.export_state()[f"embeddings.tables.{node}.embedding_bags.{field}.weight"]


def test_fields_are_looked_up_pooled_by_mean_and_scaled() -> None:
    model = model_of({"fm": {"layer": "fm"}})
    a, tags, b = (table(model, "fields", name) for name in ("A", "tags", "B"))
    price = model.export_state()["embeddings.numeric.fields"]
    expected = torch.stack(
        [
            torch.stack([a[1], (tags[1] + tags[3]) / 2, b[2], 0.5 * price[0]]),
            torch.stack([a[4], tags[2], b[0], -2.0 * price[0]]),
        ]
    )
    torch.testing.assert_close(model.embeddings(batch())["fields"], expected)


def test_the_logit_is_the_sum_of_the_heads_and_one_bias() -> None:
    model = model_of({"linear": {"layer": "linear"}, "fm": {"layer": "fm"}})
    with torch.no_grad():
        model.graph.bias.fill_(0.25)
    sets = model.embeddings(batch())
    e = sets["fields"]
    pairs = sum((e[:, i] * e[:, j]).sum(1) for i in range(4) for j in range(i + 1, 4))
    expected = 0.25 + sets["linear"].sum((1, 2)) + pairs
    torch.testing.assert_close(model(batch()), expected)


def test_padding_is_neither_counted_nor_exported_and_stays_zero() -> None:
    model = model_of({"fm": {"layer": "fm"}}, embedding_dim=3)
    # 12 rows of tables and one dense input, 3 columns each; one bias.
    assert model.num_parameters() == (12 + 1) * 3 + 1
    assert table(model, "fields", "A").shape == (5, 3)
    whole = dict(model.named_parameters())["embeddings.tables.fields.embedding_bags.A.weight"]
    assert whole.shape == (5, 4)
    assert not whole[:, 3].any()


def test_rows_beyond_the_batch_in_the_sparse_part_change_nothing() -> None:
    model = model_of({"fm": {"layer": "fm"}})
    rows = EncodedRows(
        LAYOUT,
        np.arange(1),
        None,
        np.array([[1, 2]], np.int32),
        {"tags": Ragged(np.array([0, 2]), np.array([1, 3], np.int32))},
        np.array([[0.5]], np.float32),
    )
    padded = rows.to_batch(sparse_rows=4)
    assert padded.sparse.stride() == 4
    assert torch.equal(model(padded), model(rows.to_batch()))


def test_initial_rows_depend_on_seed_table_and_row_alone() -> None:
    initial = InitialRows(seed=3, std=0.5)
    whole = initial.rows("t", 0, 9000, 4)
    assert torch.equal(initial.rows("t", 4090, 100, 4), whole[4090:4190])
    assert not torch.equal(initial.rows("u", 0, 10, 4), whole[:10])
    assert not torch.equal(InitialRows(seed=4, std=0.5).rows("t", 0, 10, 4), whole[:10])
    assert abs(float(whole.std()) - 0.5) < 0.01


def test_the_same_seed_gives_the_same_weights_and_torchs_own_stream_is_left_alone() -> None:
    nodes = {"deep": {"layer": "mlp", "hidden_units": (4,)}}
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = model_of(nodes, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    digest = weights_digest(first.export_state())
    assert weights_digest(model_of(nodes, seed=5).export_state()) == digest
    assert weights_digest(model_of(nodes, seed=6).export_state()) != digest


def test_what_is_exported_is_imported() -> None:
    nodes = {"deep": {"layer": "mlp", "hidden_units": (4,), "batch_norm": True}}
    source, target = model_of(nodes, seed=1), model_of(nodes, seed=2)
    assert not torch.equal(source.eval()(batch()), target.eval()(batch()))
    target.import_state(source.export_state())
    assert torch.equal(source(batch()), target(batch()))


def test_weights_that_do_not_fit_are_refused() -> None:
    model = model_of({"fm": {"layer": "fm"}})
    state = model.export_state()
    name = "embeddings.tables.fields.embedding_bags.A.weight"
    with pytest.raises(ValueError, match=r"A\.weight: must have shape \(5, 3\); got \(6, 3\)\.$"):
        model.import_state({**state, name: torch.zeros(6, 3)})
    with pytest.raises(ValueError, match=r"^weights: missing \[\], unknown \['more'\]\.$"):
        model.import_state({**state, "more": torch.zeros(1)})


def test_a_node_joins_its_inputs_over_fields_or_flat() -> None:
    model = model_of(
        {
            "gate": {"layer": "senet"},
            "pairs": {"layer": "bilinear", "inputs": ("fields", "gate")},
            "deep": {"layer": "mlp", "inputs": ("pairs", "dense"), "hidden_units": (4,)},
        }
    )
    summaries = {node.name: node for node in model.node_summaries()}
    assert summaries["gate"].output_shape == (4, 3)
    assert summaries["pairs"].input_shapes == ((8, 3),)
    assert summaries["pairs"].output_shape == (28, 3)
    assert summaries["deep"].input_shapes == ((1, 28 * 3 + 1),)
    assert model(batch()).shape == (2,)


def test_degrees_multiply_along_the_graph() -> None:
    model = model_of(
        {
            "pairs": {"layer": "bilinear"},
            "cross": {"layer": "hadamard_cross", "num_layers": 2, "inputs": ("pairs",)},
            "deep": {"layer": "mlp", "hidden_units": (4,)},
            "late": {"layer": "hadamard_cross", "inputs": ("deep",)},
        }
    )
    degrees = {node.name: node.degree for node in model.node_summaries()}
    assert degrees == {"pairs": 2, "cross": 6, "deep": None, "late": None}


def test_reading_dense_without_a_dense_column_is_refused() -> None:
    config = ModelConfig.model_validate({"nodes": {"deep": {"layer": "mlp", "inputs": ("dense",)}}})
    with pytest.raises(ConfigError, match=r"^model\.nodes\.deep: reads 'dense'\. The dataset"):
        CTRModel(fields=FIELDS, dense=[], config=config)


def test_a_layer_that_refuses_its_options_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^model\.nodes\.cross: "):
        model_of({"cross": {"layer": "hadamard_cross", "num_layers": 0}})
