"""The columns of a dataset card: what kinds there are, and what the model reads of each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import pydantic

from recsys_had.suggest import nearest

# The formats of a time that are no pattern, and what they count.
TIME_UNITS = {
    "unix": "whole seconds since 1970",
    "unix_ms": "whole milliseconds since 1970",
}


class CardPart(pydantic.BaseModel):
    """A part of a dataset card: unknown keys and numbers that are none are refused."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False
    )


class LabelColumn(CardPart):
    """The target: 0 or 1, or a number that counts as 1 from ``positive_from`` on."""

    kind: Literal["label"]
    positive_from: float | None = None


class ManagedIds(CardPart):
    """A table whose rows values get, and lose, while training meets them.

    Args:
        rows: ids 1..rows.
        admit_after: how often training must meet a value before it gets a row.
    """

    rows: int = pydantic.Field(ge=1, lt=2**31)
    admit_after: int = pydantic.Field(default=1, ge=1)


class _Vocabulary(CardPart):
    """Options every categorical field has.

    Args:
        min_count: a value gets an id of its own from this many training rows on.
        top_k: as many values at most get one, those of most training rows.
        hash_buckets: ids 1..hash_buckets by XXH64 instead of a vocabulary.
        managed: ids that training gives out instead of a vocabulary.
    """

    min_count: int = pydantic.Field(default=1, ge=1)
    top_k: int | None = pydantic.Field(default=None, ge=1, lt=2**31)
    hash_buckets: int | None = pydantic.Field(default=None, ge=1, lt=2**31)
    managed: ManagedIds | None = None

    @pydantic.model_validator(mode="after")
    def _one_of_both(self) -> "_Vocabulary":
        if self.managed is not None and (self.hash_buckets is not None or self.min_count != 1):
            raise ValueError(
                "managed excludes min_count and hash_buckets: training gives out the ids. Set "
                "managed.admit_after, or leave managed out."
            )
        if self.hash_buckets is not None and self.min_count != 1:
            raise ValueError(
                "min_count and hash_buckets exclude each other; a hash keeps no counts. Keep one."
            )
        if self.top_k is not None and not (self.hash_buckets is None and self.managed is None):
            other = "managed" if self.hash_buckets is None else "hash_buckets"
            raise ValueError(
                f"top_k and {other} exclude each other: only a vocabulary counts values. Keep one."
            )
        return self


class CategoricalColumn(_Vocabulary):
    """One value a row. ``missing`` is the value an absent one is taken for."""

    kind: Literal["categorical"]
    missing: str | None = None


class MultiCategoricalColumn(_Vocabulary):
    """Several values a row, pooled by their mean.

    Args:
        separator: character between the values of a text column (Parquet lists need none).
        max_length: values beyond this many are dropped.
        flags: names of consecutive 0/1 columns that stand for the values instead.
    """

    kind: Literal["multi_categorical"]
    separator: Annotated[str, pydantic.Field(min_length=1)] = "|"
    max_length: int | None = pydantic.Field(default=None, ge=1)
    flags: tuple[str, ...] | None = pydantic.Field(default=None, strict=False)


_Limit = TypeVar("_Limit", int, float)


def _in_order(clip: tuple[_Limit | None, _Limit | None]) -> tuple[_Limit | None, _Limit | None]:
    low, high = clip
    if (low is None and high is None) or (low is not None and high is not None and low >= high):
        raise ValueError(
            f"must be [least, greatest], one of which may be left empty; got {list(clip)}."
        )
    return clip


class _Number(CardPart):
    """Options of every number: ``num_bins`` of ``quantile_bins``, at most."""

    transform: str
    num_bins: int | None = pydantic.Field(default=None, ge=2, le=1 << 16)

    @pydantic.model_validator(mode="after")
    def _has_bins(self) -> "_Number":
        if self.transform == "quantile_bins" and self.num_bins is None:
            raise ValueError(
                "quantile_bins needs num_bins, how many bins there are at most. Add it."
            )
        if self.transform != "quantile_bins" and self.num_bins is not None:
            raise ValueError(
                f"num_bins belongs to transform quantile_bins; got '{self.transform}'. Leave one "
                "of both out."
            )
        return self


