"""Every figure against pandas, scikit-learn and SciPy on the raw rows."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from recsys_had.profile import profile


def of(columns: Any, name: str) -> Any:
    return next(column for column in columns if column.name == name)


def encoded_auc(made: Any, values: "dict[str, pd.Series[Any]]") -> float:
    """AUC on valid rows of the smoothed click rates of training rows, by pandas."""
    train, valid = made.train, made.raw["valid"]
    mean = train["click"].mean()
    exploded = pd.DataFrame({"value": values["train"].explode(), "click": train["click"]})
    exploded["click"] = train["click"].reindex(exploded.index)
    found = exploded.groupby("value")["click"].agg(["sum", "count"])
    rates = (found["sum"] + 20 * mean) / (found["count"] + 20)
    scores = values["valid"].explode().map(rates).fillna(mean)
    score = scores.groupby(scores.index).mean().to_numpy()
    return float(roc_auc_score(valid["click"], score.astype(np.float32)))


def test_rows_and_rates_of_each_split_are_those_of_pandas_and_scipy(made) -> None:
    for split, frame in made.raw.items():
        rate = made.profile.splits[split]
        assert (rate.rows, rate.clicks) == (len(frame), frame["click"].sum())
        assert rate.click_rate == pytest.approx(frame["click"].mean())
        wilson = stats.binomtest(rate.clicks, rate.rows).proportion_ci(method="wilson")
        assert (rate.low, rate.high) == pytest.approx((wilson.low, wilson.high))


def test_the_row_order_holds_each_row_once_in_the_stretch_of_its_number(made) -> None:
    labels = np.concatenate([frame["click"] for frame in made.raw.values()])
    assert made.profile.order[0].first == 0
    assert made.profile.order[-1].last == len(labels) - 1
    for before, after in zip(made.profile.order, made.profile.order[1:], strict=False):
        assert after.first == before.last + 1
    for stretch in made.profile.order:
        expected = labels[stretch.first : stretch.last + 1]
        assert (stretch.rate.rows, stretch.rate.clicks) == (len(expected), expected.sum())
        assert sum(stretch.rows.values()) == len(expected)
    trained = sum(stretch.rows["train"] for stretch in made.profile.order)
    assert trained == len(made.train)


def test_a_vocabulary_field_is_counted_as_pandas_counts_the_raw_values(made) -> None:
    field = of(made.profile.fields, "user")
    counts = made.train["user"].value_counts()
    kept = counts[counts >= 5]
    assert field.num_values == len(kept) == field.num_ids - 1
    for split, frame in made.raw.items():
        assert field.absent[split] == pytest.approx(1 - frame["user"].isin(kept.index).mean())
    assert field.unseen == {}
    for step in field.coverage:
        if step.min_count < 5:
            assert (step.values, step.share) == (None, None)
        else:
            enough = counts[counts >= step.min_count]
            assert step.values == len(enough)
            assert step.share == pytest.approx(enough.sum() / len(made.train))
    rare = made.train[~made.train["user"].isin(kept.index)]["click"]
    assert (field.absent_rate.rows, field.absent_rate.clicks) == (len(rare), rare.sum())


def test_the_most_frequent_values_have_the_rows_and_clicks_of_the_raw_ones(made) -> None:
    for name in ("user", "colour", "hour"):
        field = of(made.profile.fields, name)
        column = made.train[name] if name != "hour" else made.train["seen"] // 3600 % 24
        clicks = made.train.groupby(column.astype(str))["click"].agg(["count", "sum"])
        assert [found.rate.rows for found in field.top] == sorted(clicks["count"])[::-1][
            : len(field.top)
        ]
        for found in field.top:
            expected = clicks.loc[found.value]
            assert (found.rate.rows, found.rate.clicks) == (expected["count"], expected["sum"])
            assert found.share == pytest.approx(expected["count"] / len(made.train))


def test_all_hours_of_a_date_part_are_told(made) -> None:
    hours = made.train["seen"] // 3600 % 24
    assert len(of(made.profile.fields, "hour").top) == hours.nunique() > 10


def test_a_value_that_a_row_holds_twice_counts_once(made) -> None:
    field = of(made.profile.fields, "tags")
    sets = made.train["tags"].map(lambda text: set(text.split("|")) - {""})
    rows = sets.explode().value_counts()
    assert [found.rate.rows for found in field.top] == rows.head(10).to_list()
    for found in field.top:
        holds = sets.map(lambda values, value=found.value: value in values)
        assert found.rate.clicks == made.train["click"][holds].sum()
    assert field.values_per_row == pytest.approx(
        sets.map(lambda values: max(1, len(values))).mean()
    )
    missing = sets.map(len) == 0
    assert field.absent_rate.rows == missing.sum()


def test_of_hashed_values_id_0_is_missing_alone_and_unseen_ones_are_known(made) -> None:
    buyers = {split: frame["buyer"] for split, frame in made.raw.items()}
    field = of(made.profile.fields, "buyer")
    assert field.num_values == buyers["train"].nunique()
    assert field.sampled_share == 1
    assert field.absent == {"train": 0, "valid": 0, "test": 0}
    for split in ("valid", "test"):
        unseen = ~buyers[split].isin(set(buyers["train"]))
        assert field.unseen[split] == pytest.approx(unseen.mean())
    assert unseen.any()
    assert [found.value for found in field.top] == [None] * 10
    counts = buyers["train"].value_counts()
    assert [found.rate.rows for found in field.top] == counts.head(10).to_list()
    for step in field.coverage:
        assert step.values == (counts >= step.min_count).sum()
    assert of(made.profile.fields, "site").num_values <= 8
    assert of(made.profile.fields, "site").ids == "hash"


def test_a_field_s_auc_is_that_of_rates_learned_by_pandas(made) -> None:
    kept = made.train["user"].value_counts()
    kept = set(kept[kept >= 5].index)
    users = {
        split: frame["user"].where(frame["user"].isin(kept), "")
        for split, frame in made.raw.items()
    }
    assert of(made.profile.fields, "user").auc.auc == pytest.approx(encoded_auc(made, users))
    buyers = {split: frame["buyer"] for split, frame in made.raw.items()}
    assert of(made.profile.fields, "buyer").auc.auc == pytest.approx(encoded_auc(made, buyers))


def test_several_values_of_a_row_score_it_by_their_mean_rate(made) -> None:
    tags = {
        split: frame["tags"].map(lambda text: sorted(set(text.split("|"))))
        for split, frame in made.raw.items()
    }
    assert of(made.profile.fields, "tags").auc.auc == pytest.approx(encoded_auc(made, tags))


def test_numbers_are_summed_up_as_numpy_does(made) -> None:
    column = of(made.profile.numbers, "price")
    for split, frame in made.raw.items():
        values = frame["price"].astype(np.float32)
        found = column.splits[split]
        assert (found.least, found.greatest) == (values.min(), values.max())
        assert found.mean == pytest.approx(values.mean(), abs=1e-6)
        assert found.zeros == pytest.approx((values == 0).mean())
    ascending = np.sort(made.train["price"].to_numpy(np.float32))
    for level, value in column.quantiles.items():
        assert value == ascending[-(-int(level) * len(ascending) // 100) - 1]


def test_a_histogram_holds_each_training_row_in_the_bar_of_its_value(made) -> None:
    column = of(made.profile.numbers, "price")
    values, clicks = made.train["price"].to_numpy(np.float32), made.train["click"].to_numpy()
    bars = column.histogram
    assert sum(bar.rate.rows for bar in bars) == len(values)
    for bar in bars[1:-1]:
        inside = (values >= bar.low) & (values < bar.high)
        assert (bar.rate.rows, bar.rate.clicks) == (inside.sum(), clicks[inside].sum())
    assert bars[0].rate.rows == (values < bars[0].high).sum()


def test_a_number_s_auc_is_that_of_its_value_in_the_better_direction(made) -> None:
    valid = made.raw["valid"]
    found = of(made.profile.numbers, "price").auc
    assert found.score == "the value, falling"
    assert found.auc == pytest.approx(1 - roc_auc_score(valid["click"], valid["price"]))


def test_a_number_that_tells_by_its_distance_is_found_by_bins(made) -> None:
    valid = made.raw["valid"]
    found = of(made.profile.numbers, "bumpy").auc
    edges = np.unique(
        np.quantile(made.train["bumpy"], np.arange(1, 32) / 32, method="inverted_cdf")
    )
    bins = {
        split: pd.Series(np.searchsorted(edges, frame["bumpy"]))
        for split, frame in made.raw.items()
    }
    assert found.score == "rate of the bin"
    assert found.auc == pytest.approx(encoded_auc(made, bins))
    assert abs(roc_auc_score(valid["click"], valid["bumpy"]) - 0.5) < 0.1 < found.auc - 0.5


def test_weights_are_told_and_change_no_other_figure(made) -> None:
    for split, frame in made.raw.items():
        found = made.profile.weights[split]
        assert found.weights.mean == pytest.approx(frame["worth"].mean())
        assert found.weights.zeros == pytest.approx((frame["worth"] == 0).mean())
        weighted = np.average(frame["click"], weights=frame["worth"])
        assert found.click_rate == pytest.approx(weighted)


def test_vectors_are_told_by_their_length(made) -> None:
    texts = made.train["image"]
    vectors = [np.array(text.split("|"), float) if text else np.zeros(2) for text in texts]
    lengths = np.linalg.norm(np.array(vectors, np.float32), axis=1)
    found = made.profile.vectors[0].lengths["train"]
    assert (found.rows, found.zeros) == (len(texts), pytest.approx((texts == "").mean()))
    assert found.mean == pytest.approx(lengths.mean(), rel=1e-6)
    assert found.greatest == pytest.approx(lengths.max(), rel=1e-6)


def test_the_same_folder_gives_the_same_figures_and_they_are_json(made) -> None:
    again = profile(made.data).as_json()
    assert json.loads(json.dumps(again, allow_nan=False)) == json.loads(
        json.dumps(made.profile.as_json())
    )


def test_real_rows_have_the_click_rate_of_the_file(samples, encode, tmp_path) -> None:
    from recsys_had.data.folder import DataFolder
    from recsys_had.ingestion.ingest import ingest
    from recsys_had.schema import load_card

    path = samples / "avazu" / "train_first_hour.csv"
    ingest(load_card("avazu"), [(None, path)], tmp_path / "avazu")
    found = profile(DataFolder.open(tmp_path / "avazu"))
    raw = pd.read_csv(path, dtype=str)
    assert sum(rate.rows for rate in found.splits.values()) == len(raw)
    assert sum(rate.clicks for rate in found.splits.values()) == (raw["click"] == "1").sum()
    assert [hour.value for hour in of(found.fields, "hour").top] == ["0"]
    assert found.suspects == []
