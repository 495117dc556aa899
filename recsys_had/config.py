"""Experiment: what an experiment file says, typed and validated."""

import json
from typing import Annotated, Any, Literal, Self

import pydantic
import yaml
from pydantic_core import PydanticKnownError

from recsys_had.nodes import NodeConfig
from recsys_had.numeric_config import NumericConfig
from recsys_had.yaml_loader import RESOLVERS


def _no_truth(told: Literal["int_type", "float_type"]) -> pydantic.BeforeValidator:
    """Refuses true and false, which are 1 and 0 to Python, where a number is asked for."""

    def check(given: Any) -> Any:
        if isinstance(given, bool):
            raise PydanticKnownError(told)
        return given

    return pydantic.BeforeValidator(check)


Whole = Annotated[int, _no_truth("int_type")]
Number = Annotated[float, _no_truth("float_type")]
Positive = Annotated[Number, pydantic.Field(gt=0)]
NotNegative = Annotated[Number, pydantic.Field(ge=0)]
Share = Annotated[Number, pydantic.Field(gt=0, lt=1)]
Count = Annotated[Whole, pydantic.Field(ge=1, lt=2**63)]


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
    alpha: Share | None = None


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

TableOptimizer = Literal["rowwise_adagrad", "adagrad", "sgd", "lazy_adam", "adam"]

ShardingKind = Literal[
    "table_wise", "row_wise", "column_wise", "table_row_wise", "grid", "data_parallel", "auto"
]


class ShardingConfig(_Model):
    """Where the rows and columns of each table lie among the ranks.

    Args:
        default: of every table that is not named: ``table_wise`` (whole, on the rank with least to
            hold), ``row_wise`` (its rows over all ranks), ``column_wise`` (its columns over the
            ranks), ``table_row_wise`` (its rows over one host's ranks), ``data_parallel`` (a copy
            on every rank) or ``auto`` (as TorchRec's planner finds best). ``grid`` is refused:
            TorchRec's lookup of such tables gives other sums than the whole table's.
        tables: another one of those, ``auto`` excepted, by field, for its table in every set, or
            by ``SET.FIELD``.
    """

    default: ShardingKind = "table_wise"
    tables: dict[str, ShardingKind] = {}

    @pydantic.model_validator(mode="after")
    def _none_is_wrong(self) -> Self:
        if "grid" in (self.default, *self.tables.values()):
            raise ValueError(
                "'grid' is not offered: TorchRec's lookup of such tables gives other sums than the "
                "whole table's. Use table_row_wise or row_wise."
            )
        return self

    @pydantic.field_validator("tables")
    @classmethod
    def _none_is_auto(cls, tables: dict[str, ShardingKind]) -> dict[str, ShardingKind]:
        for name, kind in tables.items():
            if kind == "auto":
                raise ValueError(
                    f"{name}: 'auto' is for all tables or none. Set it as the default."
                )
        return tables

    @pydantic.model_serializer(mode="wrap")
    def _kind_alone(self, handler: pydantic.SerializerFunctionWrapHandler) -> Any:
        return handler(self) if self.tables else self.default


