"""An option's value, given to what declares it in its signature."""

import types
import typing
from typing import Any

import pydantic

from recsys_had.yamlfile import in_plain_words

_FINITE = pydantic.ConfigDict(allow_inf_nan=False)
_TOLD = {int: "int_type", float: "float_type"}


def option_value(given: Any, annotation: Any) -> Any:
    """A value as the type declared for it; true and false, 1 and 0 to Python, are no numbers.

    Args:
        given: what was written: what YAML or JSON has.
        annotation: the declared type.

    Raises:
        ValueError: it cannot be of that type, in plain words; infinite and NaN are no numbers.

    >>> option_value([400, "400"], tuple[int, ...])
    (400, 400)
    >>> option_value(True, int | None)
    Traceback (most recent call last):
    ValueError: must be a whole number; got true.
    """
    if wrong := _truth_for_a_number(given, annotation):
        raise ValueError(wrong)
    try:
        return pydantic.TypeAdapter(annotation, config=_FINITE).validate_python(given)
    except pydantic.ValidationError as cause:
        raise ValueError(in_plain_words(cause.errors(include_url=False)[0], annotation)) from cause


def _truth_for_a_number(given: Any, annotation: Any) -> str | None:
    """What is wrong where a truth value stands and a number is asked for."""
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        found = (_truth_for_a_number(given, member) for member in members)
        return None if bool in members else next(filter(None, found), None)
    if origin is tuple and isinstance(given, list | tuple):
        wrong = next(filter(None, (_truth_for_a_number(one, members[0]) for one in given)), None)
        is_flat = members[0] in _TOLD
        told = {"type": "tuple_type", "input": given}
        return in_plain_words(told, annotation) if wrong and is_flat else wrong
    if isinstance(given, bool) and annotation in _TOLD:
        return in_plain_words({"type": _TOLD[annotation], "input": given}, annotation)
    return None
