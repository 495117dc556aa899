"""Finds the kinds by their files, and builds one by name.

A kind is a class that inherits :class:`~recsys_had.numeric._encoder.Encoder`, in a file of the
kind's name. Its options are the keyword parameters beyond ``num_columns`` and ``embedding_dim``.
"""

import importlib
import inspect
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any

from recsys_had.suggest import nearest

if TYPE_CHECKING:
    from recsys_had.numeric._encoder import Encoder, Tokens

_SHAPE = ("num_columns", "embedding_dim")


@cache
def kinds() -> tuple[str, ...]:
    """Names of all kinds, without importing one.

    >>> "periodic" in kinds()
    True
    """
    package = importlib.import_module(__package__)
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def options(kind: str) -> dict[str, inspect.Parameter]:
    """Options of a kind: name, type and default, from its signature.

    Raises:
        ValueError: there is no such kind.

    >>> options("piecewise_linear")["num_bins"].default
    16
    """
    parameters = inspect.signature(_class(kind)).parameters
    return {name: value for name, value in parameters.items() if name not in _SHAPE}


def tokens(kind: str) -> "Tokens":
    """How many fields a kind makes: one of ``each`` column, one of all (``joint``), or ``none``.

    Raises:
        ValueError: there is no such kind.

    >>> tokens("scale"), tokens("mlp")
    ('each', 'joint')
    """
    return _class(kind).tokens


def build(kind: str, *, num_columns: int, embedding_dim: int, **options: Any) -> "Encoder":
    """Builds the module of a kind; every option has a default.

    Args:
        kind: its name.
        num_columns: C, columns embedded together.
        embedding_dim: D, width of each field.
        options: keyword arguments of its class.

    Raises:
        ValueError: there is no such kind, or it refuses a value.

    >>> build("periodic", num_columns=3, embedding_dim=4, num_frequencies=2).flops_per_row
    114
    """
    encoder = _class(kind)
    try:
        return encoder(num_columns=num_columns, embedding_dim=embedding_dim, **options)
    except ValueError as cause:
        raise ValueError(f"{kind}: {cause}") from cause


def _class(kind: str) -> "type[Encoder]":
    from recsys_had.numeric._encoder import Encoder

    if kind not in kinds():
        raise ValueError(f"no kind '{kind}'.{nearest(kind, kinds())}")
    module = importlib.import_module(f"{__package__}.{kind}")
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Encoder) and value is not Encoder
    )
    return found