class TrainConfig(_Model):
    """How the model is trained.

    Args:
        regime: ``scale`` (fused sparse optimizer on the tables) or ``published`` (as the public
            boards train: dense Adam on whole tables with an L2 penalty, the defaults of their time
            as told in :mod:`recsys_had.training.published`, and gains of less than 1e-6 that do
            not count).
        legacy_defaults: of regime ``published``: whether Adam's eps and the first scales of batch
            normalisation are torch 1.0's, as in most published runs, or today's; default true.
        epochs: passes over the training rows at most.
        batch_size: rows per rank and step.
        loss: what is minimised: bce, focal, tri_bce or self_distillation, or a mapping of such a
            ``kind`` and its options; see :mod:`recsys_had.training.losses`.
        learning_rate: of the dense weights, and of the tables unless the next key is given.
        embedding_learning_rate: of the tables.
        embedding_optimizer: in regime ``scale`` rowwise_adagrad, adagrad or sgd, which TorchRec
            fuses into the backward pass, or lazy_adam, which is Adam on a step's own rows
            (:mod:`recsys_had.training.lazy_adam`); adam in regime ``published``.
        embedding_l2: gradient ``embedding_l2 * W`` is added on whole tables (``published``).
        dense_l2: the same on the dense weights.
        schedule: constant, linear or cosine (to 0 over all epochs), or plateau: times
            ``plateau_factor`` after each epoch that did not improve ``monitor``.
        plateau_factor: see ``schedule``.
        warmup_steps: the rates rise linearly from 0 over this many updates.
        gradient_clip_norm: global norm the gradient is scaled down to. A fused optimizer applies
            table gradients at once, so in regime ``scale`` it bounds the dense part only.
        precision: ``fp32``, or ``bf16``: in training steps the network's matrix products take and
            give bfloat16. Weights, tables, sums of losses and optimizers stay float32, and so does
            everything that is scored, validation included.
        compile: whether the network of training steps goes through torch.compile, with static
            shapes; steps of fewer rows than ``batch_size`` do not. Needs a C++ compiler on a CPU.
        table_precision: ``fp32``, or ``fp16``: tables take half the memory; what is looked up and
            what optimizers keep stays float32. On a CPU an update is rounded to the nearest of
            float16's numbers, and one of less than half the distance to it is lost; on a GPU FBGEMM
            rounds by chance, so that none is lost on average. Needs an optimizer that is fused, and
            no data-parallel tables.
        communication: ``fp32``, or ``fp16`` for the vectors that ranks send one another, and their
            gradients.
        pipeline: whether the ids of the next update travel to the ranks that look them up, and the
            batch to the GPU, while this update is computed. Changes no figure; takes the memory of
            one more batch. Not with managed fields.
        accumulate_steps: batches whose gradients are summed up for one update, as if they were one
            batch, but for batch normalisation and losses that compare means. Not with optimizers
            that TorchRec fuses into each backward pass.
        monitor: the validation metric that picks the best weights and stops early.
        calibration: a calibrator fitted on the validation rows at the end: platt,
            temperature, beta, isotonic or centered_isotonic
            (:mod:`recsys_had.calibration.maps`); none if empty.
        patience: epochs in a row without improvement after which training stops.
        seed: of initial weights, order of rows and dropout.
        checkpoint_every_steps: updates between checkpoints; one is written after every epoch.
        keep_checkpoints: how many of the last ones are kept.
        timeout_s: seconds after which a rank no longer waits for another, and all end.
        sharding: how tables are divided among ranks: one of the kinds of
            :class:`ShardingConfig`, or a mapping of its keys.
        shuffle_pool_rows: rows that are shuffled together in memory.
        novelty: the method that is fitted when training ends, so that scores can tell how unlike
            the training rows a row is (docs/novelty.md); ``none`` for none. Where it is left out it
            is ``likelihood``, for cards that have a categorical field.
    """

    regime: Literal["scale", "published"] = "scale"
    legacy_defaults: bool | None = None
    epochs: Count = 1
    batch_size: Count = 4096
    loss: Annotated[LossConfig, pydantic.Field(discriminator="kind")] = Bce()
    learning_rate: Positive = 1e-3
    embedding_learning_rate: Positive | None = None
    embedding_optimizer: (
        Literal["rowwise_adagrad", "adagrad", "sgd", "lazy_adam", "adam"] | None
    ) = None
    embedding_l2: NotNegative = 0.0
    dense_l2: NotNegative = 0.0
    schedule: Literal["constant", "linear", "cosine", "plateau"] = "constant"
    plateau_factor: Share = 0.1
    warmup_steps: Annotated[Whole, pydantic.Field(ge=0)] = 0
    gradient_clip_norm: Positive | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    table_precision: Literal["fp32", "fp16"] = "fp32"
    communication: Literal["fp32", "fp16"] = "fp32"
    pipeline: bool = False
    accumulate_steps: Count = 1
    monitor: Literal["auc", "logloss", "normalized_entropy", "auc_minus_logloss"] = "auc"
    calibration: Literal["platt", "temperature", "beta", "isotonic", "centered_isotonic"] | None = (
        None
    )
    patience: Count | None = None
    seed: Annotated[Whole, pydantic.Field(ge=0, lt=2**63)] = 0
    checkpoint_every_steps: Count | None = None
    keep_checkpoints: Count = 2
    timeout_s: Positive = 600.0
    sharding: ShardingConfig = ShardingConfig()
    shuffle_pool_rows: Count = 1 << 19
    novelty: (
        Literal[
            "likelihood", "costarr", "mahalanobis", "max_probability", "energy", "unseen", "none"
        ]
        | None
    ) = None

    @pydantic.field_validator("loss", mode="before")
    @classmethod
    def _loss_of_a_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @pydantic.field_validator("sharding", mode="before")
    @classmethod
    def _sharding_of_a_name(cls, value: Any) -> Any:
        return {"default": value} if isinstance(value, str) else value

    @pydantic.model_validator(mode="after")
    def _regime_fits(self) -> Self:
        dense = self.embedding_optimizer == "adam"
        if self.embedding_optimizer is not None and dense != (self.regime == "published"):
            raise ValueError(
                f"embedding_optimizer '{self.embedding_optimizer}' does not belong to regime "
                f"'{self.regime}'. Use adam with published; rowwise_adagrad, adagrad, sgd or "
                "lazy_adam with scale."
            )
        kinds = {self.sharding.default, *self.sharding.tables.values()}
        if self.table_optimizer == "rowwise_adagrad" and "column_wise" in kinds:
            raise ValueError(
                "sharding 'column_wise' cuts rows, and row-wise Adagrad keeps one number a row: "
                "every part would keep its own and train otherwise than the whole. Set "
                "embedding_optimizer to adagrad or sgd, or choose another sharding."
            )
        if self.accumulate_steps > 1 and self.kernel == "fused":
            raise ValueError(
                f"accumulate_steps cannot sum up gradients under '{self.table_optimizer}', which "
                "is fused into each backward pass. Set embedding_optimizer to lazy_adam, or raise "
                "batch_size."
            )
        if self.table_precision == "fp16" and (self.kernel == "dense" or "data_parallel" in kinds):
            raise ValueError(
                "table_precision 'fp16' needs tables that TorchRec's fused optimizers update: "
                "rowwise_adagrad, adagrad or sgd, and no sharding 'data_parallel'. Change those, "
                "or leave it out."
            )
        if self.legacy_defaults is not None and self.regime == "scale":
            raise ValueError(
                "legacy_defaults needs regime 'published': 'scale' has today's. Leave it out."
            )
        if self.embedding_l2 and self.regime == "scale":
            raise ValueError(
                "embedding_l2 needs regime 'published': the optimizers of 'scale' touch only the "
                "rows of a batch, so they cannot apply a penalty on whole tables."
            )
        return self

    @property
    def table_optimizer(self) -> str:
        """The tables' optimizer: the one named, or the regime's default."""
        default = "adam" if self.regime == "published" else "rowwise_adagrad"
        return self.embedding_optimizer or default

    @property
    def kernel(self) -> Literal["fused", "dense"]:
        """Whether TorchRec updates the tables in their backward pass, or an optimizer after it."""
        return "dense" if self.table_optimizer in ("adam", "lazy_adam") else "fused"

    @property
    def has_legacy_defaults(self) -> bool:
        """Whether eps and the scales of batch normalisation are torch 1.0's."""
        return self.regime == "published" and self.legacy_defaults is not False

    @property
    def revision(self) -> int:
        """Raised when the regime comes to train otherwise under the same settings."""
        return 3 if self.regime == "published" else 2

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
    """Writes text of several lines, a formula, as it was written.

    What YAML 1.1 or 1.2 takes for something else stands in quotes.
    """


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
for _resolver in RESOLVERS:
    _Dumper.add_implicit_resolver(*_resolver)


def _flatten(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat
