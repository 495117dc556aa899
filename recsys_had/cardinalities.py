"""Sizes of tables that no rows are at hand for: a YAML file of fields and their cardinalities."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys_had.bundled import datasets_dir
from recsys_had.errors import ConfigError
from recsys_had.suggest import nearest
from recsys_had.yamlfile import read_yaml


@dataclass(frozen=True)
class Cardinality:
    """How large a field's table is, and how many values a row has of it.

    Args:
        num_embeddings: rows of the table.
        pooling_factor: mean number of values a row.
    """

    num_embeddings: int
    pooling_factor: float = 1.0


def load_cardinalities(path: Path, fields: Sequence[str]) -> dict[str, Cardinality]:
    """Reads ``field: number`` or ``field: {num_embeddings: number, pooling_factor: number}``.

    Args:
        path: the file.
        fields: those it must hold, and may.

    Raises:
        ConfigError: it cannot be read, lacks a field, has another, or a number is out of range.
    """
    content = read_yaml(path, error=ConfigError).content
    problems = [
        f"{path}: '{name}' is no field of the dataset card.{nearest(name, fields)}"
        for name in content
        if name not in fields
    ]
    problems += [
        f"{path}: the field '{name}' is missing." for name in fields if name not in content
    ]
    found = {}
    for name, value in content.items():
        sizes = value if isinstance(value, dict) else {"num_embeddings": value}
        problem = _problem(sizes)
        if problem is None:
            found[name] = Cardinality(**sizes)
        else:
            problems.append(f"{path}: {name}: {problem}")
    if problems:
        raise ConfigError(problems)
    return found


def bundled_cardinalities(dataset: str) -> Path | None:
    """The published sizes beside a bundled dataset's card, if there are any."""
    path = datasets_dir() / dataset / "cardinalities.yaml"
    return path if path.is_file() else None


def _problem(sizes: dict[str, Any]) -> str | None:
    """What is wrong with a field's sizes."""
    if unknown := sorted(set(sizes) - {"num_embeddings", "pooling_factor"}):
        return f"unknown key '{unknown[0]}'. Known are num_embeddings and pooling_factor."
    rows, factor = sizes.get("num_embeddings"), sizes.get("pooling_factor", 1.0)
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        return f"num_embeddings must be a whole number from 1 on; got {rows!r}."
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not factor > 0:
        return f"pooling_factor must be a number above 0; got {factor!r}."
    return None
