"""Reads experiments: a file over a model definition, under overrides from the command line."""

import re
import typing
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydantic

from recsys_had.bundled import configs_dir
from recsys_had.config import Experiment, LossConfig, ModelConfig, ShardingConfig, TrainConfig
from recsys_had.errors import ConfigError, SchemaError
from recsys_had.node_reader import resolve_nodes
from recsys_had.nodes import SOURCES
from recsys_had.numeric_config import NumericConfig, resolve_numeric
from recsys_had.schema import DatasetCard, load_card
from recsys_had.suggest import nearest
from recsys_had.yamlfile import (
    KeyPath,
    YamlDocument,
    in_words,
    parse_value,
    read_yaml,
    validation_problems,
)

_SETTLED_FIRST = {
    ("dataset",),
    ("model", "definition"),
    ("model", "tables"),
    ("model", "groups"),
    ("model", "combine"),
}
_DEFINITION_KEYS = {"description", "nodes", "tables", "combine", "numeric"}


def bundled_experiments() -> dict[str, Path]:
    """Name and path of each bundled experiment."""
    return {path.stem: path for path in sorted(configs_dir().glob("*.yaml"))}


def load_experiment(
    name_or_path: str | Path,
    overrides: Sequence[str] = (),
    *,
    vectors: Collection[str] | None = None,
) -> Experiment:
    """Reads an experiment: a bundled name or a path, with ``KEY=VALUE`` overrides on top.

    Args:
        name_or_path: ``frappe_fm`` or ``my/experiment.yaml``.
        overrides: ``train.epochs=3``, ``model.nodes.deep.dropout=0.2``; values are YAML.
        vectors: names of the content vectors there are; those of the card it names if None.

    Raises:
        ConfigError: one line per problem, with file and line.
    """
    return _load(name_or_path, overrides, vectors)[0]


def load_experiment_with_card(
    name_or_path: str | Path, overrides: Sequence[str] = ()
) -> tuple[Experiment, DatasetCard]:
    """Reads an experiment, and the card of its dataset; see :func:`load_experiment`.

    Raises:
        ConfigError: one line per problem of the experiment, with file and line.
        SchemaError: there is no such card, or one line per problem of it.
    """
    experiment, document = _load(name_or_path, overrides)
    asked_at = f"{document.place(('dataset',))}: dataset"
    return experiment, load_card(experiment.dataset, asked_at=asked_at)


def _load(
    name_or_path: str | Path, overrides: Sequence[str], vectors: Collection[str] | None = None
) -> tuple[Experiment, YamlDocument]:
    # A part is set after the whole it belongs to, in whatever order they are given.
    given = sorted(map(_parse_override, overrides), key=lambda override: len(override[0]))
    document = replace(
        read_yaml(_experiment_path(str(name_or_path)), error=ConfigError),
        overridden=frozenset(keys for keys, _ in given),
    )
    content = deepcopy(document.content)
    if isinstance(content.get("dataset"), str):
        content["dataset"] = _beside(content["dataset"], document)
    # What nodes may read is settled before they are.
    for keys, value in given:
        if keys in _SETTLED_FIRST:
            _set(content, keys, value)
    model = content.get("model")
    problems: list[str] = []
    if isinstance(model, dict):
        definition = None
        if model.get("definition") is not None:
            definition = _read_definition(model["definition"], document)
        _require_mappings(document, model, ("model",))
        own_sources = [(key, name) for key in ("tables", "groups") for name in _names(model, key)]
        if definition is not None:
            _require_mappings(definition, definition.content)
            _take_over(model, definition.content)
        sources = [*_names(model, "tables"), *_names(model, "groups")]
        if vectors is None:
            vectors = _vectors(content.get("dataset"))
        nodes, problems = resolve_nodes(
            model.get("nodes"),
            document,
            definition,
            sources=[*sources, *(vectors or ())],
            may_be_more=vectors is None,
        )
        problems = [*_check_sources(model, vectors or (), document), *problems]
        read = {source for node in nodes.values() for source in node.inputs}
        if not problems:
            problems += _unread_sources(own_sources, read, document)
        _drop_unread_tables(model, read)
        model["nodes"] = nodes
        model["numeric"], more = resolve_numeric(model.get("numeric"), document, definition)
        problems += more
    own = deepcopy(content)
    for keys, value in given:
        if keys not in _SETTLED_FIRST:
            problems += _apply_override(content, keys, value)
    if problems:
        raise ConfigError(problems)
    try:
        return Experiment.model_validate(content), document
    except pydantic.ValidationError as cause:
        # What the file alone is not to blame for came with an override.
        overridden = document.overridden | (_faults(content) - _faults(own))
        judged = replace(document, content=content, overridden=overridden)
        raise ConfigError(validation_problems(cause, judged, Experiment)) from cause


