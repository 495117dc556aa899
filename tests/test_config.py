"""Experiments: the graph as it is written, overrides, and what is told of a wrong one."""

from pathlib import Path

import pytest
import yaml

from recsys_had.config import Experiment
from recsys_had.errors import ConfigError, SchemaError
from recsys_had.experiment_file import (
    bundled_experiments,
    load_experiment,
    load_experiment_with_card,
)
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
    assert nodes["gated_pairs"].inputs == ("fields", "pairs")
    assert nodes["gated_pairs"].options["reduction_ratio"] == 2
    assert nodes["deep"].inputs == ("pairs", "gated_pairs")
    assert heads(nodes) == ("linear", "deep")


def test_fibinets_gates_have_a_hidden_layer_whatever_the_ratio() -> None:
    from recsys_had.model.graph import InteractionGraph

    nodes = dict(
        load_experiment(
            "frappe_fibinet", ["model.nodes.gated_pairs.reduction_ratio=30"]
        ).model.nodes
    )
    nodes.pop("linear")
    graph = InteractionGraph(nodes=nodes, sources={"fields": (10, 4)})
    # Ten means to one number, and that to ten gates.
    assert {node.name: node.parameters for node in graph.summaries()}["gated_pairs"] == 20


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


def test_an_override_is_read_as_a_value_of_a_file_is(tmp_path: Path) -> None:
    text = HEAD + "  nodes: {fm: {layer: fm, inputs: g}}\n  groups: {g: [on]}\n"
    groups = experiment(tmp_path, text, "model.groups={g: [no, 1:30]}").model.groups
    assert groups == {"g": ("no", "1:30")}
    found = experiment(tmp_path, text, "train.epochs=010", "train.batch_size=1e3").train
    assert (found.epochs, found.batch_size) == (10, 1000)
    words = ("train.compile=on", "train.pipeline=no")
    found = experiment(tmp_path, text, *words).train
    assert (found.compile, found.pipeline) == (True, False)


def test_a_small_number_of_a_file_is_a_number(tmp_path: Path) -> None:
    text = HEAD + "  nodes: {deep: {layer: mlp, dropout: 1e-1}}\n"
    assert experiment(tmp_path, text).model.nodes["deep"].options == {"dropout": 0.1}


