"""One small data folder with a column of every kind, beside the raw rows it was made of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys_had.data.folder import DataFolder
from recsys_had.ingestion.ingest import ingest
from recsys_had.profile import Profile, profile
from recsys_had.schema import parse_card

CARD = """
name: made
description: Rows <b>made</b> for a test & nothing else.
format: {type: csv}
columns:
  click: {kind: label}
  user: {kind: categorical, min_count: 5}
  colour: {kind: categorical}
  site: {kind: categorical, hash_buckets: 8}
  buyer: {kind: categorical, managed: {rows: 100}}
  tags: {kind: multi_categorical, min_count: 2}
  price: {kind: float}
  bumpy: {kind: float}
  worth: {kind: weight}
  image: {kind: vector, size: 2}
  seen: {kind: timestamp, format: unix, parts: [hour, weekday]}
split: {by: given}
"""
COLOURS = ["<script>alert(1)</script>", "Żółw & 'żuk'", 'a "quoted" one', "plain", "x" * 300]


@dataclass(frozen=True)
class Made:
    """Raw rows and what became of them."""

    raw: dict[str, pd.DataFrame]
    data: DataFolder
    profile: Profile

    @property
    def train(self) -> pd.DataFrame:
        """The raw training rows."""
        return self.raw["train"]


def rows_of(size: int, seed: int) -> pd.DataFrame:
    """Raw rows whose clicks depend on user, price and the distance of ``bumpy`` from 0."""
    generator = np.random.default_rng(seed)
    user = generator.zipf(1.6, size) % 60
    price = np.where(generator.random(size) < 0.3, 0, generator.normal(size=size)).round(4)
    bumpy = generator.normal(size=size).round(4)
    taste = np.sin(user * 12.9898)
    chance = 1 / (1 + np.exp(-(1.5 * taste - price + 2 * (np.abs(bumpy) > 1) - 1)))
    image = generator.normal(size=(size, 2)).round(3)
    tags = [
        "|".join(f"t{tag}" for tag in generator.integers(0, 30, generator.integers(0, 4)))
        for _ in range(size)
    ]
    return pd.DataFrame(
        {
            "click": (generator.random(size) < chance).astype(int),
            "user": [f"u{number}" for number in user],
            "colour": generator.choice(COLOURS, size),
            "site": [f"s{number}" for number in generator.integers(0, 20, size)],
            "buyer": [f"b{number}" for number in generator.integers(0, 300, size)],
            "tags": tags,
            "price": price,
            "bumpy": bumpy,
            "worth": generator.integers(0, 3, size),
            "image": [f"{x}|{y}" if x > 0 else "" for x, y in image],
            "seen": 1_700_000_000 + generator.integers(0, 500_000, size),
        }
    )


def encoded(raw: dict[str, pd.DataFrame], path: Path, card: str = CARD) -> DataFolder:
    """The data folder of raw rows."""
    inputs = []
    path.mkdir(parents=True, exist_ok=True)
    for split, frame in raw.items():
        frame.to_csv(path / f"{split}.csv", index=False)
        inputs.append((split, path / f"{split}.csv"))
    # Several blocks, and so several parts a split.
    ingest(parse_card(card), inputs, path / "data", block_bytes=40_000)
    return DataFolder.open(path / "data")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Some 3,000 rows in three splits."""
    raw = {"train": rows_of(2_000, 1), "valid": rows_of(700, 2), "test": rows_of(300, 3)}
    data = encoded(raw, tmp_path_factory.mktemp("made"))
    return Made(raw, data, profile(data))


@pytest.fixture(scope="session")
def encode() -> Callable[..., DataFolder]:
    """Encodes raw rows of one's own."""
    return encoded
