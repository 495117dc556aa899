"""Finds the layers by their file names, and builds one by name."""

import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# Arguments the graph gives; every other one is an option.
_SHAPE = ("num_fields", "embedding_dim")


@dataclass(frozen=True)
class CatalogEntry:
    """What is known of an interaction before it is built.

    Args:
        name: its name in a config, which is its file's name.
        summary: one sentence.
        domain: higher-order, fusion, modulation or efficient.
        degree: polynomial degree at the default options, or None where it is not polynomial.
        paper: where it comes from.
        cost: operations a row as a function of F fields and D embedding_dim.
    """

    name: str
    summary: str
    domain: str
    degree: int | None
    paper: str
    cost: str


@cache
def names() -> tuple[str, ...]:
    """Names of all interactions, without importing one.

    >>> "fm" in names()
    True
    """
    package = importlib.import_module(__package__)
    found = pkgutil.iter_modules(package.__path__)
    return tuple(sorted(module.name for module in found if not module.name.startswith("_")))


def options(name: str) -> dict[str, inspect.Parameter]:
    """Options of an interaction: name, type and default, from its signature.

    >>> options("hadamard_cross")["num_layers"].default
    3
    """
    parameters = inspect.signature(_layer(name)).parameters
    return {key: value for key, value in parameters.items() if key not in _SHAPE}


def own_tables(name: str) -> int | None:
    """Width of the embedding tables an interaction owns; None where it reads the shared ones."""
    width: int | None = getattr(_layer(name), "own_tables", None)
    return width


def build(name: str, *, num_fields: int, embedding_dim: int, **options: Any) -> "nn.Module":
    """Builds an interaction by name; every option has a default.

    Args:
        name: the interaction.
        num_fields: F, fields of the input.
        embedding_dim: D, width of each.
        options: keyword arguments of the layer.

    Raises:
        ValueError: there is no such interaction or option, or the layer refuses a value.

    >>> build("fm", num_fields=3, embedding_dim=4).degree
    2
    """
    known = tuple(inspect.signature(_layer(name)).parameters)
    for option in options:
        if option not in known:
            allowed = [key for key in known if key not in _SHAPE]
            raise ValueError(f"{name}: option '{option}' is unknown.{_nearest(option, allowed)}")
    layer: nn.Module = _layer(name)(num_fields=num_fields, embedding_dim=embedding_dim, **options)
    return layer


def catalog() -> dict[str, CatalogEntry]:
    """All interactions by name."""
    entries = {}
    for name in names():
        layer = _layer(name)
        summary = (inspect.getdoc(layer) or "").splitlines()[0]
        built: Any = build(name, num_fields=3, embedding_dim=4)
        entries[name] = CatalogEntry(
            name, summary, layer.domain, built.degree, layer.paper, layer.cost
        )
    return entries


def _layer(name: str) -> Any:
    """The one public module class of a layer's file."""
    if name not in names():
        raise ValueError(
            f"interaction '{name}': there is none of this name.{_nearest(name, names())}"
        )
    module = importlib.import_module(f"{__package__}.{name}")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    return getattr(module, class_name)


def _nearest(name: str, known: "tuple[str, ...] | list[str]") -> str:
    if not known:
        return " It has none."
    match = get_close_matches(name, known, n=1)
    return f" Did you mean '{match[0]}'?" if match else f" Known: {', '.join(known)}."
