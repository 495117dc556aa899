"""docs/models.md: what it shows is built as it is written, mistakes are told as it tells them."""

import ast
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional

from recsys_had.experiment_file import load_experiment
from recsys_had.interactions import formula
from recsys_had.interactions.algebra import Expr, Interaction, source
from recsys_had.interactions.formula import FormulaError, express_formula

TEXT = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
FORMULAS = {
    name: node
    for block in BLOCKS
    for name, node in yaml.safe_load(block)["model"]["nodes"].items()
    if isinstance(node, dict) and "formula" in node
}
MISTAKES = re.findall(
    r"^\| `([^|]*?)` \| ([^|]*) \| ([^|]*) \|$", TEXT.split("### Mistakes")[1], re.MULTILINE
)
SOURCES = {"x": (5, 16), "fields": (5, 16), "image": (1, 64)}
CARD = """\
name: shop
format: {type: parquet}
split: {by: given}
columns:
  click: {kind: label}
  user: {kind: categorical}
  item: {kind: categorical}
  hour: {kind: categorical}
  weekday: {kind: categorical}
  price: {kind: float}
  image: {kind: vector, size: 64}
"""


@pytest.fixture
def mine(tmp_path: Path):
    def written(block: str) -> Path:
        (tmp_path / "dataset.yaml").write_text(CARD)
        path = tmp_path / "mine.yaml"
        path.write_text(f"dataset: dataset.yaml\n{block}")
        return path

    return written


def drawn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def expressed(text: str, sources: dict[str, Expr], values: dict[str, Any]) -> Expr:
    """What a formula gives of those sources and values it speaks of."""
    words = set(re.findall(r"\w+", text))
    return express_formula(
        text,
        {name: expr for name, expr in sources.items() if name in words},
        {name: value for name, value in values.items() if name in words},
    )


def layer_of(name: str, *inputs: str) -> Interaction:
    node = FORMULAS[name]
    sources = {given: source(*SOURCES[given]) for given in inputs}
    values = {key: value for key, value in node.items() if key not in ("formula", "inputs")}
    return Interaction(expressed(node["formula"], sources, values), list(sources.values())).double()


def test_there_are_examples_to_look_at() -> None:
    assert len(BLOCKS) == 9
    assert set(FORMULAS) == {"gated", "pairs", "attended", "fused"}
    assert len(MISTAKES) == 13


@pytest.mark.parametrize("block", BLOCKS)
def test_every_example_is_described(cli, mine, block: str) -> None:
    done = cli("describe", mine(block), "--json")
    assert done.code == 0, done.err
    assert {node["name"] for node in done.json["nodes"]} >= set(
        yaml.safe_load(block)["model"]["nodes"]
    )


def test_a_chain_is_the_nodes_it_is_short_for(mine) -> None:
    short, spelled = (block for block in BLOCKS if "mlp" in block and len(block) < 120)
    chain = load_experiment(mine(short)).model.nodes
    assert chain == load_experiment(mine(spelled)).model.nodes
    assert list(chain) == ["gated_senet", "gated"]
    option = "model.nodes.gated_senet.reduction_ratio=2"
    assert option in TEXT
    changed = load_experiment(mine(short), [option]).model.nodes
    assert changed["gated_senet"].options == {"reduction_ratio": 2}


@pytest.mark.parametrize("name", FORMULAS)
def test_the_shapes_beside_a_formula_are_those_of_its_lines(name: str) -> None:
    node = FORMULAS[name]
    sources = {given: source(*shape) for given, shape in SOURCES.items()}
    lines = node["formula"].splitlines()
    for number, line in enumerate(lines, 1):
        written, told = line.split("#")
        called, is_assignment, _ = written.partition(" = ")
        text = "\n".join([*lines[:number], called] if is_assignment else lines)
        assert expressed(text, sources, node).shape == ast.literal_eval(told.strip())


def test_the_gate_multiplies_each_field_by_one_number() -> None:
    layer, x = layer_of("gated", "x"), drawn(3, 5, 16, seed=1)
    first, bias, second = layer.parameters()
    hidden = torch.relu(x.mean(dim=2) @ first.T + bias)
    gate = torch.sigmoid(hidden @ second.T)
    torch.testing.assert_close(layer(x), x * gate.unsqueeze(2))


def test_the_sum_of_all_pairs_is_that_of_a_loop_over_them() -> None:
    layer, x = layer_of("pairs", "x"), drawn(3, 5, 16, seed=2)
    (weight,) = layer.parameters()
    narrow = x @ weight.T
    products = [narrow[:, i] * narrow[:, j] for i, j in combinations(range(5), 2)]
    torch.testing.assert_close(layer(x).reshape(3, 4), sum(products))
    assert layer.degree == 2


def test_attention_by_a_formula_is_that_of_a_loop_over_the_fields() -> None:
    layer, x = layer_of("attended", "x"), drawn(3, 5, 16, seed=5)
    key, value = layer.parameters()
    for row in range(3):
        keys, values = x[row] @ key.T, x[row] @ value.T
        for i, asking in enumerate(x[row]):
            weights = torch.softmax(torch.stack([asking @ asked for asked in keys]), dim=0)
            expected = sum(w * told for w, told in zip(weights, values, strict=True))
            torch.testing.assert_close(layer(x)[row, i], expected)


def test_without_its_softmax_that_attention_is_a_polynomial_of_degree_3() -> None:
    text = re.sub(r"softmax\((.*), \"C\"\)", r"\1", FORMULAS["attended"]["formula"])
    assert "softmax" not in text
    assert expressed(text, {"x": source(5, 16)}, {}).degree == 3


def test_a_content_vector_weighs_the_fields() -> None:
    layer = layer_of("fused", "fields", "image")
    fields, image = drawn(3, 5, 16, seed=3), drawn(3, 1, 64, seed=4)
    weight, bias = layer.parameters()
    for row in range(3):
        seen = torch.tanh(functional.linear(image[row, 0], weight, bias))
        weights = torch.softmax(torch.stack([field @ seen for field in fields[row]]), dim=0)
        expected = torch.cat([*(w * field for w, field in zip(weights, fields[row], strict=True))])
        found = layer(fields, image)[row].flatten()
        torch.testing.assert_close(found, torch.cat([expected, seen]))


@pytest.mark.parametrize(("wrong", "told", "right"), MISTAKES)
def test_a_mistake_is_told_as_it_is_told_there(wrong: str, told: str, right: str) -> None:
    given, values = {"x": source(5, 16)}, {"width": 8} if "width" in wrong + right else {}
    with pytest.raises(FormulaError) as refused:
        express_formula(wrong, given, values)
    assert refused.value.message == told
    for text in re.findall("`(.*?)`", right):
        assert isinstance(expressed(text, given, values), Expr)


def test_the_line_of_a_mistake_is_told_as_it_is_told_there(cli, mine) -> None:
    (told,) = re.findall(r"`(mine\.yaml:\d+: .*?)`", TEXT.replace("\n", " "))
    block = next(block for block in BLOCKS if "squeezed" in block)
    done = cli("describe", mine(block.replace("sigmoid(", "sigmod(")))
    assert done.code == 2
    assert done.err.endswith(f"/{told}\n")


def test_all_that_a_formula_may_call_is_told() -> None:
    called = (*formula.PRIMITIVES, *formula.ACTIVATIONS, *formula.SIZES, *formula.NUMBERS)
    assert [name for name in called if f"`{name}(" not in TEXT] == []
