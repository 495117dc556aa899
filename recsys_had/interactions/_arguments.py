"""Arguments that are written in a formula, checked by what a function's signature says of them."""

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

from recsys_had.interactions.algebra.expression import Expr
from recsys_had.suggest import nearest

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    Expr: "an expression",
    types.NoneType: "None",
}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts", bool: "True or False"}


def check_arguments(
    name: str, function: Callable[..., Any], given: Sequence[Any], named: Mapping[str, Any]
) -> None:
    """Refuses arguments that a function is not made for, before it fails at one.

    Args:
        name: what the function is called by.
        function: it.
        given: arguments by position.
        named: arguments by name.

    Raises:
        ValueError: one is missing, unknown or of another type.

    >>> from recsys_had.interactions.algebra import lin, source
    >>> check_arguments("lin", lin, [source(3, 4), "T"], {"out": 2})
    >>> check_arguments("lin", lin, [source(3, 4), 2], {})
    Traceback (most recent call last):
    ValueError: lin: on must be 'C', 'T' or 'TC'; got 2.
    """
    signature, hints = _of(function)
    for key in named:
        if key not in signature.parameters:
            known = [k for k, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY]
            raise ValueError(
                f"{name}: has no '{key}'.{nearest(key, known or signature.parameters)}"
            )
    in_turn = [p for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    is_open = any(p.kind is p.VAR_POSITIONAL for p in in_turn)
    if len(given) > len(in_turn) and not is_open:
        raise ValueError(
            f"{name}: takes {len(in_turn)} without a name; got {len(given)}. Name the others."
        )
    try:
        bound = signature.bind(*given, **named).arguments
    except TypeError as cause:
        raise ValueError(f"{name}: {cause}.") from cause
    for key, value in bound.items():
        hint = hints[key]
        is_many = signature.parameters[key].kind is inspect.Parameter.VAR_POSITIONAL
        for one in value if is_many else (value,):
            if not _fits(one, hint):
                raise ValueError(f"{name}: {key} must be {_words(hint)}; got {told(one)}.")


def told(value: Any) -> str:
    """A value of a formula, in words.

    >>> told((1, 2)), told("T"), told((Expr(None, (), (1, 1), 1),) * 2)
    ('(1, 2)', "'T'", '2 expressions')
    """
    if isinstance(value, Expr):
        return f"an expression of shape {value.shape}"
    if isinstance(value, tuple) and any(isinstance(one, Expr) for one in value):
        return f"{len(value)} expressions"
    return repr(value)


@cache
def _of(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    return inspect.signature(function), typing.get_type_hints(function)


def _fits(value: Any, hint: Any) -> bool:
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in members
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, member) for member in members)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if members[-1] is Ellipsis:
            return all(_fits(one, members[0]) for one in value)
        return len(value) == len(members) and all(map(_fits, value, members))
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _either([repr(member) for member in members])
    if origin in (typing.Union, types.UnionType):
        return _either([_words(member) for member in members])
    if origin is tuple:
        kind = _PLURALS.get(members[0], "pairs of whole numbers")
        return f"a list of {kind}"
    return _WORDS[hint]


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
