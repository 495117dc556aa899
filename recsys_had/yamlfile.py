"""YAML files with a memory of their lines, so that an error can point at one."""

import datetime
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic
import yaml
from yaml.reader import ReaderError

from recsys_had.errors import RecsysHadError
from recsys_had.suggest import nearest
from recsys_had.yaml_loader import Loader

KeyPath = tuple[str | int, ...]

# Far more than a file of this project has a use for.
_MOST_VALUES = 100_000
_MOST_LEVELS = 100
_TOO_MANY = f"more than {_MOST_VALUES:,} values, those of aliases included. Write fewer."
_TOO_DEEP = f"more than {_MOST_LEVELS} levels of nesting. Write fewer."

_KEYS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"}
_NO_KEYS = {
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:seq": "a list",
    "tag:yaml.org,2002:map": "a mapping",
}


@dataclass(frozen=True)
class YamlDocument:
    """A parsed YAML mapping that knows the line of each of its keys.

    Args:
        path: the file, as errors shall name it.
        content: the parsed mapping.
        lines: 1-based line of every key path.
        overridden: key paths whose values the command line gave.
    """

    path: str
    content: dict[str, Any]
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    overridden: frozenset[KeyPath] = frozenset()

    def place(self, loc: KeyPath) -> str:
        r"""Returns ``file:line`` of the deepest part of ``loc`` that stands in the file.

        A value of the command line has the place ``override``.

        >>> parse_yaml("a:\n  b: 1", path="x.yaml").place(("a", "b", "c"))
        'x.yaml:2'
        """
        for length in range(len(loc), 0, -1):
            if tuple(loc[:length]) in self.overridden:
                return "override"
            line = self.lines.get(tuple(loc[:length]))
            if line is not None:
                return f"{self.path}:{line}"
        return self.path


