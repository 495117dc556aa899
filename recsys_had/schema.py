"""DatasetCard: what a dataset is, in one YAML file that any command can read."""

import hashlib
import json
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from recsys_had.bundled import datasets_dir
from recsys_had.columns import (
    CardPart,
    Column,
    CrossedColumn,
    Field,
    TimestampColumn,
    VectorColumn,
    fields_of,
    is_dense,
)
from recsys_had.errors import SchemaError
from recsys_had.suggest import nearest
from recsys_had.yamlfile import (
    PlacedError,
    YamlDocument,
    parse_yaml,
    read_yaml,
    validation_problems,
)

SPLITS = ("train", "valid", "test")


class FileFormat(CardPart):
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


class Lookup(CardPart):
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


class ContentHashSplit(CardPart):
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


class StratifiedSplit(CardPart):
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


class TimeSplit(CardPart):
    """By a timestamp column: rows from ``valid_from`` on validate, from ``test_from`` on test."""

    by: Literal["time"]
    column: str
    valid_from: str
    test_from: str | None = None


class GivenSplit(CardPart):
    """The owner gives the splits as files: ``--raw train=PATH --raw valid=PATH``."""

    by: Literal["given"]


Split = Annotated[
    ContentHashSplit | StratifiedSplit | TimeSplit | GivenSplit,
    pydantic.Field(discriminator="by"),
]


class NegativeSampling(CardPart):
    """Of the training rows of label 0 a share is kept; see :mod:`recsys_had.data.sampling`.

    Args:
        negatives: the share.
        seed: which rows those are.
    """

    negatives: float = pydantic.Field(gt=0, le=1)
    seed: int = pydantic.Field(default=0, ge=0, lt=2**64)


# Columns every encoded shard has beside its fields.
# A file's name holds 255 on most disks.
_MAX_NAME_BYTES = 200
_RESERVED = ("label", "row_id", "weight")
_RESERVED_IN_WORDS = "label, row_id or weight"
# Options of columns that came after the first cards; None is their default.
_LATER_OPTIONS = ("managed", "top_k", "clip", "num_bins")


