"""DatasetCard: what a dataset is, in one YAML file that any command can read."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from recsys_had.bundled import datasets_dir
from recsys_had.errors import SchemaError
from recsys_had.suggest import nearest
from recsys_had.yamlfile import YamlDocument, parse_yaml, read_yaml, validation_problems

SPLITS = ("train", "valid", "test")
DATE_PARTS = ("hour", "weekday", "is_weekend")
# The formats of a time that are no pattern, and what they count.
TIME_UNITS = {
    "unix": "whole seconds since 1970",
    "unix_ms": "whole milliseconds since 1970",
}


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False
    )


class FileFormat(_Model):
    """How the raw files are written.

    Args:
        type: ``tsv`` (no quoting: a quote is a character), ``csv`` (RFC 4180) or ``parquet``.
        header: whether the first line of each file names its columns; without one the columns
            stand in the card's order.
        separator: one character between columns; a tab for ``tsv``, a comma for ``csv``.
        missing: texts that mean "no value".
        encoding: ``utf-8`` or ``latin-1``.
    """

    type: Literal["tsv", "csv", "parquet"]
    header: bool = True
    separator: Annotated[str, pydantic.Field(min_length=1, max_length=1)] | None = None
    missing: tuple[str, ...] = pydantic.Field(default=("",), strict=False)
    encoding: Literal["utf-8", "latin-1"] = "utf-8"

    @property
    def column_separator(self) -> str:
        """The character between columns."""
        return self.separator or ("\t" if self.type == "tsv" else ",")


class LabelColumn(_Model):
    """The target: 0 or 1, or a number that counts as 1 from ``positive_from`` on."""

    kind: Literal["label"]
    positive_from: float | None = None


class _Vocabulary(_Model):
    """Options every categorical field has.

    Args:
        min_count: a value gets an id of its own from this many training rows on.
        hash_buckets: ids 1..hash_buckets by XXH64 instead of a vocabulary.
    """

    min_count: int = pydantic.Field(default=1, ge=1)
    hash_buckets: int | None = pydantic.Field(default=None, ge=1, lt=2**31)

    @pydantic.model_validator(mode="after")
    def _one_of_both(self) -> "_Vocabulary":
        if self.hash_buckets is not None and self.min_count != 1:
            raise ValueError(
                "min_count and hash_buckets exclude each other; a hash keeps no counts. Keep one."
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


class IntegerColumn(_Vocabulary):
    """A whole number.

    ``log_squared_bucket`` makes it a categorical field: ``x > 2`` becomes ``floor(ln(x)^2)``,
    a smaller one stays itself (the preparation of the Criteo x4 benchmark). The other
    transforms make it a dense input: ``log1p`` is ``sign(x) ln(1 + |x|)``, ``standardise``
    is ``(x - mean) / std`` over the training rows.

    Args:
        transform: none, log1p, standardise or log_squared_bucket.
        missing: the number an absent one is taken for, before the transform. Without it an
            absent bucket is id 0, an absent dense input 0.0 after the transform.
    """

    kind: Literal["integer"]
    transform: Literal["none", "log1p", "standardise", "log_squared_bucket"] = "none"
    missing: int | None = None


class FloatColumn(_Model):
    """A real number; see :class:`IntegerColumn` for the transforms."""

    kind: Literal["float"]
    transform: Literal["none", "log1p", "standardise"] = "none"
    missing: float | None = None


class TimestampColumn(_Model):
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


class IdColumn(_Model):
    """Identifies a row; a string outside the model, kept with ``predict --keep``."""

    kind: Literal["id"]


class IgnoredColumn(_Model):
    """Stands in the file and is not used."""

    kind: Literal["ignored"]


Column = Annotated[
    LabelColumn
    | CategoricalColumn
    | MultiCategoricalColumn
    | IntegerColumn
    | FloatColumn
    | TimestampColumn
    | IdColumn
    | IgnoredColumn,
    pydantic.Field(discriminator="kind"),
]


class Lookup(_Model):
    """A side table joined to each row by a key: an item's genres, a user's age.

    Args:
        file: file name, in the folder of the first raw file.
        key: column both tables hold.
        format: how the file is written.
        columns: the side table's columns, the key (kind ``id``) among them.
    """

    file: str
    key: str
    format: FileFormat
    columns: dict[str, Column]


class ContentHashSplit(_Model):
    """By a hash of the row's own text: the same row is in the same split in any order."""

    by: Literal["content_hash"]
    ratios: dict[Literal["train", "valid", "test"], Annotated[float, pydantic.Field(gt=0)]]
    seed: int = pydantic.Field(default=0, ge=0)

    @pydantic.field_validator("ratios")
    @classmethod
    def _sum(cls, ratios: dict[str, float]) -> dict[str, float]:
        if abs(sum(ratios.values()) - 1) > 1e-9 or "train" not in ratios:
            raise ValueError(f"must hold train and sum to 1; got {ratios}.")
        return ratios