def read_yaml(path: Path, *, error: type[RecsysHadError]) -> YamlDocument:
    """Reads a YAML mapping from a file; see :func:`parse_yaml`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else "it is not UTF-8 text"
        raise error(f"{path}: cannot be read: {reason}.") from cause
    return parse_yaml(text, path=str(path), error=error)


def parse_yaml(
    text: str, *, path: str = "<text>", error: type[RecsysHadError] = RecsysHadError
) -> YamlDocument:
    r"""Parses a YAML mapping safely, with the line of each key.

    Raises:
        RecsysHadError: (or the child given as ``error``) the text is not YAML, is not a
            mapping, repeats a key or has one that is no text.

    >>> parse_yaml("a: 1\nb: {c: 2}").lines[("b", "c")]
    2
    """
    content, lines = _read(text, lambda line: f"{path}:{line}", error)
    if not isinstance(content, dict):
        raise error(f"{path}: must be a mapping of keys to values; got {in_words(content)}.")
    return YamlDocument(path=path, content=content, lines=lines)


def parse_value(text: str, *, place: str, error: type[RecsysHadError] = RecsysHadError) -> Any:
    """Parses a value that stands in no file, in the manner of :func:`parse_yaml`.

    Args:
        text: the value.
        place: where it stands, as errors shall name it.
        error: the kind of error.

    Raises:
        RecsysHadError: (or the child given as ``error``) as :func:`parse_yaml` does.

    >>> parse_value("[8, on]", place="override")
    [8, 'on']
    """
    return _read(text, lambda line: place, error)[0]


def _read(
    text: str, place: Callable[[int], str], error: type[RecsysHadError]
) -> tuple[Any, dict[KeyPath, int]]:
    """What a text holds, and the line of each key; ``place`` names a line to the user."""
    index = _Index()
    line = 1
    try:
        loader = Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            line = loader.line + 1
        if root is not None:
            index.add(root, (), line=1)
        content = None if index.problems or root is None else loader.construct_document(root)
    except ReaderError as cause:
        line = text.count("\n", 0, cause.position) + 1
        told = f"the character {chr(cause.character)!r} is not allowed"
        raise error(f"{place(line)}: is not valid YAML: {told}.") from cause
    except yaml.MarkedYAMLError as cause:
        line = line if cause.problem_mark is None else cause.problem_mark.line + 1
        raise error(f"{place(line)}: is not valid YAML: {cause.problem}.") from cause
    except (ValueError, OverflowError) as cause:
        told = "an escape stands for no character"
        raise error(f"{place(line)}: is not valid YAML: {told}.") from cause
    except RecursionError as cause:
        raise error(f"{place(line)}: {_TOO_DEEP}") from cause
    if index.problems:
        # What an alias repeats is wrong once.
        once = dict.fromkeys(f"{place(line)}: {problem}" for line, problem in index.problems)
        raise error(list(once))
    return content, index.lines


class _Index:
    """The line of each key, and what is wrong with the nodes, aliases written out."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[tuple[int, str]] = []
        self._num_values = 0
        self._above: set[int] = set()

    def add(self, node: yaml.Node, at: KeyPath, line: int) -> None:
        self._num_values += 1
        if self._num_values > _MOST_VALUES:
            if self._num_values == _MOST_VALUES + 1:
                self.problems.append((self.lines[at[:1]], f"{at[0]}: {_TOO_MANY}"))
        elif id(node) in self._above:
            name = ".".join(map(str, at))
            told = "is an alias of what it stands in. Write out what it shall hold."
            self.problems.append((line, f"{name}: {told}"))
        elif len(at) > _MOST_LEVELS:
            self.problems.append((line, _TOO_DEEP))
        else:
            self._above.add(id(node))
            if isinstance(node, yaml.MappingNode):
                self._add_mapping(node, at)
            elif isinstance(node, yaml.SequenceNode):
                self._add_list(node, at)
            self._above.remove(id(node))

    def _add_list(self, node: yaml.SequenceNode, at: KeyPath) -> None:
        for position, value_node in enumerate(node.value):
            line = value_node.start_mark.line + 1
            self.lines[(*at, position)] = line
            self.add(value_node, (*at, position), line)

    def _add_mapping(self, node: yaml.MappingNode, at: KeyPath) -> None:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = key_node.value
            line = key_node.start_mark.line + 1
            if key_node.tag not in _KEYS:
                got = _NO_KEYS.get(key_node.tag, str(key))
                self.problems.append((line, f"a key must be text; got {got}. Put it in quotes."))
                continue
            if key in seen:
                self.problems.append((line, f"{key}: the key stands twice. Keep one of them."))
            seen.add(key)
            self.lines[(*at, key)] = line
            self.add(value_node, (*at, key), line)


class PlacedError(ValueError):
    """What a validator finds wrong in a part of what it validates.

    Args:
        steps: keys that lead to the part.
        message: what is wrong.
    """

    def __init__(self, steps: KeyPath, message: str) -> None:
        super().__init__(message)
        self.steps = steps


def validation_problems(
    cause: pydantic.ValidationError, document: YamlDocument, model: type[pydantic.BaseModel]
) -> list[str]:
    """Turns pydantic's errors into one line per problem with file, line and nearest name."""
    problems = []
    for item in cause.errors(include_url=False):
        if _is_long_enough(item):
            continue
        loc = tuple(item["loc"])
        error = item.get("ctx", {}).get("error")
        if isinstance(error, PlacedError):
            loc += error.steps
        steps = _steps_in(document.content, loc)
        name = ".".join(str(step) for step in steps) or "file"
        place = document.place(steps)
        if item["type"] == "extra_forbidden":
            known = _fields_at(model, loc[:-1])
            problems.append(f"{place}: {name}: unknown key.{nearest(str(loc[-1]), known)}")
        elif item["type"] in {"missing", "union_tag_not_found"}:
            absent = "kind" if item["type"] == "union_tag_not_found" else str(loc[-1])
            full_name = ".".join([*map(str, steps), absent])
            problems.append(f"{place}: {full_name}: the key is missing. Add it.")
        elif item["type"] == "union_tag_invalid":
            known = item["ctx"]["expected_tags"].replace("'", "").split(", ")
            tag = str(item["ctx"]["tag"])
            problems.append(f"{place}: {name}.kind: unknown kind '{tag}'.{nearest(tag, known)}")
        elif item["type"] == "value_error":
            problems.append(f"{place}: {name}: {item['ctx']['error']}")
        else:
            problems.append(f"{place}: {name}: {in_plain_words(item)}")
    return problems


