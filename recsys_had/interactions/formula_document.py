"""Writes what formulas may call into docs/models.md, from the code.

``python -m recsys_had.interactions.formula_document docs/models.md`` replaces what stands between
the two marks.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from recsys_had.interactions import algebra
from recsys_had.interactions.formula import ACTIVATIONS, PRIMITIVES

BEGIN = "<!-- written by `make docs`: begin -->\n"
END = "<!-- written by `make docs`: end -->\n"


def with_functions(page: str) -> str:
    r"""A page, with what stands between its two marks written anew.

    Raises:
        ValueError: the page lacks one of the marks, or has it twice.

    >>> page = with_functions(f"# Models\n{BEGIN}old\n{END}The end.\n")
    >>> "old" in page, "`had(first, second)`" in page, page.splitlines()[-1]
    (False, True, 'The end.')
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the page must have each mark once: {BEGIN.strip()}, {END.strip()}.")
    head, rest = page.split(BEGIN)
    tail = rest.split(END)[1]
    return f"{head}{BEGIN}{functions()}{END}{tail}"


def functions() -> str:
    """A row of a table for every function of the algebra, and the activations."""
    lines = ["", "| function | what it gives | texts it takes |", "| --- | --- | --- |"]
    lines += [_row(name, getattr(algebra, name)) for name in PRIMITIVES]
    first, *others = (f"`{name}(x)`" for name in ACTIVATIONS)
    short = f'{first} is short for `act(x, "{ACTIVATIONS[0]}")`; so are {", ".join(others)}.'
    return "\n".join([*lines, "", short, ""])


def _row(name: str, function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    plain = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    hints = get_type_hints(function)
    texts = [
        f"`{parameter}`: {', '.join(found)}"
        for parameter in signature.parameters
        if (found := list(_texts(hints[parameter])))
    ]
    summary = (inspect.getdoc(function) or "").splitlines()[0]
    cells = [f"`{name}{plain}`".replace("'", '"'), summary.replace("``", "`"), "; ".join(texts)]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _texts(annotation: Any) -> Iterator[str]:
    """The texts a parameter may be."""
    if get_origin(annotation) is Literal:
        yield from (f'`"{value}"`' for value in get_args(annotation))
        return
    for part in get_args(annotation):
        yield from _texts(part)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_functions(path.read_text(encoding="utf-8")), encoding="utf-8")