class StratifiedSplit(_Model):
    """scikit-learn's StratifiedKFold(shuffle=True) over all rows, as the x4 benchmarks split."""

    by: Literal["stratified_kfold"]
    num_folds: int = pydantic.Field(default=10, ge=3)
    seed: int = pydantic.Field(default=2018, ge=0)
    test_fold: int = pydantic.Field(default=0, ge=0)
    valid_fold: int = pydantic.Field(default=1, ge=0)

    @pydantic.model_validator(mode="after")
    def _folds_exist(self) -> "StratifiedSplit":
        if max(self.test_fold, self.valid_fold) >= self.num_folds:
            raise ValueError(f"test_fold and valid_fold must be below num_folds, {self.num_folds}.")
        if self.test_fold == self.valid_fold:
            raise ValueError(f"test_fold and valid_fold must differ; got {self.test_fold} twice.")
        return self


class TimeSplit(_Model):
    """By a timestamp column: rows from ``valid_from`` on validate, from ``test_from`` on test."""

    by: Literal["time"]
    column: str
    valid_from: str
    test_from: str | None = None


class GivenSplit(_Model):
    """The owner gives the splits as files: ``--raw train=PATH --raw valid=PATH``."""

    by: Literal["given"]


Split = Annotated[
    ContentHashSplit | StratifiedSplit | TimeSplit | GivenSplit,
    pydantic.Field(discriminator="by"),
]


@dataclass(frozen=True)
class Field:
    """One categorical field of the model.

    Args:
        name: the field's name, unique in the card.
        column: raw column it is made of.
        source: how: ``value``, ``multi``, ``bucket`` or a date part.
        min_count: training rows a value needs to get an id.
        hash_buckets: number of hashed ids, or None for a vocabulary.
    """

    name: str
    column: str
    source: Literal["value", "multi", "bucket", "hour", "weekday", "is_weekend"]
    min_count: int = 1
    hash_buckets: int | None = None

    @property
    def is_multi(self) -> bool:
        """Whether a row holds several values."""
        return self.source == "multi"


# Columns every encoded shard has beside its fields.
_RESERVED = ("label", "row_id")


