"""The catalog: what a file's name alone is enough to find and build."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from recsys_had import interactions
from recsys_had.interactions import build, catalog, names, options, own_tables

DOMAINS = {"higher-order", "fusion", "modulation", "efficient"}
SHAPES = [(2, 1), (5, 3), (7, 8)]


def test_the_catalog_lists_every_file_of_the_folder_in_order() -> None:
    folder = Path(interactions.__file__).parent
    files = sorted(file.stem for file in folder.glob("[!_]*.py"))
    assert list(names()) == list(catalog()) == files


def test_names_are_found_without_importing_torch() -> None:
    program = (
        "import sys; from recsys_had.interactions import names; "
        "assert 'fm' in names(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("name", names())
def test_an_entry_describes_its_layer(name: str) -> None:
    entry = catalog()[name]
    assert entry.name == name
    assert entry.summary.endswith(".") and "\n" not in entry.summary
    assert entry.domain in DOMAINS
    assert re.search(r"\b(19|20)\d\d\b", entry.paper)
    assert "O(" in entry.cost


@pytest.mark.parametrize(("num_fields", "embedding_dim"), SHAPES)
@pytest.mark.parametrize("num_rows", [0, 1, 3])
@pytest.mark.parametrize("name", names())
def test_every_layer_is_built_by_default_and_tells_its_output_shape(
    name: str, num_rows: int, num_fields: int, embedding_dim: int
) -> None:
    layer = build(name, num_fields=num_fields, embedding_dim=embedding_dim)
    out = layer(torch.ones(num_rows, num_fields, embedding_dim))
    assert tuple(out.shape) == (num_rows, *layer.output_shape)  # type: ignore[misc]


@pytest.mark.parametrize("name", names())
def test_a_row_does_not_depend_on_the_rows_beside_it(
    draw: Callable[..., Tensor], name: str
) -> None:
    layer = build(name, num_fields=5, embedding_dim=3).double()
    x_BFD = draw(4, 5, 3, seed=0)
    alone = torch.cat([layer(x_BFD[row : row + 1]) for row in range(4)])
    torch.testing.assert_close(layer(x_BFD), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", names())
def test_the_degree_of_an_entry_is_the_measured_one(
    draw: Callable[..., Tensor],
    randomise: Callable[[nn.Module, int], nn.Module],
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    name: str,
    seed: int,
) -> None:
    layer = randomise(build(name, num_fields=9, embedding_dim=3), seed)
    assert measure_degree(layer, draw(2, 9, 3, seed=seed)) == catalog()[name].degree


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


def test_the_first_order_part_alone_owns_tables_one_number_wide() -> None:
    assert {name: own_tables(name) for name in names() if own_tables(name)} == {"linear": 1}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bilinaer", "Did you mean 'bilinear'?"),
        ("xgboost", "Known: {names}."),
        # A file of the folder, yet no layer.
        ("_pairs", "Known: {names}."),
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


def test_a_value_the_layer_refuses_is_told_by_the_layer() -> None:
    line = "hadamard_cross: num_layers must be at least 1; got 0."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("hadamard_cross", num_fields=3, embedding_dim=4, num_layers=0)
