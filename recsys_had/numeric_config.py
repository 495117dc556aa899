"""How numeric columns become fields, as it is written in an experiment.

It is written as briefly as it allows::

    numeric:
      kind: scale                      # of all numeric columns; `numeric: scale` says the same
      columns:                         # of some of them
        price: {kind: periodic, num_frequencies: 16, sigma: 0.1}
        age: {kind: piecewise_linear, num_bins: 32}
        I1: autodis                    # a kind alone

Options stand beside ``kind``. A column that names no kind of its own, or the same, starts from
the options of all; another kind starts from its defaults.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pydantic

from recsys_had import numeric
from recsys_had.option_value import option_value
from recsys_had.suggest import nearest
from recsys_had.yamlfile import KeyPath, YamlDocument

_Normalise = Literal["batch", "none"]


class ColumnConfig(pydantic.BaseModel):
    """How a numeric column becomes a field, fully spelled out.

    Args:
        kind: see :mod:`recsys_had.numeric`.
        normalise: ``batch`` normalises the value over the batch of all ranks first.
        options: keyword arguments of the kind's class.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    kind: str = "scale"
    normalise: _Normalise = "none"
    options: dict[str, Any] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _checked(cls, value: Any) -> Any:
        """Takes what stands in YAML, and what was dumped, and lets each option be checked."""
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, Mapping):
            return value
        given = {**value, **value.get("options", {})}
        given.pop("options", None)
        kind = given.pop("kind", "scale")
        found = {"kind": _kind(kind), "normalise": given.pop("normalise", "none")}
        _require_raw_values(found["kind"], found["normalise"])
        return {**found, "options": {name: _option(kind, name, v) for name, v in given.items()}}

    def with_option(self, name: str, value: Any) -> "ColumnConfig":
        """A copy with one option set; another kind is had with its own defaults.

        Raises:
            ValueError: there is no such kind or option, or it cannot take the value.

        >>> ColumnConfig(kind="autodis", alpha=0.2).with_option("kind", "periodic")
        ColumnConfig(kind='periodic', normalise='none', options={})
        """
        if name == "kind":
            return self if value == self.kind else ColumnConfig(kind=_kind(value))
        if name == "normalise":
            normalise = option_value(value, _Normalise)
            _require_raw_values(self.kind, normalise)
            return self.model_copy(update={name: normalise})
        options = {**self.options, name: _option(self.kind, name, value)}
        return self.model_copy(update={"options": options})

    def value_of(self, option: str) -> Any:
        """An option's value, set or by default.

        >>> ColumnConfig(kind="scale").value_of("bias")
        False
        """
        if option == "normalise":
            return self.normalise
        return self.options.get(option, numeric.options(self.kind)[option].default)

    def to_mapping(self) -> dict[str, Any]:
        """The column as it would be written in YAML.

        >>> ColumnConfig(kind="mlp", hidden_units=[8]).to_mapping()
        {'kind': 'mlp', 'hidden_units': [8]}
        """
        normalise = {} if self.normalise == "none" else {"normalise": self.normalise}
        options = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.options.items()
        }
        return {"kind": self.kind, **normalise, **options}