def _faults(content: dict[str, Any]) -> frozenset[KeyPath]:
    try:
        Experiment.model_validate(content)
    except pydantic.ValidationError as cause:
        return frozenset(tuple(item["loc"]) for item in cause.errors(include_url=False))
    return frozenset()


def _experiment_path(name_or_path: str) -> Path:
    if not re.fullmatch(r"\w+", name_or_path):
        return Path(name_or_path)
    experiments = bundled_experiments()
    if name_or_path not in experiments:
        raise ConfigError(
            f"{name_or_path}: no bundled experiment of this name."
            f"{nearest(name_or_path, experiments)} One of your own is given by its path."
        )
    return experiments[name_or_path]


def _beside(name: str, document: YamlDocument) -> str:
    """A path an experiment names: from beside its file if it is there, else as it is written."""
    path = Path(document.path).parent / name
    if re.fullmatch(r"\w+", name) or not path.exists():
        return name
    # A run goes on under the very text it was begun with.
    return name if Path(name).exists() and path.samefile(name) else str(path)


def _read_definition(name: Any, document: YamlDocument) -> YamlDocument:
    place = document.place(("model", "definition"))
    if not isinstance(name, str):
        raise ConfigError(
            f"{place}: model.definition: must be text (a bundled model's name or a path); "
            f"got {in_words(name)}."
        )
    if re.fullmatch(r"\w+", name):
        path = configs_dir() / "models" / f"{name}.yaml"
        known = [entry.stem for entry in configs_dir().glob("models/*.yaml")]
        if name not in known:
            raise ConfigError(
                f"{place}: model.definition: no bundled model '{name}'.{nearest(name, known)}"
            )
    else:
        path = Path(_beside(name, document))
    definition = read_yaml(path, error=ConfigError)
    unknown = sorted(set(definition.content) - _DEFINITION_KEYS)
    if unknown:
        raise ConfigError(
            f"{definition.place((unknown[0],))}: {unknown[0]}: unknown key of a model definition."
            f"{nearest(unknown[0], _DEFINITION_KEYS)}"
        )
    return definition


def _require_mappings(document: YamlDocument, section: dict[str, Any], keys: KeyPath = ()) -> None:
    """Refuses ``tables`` and ``groups`` that are no mappings, before nodes read them by name.

    Raises:
        ConfigError: one of them is something else.
    """
    for key in ("tables", "groups"):
        value = section.get(key)
        if value is not None and not isinstance(value, dict):
            name = ".".join(map(str, (*keys, key)))
            raise ConfigError(
                f"{document.place((*keys, key))}: {name}: must be a mapping of keys to values; "
                f"got {in_words(value)}."
            )


def _take_over(model: dict[str, Any], definition: dict[str, Any]) -> None:
    """What a model definition holds beside its nodes, where the experiment does not say."""
    if "combine" in definition:
        model.setdefault("combine", definition["combine"])
    tables, own = definition.get("tables"), model.get("tables") or {}
    if isinstance(tables, dict) and isinstance(own, dict):
        model["tables"] = {**tables, **own}


def _vectors(dataset: Any) -> list[str] | None:
    """Names of the card's content vectors; None where it cannot be read, as is told elsewhere."""
    try:
        return list(load_card(str(dataset)).vectors)
    except (SchemaError, OSError):
        return None


def _names(model: dict[str, Any], key: str) -> list[str]:
    value = model.get(key)
    return [str(name) for name in value] if isinstance(value, dict) else []


