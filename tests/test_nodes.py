"""Nodes as they are written: over a definition's, in chains, as formulas; what is refused."""

from copy import deepcopy
from pathlib import Path

import pytest

from recsys_had.config import Experiment, ModelConfig
from recsys_had.errors import ConfigError
from recsys_had.experiment_file import load_experiment
from recsys_had.model.graph import InteractionGraph
from recsys_had.nodes import NodeConfig

HEAD = "dataset: frappe\nmodel:\n"


def model_of(folder: Path, text: str) -> ModelConfig:
    path = folder / "e.yaml"
    path.write_text(HEAD + text)
    return load_experiment(path).model


def problems_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as told:
        model_of(folder, text)
    return [problem.replace(f"{folder}/", "") for problem in told.value.problems]


def test_a_chain_takes_the_place_of_a_definitions_node(tmp_path: Path) -> None:
    nodes = model_of(tmp_path, "  definition: deepfm\n  nodes: {deep: [senet, mlp]}\n").nodes
    assert nodes["deep"].inputs == ("deep_senet",)
    assert list(nodes).index("deep_senet") < list(nodes).index("deep")


def test_a_definitions_node_may_read_a_new_one(tmp_path: Path) -> None:
    text = "  definition: deepfm\n  nodes: {gated: senet, deep: {inputs: [gated]}}\n"
    nodes = model_of(tmp_path, text).nodes
    assert nodes["deep"].inputs == ("gated",)
    assert nodes["deep"].layer == "mlp"


def test_a_formula_takes_the_place_of_a_definitions_layer(tmp_path: Path) -> None:
    text = "  definition: deepfm\n  nodes: {deep: {formula: 'lin(x, out=width)', width: 3}}\n"
    node = model_of(tmp_path, text).nodes["deep"]
    assert node.to_mapping() == {
        "layer": "formula", "inputs": ["fields"], "formula": "lin(x, out=width)", "width": 3,
    }  # fmt: skip


def test_values_of_a_definitions_formula_go_with_it(tmp_path: Path) -> None:
    text = "  definition: fibinet\n  nodes: {gated_pairs: {inputs: pairs, formula: relu(pairs)}}\n"
    assert "reduction_ratio" not in model_of(tmp_path, text).nodes["gated_pairs"].options


def test_a_formula_may_be_a_link_of_a_chain(tmp_path: Path) -> None:
    nodes = model_of(tmp_path, "  nodes:\n    a: [senet, {formula: lin(x)}, mlp]\n").nodes
    assert [(name, node.layer) for name, node in nodes.items()] == [
        ("a_senet", "senet"), ("a_formula", "formula"), ("a", "mlp"),
    ]  # fmt: skip