class DatasetCard(_Model):
    """What a dataset is: file format, columns, split rule.

    Args:
        name: the dataset's name.
        description: one sentence.
        format: how the raw files are written.
        columns: every raw column, in file order; ``C1..C26`` stands for 26 columns.
        lookups: side tables joined by a key.
        split: how rows are divided when the command line does not say.

    >>> card = parse_card('''
    ... name: clicks
    ... format: {type: csv}
    ... columns:
    ...   click: {kind: label}
    ...   C1..C2: {kind: categorical, min_count: 2}
    ...   price: {kind: float, transform: log1p}
    ... split: {by: content_hash, ratios: {train: 0.8, valid: 0.2}}
    ... ''')
    >>> [field.name for field in card.fields], card.dense
    (['C1', 'C2'], ('price',))
    """

    name: str
    description: str = ""
    format: FileFormat
    columns: dict[str, Column]
    lookups: dict[str, Lookup] = pydantic.Field(default_factory=dict)
    split: Split

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "DatasetCard":
        labels = [name for name, column in self.columns.items() if column.kind == "label"]
        if len(labels) != 1:
            raise ValueError(f"columns must hold exactly one of kind label; got {labels}.")
        for name, lookup in self.lookups.items():
            if lookup.key not in self.columns or lookup.key not in lookup.columns:
                raise ValueError(
                    f"lookups.{name}.key must name a column of both tables; got '{lookup.key}'."
                )
        names = [field.name for field in self.fields] + list(self.dense)
        for name in (*self.all_columns, *names, *self.lookups):
            # Tables are modules, and files, named after their fields.
            unfit = next((character for character in "./\\\0" if character in name), None)
            if unfit is not None or not name:
                told = "be empty" if unfit is None else f"hold a {unfit!r}"
                raise ValueError(f"a column's name must not {told}; got '{name}'. Rename it.")
            if name == "*" or (name.startswith("^") and name.endswith("$")):
                raise ValueError(f"a column's name must not be a pattern; got '{name}'. Rename it.")
        taken = [name for name in names if name in _RESERVED]
        if taken:
            raise ValueError(
                f"a field's name must not be {' or '.join(_RESERVED)}, which encoded rows have a "
                f"column for; got '{taken[0]}'. Rename it in the raw rows, or mark it ignored."
            )
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"field names must be unique; got {', '.join(repeated)} twice.")
        if not names:
            raise ValueError("columns hold no input of the model. Add a categorical or numeric.")
        split = self.split
        if isinstance(split, TimeSplit):
            column = self.columns.get(split.column)
            if not isinstance(column, TimestampColumn):
                raise ValueError(
                    f"split.column must name a timestamp column; got '{split.column}'."
                )
        return self

    @property
    def label(self) -> str:
        """Name of the label column."""
        return next(name for name, column in self.columns.items() if column.kind == "label")

    @cached_property
    def all_columns(self) -> dict[str, Column]:
        """The raw columns followed by those the side tables add."""
        columns = dict(self.columns)
        for lookup in self.lookups.values():
            columns |= {
                name: column for name, column in lookup.columns.items() if name != lookup.key
            }
        return columns

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The categorical fields, in the card's order."""
        return tuple(
            field for name, column in self.all_columns.items() for field in _fields(name, column)
        )

    @cached_property
    def dense(self) -> tuple[str, ...]:
        """Names of the dense inputs, in the card's order."""
        return tuple(name for name, column in self.all_columns.items() if is_dense(column))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything in the card that decides how rows are encoded."""
        content = self.model_dump(mode="json", exclude={"description"})
        # Order of columns decides the meaning of a file without a header.
        content["column_order"] = list(self.columns)
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def is_dense(column: Column) -> bool:
    """Whether a column is a dense input of the model."""
    if not isinstance(column, IntegerColumn | FloatColumn):
        return False
    return column.transform != "log_squared_bucket"


def source_columns(columns: Mapping[str, Column]) -> tuple[str, ...]:
    """Names of the columns as they stand in a file: flag columns are written out.

    >>> genres = MultiCategoricalColumn(kind="multi_categorical", flags=("drama", "comedy"))
    >>> source_columns({"item": IdColumn(kind="id"), "genres": genres})
    ('item', 'drama', 'comedy')
    """
    names: list[str] = []
    for name, column in columns.items():
        flags = column.flags if isinstance(column, MultiCategoricalColumn) else None
        names.extend(flags or (name,))
    return tuple(names)


def _fields(name: str, column: Column) -> Iterator[Field]:
    match column:
        case CategoricalColumn():
            yield Field(name, name, "value", column.min_count, column.hash_buckets)
        case MultiCategoricalColumn():
            yield Field(name, name, "multi", column.min_count, column.hash_buckets)
        case IntegerColumn(transform="log_squared_bucket"):
            yield Field(name, name, "bucket", column.min_count, column.hash_buckets)
        case TimestampColumn():
            for part, field_name in column.parts.items():
                yield Field(field_name, name, part)
        case _:
            return


def parse_card(text: str, *, path: str = "<text>") -> DatasetCard:
    """Reads a card from YAML text; see :func:`load_card`."""
    return _validate(parse_yaml(text, path=path, error=SchemaError))


def load_card(name_or_path: str, *, asked_at: str | None = None) -> DatasetCard:
    """Reads a card: a bundled dataset's name, or the path of a YAML file.

    Args:
        name_or_path: ``criteo``, ``my/dataset.yaml`` or its folder.
        asked_at: where the name is written, for an error that there is no such card.

    Raises:
        SchemaError: no such card, or one line per problem with file and line.
    """
    if re.fullmatch(r"\w+", name_or_path):
        path = datasets_dir() / name_or_path / "dataset.yaml"
        if not path.is_file():
            known = [folder.parent.name for folder in datasets_dir().glob("*/dataset.yaml")]
            told = "no bundled dataset of this name."
            if asked_at is not None:
                told = f"no bundled dataset '{name_or_path}'."
            raise SchemaError(
                f"{asked_at or name_or_path}: {told}{nearest(name_or_path, known)} "
                "A card of your own is given by its path."
            )
        return _validate(read_yaml(path, error=SchemaError))
    path = Path(name_or_path)
    if asked_at is not None and not path.exists():
        raise SchemaError(
            f"{asked_at}: there is no card '{name_or_path}'. Give a bundled name or the path of a "
            "dataset.yaml."
        )
    return _validate(read_yaml(path / "dataset.yaml" if path.is_dir() else path, error=SchemaError))


_RANGE = re.compile(r"(?P<stem>\w*?)(?P<first>\d+)\.\.(?P=stem)(?P<last>\d+)")


def _expand_ranges(document: YamlDocument) -> YamlDocument:
    """Writes ``C1..C26`` out as 26 columns that share the line of the range."""
    content, lines = dict(document.content), dict(document.lines)
    columns = content.get("columns")
    if not isinstance(columns, dict):
        return document
    expanded: dict[str, Any] = {}
    for key, spec in columns.items():
        match = _RANGE.fullmatch(str(key))
        names = [str(key)]
        if match:
            numbers = range(int(match["first"]), int(match["last"]) + 1)
            names = [f"{match['stem']}{number}" for number in numbers]
        for name in names:
            if name in expanded:
                place = document.place(("columns", key))
                raise SchemaError(f"{place}: columns.{name}: the column is described twice.")
            expanded[name] = spec
            for loc, line in document.lines.items():
                if loc[:2] == ("columns", key):
                    lines[("columns", name, *loc[2:])] = line
    content["columns"] = expanded
    return YamlDocument(path=document.path, content=content, lines=lines)


def _validate(document: YamlDocument) -> DatasetCard:
    document = _expand_ranges(document)
    try:
        return DatasetCard.model_validate(document.content)
    except pydantic.ValidationError as cause:
        raise SchemaError(validation_problems(cause, document, DatasetCard)) from cause