class IntegerColumn(_Number, _Vocabulary):
    """A whole number.

    Two transforms make it a categorical field. ``log_squared_bucket``: ``x > 2`` becomes
    ``floor(ln(x)^2)``, a smaller one stays itself (the preparation of the Criteo x4 benchmark).
    ``quantile_bins``: the number of the bin it lies in; see
    :class:`recsys_had.data.quantiles.QuantileBins`. The others make it a dense input: ``log1p`` is
    ``sign(x) ln(1 + |x|)``, ``standardise`` is ``(x - mean) / std`` and ``min_max``
    ``(x - min) / (max - min)`` over the training rows.

    Args:
        transform: none, log1p, standardise, min_max, log_squared_bucket or quantile_bins.
        num_bins: of ``quantile_bins``, at most.
        clip: least and greatest number, one of which may be left empty; what lies beyond is taken
            for it, before the transform.
        missing: the number an absent one is taken for, before the transform. Without it an
            absent bucket or bin is id 0, an absent dense input 0.0 after the transform.
    """

    kind: Literal["integer"]
    transform: Literal[
        "none", "log1p", "standardise", "min_max", "log_squared_bucket", "quantile_bins"
    ] = "none"
    clip: Annotated[
        tuple[int | None, int | None] | None,
        pydantic.Field(strict=False),
        pydantic.AfterValidator(lambda clip: clip and _in_order(clip)),
    ] = None
    missing: int | None = None

    @pydantic.model_validator(mode="after")
    def _counts_values(self) -> "IntegerColumn":
        if self.transform == "quantile_bins":
            if _ids(self) != (1, None, None, None):
                raise ValueError(
                    "quantile_bins excludes min_count, top_k, hash_buckets and managed: each bin "
                    "has an id. Leave them out."
                )
        elif self.transform != "log_squared_bucket" and self.top_k is not None:
            raise ValueError(
                f"top_k chooses among the values of a field, and transform {self.transform} makes "
                "none. Leave it out, or let the kind be categorical."
            )
        return self


class FloatColumn(_Number):
    """A real number; see :class:`IntegerColumn` for the options."""

    kind: Literal["float"]
    transform: Literal["none", "log1p", "standardise", "min_max", "quantile_bins"] = "none"
    clip: Annotated[
        tuple[float | None, float | None] | None,
        pydantic.Field(strict=False),
        pydantic.AfterValidator(lambda clip: clip and _in_order(clip)),
    ] = None
    missing: float | None = None


class TimestampColumn(CardPart):
    """A time (UTC), of which parts become categorical fields.

    Args:
        format: ``unix`` (seconds), ``unix_ms`` or a strptime pattern.
        parts: part (hour 0..23, weekday 0..6 from Monday, is_weekend 0/1) to field name.
    """

    kind: Literal["timestamp"]
    format: str
    parts: dict[Literal["hour", "weekday", "is_weekend"], str] = pydantic.Field(
        default_factory=dict
    )

    @pydantic.field_validator("format")
    @classmethod
    def _is_a_format(cls, name: str) -> str:
        if name not in TIME_UNITS and "%" not in name:
            match = nearest(name, TIME_UNITS)
            raise ValueError(
                "must be unix, unix_ms or a pattern such as '%Y-%m-%d %H:%M:%S'; got "
                f"'{name}'.{match if 'Did you mean' in match else ''}"
            )
        return name

    @pydantic.field_validator("parts", mode="before")
    @classmethod
    def _names(cls, parts: Any) -> Any:
        return {part: part for part in parts} if isinstance(parts, list) else parts


class CrossedColumn(_Vocabulary):
    """A field that stands in no file: one value for each combination of other fields' values.

    Args:
        of: the fields, each of one value a row; see :mod:`recsys_had.data.crosses`.
    """

    kind: Literal["crossed"]
    of: tuple[str, ...] = pydantic.Field(strict=False, min_length=2)

    @pydantic.field_validator("of")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise ValueError(f"must name each field once; got '{repeated[0]}' twice.")
        return names


class VectorColumn(CardPart):
    """A content vector, such as the embedding of a text or an image; all zeros where missing.

    A Parquet column holds it as a list of numbers (Arrow's lists of any kind), a text column as
    numbers with separators between them.

    Args:
        size: numbers every vector holds.
        separator: what stands between the numbers of a text column.
        transform: none, or l2: scaled to length 1; a vector of zeros stays as it is.
    """

    kind: Literal["vector"]
    size: int = pydantic.Field(ge=1)
    separator: Annotated[str, pydantic.Field(min_length=1)] = "|"
    transform: Literal["none", "l2"] = "none"