def _check_sources(
    model: dict[str, Any], vectors: Collection[str], document: YamlDocument
) -> list[str]:
    """One line for each table set or group whose name means something else too."""
    problems = []
    groups = _names(model, "groups")
    for key in ("tables", "groups"):
        for name in _names(model, key):
            place = f"{document.place(('model', key, name))}: model.{key}.{name}"
            if not name.isidentifier() or name in SOURCES:
                problems.append(
                    f"{place}: must be an identifier other than {', '.join(SOURCES[:-1])} and "
                    f"{SOURCES[-1]}. Rename it."
                )
            elif name in vectors:
                problems.append(f"{place}: is a content vector's name too. Rename it.")
            elif key == "tables" and name in groups:
                problems.append(f"{place}: is a group's name too. Rename one.")
    return problems


def _unread_sources(
    sources: list[tuple[str, str]], read: Collection[str], document: YamlDocument
) -> list[str]:
    """One line for each of an experiment's own sets and groups that no node reads."""
    return [
        f"{document.place(('model', key, name))}: model.{key}.{name}: no node reads it. Name it "
        "among a node's inputs, or remove it."
        for key, name in sources
        if name not in read
    ]


def _drop_unread_tables(model: dict[str, Any], read: Collection[str]) -> None:
    """A definition's set has no part where an experiment changes the node that reads it."""
    if isinstance(tables := model.get("tables"), dict):
        model["tables"] = {name: value for name, value in tables.items() if name in read}


def _parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(
            f"override '{text}': must be KEY=VALUE. Write for example train.epochs=3."
        )
    return tuple(key.split(".")), parse_value(value, place=f"override '{text}'", error=ConfigError)


def _set(content: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    here = content
    for key in keys[:-1]:
        if here.get(key) is None:
            here[key] = {}
        if key == "loss" and isinstance(here[key], str):
            here[key] = {"kind": here[key]}
        if key == "sharding" and isinstance(here[key], str):
            here[key] = {"default": here[key]}
        here = here[key]
        if not isinstance(here, dict):
            return  # the file's own mistake, and told as such
    here[keys[-1]] = value


def _apply_override(content: dict[str, Any], keys: tuple[str, ...], value: Any) -> list[str]:
    """Sets one key, or tells why it is not one."""
    name = ".".join(keys)
    if keys[:2] == ("model", "nodes"):
        model = content.get("model")
        nodes = model["nodes"] if isinstance(model, dict) else {}
        if len(keys) != 4 or keys[2] not in nodes:
            known = [f"model.nodes.{node}.OPTION" for node in nodes]
            return [f"override: {name}: unknown key.{nearest(name, known)}"]
        try:
            nodes[keys[2]] = nodes[keys[2]].with_override(keys[3], value)
        except ValueError as problem:
            return [f"override: {name}: {problem}"]
        return []
    if keys[:2] == ("model", "numeric"):
        model = content.get("model")
        if isinstance(model, dict):
            try:
                numeric = model.get("numeric") or NumericConfig()
                model["numeric"] = numeric.with_value(keys[2:], value)
            except ValueError as problem:
                return [f"override: {name}: {problem}"]
        return []
    sections: dict[str, type[pydantic.BaseModel]] = {"model": ModelConfig, "train": TrainConfig}
    known = [
        f"{section}.{key}" for section, kind in sections.items() for key in kind.model_fields
    ] + ["dataset"]
    if keys[:2] == ("train", "sharding"):
        known += [f"train.sharding.{key}" for key in ShardingConfig.model_fields]
        if keys[2:3] == ("tables",) and len(keys) in (4, 5):
            # FIELD, or SET.FIELD.
            known, keys = [*known, name], (*keys[:3], ".".join(keys[3:]))
    if keys[:2] == ("train", "loss"):
        losses = typing.get_args(LossConfig)
        known += [f"train.loss.{key}" for loss in losses for key in loss.model_fields]
    if name not in known:
        return [f"override: {name}: unknown key.{nearest(name, known)}"]
    _set(content, keys, value)
    return []
