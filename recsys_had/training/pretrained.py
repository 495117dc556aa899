"""Begins a training with given rows of some tables: another run's, or vectors from anywhere.

A row goes with its value, whatever id that has in the present vocabulary. Values the vocabulary
does not know are counted and left out; those that the file lacks keep their initial rows.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys_had.data.encode import Encoder
from recsys_had.data.encoder_files import load_encoder
from recsys_had.data.folder import DataFolder
from recsys_had.data.normalise import as_text
from recsys_had.errors import ConfigError, DataError, RecsysHadError
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import is_field_table, table_of_weight
from recsys_had.suggest import nearest
from recsys_had.table_files import parts_of, read_columns, read_table
from recsys_had.training.pieces import carry_rows, local_pieces
from recsys_had.whole_files import file_digest

_KINDS = (".safetensors", ".parquet")


def parse_pretrained(words: Iterable[str]) -> dict[str, Path]:
    """What NAME=FILE says, where NAME is SET.FIELD or FIELD, its table in the set ``fields``.

    Raises:
        ConfigError: one line per word that is something else, or names a table again.

    >>> parse_pretrained(["item=items.parquet"])
    {'fields.item': PosixPath('items.parquet')}
    """
    found: dict[str, Path] = {}
    problems = []
    for word in words:
        name, _, file = word.partition("=")
        table = name if "." in name else f"fields.{name}"
        if not name or not file:
            problems.append(f"--pretrained {word}: must be NAME=FILE, NAME a field or SET.FIELD.")
        elif table in found:
            problems.append(f"--pretrained {word}: names {table} again. Give it one file.")
        else:
            found[table] = Path(file)
    if problems:
        raise ConfigError(problems)
    return found


def pretrained_digests(files: Mapping[str, Path]) -> dict[str, list[str]]:
    """Digests of what each table begins with.

    Raises:
        DataError: one line per file that is not there, or is of another kind.
    """
    problems = []
    for path in files.values():
        if path.suffix not in _KINDS:
            problems.append(f"{path}: must end in {' or '.join(_KINDS)}.")
        elif not path.is_file():
            problems.append(f"{path}: no such file.")
        elif missing := [part for part in parts_of(path) if not part.is_file()]:
            problems.append(
                f"{missing[0]}: no such file. It must tell the values of {path.name}; a hashed "
                "or managed field has none to tell."
            )
    if problems:
        raise DataError(problems)
    try:
        return {
            table: [file_digest(part) for part in parts_of(path)] for table, path in files.items()
        }
    except OSError as cause:
        raise DataError(f"{cause.filename}: cannot be read: {cause.strerror}.") from cause


def write_pretrained(
    files: Mapping[str, Path], *, data: DataFolder, sharded: nn.Module, model: CTRModel
) -> dict[str, dict[str, int]]:
    """Writes given rows into this rank's pieces.

    Args:
        files: for each table, SET.FIELD, the file of its rows: one that ``recsys-had export``
            wrote, or a Parquet file of columns ``value`` and ``vector``.
        data: the rows to train on, and their vocabularies.
        sharded: the model spread over the ranks.
        model: the same model, for names and widths.

    Returns:
        For each table how many rows were ``given``, how many of them ``taken``, and how many are
        of ``unknown`` values.

    Raises:
        ConfigError: there is no such table, or a file does not fit. What it was written into is no
            model to train.
    """
    weights = {table_of_weight(name): name for name in sharded.state_dict() if is_field_table(name)}
    encoder = load_encoder(data.path)
    told: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    for table, path in files.items():
        try:
            _require(table, weights, data)
            kind = sharded.state_dict()[weights[table]].dtype
            values, vectors = _read(path, width=model.table_width(weights[table]), kind=kind)
            at = _rows_of(encoder, table.partition(".")[2], values)
            given, taken = len(values), int((at >= 0).sum())
            told[table] = {"given": given, "taken": taken, "unknown": given - taken}
            with torch.no_grad():
                for piece in local_pieces(sharded):
                    if piece.name == weights[table]:
                        carry_rows(piece, vectors, at, model.table_width(piece.name))
        except RecsysHadError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return told


def _require(table: str, weights: Mapping[str, str], data: DataFolder) -> None:
    """Refuses a table that is not there, or whose ids stand for no values."""
    if table not in weights:
        raise ConfigError(f"--pretrained {table}: no such table.{nearest(table, weights)}")
    name = table.partition(".")[2]
    if any(field.name == name and not field.has_vocabulary for field in data.card.fields):
        raise ConfigError(
            f"--pretrained {table}: {name} is hashed or managed, and the rows of a hash tell no "
            "value. Give the field a vocabulary, or begin with a run (--warm-start)."
        )


def _rows_of(encoder: Encoder, field: str, values: pl.Series) -> NDArray[np.int64]:
    """For each id of a field, the place of its value among those given, or -1."""
    ids = encoder.id_of(field, values)
    known = (ids > 0) | values.is_null().to_numpy()
    rows = np.full(encoder.num_embeddings[field], -1, np.int64)
    rows[ids[known]] = np.flatnonzero(known)
    return rows


def _read(path: Path, *, width: int, kind: torch.dtype) -> tuple[pl.Series, Tensor]:
    """Values, each given once, and a vector for each of numbers that the table's kind can hold."""
    exported = path.suffix == ".safetensors"
    values, vectors = read_table(path) if exported else _read_vectors(path, width=width)
    if vectors.shape[1] != width:
        raise _of_another_width(path, width, got=vectors.shape[1])
    problems = []
    if len(again := values.filter(values.is_duplicated())):
        problems.append(f"{path}: value {_quoted(again[0])} is given twice. Give it once.")
    infinite = np.flatnonzero(~torch.isfinite(vectors.to(kind)).all(dim=1).numpy())
    if len(infinite):
        problems.append(
            f"{path}: vectors must be finite{_as(kind)}; got {len(infinite):,} of "
            f"{len(values):,} that are not, the first of value "
            f"{_quoted(values[int(infinite[0])])}. Leave them out."
        )
    if problems:
        raise DataError(problems)
    return values, vectors


