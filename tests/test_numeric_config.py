"""The section `numeric`: short forms, overrides, and what is told of a wrong one."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys_had import numeric
from recsys_had.config import Experiment
from recsys_had.errors import ConfigError
from recsys_had.experiment_file import load_experiment
from recsys_had.numeric_config import ColumnConfig, NumericConfig

HEAD = "dataset: synthetic\nmodel:\n  nodes: [fm]\n"
LONG = """\
  numeric:
    kind: periodic
    sigma: 0.5
    columns:
      I1: autodis
      I2: {num_frequencies: 3, normalise: batch}
      I3:
        kind: piecewise_linear
        num_bins: 4
"""


def numeric_of(tmp_path: Path, text: str, *overrides: str) -> NumericConfig | None:
    path = tmp_path / "e.yaml"
    path.write_text(HEAD + text)
    return load_experiment(path, overrides).model.numeric


def mapping_of(tmp_path: Path, text: str, *overrides: str) -> Any:
    found = numeric_of(tmp_path, text, *overrides)
    return None if found is None else found.to_mapping()


def test_nothing_said_is_nothing_written(tmp_path: Path) -> None:
    assert numeric_of(tmp_path, "") is None
    assert "numeric" not in load_experiment(tmp_path / "e.yaml").to_yaml()


def test_a_kind_alone_is_that_of_all_columns(tmp_path: Path) -> None:
    assert mapping_of(tmp_path, "  numeric: autodis\n") == {"kind": "autodis"}


def test_a_column_starts_from_the_options_of_all_unless_it_names_another_kind(
    tmp_path: Path,
) -> None:
    assert mapping_of(tmp_path, LONG) == {
        "kind": "periodic",
        "sigma": 0.5,
        "columns": {
            "I1": {"kind": "autodis"},
            "I2": {"kind": "periodic", "normalise": "batch", "sigma": 0.5, "num_frequencies": 3},
            "I3": {"kind": "piecewise_linear", "num_bins": 4},
        },
    }


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.numeric.kind=autodis", {"kind": "autodis"}),
        ("model.numeric=none", {"kind": "none"}),
        ("model.numeric.num_frequencies=2", {"kind": "periodic", "num_frequencies": 2}),
        ("model.numeric.columns.I5=mlp", {"columns": {"I5": {"kind": "mlp"}}}),
        ("model.numeric.columns.I5.kind=mlp", {"columns": {"I5": {"kind": "mlp"}}}),
        (
            "model.numeric.columns.I5={kind: mlp, hidden_units: [8]}",
            {"columns": {"I5": {"kind": "mlp", "hidden_units": [8]}}},
        ),
        (
            "model.numeric.columns.I5.sigma=1e-2",
            {"columns": {"I5": {"kind": "periodic", "sigma": 0.01}}},
        ),
        ("model.numeric.columns={I1: scale}", {"columns": {"I1": {"kind": "scale"}}}),
    ],
)
def test_overrides_set_a_kind_an_option_or_a_column(
    tmp_path: Path, override: str, expected: dict[str, Any]
) -> None:
    found = mapping_of(tmp_path, "  numeric: periodic\n", override)
    assert found == {"kind": "periodic", **expected}


def test_an_override_needs_no_section(tmp_path: Path) -> None:
    found = mapping_of(tmp_path, "", "model.numeric.columns.I1=autodis")
    assert found == {"kind": "scale", "columns": {"I1": {"kind": "autodis"}}}


def test_overrides_of_the_same_column_add_up(tmp_path: Path) -> None:
    given = ("model.numeric.columns.I3.num_bins=9", "model.numeric.columns.I3.relu=true")
    column = mapping_of(tmp_path, LONG, *given)["columns"]["I3"]
    assert column == {"kind": "piecewise_linear", "num_bins": 9, "relu": True}


@pytest.mark.parametrize(
    "section",
    [
        "{kind: autodis, normalise: batch, columns: {I1: {normalise: none}}}",
        "{kind: autodis, alpha: 5, columns: {I1: {alpha: 0.1}, I2: none}}",
    ],
)
def test_a_column_of_the_kind_of_all_is_written_in_full(tmp_path: Path, section: str) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(f"{HEAD}  numeric: {section}\n")
    # As if the kind of all came from elsewhere and the column from a definition.
    experiment = load_experiment(path, ["model.numeric.temperature=0.3"])
    (tmp_path / "again.yaml").write_text(experiment.to_yaml())
    again = load_experiment(tmp_path / "again.yaml")
    assert experiment.model.numeric is not None and again.model.numeric is not None
    for column in ("I1", "I2", "I3"):
        one, other = experiment.model.numeric.of(column), again.model.numeric.of(column)
        assert one.kind == other.kind
        for option in ("normalise", *numeric.options(one.kind)):
            assert one.value_of(option) == other.value_of(option)


def test_bins_are_not_normalised(tmp_path: Path) -> None:
    told = "bins are quantiles of the values as they are, so nothing is gained by normalising them"
    with pytest.raises(ConfigError, match=told):
        mapping_of(tmp_path, LONG, "model.numeric.columns.I3.normalise=batch")


def test_a_resolved_section_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(HEAD + LONG)
    first = load_experiment(path, ["model.numeric.columns.I8={kind: mlp, hidden_units: [4, 2]}"])
    assert first.flat()["model.numeric.columns.I3.num_bins"] == "4"
    path.write_text(first.to_yaml())
    assert load_experiment(path) == first
    assert Experiment.model_validate_json(first.model_dump_json()) == first
    assert Experiment.model_validate(yaml.safe_load(first.to_yaml())).model.numeric is not None


def test_a_model_definition_says_it_and_an_experiment_overrides_it(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "numeric: {kind: mlp, hidden_units: [8], columns: {I1: none}}\nnodes: [fm]\n"
    )
    path = tmp_path / "e.yaml"
    head = "dataset: synthetic\nmodel:\n  definition: own.yaml\n"
    path.write_text(head + "  numeric: {columns: {I2: autodis}}\n")
    found = load_experiment(path).model.numeric
    assert found is not None
    assert found.to_mapping() == {
        "kind": "mlp",
        "hidden_units": [8],
        "columns": {"I1": {"kind": "none"}, "I2": {"kind": "autodis"}},
    }
    path.write_text(head + "  numeric: scale\n")
    other = load_experiment(path).model.numeric
    assert other is not None and other.every == ColumnConfig()


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "  numeric: autodiss\n",
            ["e.yaml:4: model.numeric.kind: no kind 'autodiss'. Did you mean 'autodis'?"],
        ),
        (
            "  numeric: 3\n",
            ["e.yaml:4: model.numeric: must be a kind's name or a mapping; got 3."],
        ),
        (
            "  numeric:\n    kind: periodic\n    sigam: 1\n    columns:\n      I1: perodic\n"
            "      I2: {kind: piecewise_linear, num_bins: many}\n      I3:\n",
            [
                "e.yaml:6: model.numeric.sigam: unknown option of 'periodic'. "
                "Did you mean 'sigma'?",
                "e.yaml:8: model.numeric.columns.I1.kind: no kind 'perodic'. "
                "Did you mean 'periodic'?",
                "e.yaml:9: model.numeric.columns.I2.num_bins: must be a whole number; got 'many'.",
                "e.yaml:10: model.numeric.columns.I3: must be a kind's name or a mapping; "
                "got nothing.",
            ],
        ),
        (
            "  numeric: {normalise: layer, columns: [I1]}\n",
            [
                "e.yaml:4: model.numeric.normalise: must be 'batch' or 'none'; got 'layer'.",
                "e.yaml:4: model.numeric.columns: must map names of columns to kinds; got ['I1'].",
            ],
        ),
        (
            "  numeric: {kind: periodic, sigma: .nan}\n",
            ["e.yaml:4: model.numeric.sigma: must be a finite number; got nan."],
        ),
        (
            "  numeric: {kind: periodic, sigma: true, num_frequencies: false}\n",
            [
                "e.yaml:4: model.numeric.sigma: must be a number; got true.",
                "e.yaml:4: model.numeric.num_frequencies: must be a whole number; got false.",
            ],
        ),
    ],
)
def test_all_mistakes_are_told_with_file_and_line(
    tmp_path: Path, text: str, problems: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        numeric_of(tmp_path, text)
    assert [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems] == problems


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "model.numeric.kind=autodiss",
            "override: model.numeric.kind: no kind 'autodiss'. Did you mean 'autodis'?",
        ),
        (
            "model.numeric.columns.I1=autodiss",
            "override: model.numeric.columns.I1: no kind 'autodiss'. Did you mean 'autodis'?",
        ),
        (
            "model.numeric.columns.I1.sigam=1",
            "override: model.numeric.columns.I1.sigam: unknown option of 'periodic'. "
            "Did you mean 'sigma'?",
        ),
        (
            "model.numeric.sigma=wide",
            "override: model.numeric.sigma: must be a number; got 'wide'.",
        ),
        (
            "model.numeric.column.I1=autodis",
            "override: model.numeric.column.I1: unknown key. "
            "Write model.numeric.OPTION or model.numeric.columns.COLUMN.",
        ),
    ],
)
def test_a_wrong_override_is_told(tmp_path: Path, override: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        numeric_of(tmp_path, "  numeric: periodic\n", override)
    assert list(caught.value.problems) == [problem]


def test_a_wrong_section_of_a_dumped_experiment_is_refused() -> None:
    content = {"dataset": "frappe", "model": {"nodes": {"fm": {"layer": "fm"}}}}
    content["model"]["numeric"] = {"kind": "autodiss"}  # type: ignore[index]
    with pytest.raises(ValueError, match="no kind 'autodiss'"):
        Experiment.model_validate(content)