class NumericConfig(pydantic.BaseModel):
    """How the numeric columns become fields.

    Args:
        every: of all numeric columns.
        columns: of some of them, by name.

    >>> config = NumericConfig.model_validate({"kind": "autodis", "columns": {"age": "none"}})
    >>> config.of("price").kind, config.of("age").kind
    ('autodis', 'none')
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    every: ColumnConfig = pydantic.Field(default_factory=ColumnConfig)
    columns: dict[str, ColumnConfig] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"every": value}
        if isinstance(value, Mapping) and "every" not in value:
            every = {key: item for key, item in value.items() if key != "columns"}
            columns = value.get("columns", {})
            if isinstance(columns, Mapping):
                columns = {name: _on_top(every, column) for name, column in columns.items()}
            return {"every": every, "columns": columns}
        return value

    def of(self, column: str) -> ColumnConfig:
        """How a column becomes a field."""
        return self.columns.get(column, self.every)

    def to_mapping(self) -> dict[str, Any]:
        """The section as it would be written in YAML."""
        columns = {name: self._on_its_own(column) for name, column in self.columns.items()}
        return {**self.every.to_mapping(), **({"columns": columns} if columns else {})}

    def _on_its_own(self, column: ColumnConfig) -> dict[str, Any]:
        """A column with what it does not share with all, which it would be read on top of."""
        if column.kind != self.every.kind:
            return column.to_mapping()
        known = ["normalise", *numeric.options(column.kind)]
        apart = {
            name: column.value_of(name)
            for name in known
            if column.value_of(name) != self.every.value_of(name)
        }
        return {**column.to_mapping(), **apart}

    def with_value(self, keys: Sequence[str], value: Any) -> "NumericConfig":
        """A copy with one value set.

        Args:
            keys: ``OPTION``, ``columns COLUMN`` or ``columns COLUMN OPTION``; none sets all.
            value: as it would be written in YAML.

        Raises:
            ValueError: there is no such key, kind or option, or it cannot take the value.

        >>> NumericConfig().with_value(["columns", "age"], "autodis").of("age").kind
        'autodis'
        """
        reader = _Reader(self)
        match list(keys):
            case []:
                reader = _Reader(NumericConfig())
                reader.read(value)
            case ["columns"]:
                reader = _Reader(NumericConfig(every=self.every))
                reader.read({"columns": value})
            case ["columns", name]:
                reader.read({"columns": {name: value}})
            case ["columns", name, option]:
                reader.read({"columns": {name: {option: value}}})
            case [option]:
                reader.read({option: value})
            case _:
                raise ValueError(
                    "unknown key. Write model.numeric.OPTION or model.numeric.columns.COLUMN."
                )
        if reader.problems:
            raise ValueError(" ".join(problem for _, problem in reader.problems))
        return reader.found


def resolve_numeric(
    own: Any, document: YamlDocument, definition: YamlDocument | None
) -> tuple[NumericConfig | None, list[str]]:
    """Spells out an experiment's section ``numeric`` on top of a model definition's.

    Returns:
        The section, None where there is none, and one line per problem.
    """
    reader = _Reader(NumericConfig())
    lines: list[str] = []
    given: list[tuple[Any, YamlDocument, KeyPath]] = [(own, document, ("model", "numeric"))]
    if definition is not None:
        given.insert(0, (definition.content.get("numeric"), definition, ("numeric",)))
    if all(content is None for content, _, _ in given):
        return None, []
    for content, source, at in given:
        if content is not None:
            reader.problems = []
            reader.read(content)
            for keys, problem in reader.problems:
                place, name = source.place((*at, *keys)), ".".join(map(str, (*at, *keys)))
                lines.append(f"{place}: {name}: {problem}")
    return reader.found, lines


class _Reader:
    """Reads what is written on top of what is known, and goes on after a mistake."""

    def __init__(self, found: NumericConfig) -> None:
        self.found = found
        self.problems: list[tuple[KeyPath, str]] = []

    def read(self, content: Any) -> None:
        if isinstance(content, str):
            content = {"kind": content}
        if not isinstance(content, Mapping):
            self.problems.append(((), f"must be a kind's name or a mapping; got {_told(content)}."))
            return
        columns = content.get("columns", {})
        rest = {name: value for name, value in content.items() if name != "columns"}
        every = self._column(rest, self.found.every, ())
        if not isinstance(columns, Mapping):
            told = f"must map names of columns to kinds; got {columns!r}."
            self.problems.append((("columns",), told))
            columns = {}
        known = dict(self.found.columns)
        for name, value in columns.items():
            base = known.get(str(name), every)
            known[str(name)] = self._column(value, base, ("columns", name))
        self.found = NumericConfig(every=every, columns=known)

    def _column(self, content: Any, base: ColumnConfig, at: KeyPath) -> ColumnConfig:
        if isinstance(content, str):
            content = {"kind": content}
        if not isinstance(content, Mapping):
            self.problems.append((at, f"must be a kind's name or a mapping; got {_told(content)}."))
            return base
        # The kind decides which options there are.
        for name in sorted(content, key=lambda name: name != "kind"):
            try:
                base = base.with_option(str(name), content[name])
            except ValueError as problem:
                self.problems.append(((*at, name), str(problem)))
                if name == "kind":
                    return base
        return base


def _on_top(every: Mapping[str, Any], column: Any) -> Any:
    """A column with the options of all, unless it names another kind."""
    kind = every.get("kind", "scale")
    if isinstance(column, Mapping) and column.get("kind", kind) == kind:
        return {**every, **column}
    return column


def _told(content: Any) -> str:
    return "nothing" if content is None else repr(content)


def _require_raw_values(kind: str, normalise: Any) -> None:
    if kind == "piecewise_linear" and normalise == "batch":
        raise ValueError(
            "bins are quantiles of the values as they are, so nothing is gained by normalising "
            "them. Leave normalise out."
        )


def _kind(name: Any) -> str:
    if name not in numeric.kinds():
        raise ValueError(f"no kind '{name}'.{nearest(str(name), numeric.kinds())}")
    return str(name)


def _option(kind: str, name: str, value: Any) -> Any:
    known = numeric.options(kind)
    if name not in known:
        raise ValueError(f"unknown option of '{kind}'.{nearest(name, [*known, 'normalise'])}")
    return option_value(value, known[name].annotation)