@pytest.mark.parametrize("told", ["1e-3", "08", "0o17", "010", "1:30", "on", "2024-01-01", "="])
def test_a_text_that_looks_like_something_else_is_saved_as_a_text(
    tmp_path: Path, told: str
) -> None:
    first = experiment(tmp_path, f"description: '{told}'\n" + HEAD + "  nodes: [fm]\n")
    again = experiment(tmp_path, first.to_yaml())
    assert again.description == told
    assert yaml.safe_load(first.to_yaml())["description"] == told
    assert first.flat()["description"] == told


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
            "e.yaml:5: train.epochs: must be a whole number; got 'many'.",
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
            "e.yaml:4: deep.dropout: must be a number; got 'lots'.",
        ),
        (
            HEAD + "  nodes:\n    deep: {layer: mlp, hidden_units: 8}\n",
            "e.yaml:4: deep.hidden_units: must be a list of whole numbers; got 8.",
        ),
        (
            HEAD + "  nodes:\n    deep: {layer: mlp, dropout: .nan}\n",
            "e.yaml:4: deep.dropout: must be a finite number; got nan.",
        ),
        (
            HEAD + "  nodes: [fm]\ntrain:\n  learning_rate: .inf\n",
            "e.yaml:5: train.learning_rate: must be a finite number; got inf.",
        ),
        (
            "dataset: frappe\nmodel:\n",
            "e.yaml:2: model: must be a mapping of keys to values; got nothing.",
        ),
        (
            HEAD + "  nodes: [fm]\ntrain:\n  regime: publish\n",
            "e.yaml:5: train.regime: must be 'scale' or 'published'; got 'publish'. "
            "Did you mean 'published'?",
        ),
        (
            HEAD + "  nodes:\n    deep: {layer: mlp, inputs: [pairs]}\n    pairs: bilinear\n",
            "e.yaml:4: deep.inputs: 'pairs' is no node above it. Known: dense, fields, joint.",
        ),
        (
            HEAD + "  nodes:\n    deep: {layer: mlp, inputs: [pair]}\n    pairs: bilinear\n",
            "e.yaml:4: deep.inputs: 'pair' is no node above it. Known: dense, fields, joint.",
        ),
        (
            HEAD + "  nodes:\n    deep: {layer: mlp, inputs: 5}\n",
            "e.yaml:4: deep.inputs: must be a list of names; got 5. Write for example [fields].",
        ),
        (
            HEAD + "  nodes:\n    fields: fm\n",
            "e.yaml:4: fields: a node's name must be an identifier other than "
            "fields, dense and joint. Rename it.",
        ),
        (HEAD + "  nodes: {}\n", "e.yaml:3: model.nodes: must hold nodes. Add one."),
        (
            HEAD + "  definition: dcnv2\n",
            "e.yaml:3: model.definition: no bundled model 'dcnv2'. Did you mean 'dcn_v2'?",
        ),
        (
            HEAD + "  definition: 5\n",
            "e.yaml:3: model.definition: must be text (a bundled model's name or a path); got 5.",
        ),
        (
            HEAD + "  nodes: [fm]\n  tables: true\n",
            "e.yaml:4: model.tables: must be a mapping of keys to values; got true.",
        ),
        ("model:\n  nodes: [fm]\n", "e.yaml: dataset: the key is missing. Add it."),
        (
            HEAD + "  nodes: [fm]\ntrain: {embedding_l2: 0.1}\n",
            "e.yaml:4: train: embedding_l2 needs regime 'published': the optimizers of "
            "'scale' touch only the rows of a batch, so they cannot apply a penalty on whole "
            "tables.",
        ),
        (
            HEAD + "  nodes: [fm]\ntrain: {legacy_defaults: true}\n",
            "e.yaml:4: train: legacy_defaults needs regime 'published': 'scale' has today's. "
            "Leave it out.",
        ),
        (
            HEAD + "  nodes: [fm]\ntrain: {embedding_optimizer: adam}\n",
            "e.yaml:4: train: embedding_optimizer 'adam' does not belong to regime 'scale'. "
            "Use adam with published; rowwise_adagrad, adagrad, sgd or lazy_adam with scale.",
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
        (
            "train.epochs=[1",
            "override 'train.epochs=[1': is not valid YAML: expected ',' or ']', but got "
            "'<stream end>'.",
        ),
        (
            "train.epochs=2024-13-45",
            "override 'train.epochs=2024-13-45': is not valid YAML: '2024-13-45' is no date. "
            "Put it in quotes if it is text.",
        ),
        (
            "train.loss={kind: bce, kind: focal}",
            "override 'train.loss={kind: bce, kind: focal}': kind: the key stands twice. "
            "Keep one of them.",
        ),
        ("train.epochs=0", "override: train.epochs: must be at least 1; got 0."),
        (
            "train.learning_rate=.inf",
            "override: train.learning_rate: must be a finite number; got inf.",
        ),
        (
            "train.learning_rate=.nan",
            "override: train.learning_rate: must be a finite number; got nan.",
        ),
        (
            "model.embedding_dim=10000000000000000000",
            "override: model.embedding_dim: must be below 9223372036854775808; "
            "got 10000000000000000000.",
        ),
        ("train.seed=2.5", "override: train.seed: must be a whole number; got 2.5."),
        (
            "train.sharding=gird",
            "override: train.sharding: must be 'table_wise', 'row_wise', 'column_wise', "
            "'table_row_wise', 'grid', 'data_parallel' or 'auto'; got 'gird'. Did you mean 'grid'?",
        ),
        (
            "train.sharding.table.A=row_wise",
            "override: train.sharding.table.A: unknown key. Did you mean 'train.sharding.tables'?",
        ),
        (
            "train.embedding_l2=0.1",
            "override: train: embedding_l2 needs regime 'published': the optimizers of "
            "'scale' touch only the rows of a batch, so they cannot apply a penalty on whole "
            "tables.",
        ),
        (
            "model.definition=dcnv2",
            "override: model.definition: no bundled model 'dcnv2'. Did you mean 'dcn_v2'?",
        ),
        (
            "model.definition=5",
            "override: model.definition: must be text (a bundled model's name or a path); got 5.",
        ),
        (
            "model.nodes.deep.hidden_units=8",
            "override: model.nodes.deep.hidden_units: must be a list of whole numbers; got 8.",
        ),
    ],
)
def test_a_wrong_override_is_told(tmp_path: Path, override: str, problem: str) -> None:
    text = HEAD + "  nodes:\n    deep: mlp\n"
    assert problem in problems_of(tmp_path, text, override)


