"""YAML's plain values as version 1.2 reads them: fewer texts are taken for something else."""

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from recsys_had.utf8 import is_unicode

_TRUTH, _WHOLE, _NUMBER = (f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float"))

# Tag, how a plain value of it is written, and the characters it may begin with.
RESOLVERS = (
    (_TRUTH, re.compile("^(?:true|false|True|False)$"), list("tfTF")),
    (
        _WHOLE,
        re.compile(r"^[-+]?(?:[0-9][0-9_]*|0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+)$"),
        list("-+0123456789"),
    ),
    (
        _NUMBER,
        re.compile(
            r"^(?:[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
)

_KINDS = {
    _TRUTH: "truth",
    _WHOLE: "whole number",
    _NUMBER: "number",
    "tag:yaml.org,2002:timestamp": "date",
}


class Loader(yaml.SafeLoader):
    """Reads ``on``, ``no`` and ``1:30`` as texts, ``010`` as ten and ``1e-3`` as a number.

    PyYAML follows YAML 1.1, where they are truths, ninety, eight and a text.

    >>> yaml.load("[on, 1:30, 010, 1e-3]", Loader=Loader)
    ['on', '1:30', 10, 0.001]
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Makes the value of a node.

        Raises:
            ConstructorError: it is written as a date or a number and is none.
        """
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, ArithmeticError, AttributeError) as cause:
            kind = _KINDS.get(node.tag, "value of its tag")
            told = f"{str(node.value)[:40]!r} is no {kind}. Put it in quotes if it is text"
            raise ConstructorError(None, None, told, node.start_mark) from cause

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Takes a plain or quoted text; a pair of surrogates, as JSON has it, is one character.

        Raises:
            ConstructorError: it has half of a pair, which only an escape can write.
        """
        node = super().compose_scalar_node(anchor)
        if not is_unicode(node.value):
            try:
                node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError as cause:
                told = f"{node.value[:40]!a} must be Unicode; it has half of a pair of surrogates"
                raise ConstructorError(None, None, told, node.start_mark) from cause
        return node


def _whole(loader: Loader, node: yaml.ScalarNode) -> int:
    digits = loader.construct_scalar(node).replace("_", "")
    return int(digits, 10 if digits.lstrip("-+").isdigit() else 0)


def _number(loader: Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    return float(re.sub(r"\.(inf|nan)$", r"\1", text))


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in (_TRUTH, _WHOLE, _NUMBER)]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _resolver in RESOLVERS:
    Loader.add_implicit_resolver(*_resolver)
Loader.add_constructor(_WHOLE, _whole)
Loader.add_constructor(_NUMBER, _number)