def test_a_formulas_value_may_be_a_list(tmp_path: Path) -> None:
    text = "  nodes: {a: {formula: 'mlp(x, hidden_units=widths)', widths: [8, 4]}}\n"
    node = model_of(tmp_path, text).nodes["a"]
    assert node.options["widths"] == (8, 4)
    assert node.to_mapping()["widths"] == [8, 4]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "  definition: fibinet\n  nodes: {gated_pairs: {reduction_ration: 9}}\n",
            "e.yaml:4: gated_pairs.reduction_ration: the formula does not read it. Did you mean "
            "'reduction_ratio'?",
        ),
        (
            "  nodes:\n    pairs: bilinear\n    a: {formula: lin(x), input: pairs}\n",
            "e.yaml:5: a.input: the formula does not read it. Did you mean 'inputs'?",
        ),
        (
            "  nodes:\n    pairs: bilinear\n"
            "    a: {formula: lin(fields), inputs: [fields, pairs]}\n",
            "e.yaml:5: a.inputs: the formula does not read 'pairs'. Leave it out.",
        ),
        (
            "  nodes:\n    a: [senet, mlp]\n    a_senet: bilinear\n",
            "e.yaml:5: a_senet: the chain 'a' has a link of this name. Give one of them another.",
        ),
        (
            "  nodes: {a: [senet, {mlp: 5}]}\n",
            "e.yaml:3: a: what mlp is given must be a mapping of options to values; got 5.",
        ),
        (
            "  nodes: {a: [senet, {mlp: [400]}]}\n",
            "e.yaml:3: a: what mlp is given must be a mapping of options to values; got [400].",
        ),
        (
            "  nodes: [fm, 3]\n",
            "e.yaml:3: a node must be a layer's name or a mapping; got 3.",
        ),
        (
            "  nodes: {a: {layer: mlp, hidden_units: [true]}}\n",
            "e.yaml:3: a.hidden_units: must be a list of whole numbers; got [true].",
        ),
        (
            "  nodes: {a: {layer: star, num_layers: true}}\n",
            "e.yaml:3: a.num_layers: must be a whole number; got true.",
        ),
        (
            "  nodes: {a: {layer: gmlp, rank: true}}\n",
            "e.yaml:3: a.rank: must be a whole number; got true.",
        ),
        (
            "  nodes: {a: {layer: bilinear, keep: [[0, 1], [0, true]]}}\n",
            "e.yaml:3: a.keep: must be a list of whole numbers; got [0, true].",
        ),
        ("  nodes: {a: []}\n", "e.yaml:3: a: a chain must be of one layer or more."),
        (
            "  nodes: {a: {layer: [mlp]}}\n",
            "e.yaml:3: a.layer: must be a layer's name; got ['mlp'].",
        ),
        (
            "  nodes: {a: {layer: {mlp: 1}}}\n",
            "e.yaml:3: a.layer: must be a layer's name; got {'mlp': 1}.",
        ),
        (
            "  nodes: {\u00b5: fm}\n",
            "e.yaml:3: \u00b5: a node's name must be an identifier other than fields, dense and "
            "joint. Rename it.",
        ),
        (
            "  definition: deepfm\n"
            "  nodes: {a: {layer: mlp, inputs: b}, b: {layer: mlp, inputs: a}}\n",
            "e.yaml:4: a.inputs: 'b' is no node above it. Known: deep,",
        ),
        (
            "  definition: deepfm\n  nodes: {deep: {inputs: deep}}\n",
            "e.yaml:4: deep.inputs: 'deep' is no node above it.",
        ),
    ],
)
def test_a_wrong_node_is_told_with_file_and_line(tmp_path: Path, text: str, problem: str) -> None:
    assert any(told.startswith(problem) for told in problems_of(tmp_path, text)), problems_of(
        tmp_path, text
    )


def refused(**nodes: NodeConfig) -> str:
    with pytest.raises(ConfigError) as told:
        InteractionGraph(nodes=nodes, sources={"fields": (3, 4), "more": (3, 8)})
    return str(told.value)


def test_a_logit_that_reads_no_row_is_refused() -> None:
    constant = NodeConfig(layer="formula", options={"formula": "constant(3, 4)"})
    assert refused(a=constant) == (
        "model.nodes: the logit is the same for every row, since no head reads the row. Let one "
        "read 'fields'."
    )


def test_inputs_that_were_joined_flat_are_told_where_a_layer_refuses_them() -> None:
    told = refused(a=NodeConfig(layer="fm", inputs=("fields", "more")))
    assert told.endswith("Its inputs are of the widths 4, 8, so they were joined to one flat row.")


def test_a_layer_larger_than_memory_is_told() -> None:
    told = refused(a=NodeConfig(layer="mlp", options={"hidden_units": (10**13,)}))
    assert told.startswith("model.nodes.a: cannot be made: ")
    assert "\n" not in told


@pytest.mark.parametrize("layer", ["cross_net", "star"])
def test_more_layers_than_anybody_waits_for_are_refused(layer: str) -> None:
    told = refused(a=NodeConfig(layer=layer, options={"num_layers": 10**9}))
    assert told == f"model.nodes.a: {layer}: num_layers must be at most 1000; got 1000000000."


BUILDING = [
    ("  nodes: [fm, {a: {layer: star, num_layers: 0}}]\n", [], "e.yaml:3: a: star"),
    ("  nodes:\n    - fm\n    - a: {layer: star, num_layers: 0}\n", [], "e.yaml:5: a: star"),
    ("  nodes:\n    fm:\n    a: [senet, {star: {num_layers: 0}}]\n", [], "e.yaml:5: a: star"),
    (
        "  nodes:\n    a:\n    - senet\n    - star:\n        num_layers: 0\n",
        [],
        "e.yaml:6: a: star",
    ),
    (
        "  definition: dcn_v2\n  nodes: {cross: {num_layers: 0}}\n",
        [],
        "e.yaml:4: cross: hadamard_cross",
    ),
    (
        "  nodes:\n    a: {layer: star}\n",
        ["model.nodes.a.num_layers=0"],
        "e.yaml:4, with overrides: a: star",
    ),
]


@pytest.mark.parametrize(("text", "overrides", "place"), BUILDING)
def test_what_a_layer_refuses_is_told_with_the_line_of_its_node(
    tmp_path: Path, text: str, overrides: list[str], place: str
) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(HEAD + text)
    nodes = load_experiment(path, overrides).model.nodes
    told = refused(**nodes).replace(f"{tmp_path}/", "")
    assert told.startswith(f"{place}: num_layers must be at least 1; got 0.")


def test_a_nodes_place_is_no_part_of_what_it_is(tmp_path: Path) -> None:
    path, other = tmp_path / "e.yaml", tmp_path / "other.yaml"
    path.write_text(f"{HEAD}  nodes: {{a: {{layer: star, num_layers: 2}}}}\n")
    other.write_text(f"{HEAD}\n\n  nodes: {{a: {{num_layers: 2, layer: star}}}}\n")
    experiment = load_experiment(path)
    assert experiment.model == load_experiment(other).model
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment
    (copied,) = deepcopy(experiment).model.nodes.values()
    assert copied.told("a") == f"{path}:3: a"
    assert copied.to_mapping()["layer"].__class__ is str
    assert "layer: star" in experiment.to_yaml()


FORMULAS = [
    (
        "  nodes:\n  - fm\n  - a:\n      formula: |\n        y = x\n        lin(y, out=0)\n",
        8,
    ),
    ("  nodes:\n    a:\n    - senet\n    - formula: |\n        lin(x, out=0)\n", 7),
    ("  nodes: {fm: , a: {formula: 'lin(x, out=n)', n: 0}}\n", 3),
]


@pytest.mark.parametrize(("text", "line"), FORMULAS)
def test_what_a_formula_is_refused_for_is_told_with_its_line(
    tmp_path: Path, text: str, line: int
) -> None:
    told = refused(**model_of(tmp_path, text).nodes).replace(f"{tmp_path}/", "")
    assert told == f"e.yaml:{line}: a.formula: out must be at least 1; got 0."


def test_a_value_of_a_definitions_formula_is_told_where_the_formula_stands(tmp_path: Path) -> None:
    text = "  definition: fibinet\n\n\n  nodes: {gated_pairs: {reduction_ratio: 0}}\n"
    node = model_of(tmp_path, text).nodes["gated_pairs"]
    assert node.told("gated_pairs").endswith("e.yaml:6: gated_pairs")
    formula = node.options["formula"]
    assert "fibinet" in formula.place


def test_a_formula_of_the_command_line_is_text(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(f"{HEAD}  nodes: {{a: {{formula: lin(x)}}}}\n")
    with pytest.raises(ConfigError, match=r"model\.nodes\.a\.formula: must be text; got 3"):
        load_experiment(path, ["model.nodes.a.formula=3"])
    nodes = load_experiment(path, ["model.nodes.a.formula='lin(x, out=0)'"]).model.nodes
    assert refused(**nodes).endswith(
        "e.yaml:3, with overrides: a: formula line 1: out must be at least 1; got 0."
    )
