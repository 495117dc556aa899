"""The planted model: rows in Criteo's format, a known law, a known best AUC."""

from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from recsys_had.data.raw import RawSource
from recsys_had.data.synthetic import PlantedModel
from recsys_had.schema import load_card


@pytest.fixture(scope="module")
def planted() -> PlantedModel:
    return PlantedModel(seed=5)


def test_the_bayes_auc_is_the_share_of_expected_pairs_in_order() -> None:
    chances = np.random.default_rng(0).choice([0.1, 0.2, 0.5, 0.9], 30)
    wins = pairs = 0.0
    for (i, p), (j, q) in product(enumerate(chances), repeat=2):
        if i != j:
            pairs += p * (1 - q)
            wins += p * (1 - q) * (1.0 if p > q else 0.5 if p == q else 0.0)
    assert PlantedModel.bayes_auc(chances) == pytest.approx(wins / pairs, abs=1e-12)


def test_the_true_chances_reach_the_bayes_auc_and_nothing_else_does(planted: PlantedModel) -> None:
    rows = planted.sample(200_000, seed=1)
    best = planted.bayes_auc(rows.probability)
    # The AUC of so many rows varies by about 0.001.
    assert roc_auc_score(rows.label, rows.probability) == pytest.approx(best, abs=0.004)
    blurred = rows.probability + np.random.default_rng(0).normal(0, 0.1, 200_000)
    assert roc_auc_score(rows.label, blurred) < best - 0.01


def test_clicks_come_as_often_as_their_chances_say(planted: PlantedModel) -> None:
    rows = planted.sample(200_000, seed=1)
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 1.0)):
        group = (rows.probability >= low) & (rows.probability < high)
        deviation = 0.5 / np.sqrt(group.sum())
        assert rows.label[group].mean() == pytest.approx(
            rows.probability[group].mean(), abs=4 * deviation
        )


def test_single_columns_tell_little_and_planted_pairs_nearly_all(planted: PlantedModel) -> None:
    rows = planted.sample(100_000, seed=2)
    best = planted.bayes_auc(rows.probability)

    def reached(columns: list[np.ndarray]) -> float:
        seen = pl.DataFrame({str(i): column for i, column in enumerate(columns)})
        one_hot = seen.cast(pl.String).to_dummies().to_numpy()
        model = LogisticRegression(C=1.0, max_iter=200).fit(one_hot[:80_000], rows.label[:80_000])
        score = model.decision_function(one_hot[80_000:])
        return (roc_auc_score(rows.label[80_000:], score) - 0.5) / (best - 0.5)

    singles = [rows.categories[:, field] for field in range(10)]
    pairs = [
        rows.categories[:, a] * 1000 + rows.categories[:, b]
        for a, b in ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (0, 2))
    ]
    assert reached(singles) < 0.5
    assert reached([*singles, *pairs]) > 0.9


def test_the_seed_decides_the_rows_and_the_model(tmp_path: Path) -> None:
    for number, (model_seed, seed) in enumerate([(1, 2), (1, 2), (1, 3), (2, 2)]):
        PlantedModel(seed=model_seed).write_tsv(tmp_path / f"{number}", 300, seed=seed)
    texts = [(tmp_path / f"{number}").read_bytes() for number in range(4)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


@pytest.mark.parametrize("with_label", [True, False])
def test_rows_are_written_as_criteo_writes_them(
    planted: PlantedModel, tmp_path: Path, with_label: bool
) -> None:
    path = tmp_path / "rows.tsv"
    # More than one piece of 2^16 rows.
    rows = planted.write_tsv(path, 70_000, seed=4, with_label=with_label)
    lines = path.read_text().split("\n")
    assert lines[-1] == ""
    assert {len(line.split("\t")) for line in lines[:-1]} == {39 + with_label}
    assert '"' not in lines[0]
    frames = [
        block.frame for block in RawSource([path], load_card("criteo"), label="optional").blocks()
    ]
    frame = pl.concat(frames)
    assert len(frame) == 70_000 == len(rows.label)
    integers = frame["I3"].cast(pl.Float64).to_numpy()
    np.testing.assert_array_equal(integers, rows.integers[:, 2])
    missing = frame["C26"].is_null().to_numpy()
    np.testing.assert_array_equal(missing, rows.categories[:, 25] == -1)
    assert 0.08 < missing.mean() < 0.12
    assert frame["C1"].str.contains(r"^[0-9a-f]{8}$").all()
    if with_label:
        first = [int(line[0]) for line in lines[:-1]]
        assert first == rows.label.tolist()


def test_what_the_planted_pairs_do_not_tell_is_a_sum_over_single_columns() -> None:
    rows = PlantedModel(seed=3).sample(4000, seed=4)
    effects = PlantedModel(seed=3).pair_effects(rows.categories)
    assert set(effects) == {
        ("C1", "C2"), ("C3", "C4"), ("C5", "C6"), ("C7", "C8"), ("C9", "C10"), ("C1", "C3"),
    }  # fmt: skip
    logit = np.log(rows.probability) - np.log1p(-rows.probability)
    left = logit - np.sum(list(effects.values()), axis=0)
    ones = [np.eye(number.max() + 1)[number] for number in rows.categories[:, :10].T]
    logs = np.nan_to_num(np.log1p(rows.integers) - 1.5, nan=0.0)
    columns = np.concatenate([*ones, logs], axis=1)
    solved = np.linalg.lstsq(columns, left, rcond=None)[0]
    np.testing.assert_allclose(columns @ solved, left, atol=1e-9)
    # While the pairs are no such sum.
    solved = np.linalg.lstsq(columns, logit, rcond=None)[0]
    assert np.abs(columns @ solved - logit).mean() > 0.5