def test_a_wrong_value_is_blamed_on_the_file_or_the_override_it_stands_in(tmp_path: Path) -> None:
    text = HEAD + "  nodes: [fm]\ntrain: {epochs: 3, batch_size: 0}\n"
    assert problems_of(tmp_path, text, "train.epochs=0") == [
        "override: train.epochs: must be at least 1; got 0.",
        "e.yaml:4: train.batch_size: must be at least 1; got 0.",
    ]
    conflict = HEAD + "  nodes: [fm]\ntrain: {embedding_l2: 0.1}\n"
    (told,) = problems_of(tmp_path, conflict, "train.epochs=2")
    assert told.startswith("e.yaml:4: train: embedding_l2 needs regime 'published'")


def test_overrides_may_shard_single_tables(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(HEAD + "  nodes: [fm]\ntrain: {sharding: row_wise}\n")
    words = ("train.sharding.tables.A=table_wise", "train.sharding.tables.linear.B=data_parallel")
    sharding = load_experiment(str(path), words).train.sharding
    assert sharding.default == "row_wise"
    assert sharding.tables == {"A": "table_wise", "linear.B": "data_parallel"}


def test_an_override_may_set_a_key_of_a_section_left_empty(tmp_path: Path) -> None:
    found = experiment(tmp_path, HEAD + "  nodes: [fm]\ntrain:\n", "train.epochs=3")
    assert found.train.epochs == 3


CARD = """\
name: shop
format: {type: csv}
columns: {click: {kind: label}, C1: {kind: categorical}}
split: {by: given}
"""
OWN = "dataset: my/shop.yaml\nmodel:\n  nodes: [fm]\n"


def write_card(folder: Path, *, name: str) -> Path:
    (folder / "my").mkdir(parents=True, exist_ok=True)
    (folder / "my" / "shop.yaml").write_text(CARD.replace("shop", name))
    return folder


def test_a_card_is_looked_for_beside_the_experiment_and_then_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = write_card(tmp_path / "here", name="here"), tmp_path / "there"
    there.mkdir()
    (there / "e.yaml").write_text(OWN)
    monkeypatch.chdir(here)
    assert load_experiment_with_card("../there/e.yaml")[1].name == "here"
    assert load_experiment("../there/e.yaml").dataset == "my/shop.yaml"
    write_card(there, name="there")
    experiment, card = load_experiment_with_card("../there/e.yaml")
    assert (experiment.dataset, card.name) == ("../there/my/shop.yaml", "there")
    given = load_experiment_with_card("../there/e.yaml", ["dataset=my/shop.yaml"])
    assert given[1].name == "here"


def test_the_text_of_a_path_stays_where_both_ways_lead_to_the_same_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an unfinished run was begun with holds this text."""
    (write_card(tmp_path, name="shop") / "e.yaml").write_text(OWN.replace("my/", "./my/"))
    monkeypatch.chdir(tmp_path)
    for path in ("e.yaml", tmp_path / "e.yaml"):
        assert load_experiment(path).dataset == "./my/shop.yaml"


def test_a_resolved_experiment_reads_back_though_its_card_is_gone(tmp_path: Path) -> None:
    (write_card(tmp_path, name="shop") / "e.yaml").write_text(OWN)
    first = load_experiment(tmp_path / "e.yaml")
    run = tmp_path / "run"
    run.mkdir()
    (run / "experiment.yaml").write_text(first.to_yaml())
    assert load_experiment_with_card(run / "experiment.yaml")[1].name == "shop"
    (tmp_path / "my" / "shop.yaml").unlink()
    assert load_experiment(run / "experiment.yaml") == first


@pytest.mark.parametrize(
    ("dataset", "overrides", "told"),
    [
        (
            "frape",
            (),
            "e.yaml:1: dataset: no bundled dataset 'frape'. Did you mean 'frappe'? "
            "A card of your own is given by its path.",
        ),
        (
            "my/none.yaml",
            (),
            "e.yaml:1: dataset: there is no card 'my/none.yaml'. Give a bundled name or the path "
            "of a dataset.yaml.",
        ),
        (
            "frappe",
            ("dataset=frape",),
            "override: dataset: no bundled dataset 'frape'. Did you mean 'frappe'? "
            "A card of your own is given by its path.",
        ),
    ],
)
def test_a_dataset_that_is_not_there_is_told_where_it_is_named(
    tmp_path: Path, dataset: str, overrides: tuple[str, ...], told: str
) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(f"dataset: {dataset}\nmodel:\n  nodes: [fm]\n")
    with pytest.raises(SchemaError) as caught:
        load_experiment_with_card(path, overrides)
    assert [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems] == [told]


def test_wrong_members_do_not_make_a_list_too_short(tmp_path: Path) -> None:
    text = HEAD + "  nodes: {fm: {layer: fm, inputs: g}}\n  groups: {g: %s}\n"
    assert problems_of(tmp_path, text % "[1, item]") == [
        "e.yaml:4: model.groups.g.0: must be text; got 1. Put it in quotes."
    ]
    assert problems_of(tmp_path, text % "[1]") == [
        "e.yaml:4: model.groups.g.0: must be text; got 1. Put it in quotes."
    ]
    assert problems_of(tmp_path, text % "[]") == [
        "e.yaml:4: model.groups.g: must hold at least 1; got []."
    ]


@pytest.mark.parametrize(
    ("override", "asked"),
    [
        ("model.embedding_dim=true", "must be a whole number; got true."),
        ("model.embedding_init_std=false", "must be a number; got false."),
        ("train.epochs=true", "must be a whole number; got true."),
        ("train.patience=true", "must be a whole number; got true."),
        ("train.seed=true", "must be a whole number; got true."),
        ("train.warmup_steps=false", "must be a whole number; got false."),
        ("train.learning_rate=true", "must be a number; got true."),
        ("train.plateau_factor=true", "must be a number; got true."),
    ],
)
def test_a_truth_is_no_number(tmp_path: Path, override: str, asked: str) -> None:
    name, _ = override.split("=")
    told = problems_of(tmp_path, HEAD + "  nodes: [fm]\n", override)
    assert told == [f"override: {name}: {asked}"]


def test_a_truth_is_no_number_of_a_part(tmp_path: Path) -> None:
    text = HEAD + "  nodes: {a: {layer: fm, inputs: [g, h]}}\n  tables: {g: true, h: {dim: true}}\n"
    assert problems_of(tmp_path, text + "train: {loss: {kind: focal, alpha: true}}\n") == [
        "e.yaml:4: model.tables.g: must be a whole number; got true.",
        "e.yaml:4: model.tables.h.dim: must be a whole number; got true.",
        "e.yaml:5: train.loss.alpha: must be a number; got true.",
    ]


def test_a_wrong_definition_is_the_only_thing_told(tmp_path: Path) -> None:
    for value, got in (("5", "5"), ("[fm]", "['fm']"), ("true", "true")):
        told = "model.definition: must be text (a bundled model's name or a path)"
        (problem,) = problems_of(tmp_path, HEAD + f"  definition: {value}\n")
        assert problem == f"e.yaml:3: {told}; got {got}."
        (problem,) = problems_of(tmp_path, HEAD + "  definition: fm\n", f"model.definition={value}")
        assert problem == f"override: {told}; got {got}."


def test_a_whole_number_is_a_number(tmp_path: Path) -> None:
    found = experiment(tmp_path, HEAD + "  nodes: [fm]\ntrain: {learning_rate: 1, epochs: 2.0}\n")
    assert (found.train.learning_rate, found.train.epochs) == (1.0, 2)


def test_all_wrong_nodes_are_told_at_once(tmp_path: Path) -> None:
    text = HEAD + "  nodes:\n    a: mpl\n    b: {layer: mlp, droput: 1}\n    c: {inputs: [z]}\n"
    assert len(problems_of(tmp_path, text)) >= 3


def test_an_unknown_bundled_experiment_suggests_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"^frappe_deepfn: no bundled .* Did you mean 'frappe_deepfm'\?"
    ):
        load_experiment("frappe_deepfn")
