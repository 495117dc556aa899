"""Experiment: one YAML file, typed, validated, overridable from the command line."""

import json
import re
import typing
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import yaml

from recsys_had.bundled import configs_dir
from recsys_had.errors import ConfigError, SchemaError
from recsys_had.nodes import SOURCES, NodeConfig, resolve_nodes
from recsys_had.numeric_config import NumericConfig, resolve_numeric
from recsys_had.schema import DatasetCard, load_card
from recsys_had.suggest import nearest
from recsys_had.yamlfile import KeyPath, YamlDocument, read_yaml, validation_problems

Positive = Annotated[float, pydantic.Field(gt=0)]
NotNegative = Annotated[float, pydantic.Field(ge=0)]
Count = Annotated[int, pydantic.Field(ge=1)]
_SETTLED_FIRST = {
    ("dataset",),
    ("model", "definition"),
    ("model", "tables"),
    ("model", "groups"),
    ("model", "combine"),
}
_DEFINITION_KEYS = {"description", "nodes", "tables", "combine", "numeric"}


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TableSet(_Model):
    """A further set of embedding tables.

    Args:
        dim: width; the model's ``embedding_dim`` if None.
        fields: the fields that have a table in it, categorical ones first whatever the order; all
            if None.
    """

    dim: Count | None = None
    fields: Annotated[tuple[str, ...], pydantic.Field(min_length=1)] | None = None


def _table_set_form(given: Any) -> str:
    if given is None:
        return "none"
    return "width" if isinstance(given, str | int | float) else "set"


# Written as a width, as nothing or as a set: what is wrong is told of the form that was meant.
_TableSet = Annotated[
    Annotated[Count, pydantic.Tag("width")]
    | Annotated[TableSet, pydantic.Tag("set")]
    | Annotated[None, pydantic.Tag("none")],
    pydantic.Discriminator(_table_set_form),
]


class ModelConfig(_Model):
    """The model: a graph of named interaction nodes over field embeddings.

    Args:
        definition: name of a bundled model definition (``configs/models/NAME.yaml``) or the
            path of one; its nodes come first and are overridden by ``nodes``.
        embedding_dim: D, the width of each field's embedding.
        embedding_init_std: standard deviation of the initial embedding rows.
        tables: further sets of embedding tables, which nodes read by their names: the width of a
            set for all fields, ``embedding_dim`` where none is given, or a :class:`TableSet`.
        groups: fields that nodes read together by the group's name, such as a context.
        combine: whether the logit is the sum of the heads or their mean.
        numeric: how numeric columns become fields; see :mod:`recsys_had.numeric_config`.
        nodes: the graph; see :mod:`recsys_had.nodes`.
    """

    definition: str | None = None
    embedding_dim: Count = 16
    embedding_init_std: NotNegative = 0.01
    tables: dict[str, _TableSet] = pydantic.Field(default_factory=dict)
    groups: dict[str, Annotated[tuple[str, ...], pydantic.Field(min_length=1)]] = pydantic.Field(
        default_factory=dict
    )
    combine: Literal["sum", "mean"] = "sum"
    numeric: NumericConfig | None = None
    nodes: dict[str, NodeConfig]

    def table_set(self, name: str) -> TableSet:
        """One of ``tables``, its width settled."""
        given = self.tables[name]
        table_set = given if isinstance(given, TableSet) else TableSet(dim=given)
        return table_set.model_copy(update={"dim": table_set.dim or self.embedding_dim})


class Bce(_Model):
    """Binary cross entropy of the model's logit."""

    kind: Literal["bce"] = "bce"


class Focal(_Model):
    """Cross entropy that counts rows the less the better they are predicted already.

    Args:
        gamma: how much less; 0 is plain cross entropy.
        alpha: weight of the rows with label 1, the others have ``1 - alpha``; no weights if None.
    """

    kind: Literal["focal"] = "focal"
    gamma: NotNegative = 2.0
    alpha: Annotated[float, pydantic.Field(gt=0, lt=1)] | None = None


class TriBce(_Model):
    """Cross entropy of the logit, and of each head by how much worse than the whole it is.

    Args:
        passes: with 2 or more, passes with dropout of their own take the heads' place.
    """

    kind: Literal["tri_bce"] = "tri_bce"
    passes: Count = 1


class SelfDistillation(_Model):
    """Cross entropy of the logit, and of each head against what the whole predicts.

    Args:
        passes: with 2 or more, passes with dropout of their own take the heads' place.
    """

    kind: Literal["self_distillation"] = "self_distillation"
    passes: Count = 1


LossConfig = Bce | Focal | TriBce | SelfDistillation


