"""Finds the interactions by their places, and builds one by name.

An interaction is a function of expressions, in a file of its name, in the folder of its domain.
What it reads are its positional parameters, its options the keyword ones.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from recsys_had.suggest import nearest

if TYPE_CHECKING:
    from recsys_had.interactions.algebra import Expr, Interaction

_MOST_LAYERS = 1000
# The one folder beside the domains.
_LANGUAGE = "algebra"


@dataclass(frozen=True)
class CatalogEntry:
    """What is known of an interaction before it is built.

    Args:
        name: its name in a config, which is its file's name.
        summary: one sentence.
        domain: higher-order, fusion, modulation or efficient: its folder.
        degree: polynomial degree at the default options, or None where it is not polynomial.
        paper: where it comes from.
        cost: operations a row as a function of F fields and D embedding_dim, derived.
    """

    name: str
    summary: str
    domain: str
    degree: int | None
    paper: str
    cost: str


def interaction(
    *, paper: str, own_tables: Callable[..., int | None] | None = None
) -> "Callable[[Callable[..., Expr]], Callable[..., Expr]]":
    """Marks a function of expressions as an interaction.

    Args:
        paper: where it comes from.
        own_tables: width of embedding tables of its own, which it reads in place of the shared
            ones, as a function of F, D and its options; None, also as its result, for none.
    """

    def mark(function: "Callable[..., Expr]") -> "Callable[..., Expr]":
        function.paper = paper  # type: ignore[attr-defined]
        function.own_tables = own_tables  # type: ignore[attr-defined]
        return function

    return mark


def require(**options: int | None) -> None:
    """Refuses options below 1, and more layers than anybody waits for; None is let pass.

    Raises:
        ValueError: with the first of them.
    """
    for option, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"{option} must be at least 1; got {value}.")
        if value is not None and option in ("num_layers", "order") and value > _MOST_LAYERS:
            raise ValueError(f"{option} must be at most {_MOST_LAYERS}; got {value}.")


def require_widths(hidden_units: Sequence[int]) -> None:
    """Refuses a network without a layer, or with one of no width.

    Raises:
        ValueError: there is no width, or one below 1.
    """
    if not hidden_units or min(hidden_units) < 1:
        raise ValueError(
            f"hidden_units must be one positive width or more; got {list(hidden_units)}."
        )


def require_pairs(x: "Expr") -> None:
    """Refuses an input that has no pair.

    Raises:
        ValueError: it has a single field.
    """
    if x.num_tokens < 2:
        raise ValueError(
            f"needs two fields or more to form a pair; got {x.num_tokens}. "
            "Let it read a node of shape (B, F, D)."
        )


@cache
def names() -> tuple[str, ...]:
    """Names of all interactions, without importing one.

    >>> "fm" in names()
    True
    """
    return tuple(sorted(_modules()))


def options(name: str) -> dict[str, inspect.Parameter]:
    """Options of an interaction: name, type and default, from its signature.

    >>> options("hadamard_cross")["num_layers"].default
    3
    """
    parameters = inspect.signature(function_of(name)).parameters
    keyword = inspect.Parameter.KEYWORD_ONLY
    return {key: value for key, value in parameters.items() if value.kind is keyword}


def num_inputs(name: str) -> int:
    """How many expressions an interaction reads.

    >>> num_inputs("fm")
    1
    """
    return len(inspect.signature(function_of(name)).parameters) - len(options(name))


def docstring_of(name: str) -> str:
    """An interaction's docstring."""
    return inspect.getdoc(function_of(name)) or ""


def own_tables(name: str, num_fields: int, embedding_dim: int, **options: Any) -> int | None:
    """Width of the embedding tables an interaction owns; None where it reads the shared ones.

    >>> own_tables("linear", 10, 16), own_tables("fm", 10, 16)
    (1, None)
    """
    function: Callable[..., int | None] | None = function_of(name).own_tables
    return None if function is None else function(num_fields, embedding_dim, **options)


def sources_of(name: str, num_fields: int, embedding_dim: int, **options: Any) -> "list[Expr]":
    """What an interaction reads where it stands on the fields.

    >>> sources_of("linear", 10, 16)
    [Expr(source, shape=(10, 1), degree=1)]
    """
    from recsys_had.interactions.algebra import source

    width = own_tables(name, num_fields, embedding_dim, **options) or embedding_dim
    return [source(num_fields, width) for _ in range(num_inputs(name))]


def express(name: str, *inputs: "Expr", **options: Any) -> "Expr":
    """What an interaction computes of expressions.

    Args:
        name: the interaction.
        inputs: what it reads.
        options: keyword arguments of its function.

    Raises:
        ValueError: there is no such interaction or option, or it refuses a value or an input.

    >>> from recsys_had.interactions.algebra import source
    >>> express("hadamard_cross", source(3, 4), num_layers=2).degree
    3
    """
    function = function_of(name)
    _check_options(name, options)
    if len(inputs) != num_inputs(name):
        raise ValueError(f"{name}: reads {num_inputs(name)} inputs; got {len(inputs)}.")
    try:
        found: Expr = function(*inputs, **options)
    except ValueError as cause:
        raise ValueError(f"{name}: {cause}") from cause
    return found


def build(name: str, *, num_fields: int, embedding_dim: int, **options: Any) -> "Interaction":
    """Builds an interaction by name; every option has a default.

    Args:
        name: the interaction.
        num_fields: F, fields of each input.
        embedding_dim: D, width of each, but for an interaction with tables of its own.
        options: keyword arguments of its function.

    Raises:
        ValueError: there is no such interaction or option, or it refuses a value.

    >>> build("fm", num_fields=3, embedding_dim=4).degree
    2
    """
    from recsys_had.interactions.algebra import Interaction

    _check_options(name, options)
    inputs = sources_of(name, num_fields, embedding_dim, **options)
    return Interaction(express(name, *inputs, **options), inputs)


def catalog() -> dict[str, CatalogEntry]:
    """All interactions by name."""
    from recsys_had.interactions._cost import growth

    entries = {}
    for name, module in _modules().items():
        function = function_of(name)
        entries[name] = CatalogEntry(
            name=name,
            summary=docstring_of(name).splitlines()[0],
            domain=module.split(".")[-2].replace("_", "-"),
            degree=build(name, num_fields=3, embedding_dim=4).degree,
            paper=function.paper,
            cost=growth(name),
        )
    return dict(sorted(entries.items()))


@cache
def _modules() -> dict[str, str]:
    """Module of each interaction."""
    package = importlib.import_module(__package__)
    found: dict[str, str] = {}
    for folder in pkgutil.iter_modules(package.__path__):
        if not folder.ispkg or folder.name == _LANGUAGE:
            continue
        domain = importlib.import_module(f"{__package__}.{folder.name}")
        for module in pkgutil.iter_modules(domain.__path__):
            if not module.name.startswith("_"):
                found[module.name] = f"{domain.__name__}.{module.name}"
    return found


def function_of(name: str) -> Any:
    """The function a file is named after.

    Raises:
        ValueError: there is no such interaction.

    >>> function_of("fm").__name__
    'fm'
    """
    if name not in _modules():
        raise ValueError(
            f"interaction '{name}': there is none of this name.{nearest(name, names())}"
        )
    return getattr(importlib.import_module(_modules()[name]), name)


def _check_options(name: str, given: dict[str, Any]) -> None:
    known = list(options(name))
    for option in given:
        if option not in known:
            hint = nearest(option, known) or " It has none."
            raise ValueError(f"{name}: option '{option}' is unknown.{hint}")
