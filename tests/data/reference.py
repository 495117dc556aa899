"""The ids real rows must get, in plain Python that shares no code with recsys_had."""

import datetime
import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import xxhash
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

INTEGERS = [f"I{number}" for number in range(1, 14)]
HEXES = [f"C{number}" for number in range(1, 27)]

Values = Sequence[str | None]


@dataclass(frozen=True)
class Reference:
    """Split, label and, per field, value (None where missing) of every row."""

    splits: list[str]
    labels: list[int]
    values: dict[str, Values] = field(repr=False)  # a failing test must not print them
    min_count: int

    def vocabulary(self, name: str) -> list[tuple[str, int]]:
        """Values and training rows of each: falling count, then UTF-8 bytes."""
        rows = zip(self.values[name], self.splits, strict=True)
        counts = Counter(value for value, split in rows if split == "train" and value is not None)
        kept = [pair for pair in counts.items() if pair[1] >= self.min_count]
        return sorted(kept, key=lambda pair: (-pair[1], pair[0].encode()))

    def ids(self, name: str, values: Values | None = None) -> NDArray[np.int32]:
        """Position in the vocabulary from 1 on; 0 where missing or not in it."""
        id_of = {value: 1 + at for at, (value, _) in enumerate(self.vocabulary(name))}
        rows = self.values[name] if values is None else values
        return np.array([0 if value is None else id_of.get(value, 0) for value in rows], np.int32)


def read_lines(path: Path, separator: str, encoding: str = "utf-8") -> list[list[str]]:
    with path.open(encoding=encoding, newline="") as stream:
        return [line.rstrip("\r\n").split(separator) for line in stream]


def split_by_content(rows: list[list[str]]) -> list[str]:
    def split(row: list[str]) -> str:
        digest = xxhash.xxh64("\x1f".join(row).encode(), seed=2024).intdigest()
        fraction = (digest >> 11) / 2**53
        return "train" if fraction < 0.8 else "valid" if fraction < 0.9 else "test"

    return [split(row) for row in rows]


def split_by_fold(labels: list[int]) -> list[str]:
    splits = np.full(len(labels), "train")
    folds = StratifiedKFold(10, shuffle=True, random_state=2018)
    parts = [part for _, part in folds.split(np.zeros(len(labels)), labels)]
    splits[parts[0]], splits[parts[1]] = "test", "valid"
    return [str(split) for split in splits]


def bucket(text: str) -> str:
    number = int(text)
    return str(math.floor(math.log(number) ** 2) if number > 2 else number)


def criteo_values(rows: list[list[str]], missing: str | None) -> dict[str, Values]:
    """Values of rows without their label."""
    columns = dict(zip(INTEGERS + HEXES, zip(*rows, strict=True), strict=True))
    return {
        name: [(bucket(text) if name in INTEGERS else text) if text else gap for text in column]
        for name, column in columns.items()
        for gap in [missing if name in INTEGERS else None]
    }


def criteo(samples: Path, *, x4: bool) -> Reference:
    rows = read_lines(samples / "criteo/train_head_8000.tsv", "\t")
    labels = [int(row[0]) for row in rows]
    return Reference(
        splits=split_by_fold(labels) if x4 else split_by_content(rows),
        labels=labels,
        values=criteo_values([row[1:] for row in rows], "0" if x4 else None),
        min_count=10,
    )


def avazu(samples: Path, *, x4: bool) -> Reference:
    header, *rows = read_lines(samples / "avazu/train_first_hour.csv", ",")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    labels = [int(text) for text in columns["click"]]
    times = [datetime.datetime.strptime(text, "%y%m%d%H") for text in columns["hour"]]
    values: dict[str, Values] = {
        "hour": [str(time.hour) for time in times],
        "weekday": [str(time.weekday()) for time in times],
        "is_weekend": [str(int(time.weekday() in (5, 6))) for time in times],
    }
    values |= {name: columns[name] for name in header[3:]}
    splits = split_by_fold(labels) if x4 else split_by_content(rows)
    return Reference(splits, labels, values, min_count=2)


def frappe(samples: Path) -> Reference:
    tables = [
        pd.read_csv(samples / f"frappe/{split}.csv", dtype=str, keep_default_na=False)
        for split in ("train", "valid")
    ]
    table = pd.concat(tables)
    return Reference(
        splits=["train"] * len(tables[0]) + ["valid"] * len(tables[1]),
        labels=[int(text) for text in table.pop("label")],
        values={str(name): list(column) for name, column in table.items()},
        min_count=1,
    )


def movielens(samples: Path) -> Reference:
    """All but the genres."""
    rows = read_lines(samples / "movielens/u.data", "\t")
    users = {row[0]: row for row in read_lines(samples / "movielens/u.user", "|")}
    times = [datetime.datetime.fromtimestamp(int(row[3]), datetime.UTC) for row in rows]
    values: dict[str, Values] = {
        "user": [row[0] for row in rows],
        "item": [row[1] for row in rows],
        "hour": [str(time.hour) for time in times],
        "weekday": [str(time.weekday()) for time in times],
    }
    for at, name in enumerate(("age", "gender", "occupation"), start=1):
        values[name] = [users[row[0]][at] for row in rows]
    labels = [int(int(row[2]) >= 4) for row in rows]
    return Reference(split_by_content(rows), labels, values, min_count=1)


REFERENCES: dict[str, Callable[[Path], Reference]] = {
    "criteo": functools.partial(criteo, x4=False),
    "criteo_x4": functools.partial(criteo, x4=True),
    "avazu": functools.partial(avazu, x4=False),
    "avazu_x4": functools.partial(avazu, x4=True),
    "frappe": frappe,
    "movielens": movielens,
}