def _read_vectors(path: Path, *, width: int) -> tuple[pl.Series, Tensor]:
    """Columns ``value`` and ``vector`` of a Parquet file."""
    frame = read_columns(path, ("value", "vector"))
    of_value, of_vector = frame.dtypes
    is_list = isinstance(of_value, pl.List | pl.Array)
    text = None if is_list else as_text(pl.col("value"), of_value)
    problems = []
    if text is None:
        problems.append(f"{path}: column value must hold text or numbers; got {of_value}.")
    if not isinstance(of_vector, pl.List | pl.Array) or not _is_number(of_vector.inner):
        problems.append(f"{path}: column vector must hold lists of numbers; got {of_vector}.")
    if problems or text is None:
        raise DataError(problems)
    # A missing list has no number, and a missing number is none.
    lists = frame["vector"].cast(pl.List(pl.Float32))
    widths = lists.list.len().fill_null(0).to_numpy()
    if len(other := widths[widths != width]):
        raise _of_another_width(path, width, got=int(other[0]))
    numbers = lists.explode().fill_null(float("nan")) if len(lists) else lists.explode()
    vectors = torch.from_numpy(numbers.to_numpy(writable=True).reshape(len(lists), width))
    return frame.select(text)["value"], vectors


def _as(kind: torch.dtype) -> str:
    return "" if kind == torch.float32 else f" as {str(kind).removeprefix('torch.')}"


def _is_number(kind: Any) -> bool:
    return isinstance(kind, pl.DataType) and kind.is_numeric()


def _of_another_width(path: Path, width: int, *, got: int) -> DataError:
    return DataError(f"{path}: vectors must have the table's width, {width}; got {got}.")


def _quoted(value: str | None) -> str:
    return "null" if value is None else f"'{value}'"
