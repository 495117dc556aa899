"""Writes docs/interactions.md from the code: ``python -m recsys_had.interactions.document``."""

from recsys_had.interactions._catalog import CatalogEntry, catalog, docstring_of, options
from recsys_had.interactions._cost import written

_HEAD = """\
# Interactions

Written by `make docs` from the code; a test fails when it is out of date. F fields of width D;
degree, learned numbers and operations a row (multiplications and additions of the forward pass)
are derived from each interaction's expression, at its default options. An interaction that is no
polynomial in the embeddings has no degree. A node of a config names its interaction and sets its
options, and a formula may call any of them: [models.md](models.md).
"""
_DOMAINS = {
    "higher-order": "Correlations of two fields, of three, of many.",
    "fusion": "Content vectors with id embeddings.",
    "modulation": "Gates and masks that depend on the row.",
    "efficient": "Mixing of fields without a list of pairs.",
}


def markdown() -> str:
    """The whole document."""
    parts = [_HEAD]
    entries = catalog()
    for domain, summary in _DOMAINS.items():
        found = [entry for entry in entries.values() if entry.domain == domain]
        if found:
            parts.append(_domain(domain, summary, found))
    return "\n".join(parts)


def _domain(domain: str, summary: str, entries: list[CatalogEntry]) -> str:
    lines = [f"## {domain.capitalize()}", "", summary, ""]
    lines += [
        "| interaction | degree | growth | learned numbers | operations a row |",
        "| --- | --- | --- | --- | --- |",
    ]
    for entry in entries:
        degree = "none" if entry.degree is None else str(entry.degree)
        counts = [written(entry.name, what) for what in ("parameters", "operations")]
        lines.append(f"| [{entry.name}](#{entry.name}) | {degree} | {entry.cost} | "
                     f"{counts[0]} | {counts[1]} |")  # fmt: skip
    for entry in entries:
        lines += ["", f"### {entry.name}", "", *_section(entry)]
    return "\n".join([*lines, ""])


def _section(entry: CatalogEntry) -> list[str]:
    told = docstring_of(entry.name)
    body = told[: told.index("Args:")] if "Args:" in told else told
    body = body[: body.index("Raises:")] if "Raises:" in body else body
    body = body[: body.index(">>>")] if ">>>" in body else body
    lines = body.rstrip().replace("``", "`").splitlines()
    # Shape, paper and difference are lines of their own.
    lines = [f"\n{line}" if line.startswith(("Paper:", "Differs ")) else line for line in lines]
    named = [
        f"`{name}={option.default!r}`".replace("'", '"')
        for name, option in options(entry.name).items()
    ]
    return [*lines, *(["", "Options: " + ", ".join(named) + "."] if named else [])]


if __name__ == "__main__":
    print(markdown(), end="")