def _is_long_enough(item: Mapping[str, Any]) -> bool:
    """Whether a list is too short only without its wrong members, which are told themselves."""
    if item["type"] != "too_short":
        return False
    return len(item["input"]) >= int(item["ctx"]["min_length"])


# What pydantic's types of errors mean to somebody who has never heard of Python.
_PLAIN = {
    "too_short": "must hold at least {min_length}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must be {min_length} character or more",
    "string_too_long": "must be {max_length} character at most",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "none_required": "must be left empty",
}
_MEMBERS = {int: "whole numbers", float: "numbers", str: "texts"}


def in_plain_words(item: Mapping[str, Any], annotation: Any = None) -> str:
    """What is wrong, and what to do, of one of pydantic's errors.

    Args:
        item: an entry of ``ValidationError.errors()``.
        annotation: the type that was asked for, where it is known: what a list is to hold.

    >>> in_plain_words({"type": "tuple_type", "input": 8}, tuple[int, ...])
    'must be a list of whole numbers; got 8.'
    >>> in_plain_words({"type": "model_type", "input": None})
    'must be a mapping of keys to values; got nothing.'
    """
    kind, value = str(item["type"]), item["input"]
    context = item.get("ctx", {})
    if kind in _PLAIN:
        asked = _PLAIN[kind].format_map(context)
    else:
        message = str(item["msg"]).removesuffix(".")
        asked = f"{message[:1].lower()}{message[1:]}"
    if asked == "must be a list":
        members = [_MEMBERS[member] for member in typing.get_args(annotation) if member in _MEMBERS]
        asked += "".join(f" of {name}" for name in members[:1])
    advice = ""
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        match = nearest(str(value), known)
        advice = match if "Did you mean" in match else ""
    elif kind == "string_type" and isinstance(value, bool | int | float | datetime.date):
        advice = " Put it in quotes."
    return f"{asked}; got {in_words(value)}.{advice}"


def in_words(value: Any) -> str:
    """A value as it may have stood in the file.

    >>> in_words(True), in_words(None), in_words("a"), in_words([1, True])
    ('true', 'nothing', "'a'", '[1, true]')
    """
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"[{', '.join(map(in_words, value))}]"
    if isinstance(value, datetime.date):
        return f"the date {value}"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def _steps_in(content: Any, loc: KeyPath) -> KeyPath:
    """The steps of ``loc`` that stand in the file: pydantic adds union branches of its own."""
    steps: list[str | int] = []
    here = content
    for step in loc:
        in_mapping = isinstance(here, dict) and step in here
        in_list = isinstance(here, list) and isinstance(step, int) and step < len(here)
        if in_mapping or in_list:
            here = here[step]
            steps.append(step)
    return tuple(steps)


def _fields_at(annotation: Any, loc: KeyPath) -> list[str]:
    """Names of the keys a model allows at ``loc``, through nested models, mappings and unions."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    is_model = isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)
    if not loc and not is_model:
        given = [each for each in typing.get_args(annotation) if each is not type(None)]
        return _fields_at(given[0], ()) if len(given) == 1 else []
    if not loc:
        return list(annotation.model_fields)
    if is_model:
        info = annotation.model_fields.get(str(loc[0]))
        return [] if info is None else _fields_at(info.annotation, loc[1:])
    members = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict:
        return _fields_at(members[1], loc[1:])
    for member in members:
        if pydantic.Tag(str(loc[0])) in getattr(member, "__metadata__", ()):
            return _fields_at(member, loc[1:])
        kind = getattr(member, "model_fields", {}).get("kind")
        if kind is not None and loc[0] in typing.get_args(kind.annotation):
            return _fields_at(member, loc[1:])
        if kind is None and (found := _fields_at(member, loc)):
            return found
    return []