class TrainConfig(_Model):
    """How the model is trained.

    Args:
        regime: ``scale`` (fused sparse optimizer on the tables) or ``published`` (as the public
            boards train: dense Adam on whole tables with an L2 penalty, its eps as told in
            :mod:`recsys_had.training.optimizers`, a plateau that lowers no rate below 1e-6, and
            gains of less than 1e-6 that do not count).
        epochs: passes over the training rows at most.
        batch_size: rows per rank and step.
        loss: what is minimised: bce, focal, tri_bce or self_distillation, or a mapping of such a
            ``kind`` and its options; see :mod:`recsys_had.training.losses`.
        learning_rate: of the dense weights, and of the tables unless the next key is given.
        embedding_learning_rate: of the tables.
        embedding_optimizer: rowwise_adagrad, adagrad or sgd (fused, regime ``scale``), adam
            (regime ``published``).
        embedding_l2: gradient ``embedding_l2 * W`` is added on whole tables (``published``).
        dense_l2: the same on the dense weights.
        schedule: constant, linear or cosine (to 0 over all epochs), or plateau: times
            ``plateau_factor`` after each epoch that did not improve ``monitor``.
        plateau_factor: see ``schedule``.
        warmup_steps: the rates rise linearly from 0 over this many steps.
        gradient_clip_norm: global norm the gradient is scaled down to. A fused optimizer applies
            table gradients at once, so in regime ``scale`` it bounds the dense part only.
        monitor: the validation metric that picks the best weights and stops early.
        patience: epochs in a row without improvement after which training stops.
        seed: of initial weights, order of rows and dropout.
        checkpoint_every_steps: steps between checkpoints; one is written after every epoch.
        sharding: how tables are divided among ranks: table_wise or row_wise.
        shuffle_pool_rows: rows that are shuffled together in memory.
    """

    regime: Literal["scale", "published"] = "scale"
    epochs: Count = 1
    batch_size: Count = 4096
    loss: Annotated[LossConfig, pydantic.Field(discriminator="kind")] = Bce()
    learning_rate: Positive = 1e-3
    embedding_learning_rate: Positive | None = None
    embedding_optimizer: Literal["rowwise_adagrad", "adagrad", "sgd", "adam"] | None = None
    embedding_l2: NotNegative = 0.0
    dense_l2: NotNegative = 0.0
    schedule: Literal["constant", "linear", "cosine", "plateau"] = "constant"
    plateau_factor: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.1
    warmup_steps: Annotated[int, pydantic.Field(ge=0)] = 0
    gradient_clip_norm: Positive | None = None
    monitor: Literal["auc", "logloss", "normalized_entropy", "auc_minus_logloss"] = "auc"
    patience: Count | None = None
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**63)] = 0
    checkpoint_every_steps: Count | None = None
    sharding: Literal["table_wise", "row_wise"] = "table_wise"
    shuffle_pool_rows: Count = 1 << 19

    @pydantic.field_validator("loss", mode="before")
    @classmethod
    def _loss_of_a_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @pydantic.model_validator(mode="after")
    def _regime_fits(self) -> Self:
        dense = self.embedding_optimizer == "adam"
        if self.embedding_optimizer is not None and dense != (self.regime == "published"):
            raise ValueError(
                f"embedding_optimizer '{self.embedding_optimizer}' does not belong to regime "
                f"'{self.regime}'. Use adam with published; a fused one with scale."
            )
        if self.embedding_l2 and self.regime == "scale":
            raise ValueError(
                "embedding_l2 needs regime 'published': a fused optimizer touches only the rows "
                "of a batch, so it cannot apply a penalty on whole tables."
            )
        return self

    @property
    def table_optimizer(self) -> str:
        """The tables' optimizer: the one named, or the regime's default."""
        default = "adam" if self.regime == "published" else "rowwise_adagrad"
        return self.embedding_optimizer or default

    @property
    def least_gain(self) -> float:
        """The improvement of ``monitor`` that does not yet count as one."""
        return 1e-6 if self.regime == "published" else 0.0

    @property
    def table_learning_rate(self) -> float:
        """The tables' learning rate."""
        return self.embedding_learning_rate or self.learning_rate


class Experiment(_Model):
    """One experiment: a dataset, a model, a way of training.

    Args:
        dataset: bundled name or path of a dataset card. A path in an experiment file is looked
            for beside that file first, then in the working directory.
        model: the model.
        train: how it is trained.
        description: one sentence for ``recsys-had list``.
    """

    dataset: str
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    description: str = ""

    def to_yaml(self) -> str:
        """The experiment with everything resolved: needs no other file to be read again."""
        content = self.model_dump(mode="json", exclude_none=True)
        content["model"].pop("definition", None)
        settled = {name: self.model.table_set(name) for name in self.model.tables}
        content["model"]["tables"] = {
            name: one.dim if one.fields is None else one.model_dump(mode="json")
            for name, one in settled.items()
        }
        content["model"]["nodes"] = {
            name: node.to_mapping() for name, node in self.model.nodes.items()
        }
        if self.model.numeric is not None:
            content["model"]["numeric"] = self.model.numeric.to_mapping()
        return yaml.dump(content, Dumper=_Dumper, sort_keys=False)

    def flat(self) -> dict[str, str]:
        """Every setting as ``dotted.key -> text``, for tracking."""
        return _flatten(yaml.safe_load(self.to_yaml()))


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines, a formula, as it was written."""


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _flatten(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


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
        if isinstance(model.get("definition"), str):
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


def _read_definition(name: str, document: YamlDocument) -> YamlDocument:
    place = document.place(("model", "definition"))
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
                f"got {value!r}."
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
                    f"{place}: must be an identifier other than {' and '.join(SOURCES)}. Rename it."
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
    try:
        return tuple(key.split(".")), _number(yaml.safe_load(value))
    except yaml.YAMLError as cause:
        raise ConfigError(f"override '{text}': the value is not valid YAML.") from cause


def _number(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text; a person means a number."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value


def _set(content: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    here = content
    for key in keys[:-1]:
        if here.get(key) is None:
            here[key] = {}
        if key == "loss" and isinstance(here[key], str):
            here[key] = {"kind": here[key]}
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
            nodes[keys[2]] = nodes[keys[2]].with_option(keys[3], value)
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
    if keys[:2] == ("train", "loss"):
        losses = typing.get_args(LossConfig)
        known += [f"train.loss.{key}" for loss in losses for key in loss.model_fields]
    if name not in known:
        return [f"override: {name}: unknown key.{nearest(name, known)}"]
    _set(content, keys, value)
    return []