class WeightColumn(CardPart):
    """What a row counts for in the loss and in the metrics: a number, 0 or more.

    A prediction does without it. Vocabularies and the moments of ``standardise`` count rows.

    Args:
        missing: the weight an absent one is taken for; without it an absent one is an error.
    """

    kind: Literal["weight"]
    missing: float | None = pydantic.Field(default=None, ge=0)


class IdColumn(CardPart):
    """Identifies a row; a string outside the model, kept with ``predict --keep``."""

    kind: Literal["id"]


class IgnoredColumn(CardPart):
    """Stands in the file and is not used."""

    kind: Literal["ignored"]


Column = Annotated[
    LabelColumn
    | CategoricalColumn
    | MultiCategoricalColumn
    | IntegerColumn
    | FloatColumn
    | TimestampColumn
    | CrossedColumn
    | VectorColumn
    | WeightColumn
    | IdColumn
    | IgnoredColumn,
    pydantic.Field(discriminator="kind"),
]


@dataclass(frozen=True)
class Field:
    """One categorical field of the model.

    Args:
        name: the field's name, unique in the card.
        column: column of the card it is made of.
        source: how: ``value``, ``multi``, ``bucket``, ``quantile``, ``crossed`` or a date
            part.
        min_count: training rows a value needs to get an id.
        hash_buckets: number of hashed ids, or None.
        managed: ids that training gives out, or None. Without either there is a vocabulary.
        top_k: values that get an id at most, or None.
        of: the fields that a crossed one is made of.
    """

    name: str
    column: str
    source: Literal[
        "value", "multi", "bucket", "quantile", "crossed", "hour", "weekday", "is_weekend"
    ]
    min_count: int = 1
    hash_buckets: int | None = None
    managed: ManagedIds | None = None
    top_k: int | None = None
    of: tuple[str, ...] = ()

    @property
    def has_vocabulary(self) -> bool:
        """Whether each id is that of a value, or bin, that training rows have shown."""
        return self.hash_buckets is None and self.managed is None

    @property
    def is_multi(self) -> bool:
        """Whether a row holds several values."""
        return self.source == "multi"


def is_dense(column: Column) -> bool:
    """Whether a column is a dense input of the model."""
    if not isinstance(column, IntegerColumn | FloatColumn):
        return False
    return column.transform not in {"log_squared_bucket", "quantile_bins"}


def source_columns(columns: Mapping[str, Column]) -> tuple[str, ...]:
    """Names of the columns as they stand in a file: flags are written out, crosses left out.

    >>> genres = MultiCategoricalColumn(kind="multi_categorical", flags=("drama", "comedy"))
    >>> source_columns({"item": IdColumn(kind="id"), "genres": genres})
    ('item', 'drama', 'comedy')
    """
    names: list[str] = []
    for name, column in columns.items():
        if isinstance(column, CrossedColumn):
            continue
        flags = column.flags if isinstance(column, MultiCategoricalColumn) else None
        names.extend(flags or (name,))
    return tuple(names)


def _ids(column: _Vocabulary) -> tuple[int, int | None, ManagedIds | None, int | None]:
    return column.min_count, column.hash_buckets, column.managed, column.top_k


def fields_of(name: str, column: Column) -> Iterator[Field]:
    """The categorical fields a column makes."""
    match column:
        case CategoricalColumn():
            yield Field(name, name, "value", *_ids(column))
        case MultiCategoricalColumn():
            yield Field(name, name, "multi", *_ids(column))
        case IntegerColumn(transform="log_squared_bucket"):
            yield Field(name, name, "bucket", *_ids(column))
        case IntegerColumn(transform="quantile_bins") | FloatColumn(transform="quantile_bins"):
            yield Field(name, name, "quantile")
        case CrossedColumn():
            yield Field(name, name, "crossed", *_ids(column), of=column.of)
        case TimestampColumn():
            for part, field_name in column.parts.items():
                yield Field(field_name, name, part)
        case _:
            return
