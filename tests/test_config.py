"""Experiments: the graph as it is written, overrides, and what is told of a wrong one."""

from pathlib import Path

import pytest

from recsys_had.config import Experiment, bundled_experiments, load_experiment
from recsys_had.errors import ConfigError
from recsys_had.nodes import heads

HEAD = "dataset: frappe\nmodel:\n"


def experiment(tmp_path: Path, text: str, *overrides: str) -> Experiment:
    path = tmp_path / "e.yaml"
    path.write_text(text)
    return load_experiment(path, overrides)


def problems_of(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        experiment(tmp_path, text, *overrides)
    return [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems]


def test_a_graph_may_be_written_as_a_list(tmp_path: Path) -> None:
    nodes = experiment(tmp_path, HEAD + "  nodes: [linear, fm]\n").model.nodes
    assert {name: node.layer for name, node in nodes.items()} == {"linear": "linear", "fm": "fm"}


def test_a_chain_names_its_links_and_only_its_end_is_a_head(tmp_path: Path) -> None:
    nodes = experiment(
        tmp_path,
        HEAD + "  nodes:\n    linear:\n    deep: [senet, bilinear, {mlp: {dropout: 0.1}}]\n",
    ).model.nodes
    assert [(name, node.layer, node.inputs) for name, node in nodes.items()] == [
        ("linear", "linear", ("fields",)),
        ("deep_senet", "senet", ("fields",)),
        ("deep_bilinear", "bilinear", ("deep_senet",)),
        ("deep", "mlp", ("deep_bilinear",)),
    ]
    assert nodes["deep"].options == {"dropout": 0.1}
    assert heads(nodes) == ("linear", "deep")


def test_fibinet_reads_the_raw_and_the_gated_pairs() -> None:
    nodes = load_experiment("frappe_fibinet").model.nodes
    assert nodes["pairs"].inputs == ("fields",)
    assert nodes["gated_pairs"].inputs == ("gated_pairs_senet",)
    assert nodes["deep"].inputs == ("pairs", "gated_pairs")
    assert heads(nodes) == ("linear", "deep")


def test_an_experiment_overrides_its_definition_option_by_option() -> None:
    deep = load_experiment("frappe_dcn_v2").model.nodes["deep"]
    assert deep.options == {"hidden_units": (400, 400, 400), "dropout": 0.4, "batch_norm": True}


def test_a_resolved_experiment_stands_alone_and_reads_back(tmp_path: Path) -> None:
    first = load_experiment("frappe_fibinet", ["train.epochs=3", "model.nodes.deep.dropout=0.5"])
    path = tmp_path / "resolved.yaml"
    path.write_text(first.to_yaml())
    again = load_experiment(path)
    assert again.model.nodes == first.model.nodes
    assert again.train == first.train
    assert "definition" not in first.to_yaml()


def test_overrides_are_yaml_values_and_small_numbers_are_numbers() -> None:
    found = load_experiment(
        "criteo_dcn_v2", ["train.learning_rate=1e-4", "model.nodes.deep.hidden_units=[8, 4]"]
    )
    assert found.train.learning_rate == 1e-4
    assert found.model.nodes["deep"].options["hidden_units"] == (8, 4)


def test_settings_are_flat_for_tracking() -> None:
    flat = load_experiment("frappe_fm").flat()
    assert flat["train.batch_size"] == "4096"
    assert flat["model.nodes.fm.layer"] == "fm"


@pytest.mark.parametrize("name", sorted(bundled_experiments()))
def test_every_bundled_experiment_opens_with_the_command_that_runs_it(name: str) -> None:
    first = bundled_experiments()[name].read_text().splitlines()[0]
    dataset = load_experiment(name).dataset
    assert first == f"# recsys-had train {name} --data data/{dataset} --out runs/{name}"
    assert name.startswith(f"{dataset}_")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            HEAD + "  nodes: [fm]\ntrain:\n  learning_rat: 1\n",
            "e.yaml:5: train.learning_rat: unknown key. Did you mean 'learning_rate'?",
        ),
        (
            HEAD + "  nodes: [fm]\ntrain:\n  epochs: many\n",
            "e.yaml:5: train.epochs: input should be a valid integer, unable to parse string as "
            "an integer; got 'many'.",
        ),
        (
            HEAD + "  nodes:\n    fm:\n    deep: {layer: mpl}\n",
            "e.yaml:5: deep: no layer 'mpl'. Did you mean 'mlp'?",
        ),
        (
            HEAD + "  nodes:\n    deep: {layer: mlp, droput: 0.1}\n",
            "e.yaml:4: deep.droput: unknown option of 'mlp'. Did you mean 'dropout'?",
        ),
        (
            HEAD + "  nodes:\n    deep: {layer: mlp, dropout: lots}\n",
            "e.yaml:4: deep.dropout: input should be a valid number, unable to parse string as a "
            "number; got 'lots'.",
        ),
        (
            HEAD + "  nodes:\n    deep: {layer: mlp, inputs: [pair]}\n    pairs: bilinear\n",
            "e.yaml:4: deep.inputs: 'pair' is no node above it. Known: dense, fields.",
        ),
        (
            HEAD + "  nodes:\n    fields: fm\n",
            "e.yaml:4: fields: a node's name must be an identifier other than fields and dense. "
            "Rename it.",
        ),
        (HEAD + "  nodes: {}\n", "e.yaml:3: model.nodes: must hold nodes. Add one."),
        (
            HEAD + "  definition: dcnv2\n",
            "e.yaml:3: model.definition: no bundled model 'dcnv2'. Did you mean 'dcn_v2'?",
        ),
        ("model:\n  nodes: [fm]\n", "e.yaml: dataset: the key is missing. Add it."),
        (
            HEAD + "  nodes: [fm]\ntrain: {embedding_l2: 0.1}\n",
            "e.yaml:4: train: embedding_l2 needs regime 'published': a fused optimizer touches "
            "only the rows of a batch, so it cannot apply a penalty on whole tables.",
        ),
        (
            HEAD + "  nodes: [fm]\ntrain: {embedding_optimizer: adam}\n",
            "e.yaml:4: train: embedding_optimizer 'adam' does not belong to regime 'scale'. "
            "Use adam with published; a fused one with scale.",
        ),
    ],
)
def test_a_wrong_experiment_is_told_with_file_and_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    assert problem in problems_of(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "train.learning_rat=1",
            "override: train.learning_rat: unknown key. Did you mean 'train.learning_rate'?",
        ),
        (
            "model.nodes.deep.droput=1",
            "override: model.nodes.deep.droput: unknown option of 'mlp'. Did you mean 'dropout'?",
        ),
        (
            "model.nodes.deap.dropout=1",
            "override: model.nodes.deap.dropout: unknown key. "
            "Did you mean 'model.nodes.deep.OPTION'?",
        ),
        ("epochs", "override 'epochs': must be KEY=VALUE. Write for example train.epochs=3."),
        ("train.epochs=[1", "override 'train.epochs=[1': the value is not valid YAML."),
    ],
)
def test_a_wrong_override_is_told(tmp_path: Path, override: str, problem: str) -> None:
    text = HEAD + "  nodes:\n    deep: mlp\n"
    assert problem in problems_of(tmp_path, text, override)


def test_all_wrong_nodes_are_told_at_once(tmp_path: Path) -> None:
    text = HEAD + "  nodes:\n    a: mpl\n    b: {layer: mlp, droput: 1}\n    c: {inputs: [z]}\n"
    assert len(problems_of(tmp_path, text)) >= 3


def test_an_unknown_bundled_experiment_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^frappe_fn: no bundled .* Did you mean 'frappe_fm'\?"):
        load_experiment("frappe_fn")
