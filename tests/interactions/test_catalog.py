"""The catalog: what a file's name and folder alone are enough to find and build."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from recsys_had import interactions
from recsys_had.interactions import (
    build,
    catalog,
    express,
    names,
    num_inputs,
    options,
    own_tables,
    sources_of,
)
from recsys_had.interactions.algebra import Interaction, source

DOMAINS = {"higher-order", "fusion", "modulation", "efficient"}
SHAPES = [(2, 1), (5, 3), (7, 8)]


def files() -> list[Path]:
    folder = Path(interactions.__file__).parent
    return [file for file in folder.glob("*/[!_]*.py") if file.parent.name != "algebra"]


def draw_inputs(
    draw: Callable[..., Tensor], name: str, rows: int, *shape: int, seed: int = 0
) -> list[Tensor]:
    return [
        draw(rows, *expr.shape, seed=10 * seed + number)
        for number, expr in enumerate(sources_of(name, *shape))
    ]


def test_the_catalog_lists_every_file_of_every_domain_in_order() -> None:
    assert files()
    assert list(names()) == list(catalog()) == sorted(file.stem for file in files())


def test_the_domain_of_an_interaction_is_its_folder() -> None:
    folders = {file.stem: file.parent.name.replace("_", "-") for file in files()}
    assert {name: entry.domain for name, entry in catalog().items()} == folders
    assert folders["fm"] == "higher-order"
    assert folders["senet"] == "modulation"


def test_names_are_found_without_importing_torch() -> None:
    program = (
        "import sys; from recsys_had.interactions import names; "
        "assert 'fm' in names(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


@pytest.mark.parametrize("name", names())
def test_an_entry_describes_its_layer(name: str) -> None:
    entry = catalog()[name]
    assert entry.name == name
    assert entry.summary.endswith(".") and "\n" not in entry.summary
    assert entry.domain in DOMAINS
    assert re.search(r"\b(19|20)\d\d\b", entry.paper)
    assert re.fullmatch(r"O\(.+\)", entry.cost)


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        # F - 1, of tables one number wide
        ("linear", "O(F)"),
        # 3FD + D, both
        ("fm", "O(F D)"),
        ("bi_interaction", "O(F D)"),
        # 3 layers of 2(FD)^2 + 2FD
        ("hadamard_cross", "O(F^2 D^2)"),
        # 2 * 400 * FD, and layers that neither F nor D widens
        ("mlp", "O(F D)"),
        # a mean and a product a number, 2FD; two maps of F * F/3 weights, 4/3 F^2
        ("senet", "O(F^2 + F D)"),
        # F(F - 1)/2 pairs of a map each, 2D^2, and a product, D
        ("bilinear", "O(F^2 D^2)"),
    ],
)
def test_the_cost_of_an_entry_has_the_leading_terms_alone(name: str, cost: str) -> None:
    assert catalog()[name].cost == cost


@pytest.mark.parametrize(("num_fields", "embedding_dim"), SHAPES)
@pytest.mark.parametrize("num_rows", [0, 1, 3])
@pytest.mark.parametrize("name", names())
def test_every_layer_is_built_by_default_and_tells_its_output_shape(
    name: str, num_rows: int, num_fields: int, embedding_dim: int
) -> None:
    layer = build(name, num_fields=num_fields, embedding_dim=embedding_dim)
    shapes = [expr.shape for expr in sources_of(name, num_fields, embedding_dim)]
    out = layer(*[torch.ones(num_rows, *shape) for shape in shapes])
    assert tuple(out.shape) == (num_rows, *layer.output_shape)


@pytest.mark.parametrize("name", names())
def test_a_row_does_not_depend_on_the_rows_beside_it(
    draw: Callable[..., Tensor], name: str
) -> None:
    layer = build(name, num_fields=5, embedding_dim=3).double().eval()
    inputs = draw_inputs(draw, name, 4, 5, 3)
    alone = torch.cat([layer(*[x[row : row + 1] for x in inputs]) for row in range(4)])
    torch.testing.assert_close(layer(*inputs), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", names())
def test_the_degree_of_an_entry_is_the_measured_one(
    draw: Callable[..., Tensor],
    randomise: Callable[[nn.Module, int], Interaction],
    measure_degree: Callable[..., int | None],
    name: str,
    seed: int,
) -> None:
    layer = randomise(build(name, num_fields=9, embedding_dim=3), seed).eval()
    inputs = draw_inputs(draw, name, 2, 9, 3, seed=seed)
    assert measure_degree(layer, *inputs) == layer.degree == catalog()[name].degree


# At width 1 torch may take a product of matrices for one of numbers, which it does not count.
@pytest.mark.parametrize(("num_fields", "embedding_dim"), [(2, 2), (5, 3), (7, 8)])
@pytest.mark.parametrize("name", names())
def test_the_operations_of_matrix_products_are_those_that_torch_counts(
    count_matmul_flops: Callable[..., int], name: str, num_fields: int, embedding_dim: int
) -> None:
    layer = build(name, num_fields=num_fields, embedding_dim=embedding_dim)
    width = sources_of(name, num_fields, embedding_dim)[0].num_channels
    counted = count_matmul_flops(layer, num_fields, width, num_inputs(name))
    # Sums over the pairs' channels run as one product of all fields with all, so that the pairs
    # are never held; the definition's operations are fewer, and none of them a matrix product.
    lefts = {
        "bilinear_plus": num_fields - 1,
        "fwfm": num_fields,
        "holographic": num_fields * embedding_dim,
        "inner_product": num_fields,
        "pair_mask": num_fields,
        "sam": 2 * num_fields,  # in each of two layers
    }
    run_instead = 2 * lefts.get(name, 0) * num_fields * embedding_dim
    assert layer.flops.matmul == counted - run_instead
    assert layer.flops_per_row == layer.flops.matmul + layer.flops.other


@pytest.mark.parametrize("name", names())
def test_every_option_has_a_default_that_builds_the_same_layer(name: str) -> None:
    defaults = {key: option.default for key, option in options(name).items()}
    assert not {"num_fields", "embedding_dim"} & defaults.keys()
    implicit = build(name, num_fields=4, embedding_dim=2)
    explicit = build(name, num_fields=4, embedding_dim=2, **defaults)
    assert repr(explicit) == repr(implicit)
    shapes = [[tuple(value.shape) for value in x.parameters()] for x in (implicit, explicit)]
    assert shapes[0] == shapes[1]


def test_an_option_reaches_the_layer() -> None:
    layer = build("mlp", num_fields=3, embedding_dim=4, hidden_units=(6, 5))
    assert layer.output_shape == (5,)


def test_what_is_read_is_positional_and_what_is_chosen_is_by_name() -> None:
    assert num_inputs("hadamard_cross") == 1
    assert list(options("hadamard_cross")) == ["num_layers", "rank"]


def test_an_interaction_reads_the_expression_of_another(draw: Callable[..., Tensor]) -> None:
    x = source(4, 3)
    pairs = express("bilinear", x, kind="field_all")
    # bilinear has products of two fields, fm of two of those.
    layer = Interaction(express("fm", pairs), [x]).double()
    assert layer.degree == 4
    first = Interaction(pairs, [x])
    x_BFD = draw(2, 4, 3, seed=0)
    expected = build("fm", num_fields=6, embedding_dim=3)(first(x_BFD))
    torch.testing.assert_close(layer(x_BFD), expected, rtol=0, atol=1e-12)


def test_tables_of_its_own_are_as_wide_as_a_layer_asks() -> None:
    found = {name: own_tables(name, 10, 16) for name in names()}
    # A vector of 16 numbers for each of 9 other fields.
    expected = {"linear": 1, "ffm": 144, "field_aware_products": 144}
    assert {name: width for name, width in found.items() if width} == expected
    # A vector for products of two, of three and of four fields.
    assert own_tables("hofm", 10, 16, order=4, tables="own") == 48
    assert own_tables("hofm", 10, 16, order=4) is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bilinaer", "Did you mean 'bilinear'?"),
        ("xgboost", "Known: {names}."),
        # A file of the folder and the folder beside the domains, yet no interaction.
        ("_catalog", "Known: {names}."),
        ("algebra", "Known: {names}."),
    ],
)
def test_an_unknown_name_is_refused_and_the_nearest_or_all_suggested(name: str, hint: str) -> None:
    line = f"interaction '{name}': there is none of this name. " + hint.format(
        names=", ".join(names())
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build(name, num_fields=3, embedding_dim=4)
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        options(name)
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        express(name, source(3, 4))


@pytest.mark.parametrize(
    ("option", "hint"),
    [("num_layer", "Did you mean 'num_layers'?"), ("kind", "Known: num_layers, rank.")],
)
def test_an_unknown_option_is_refused_and_the_nearest_or_all_suggested(
    option: str, hint: str
) -> None:
    line = f"hadamard_cross: option '{option}' is unknown. {hint}"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("hadamard_cross", num_fields=3, embedding_dim=4, **{option: 2})


def test_an_option_of_an_interaction_without_any_is_refused() -> None:
    line = "fm: option 'rank' is unknown. It has none."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("fm", num_fields=3, embedding_dim=4, rank=2)


@pytest.mark.parametrize("number", [0, 2])
def test_another_number_of_inputs_than_is_read_is_refused(number: int) -> None:
    line = f"fm: reads 1 inputs; got {number}."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        express("fm", *[source(3, 4)] * number)


def test_a_value_the_interaction_refuses_is_told_with_its_name() -> None:
    line = "hadamard_cross: num_layers must be at least 1; got 0."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("hadamard_cross", num_fields=3, embedding_dim=4, num_layers=0)
