"""Content vectors as sources of the graph: read by name, beside fields or alone."""

import re

import numpy as np
import pytest
import torch

from recsys_had.batch import Batch, EncodedRows
from recsys_had.config import ModelConfig
from recsys_had.errors import ConfigError
from recsys_had.layout import Layout
from recsys_had.model.ctr import CTRModel
from recsys_had.model.tables import FieldSpec

VECTORS = {"image": 3, "text of it": 2}
FIELDS = [FieldSpec("A", 5), FieldSpec("B", 3)]


def model_of(
    nodes: dict[str, object],
    *,
    fields: list[FieldSpec] = FIELDS,
    vectors: dict[str, int] | None = None,
) -> CTRModel:
    config = ModelConfig.model_validate({"embedding_dim": 4, "nodes": nodes})
    known = VECTORS if vectors is None else vectors
    return CTRModel(fields=fields, dense=[], config=config, vectors=known)


def batch(fields: tuple[str, ...] = ("A", "B")) -> Batch:
    return rows_of(fields).to_batch()


def rows_of(fields: tuple[str, ...]) -> EncodedRows:
    return EncodedRows(
        Layout(fields, vectors=VECTORS),
        np.arange(2),
        None,
        np.array([[1, 2], [4, 0]], np.int32)[:, : len(fields)],
        {},
        np.empty((2, 0), np.float32),
        {
            "image": np.array([[1, -2, 0.5], [0, 0, 0]], np.float32),
            "text of it": np.array([[3, 4], [5, 6]], np.float32),
        },
    )


def test_a_node_reads_a_vector_beside_the_fields() -> None:
    model = model_of(
        {"deep": {"layer": "mlp", "inputs": ("fields", "image"), "hidden_units": (4,)}}
    )
    (summary,) = model.node_summaries()
    assert summary.input_shapes == ((1, 2 * 4 + 3),)
    rows = batch()
    x = torch.cat([model.embeddings(rows)["fields"].flatten(1), rows.vectors["image"]], dim=1)
    weights = list(model.graph.parameters())
    by_shape = {tuple(weight.shape): weight for weight in weights}
    with torch.no_grad():
        hidden = torch.relu(x @ by_shape[4, 11].T + by_shape[4,])
        head = next(weight for shape, weight in by_shape.items() if shape in {(1, 4), (4, 1)})
        expected = (hidden @ head.reshape(4, 1)).flatten() + model.graph.bias
        torch.testing.assert_close(model(rows), expected)


def test_a_formula_speaks_of_a_vector_by_its_name() -> None:
    formula = 'pool(fields, "T", "sum") * lin(image, out=4)'
    model = model_of(
        {"mine": {"layer": "formula", "formula": formula, "inputs": ("fields", "image")}}
    )
    assert model(batch()).shape == (2,)


def test_every_vector_may_be_read_whatever_its_name_and_none_must() -> None:
    some = model_of({"deep": {"layer": "mlp", "inputs": ("text of it",), "hidden_units": (2,)}})
    rows = batch()
    before = some(rows)
    rows.vectors["image"].fill_(7)
    torch.testing.assert_close(some(rows), before)
    rows.vectors["text of it"].mul_(-9)
    assert not torch.equal(some(rows), before)
    nodes: dict[str, object] = {"fm": {"layer": "fm"}}
    assert torch.equal(model_of(nodes)(rows), model_of(nodes, vectors={})(rows))


def test_a_rank_without_rows_has_no_logits_and_gradients_of_0() -> None:
    model = model_of(
        {"deep": {"layer": "mlp", "inputs": ("fields", "image"), "hidden_units": (4,)}}
    )
    none = rows_of(("A", "B")).take(np.arange(0)).to_batch(sparse_rows=1)
    logit = model(none)
    logit.sum().backward()
    assert logit.shape == (0,)
    assert all(w.grad is None or not w.grad.any() for w in model.parameters())


def test_a_card_of_vectors_alone_trains_a_model_of_them() -> None:
    model = model_of(
        {"deep": {"layer": "mlp", "inputs": ("image", "text of it"), "hidden_units": (4,)}},
        fields=[],
    )
    logit = model(batch(fields=()))
    logit.sum().backward()
    assert logit.shape == (2,)
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (("imge",), "'imge' is neither a node above it nor anything the dataset card has. Did you "
                    "mean 'image'?"),
        (("first", "below"), "'below' is neither a node above it nor anything the dataset card "
                             "has. Known: first, image, text of it."),
    ],
)  # fmt: skip
def test_reading_what_is_not_there_is_told_with_what_is(inputs: tuple[str, ...], told: str) -> None:
    nodes: dict[str, object] = {
        "first": {"layer": "linear"},
        "deep": {"layer": "mlp", "inputs": inputs},
    }
    with pytest.raises(ConfigError, match=f"^{re.escape(f'model.nodes.deep.inputs: {told}')}$"):
        model_of(nodes)


def test_fields_of_a_card_without_any_are_not_there() -> None:
    told = (
        "model.nodes.fm.inputs: 'fields' is neither a node above it nor anything the dataset card "
        "has. Known: image, text of it."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(told)}$"):
        model_of({"fm": {"layer": "fm"}}, fields=[])


def test_a_vector_and_a_node_of_one_name_are_refused() -> None:
    told = (
        "model.nodes.image: the dataset card has a vector of this name, and inputs could mean "
        "either. Rename the node."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(told)}$"):
        model_of({"image": {"layer": "fm"}})


@pytest.mark.parametrize("name", ["fields", "dense"])
def test_a_vector_named_as_a_source_is_refused(name: str) -> None:
    told = (
        f"model: the dataset card has a vector '{name}', and inputs mean something else by this "
        "name. Rename the column."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(told)}$"):
        model_of({"fm": {"layer": "fm"}}, vectors={name: 2})
