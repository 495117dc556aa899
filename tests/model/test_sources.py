"""What nodes may read beside the shared fields: further tables, groups of fields; and the heads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from recsys_had.batch import Batch, EncodedRows
from recsys_had.config import ModelConfig
from recsys_had.errors import ConfigError
from recsys_had.experiment_file import load_experiment
from recsys_had.layout import Layout
from recsys_had.model.ctr import CTRModel
from recsys_had.model.tables import FieldSpec

FIELDS = [FieldSpec("user", 7), FieldSpec("item", 9), FieldSpec("hour", 5)]


def model_of(nodes: dict[str, Any], **settings: Any) -> CTRModel:
    config = ModelConfig.model_validate({"embedding_dim": 4, "nodes": nodes, **settings})
    return CTRModel(fields=FIELDS, dense=["price"], config=config, seed=3)


def some_rows() -> Batch:
    ids = np.array([[1, 3, 2], [2, 8, 4], [6, 0, 1]], np.int32)
    price = np.array([[0.5], [2.0], [-1.0]], np.float32)
    layout = Layout(("user", "item", "hour"), dense=("price",))
    return EncodedRows(layout, np.arange(3), None, ids, {}, price).to_batch()


def test_a_group_is_its_fields_in_the_order_it_names_them() -> None:
    model = model_of(
        {"deep": {"layer": "mlp", "inputs": ["context"], "hidden_units": [3]}},
        groups={"context": ["price", "item"]},
    )
    batch = some_rows()
    fields = model.embeddings(batch)["fields"]
    hidden = (
        torch.cat([fields[:, 3], fields[:, 1]], dim=1)
        @ model.state_dict()["graph.layers.deep.lin_0.weight"].T
    )
    head = model.state_dict()["graph.heads.deep.lin_0.weight"]
    torch.testing.assert_close(model(batch), torch.relu(hidden) @ head[0])


def test_a_group_shares_the_tables_of_the_fields() -> None:
    model = model_of(
        {"fm": {"layer": "fm", "inputs": ["context"]}}, groups={"context": ["user", "item"]}
    )
    # Four fields of width 4, and one bias.
    assert model.num_parameters() == (7 + 9 + 5 + 1) * 4 + 1


def test_a_set_of_tables_has_rows_of_its_own_and_its_own_width() -> None:
    model = model_of(
        {
            "deep": {"layer": "mlp", "inputs": ["second"], "hidden_units": [3]},
            "fm": {"layer": "fm"},
        },
        tables={"second": 6},
    )
    found = model.embeddings(some_rows())
    assert {name: rows.shape for name, rows in found.items()} == {
        "second": (3, 4, 6),
        "fields": (3, 4, 4),
    }
    assert not torch.equal(found["second"][..., :4], found["fields"])
    assert model.num_parameters() == 22 * (4 + 6) + 24 * 3 + 3 + 3 + 1


def test_a_set_of_tables_is_as_wide_as_the_fields_where_no_width_is_given() -> None:
    model = model_of({"fm": {"layer": "fm", "inputs": ["second"]}}, tables={"second": None})
    assert model.embeddings.widths == {"second": 4}


def test_a_set_of_tables_for_some_fields_holds_their_rows_alone_in_the_order_it_names() -> None:
    model = model_of(
        {
            "fm": {"layer": "fm"},
            "deep": {"layer": "mlp", "inputs": ["context"], "hidden_units": [3]},
        },
        tables={"context": {"fields": ["price", "item", "user"], "dim": 2}},
    )
    batch = some_rows()
    assert model.num_parameters() == 22 * 4 + (1 + 9 + 7) * 2 + 3 * 2 * 3 + 3 + 3 + 1
    found = model.embeddings(batch)["context"]
    state = model.export_state()
    at = "embeddings.tables.context.embedding_bags"
    assert {name for name in state if name.startswith(at)} == {
        f"{at}.user.weight",
        f"{at}.item.weight",
    }
    # The rows' users and items; categorical fields come first, as among the shared fields.
    torch.testing.assert_close(found[:, 0], state[f"{at}.item.weight"][torch.tensor([3, 8, 0])])
    torch.testing.assert_close(found[:, 1], state[f"{at}.user.weight"][torch.tensor([1, 2, 6])])
    price = torch.tensor([[0.5], [2.0], [-1.0]])
    torch.testing.assert_close(found[:, 2], price * state["embeddings.numeric.context"])


def test_logits_of_nodes_with_tables_of_their_own_are_no_fields() -> None:
    nodes = {
        "linear": {"layer": "linear"},
        "ffm": {"layer": "ffm"},
        "joined": {"layer": "mlp", "inputs": ["linear", "ffm"], "hidden_units": [3]},
    }
    assert model_of(nodes).node_summaries()[2].input_shapes == ((1, 2),)


def test_a_set_of_one_field_is_a_field() -> None:
    model = model_of(
        {"pairs": {"layer": "fm", "inputs": ["fields", "own"]}},
        tables={"own": {"fields": ["item"]}},
    )
    assert model.node_summaries()[0].input_shapes == ((5, 4),)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (["itm"], "model.tables.own.fields: the card has no field 'itm'. Did you mean 'item'?"),
        (["item", "item"], "model.tables.own.fields: names 'item' twice. Name it once."),
    ],
)
def test_fields_of_a_set_that_are_not_there_are_refused(fields: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        model_of({"fm": {"layer": "fm", "inputs": ["own"]}}, tables={"own": {"fields": fields}})
    assert str(refusal.value) == told


@pytest.mark.parametrize("width", [10**14, 10**18])
@pytest.mark.parametrize(
    ("inputs", "tables", "key"),
    [
        ("own", {"own": "WIDTH"}, "model.tables.own"),
        ("own", {"own": {"fields": ["item"], "dim": "WIDTH"}}, "model.tables.own.dim"),
        ("own", {"own": {"fields": ["item"]}}, "model.embedding_dim"),
        ("own", {"own": None}, "model.embedding_dim"),
        ("fields", {}, "model.embedding_dim"),
    ],
)
def test_tables_beyond_the_memory_are_told_under_the_key_of_their_width(
    inputs: str, tables: dict[str, Any], key: str, width: int
) -> None:
    given = yaml.safe_load(yaml.dump(tables).replace("WIDTH", str(width)))
    shared = width if key == "model.embedding_dim" else 4
    with pytest.raises(ConfigError) as refusal:
        model_of({"fm": {"layer": "fm", "inputs": [inputs]}}, tables=given, embedding_dim=shared)
    rows = 9 if isinstance(given.get("own"), dict) else 21
    assert str(refusal.value).startswith(f"{key}: {rows} rows of width {width} take ")
    assert str(refusal.value).endswith("Lower the width, or raise min_count in the dataset card.")


def test_a_set_for_some_fields_is_saved_and_read_again_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(
        "dataset: frappe\nmodel:\n  tables: {own: {fields: [user]}, more: , wide: 5}\n"
        "  nodes: {a: {layer: mlp, inputs: own}, b: {layer: fm, inputs: more}, "
        "c: {layer: fm, inputs: wide}}\n"
    )
    saved = load_experiment(path).to_yaml()
    assert "own:\n      dim: 16\n      fields:\n      - user\n    more: 16\n    wide: 5\n" in saved
    path.write_text(saved)
    assert load_experiment(path).to_yaml() == saved


def test_the_mean_of_the_heads_is_their_sum_shared_out() -> None:
    nodes = {"fm": {"layer": "fm"}, "deep": {"layer": "mlp", "hidden_units": [3]}}
    summed, averaged = model_of(nodes), model_of(nodes, combine="mean")
    with torch.no_grad():
        for model in (summed, averaged):
            model.graph.bias.fill_(0.7)
    batch = some_rows()
    torch.testing.assert_close(averaged(batch) - 0.7, (summed(batch) - 0.7) / 2)
    for model in (summed, averaged):
        apart = model(batch, passes=1)
        torch.testing.assert_close(apart[:, 0], model(batch))
        own = apart[:, 1:] - 0.7
        torch.testing.assert_close(own.sum(dim=1) + 0.7, summed(batch))


def test_a_group_of_fields_that_are_not_there_is_refused() -> None:
    with pytest.raises(ConfigError) as refusal:
        model_of(
            {"fm": {"layer": "fm", "inputs": ["context"]}}, groups={"context": ["itm", "user"]}
        )
    assert (
        str(refusal.value)
        == "model.groups.context: the card has no field 'itm'. Did you mean 'item'?"
    )


def test_a_group_cannot_hold_a_column_that_is_no_field() -> None:
    with pytest.raises(ConfigError) as refusal:
        model_of(
            {"fm": {"layer": "fm", "inputs": ["context"]}},
            groups={"context": ["price", "user"]},
            numeric={"every": {"kind": "none"}},
        )
    assert str(refusal.value) == (
        "model.groups.context: 'price' is no field of its own by model.numeric. Leave it out, or "
        "give the column another kind."
    )


HEAD = "dataset: frappe\nmodel:\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "  tables: {fm: 4}\n  nodes: {fm: }\n",
            "e.yaml:4: fm: a node's name must be an identifier other than "
            "fields, dense, joint and fm. Rename it.",
        ),
        (
            "  tables: {dense: 4}\n  nodes: {fm: }\n",
            "e.yaml:3: model.tables.dense: must be an identifier other than "
            "fields, dense and joint. Rename it.",
        ),
        (
            "  groups: {all: [user]}\n  tables: {all: 4}\n  nodes: {fm: }\n",
            "e.yaml:4: model.tables.all: is a group's name too. Rename one.",
        ),
        (
            "  groups: {context: [user]}\n  nodes: {fm: {inputs: contxt}}\n",
            "e.yaml:4: fm.inputs: 'contxt' is no node above it. Did you mean 'context'?",
        ),
        (
            "  tables: {more: 0}\n  nodes: {fm: {inputs: more}}\n",
            "e.yaml:3: model.tables.more: must be at least 1; got 0.",
        ),
        (
            "  tables: {more: {field: [user]}}\n  nodes: {fm: {inputs: more}}\n",
            "e.yaml:3: model.tables.more.field: unknown key. Did you mean 'fields'?",
        ),
        (
            "  tables: {more: [user]}\n  nodes: {fm: {inputs: more}}\n",
            "e.yaml:3: model.tables.more: must be a mapping of keys to values; got ['user'].",
        ),
        (
            "  groups: {contexts: [user]}\n  tables: {more: 4}\n  nodes: {fm: {inputs: more}}\n",
            "e.yaml:3: model.groups.contexts: no node reads it. Name it among a node's inputs, or "
            "remove it.",
        ),
        (
            "  tables: [more]\n  nodes: {fm: {inputs: more}}\n",
            "e.yaml:3: model.tables: must be a mapping of keys to values; got ['more'].",
        ),
        (
            "  groups: {context: []}\n  nodes: {fm: {inputs: context}}\n",
            "e.yaml:3: model.groups.context: must hold at least 1; got [].",
        ),
        (
            "  combine: max\n  nodes: {fm: }\n",
            "e.yaml:3: model.combine: must be 'sum' or 'mean'; got 'max'.",
        ),
    ],
)
def test_a_wrong_source_is_told_with_file_and_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(HEAD + text)
    with pytest.raises(ConfigError) as refusal:
        load_experiment(path)
    assert str(refusal.value).replace(f"{tmp_path}/", "").splitlines()[0] == problem


def test_overrides_of_tables_and_groups_are_judged_as_the_file_is() -> None:
    for override, told in (
        ("model.groups={fields: [item]}", "model.groups.fields: must be an identifier other than"),
        ("model.tables={linear: 3}", "linear: a node's name must be an identifier other than"),
    ):
        with pytest.raises(ConfigError, match=told):
            load_experiment("frappe_fm", [override])
    assert load_experiment("frappe_fwfm", ["model.tables={vectors: 3}"]).model.tables == {
        "vectors": 3
    }


def test_a_definitions_tables_are_left_out_where_the_experiment_reads_others() -> None:
    own = load_experiment("criteo_x4_fwfm")
    assert own.model.tables == {}
    assert "tables: {}" in own.to_yaml()


def test_a_part_is_set_after_its_whole() -> None:
    given = ["train.loss.passes=4", "train.loss=tri_bce"]
    assert load_experiment("frappe_fm", given).train.loss.passes == 4


def test_a_group_of_one_field_is_a_field() -> None:
    model = model_of(
        {"pairs": {"layer": "fm", "inputs": ["fields", "one"]}}, groups={"one": ["item"]}
    )
    assert model.node_summaries()[0].input_shapes == ((5, 4),)


def test_a_table_set_of_a_name_torch_keeps_is_refused() -> None:
    with pytest.raises(ConfigError) as refusal:
        model_of({"fm": {"layer": "fm", "inputs": ["values"]}}, tables={"values": 4})
    assert (
        str(refusal.value)
        == "model.tables.values: is a name torch keeps for itself. Rename the set."
    )


def test_tables_of_a_card_without_fields_are_refused() -> None:
    config = ModelConfig.model_validate(
        {"nodes": {"fm": {"layer": "fm", "inputs": ["more"]}}, "tables": {"more": 4}}
    )
    with pytest.raises(ConfigError, match="'more' is neither a node above it nor anything the"):
        CTRModel(fields=[], dense=[], vectors={"image": 3}, config=config)


def test_a_definition_brings_its_tables_and_its_heads_with_it(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(
        "tables: {second: , third: 3}\ncombine: mean\n"
        "nodes:\n  a: {layer: fm, inputs: second}\n  b: {layer: fm, inputs: third}\n"
    )
    (tmp_path / "e.yaml").write_text(HEAD + "  definition: m.yaml\n  tables: {third: 5}\n")
    experiment = load_experiment(tmp_path / "e.yaml")
    assert experiment.model.tables == {"second": None, "third": 5}
    assert experiment.model.combine == "mean"
    (tmp_path / "again.yaml").write_text(experiment.to_yaml())
    again = load_experiment(tmp_path / "again.yaml").model
    assert again.tables == {"second": experiment.model.embedding_dim, "third": 5}
    assert again.combine == "mean"