class DatasetCard(CardPart):
    """What a dataset is: file format, columns, split rule.

    Args:
        name: the dataset's name.
        description: one sentence.
        format: how the raw files are written.
        columns: every raw column, in file order; ``C1..C26`` stands for 26 columns.
        lookups: side tables joined by a key.
        split: how rows are divided when the command line does not say.
        sampling: which training rows are left out, if any are.

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
    sampling: NegativeSampling | None = None

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "DatasetCard":
        labels = [name for name, column in self.columns.items() if column.kind == "label"]
        if len(labels) != 1:
            raise ValueError(f"columns must hold exactly one of kind label; got {labels}.")
        weights = [name for name, column in self.columns.items() if column.kind == "weight"]
        if len(weights) > 1:
            raise ValueError(f"columns must hold at most one of kind weight; got {weights}.")
        for name, lookup in self.lookups.items():
            if lookup.key not in self.columns or lookup.key not in lookup.columns:
                raise ValueError(
                    f"lookups.{name}.key must name a column of both tables; got '{lookup.key}'."
                )
        self._check_side_columns()
        self._check_crosses()
        names = [*(field.name for field in self.fields), *self.dense, *self.vectors]
        for name in (*self.all_columns, *names, *self.lookups):
            # Tables are modules, and files, named after their fields.
            unfit = next((character for character in "./\\\0" if character in name), None)
            if unfit is not None or not name:
                told = "be empty" if unfit is None else f"hold a {unfit!r}"
                raise ValueError(f"a column's name must not {told}; got '{name}'. Rename it.")
            if name == "*" or (name.startswith("^") and name.endswith("$")):
                raise ValueError(f"a column's name must not be a pattern; got '{name}'. Rename it.")
        long = [name for name in names if len(name.encode()) > _MAX_NAME_BYTES]
        if long:
            raise ValueError(
                f"field names must have {_MAX_NAME_BYTES} bytes at most, for files are named after "
                f"them; got {long[0][:20]}... with {len(long[0].encode())}."
            )
        taken = [name for name in names if name in _RESERVED]
        if taken:
            raise ValueError(
                f"a field's name must not be {_RESERVED_IN_WORDS}, which encoded rows have a "
                f"column for; got '{taken[0]}'. Rename it in the raw rows, or mark it ignored."
            )
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"field names must be unique; got {', '.join(repeated)} twice.")
        if not names:
            raise ValueError(
                "columns hold no input of the model. Add a category, a number or a vector."
            )
        split = self.split
        if isinstance(split, TimeSplit):
            column = self.columns.get(split.column)
            if not isinstance(column, TimestampColumn):
                raise ValueError(
                    f"split.column must name a timestamp column; got '{split.column}'."
                )
        return self

    def _check_side_columns(self) -> None:
        """Each says something of its own, and nothing that only a raw row can say."""
        stands = {name: "raw rows" for name, column in self.columns.items() if _is_read(column)}
        for table, lookup in self.lookups.items():
            for name, column in lookup.columns.items():
                told = None
                if column.kind in ("label", "weight"):
                    told = (
                        f"a {column.kind} must stand in the raw rows, not in a side table. Move it "
                        "there, or mark it ignored."
                    )
                elif column.kind == "crossed":
                    told = (
                        "a cross must stand among the columns of the card, not of a side table. "
                        "Move it there; its parts may come from side tables."
                    )
                elif name != lookup.key and _is_read(column):
                    if name in stands:
                        told = f"the {stands[name]} have it too. Mark one of them ignored."
                    stands[name] = f"rows of {table}"
                if told:
                    raise PlacedError(("lookups", table, "columns", name), told)

    def _check_crosses(self) -> None:
        fields = {field.name: field for field in self.fields}
        fit = [name for name, field in fields.items() if field.source not in {"multi", "crossed"}]
        for name, column in self.columns.items():
            for part in column.of if isinstance(column, CrossedColumn) else ():
                if part in fit:
                    continue
                if part in self.dense:
                    told = "is a number; let quantile_bins or log_squared_bucket make it a field."
                elif part not in fields:
                    told = f"is no categorical field.{nearest(part, fit)}"
                elif fields[part].is_multi:
                    told = "has several values a row, and a cross is of one each. Leave it out."
                else:
                    told = "is crossed itself. Name the fields it is made of."
                raise PlacedError(("columns", name, "of"), f"'{part}' {told}")

    @property
    def label(self) -> str:
        """Name of the label column."""
        return next(name for name, column in self.columns.items() if column.kind == "label")

    @property
    def weight(self) -> str | None:
        """Name of the weight column, or None where every row counts for 1."""
        return next(
            (name for name, column in self.columns.items() if column.kind == "weight"), None
        )

    @cached_property
    def all_columns(self) -> dict[str, Column]:
        """The raw columns followed by those the side tables add."""
        columns = dict(self.columns)
        for lookup in self.lookups.values():
            columns |= {
                name: column
                for name, column in lookup.columns.items()
                if name != lookup.key and (name not in columns or _is_read(column))
            }
        return columns

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The categorical fields, in the card's order."""
        return tuple(
            field for name, column in self.all_columns.items() for field in fields_of(name, column)
        )

    @cached_property
    def dense(self) -> tuple[str, ...]:
        """Names of the dense inputs, in the card's order."""
        return tuple(name for name, column in self.all_columns.items() if is_dense(column))

    @cached_property
    def vectors(self) -> dict[str, int]:
        """Name and size of each content vector, in the card's order."""
        return {
            name: column.size
            for name, column in self.all_columns.items()
            if isinstance(column, VectorColumn)
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything in the card that decides how rows are encoded."""
        content = self.model_dump(mode="json", exclude={"description"})
        # Order of columns decides the meaning of a file without a header.
        content["column_order"] = list(self.columns)
        # A card that says nothing of it has the digest it had before there was such a thing.
        if self.sampling is None:
            del content["sampling"]
        for columns in (content, *content["lookups"].values()):
            for column in columns["columns"].values():
                for option in _LATER_OPTIONS:
                    if column.get(option, ...) is None:
                        del column[option]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _is_read(column: Column) -> bool:
    return column.kind not in ("id", "ignored")


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
