"""Which rows a column is measured on, and which columns are suspect."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from recsys_had.profile import profile
from recsys_had.profile.leakage import Auc, Scored, Trial, suspects
from recsys_had.profile.rates import Rate

CARD = """
name: made
format: {type: csv}
columns:
  click: {kind: label}
  item: {kind: categorical}
  noise: {kind: categorical}
split: {by: given}
"""


def rows(size: int, seed: int, *, click: int | None = None) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    clicks = generator.integers(0, 2, size) if click is None else np.full(size, click)
    flipped = np.where(generator.random(size) < 0.02, 1 - clicks, clicks)
    noise = generator.integers(0, 50, size)
    return pd.DataFrame({"click": clicks, "item": flipped, "noise": noise})


def test_a_column_written_after_the_click_is_suspect_and_noise_is_not(encode, tmp_path) -> None:
    found = profile(encode({"train": rows(900, 0), "valid": rows(400, 1)}, tmp_path, CARD))
    assert [suspect.name for suspect in found.suspects] == ["item"]
    assert found.ranking[0][0] == "item" and found.ranking[0][1].auc > 0.95
    assert found.findings[0].startswith("item alone tells clicks apart")
    noise = dict(found.ranking)["noise"]
    assert noise.low < 0.5 < noise.high


def test_a_split_of_one_class_is_left_for_the_next(encode, tmp_path) -> None:
    raw = {"train": rows(300, 0), "valid": rows(50, 1, click=0), "test": rows(90, 2)}
    found = profile(encode(raw, tmp_path, CARD))
    assert found.trial == Trial("test", 1, 90)
    assert "No row of valid is clicked: nothing can be measured on it." in found.findings


def test_training_rows_alone_are_halved_so_that_noise_tells_nothing(encode, tmp_path) -> None:
    raw = rows(600, 3)
    # Nearly every row has a value of its own: its rate would give the label away.
    raw["noise"] = np.random.default_rng(4).integers(0, 400, len(raw))
    found = profile(encode({"train": raw}, tmp_path, CARD))
    assert found.trial == Trial("train", 1, 300)
    learned, measured = raw[::2], raw[1::2]
    mean = raw["click"].mean()
    counts = learned.groupby("noise")["click"].agg(["sum", "count"])
    rates = (counts["sum"] + 20 * mean) / (counts["count"] + 20)
    scores = measured["noise"].map(rates).fillna(mean).astype(np.float32)
    expected = roc_auc_score(measured["click"], scores)
    assert dict(found.ranking)["noise"].auc == pytest.approx(expected)
    whole = raw.groupby("noise")["click"].transform("mean")
    assert roc_auc_score(raw["click"], whole) > 0.85 > 0.6 > expected


def test_without_a_click_nothing_is_measured(encode, tmp_path) -> None:
    found = profile(encode({"train": rows(40, 0, click=0)}, tmp_path, CARD))
    assert found.trial.split is None and found.ranking == []
    assert found.splits["train"].click_rate == 0


def test_of_more_rows_than_fit_every_so_many_blocks_are_measured() -> None:
    trial = Trial.choose({"valid": Rate.of(1_000, 10)}, max_rows=300)
    assert (trial.every, trial.rows) == (4, 250)
    assert [trial.measures("valid", block, 1).item() for block in range(5)] == [
        True, False, False, False, True,
    ]  # fmt: skip
    assert not trial.measures("test", 0, 3).any()


def test_rows_whose_score_is_not_known_are_left_out() -> None:
    scored = Scored()
    scored.add(np.array([True, False, True]), np.array([0.9, 0.1, np.nan]))
    found = scored.auc("a")
    assert found is not None and found.auc == 1.0


def test_a_falling_score_counts_as_its_opposite() -> None:
    scored = Scored()
    scored.add(np.array([True, False]), np.array([0.1, 0.9]))
    rising, free = scored.auc("a"), scored.auc("a", falling="b")
    assert rising is not None and free is not None
    assert (rising.auc, free.auc, free.score) == (0.0, 1.0, "b")


@pytest.mark.parametrize(
    "aucs, expected",
    [
        ([0.95, 0.93, 0.6], ["c0", "c1"]),
        ([0.75, 0.74], []),
        ([0.75, 0.6], ["c0"]),
        ([0.62, 0.51], []),
        ([0.8], []),
        ([], []),
    ],
)
def test_suspects_reach_much_alone_or_far_more_than_the_next(
    aucs: list[float], expected: list[str]
) -> None:
    ranking = [
        (f"c{place}", Auc(auc, auc - 0.01, auc + 0.01, "")) for place, auc in enumerate(aucs)
    ]
    assert [suspect.name for suspect in suspects(ranking)] == expected
