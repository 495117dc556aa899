"""Quantile bins: the same edges for any order and any cut of the training rows."""

import bisect
import re
import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys_had.data.encode import Encoder
from recsys_had.data.encoder_files import load_encoder, save_encoder
from recsys_had.data.quantiles import NumberCounts, QuantileBins
from recsys_had.errors import CheckpointError, DataError
from recsys_had.schema import DatasetCard, parse_card

at_any_speed = settings(deadline=None)
FINITE = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.5, 2.5, 7.0]),
    st.floats(-3e38, 3e38),
    st.integers(-(2**63), 2**63 - 1).map(float),
)


def card_of(*columns: str) -> DatasetCard:
    lines = "\n".join(f"  {column}" for column in ("y: {kind: label}", *columns))
    return parse_card(f"name: n\nformat: {{type: csv}}\nsplit: {{by: given}}\ncolumns:\n{lines}\n")


def counted(numbers: list[float]) -> NumberCounts:
    counts = NumberCounts()
    counts.add(np.array(numbers, np.float64))
    return counts


def bins_by_loops(numbers: list[float], num_bins: int) -> list[list[float]]:
    """What each bin holds, by trying every place where it could end."""
    rest, bins = sorted(number + 0.0 for number in numbers), []
    while rest and num_bins > 1 and len(set(rest)) > num_bins:
        ends = [at for at in range(1, len(rest)) if rest[at - 1] < rest[at]]
        # min takes the first of two that are equally near: the one of fewer rows.
        end = min(ends, key=lambda at: abs(at * num_bins - len(rest)))
        bins.append(rest[:end])
        rest, num_bins = rest[end:], num_bins - 1
    if num_bins > 1:
        return [*bins, *([x for x in rest if x == value] for value in sorted(set(rest)))]
    return [*bins, rest]


def in_order(number: float) -> int:
    """A float64's bits as a whole number in the floats' order."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", number + 0.0))
    return bits ^ (2**64 - 1) if bits >> 63 else bits | 1 << 63


def counts_by_loops(numbers: list[float], max_distinct: int) -> list[list[float]]:
    """The counts of cells, as few upper bits left out as will do."""
    for dropped in range(65):
        cells: dict[int, list[float]] = {}
        for number in sorted(numbers):
            cells.setdefault(in_order(number) >> dropped, []).append(number)
        if len(cells) <= max_distinct:
            break
    return [[part[0] for part in cells.values()], [len(part) for part in cells.values()]]


def test_bins_are_those_worked_out_by_hand() -> None:
    # 80 of 100 rows hold 0: four bins should hold 25, and the first cannot but hold 80. The other
    # three share 20: 20/3 = 6.67 is nearest to 7, 13/2 = 6.5 as near to 6 as to 7: the fewer.
    bins, held = QuantileBins.fit(counted([0.0] * 80 + [float(n) for n in range(1, 21)]), 4)
    assert bins.edges.tolist() == [1, 8, 14]
    assert held.values.to_list() == ["(-inf, 1)", "[1, 8)", "[8, 14)", "[14, inf)"]
    assert held.counts.to_list() == [80, 7, 6, 7]
    # As many numbers as bins: each is one, however many rows hold it.
    bins, held = QuantileBins.fit(counted([1.0, 2.0] + [5.0] * 100), 3)
    assert bins.edges.tolist() == [2, 5]
    assert held.counts.to_list() == [1, 1, 100]
    # One number, or none: one bin, and no edge.
    for numbers, rows in (([4.0] * 3, [3]), ([], [0])):
        bins, held = QuantileBins.fit(counted(numbers), 5)
        assert (bins.edges.tolist(), bins.intervals) == ([], ["(-inf, inf)"])
        assert held.counts.to_list() == rows


@at_any_speed
@given(st.lists(FINITE, min_size=1, max_size=60), st.integers(2, 9))
@example([1.0, 1.0, 2.0, 3.0], 2)
@example([-1e308, 1e308, 0.0, -0.0], 3)
def test_bins_equal_loops_over_the_sorted_rows(numbers: list[float], num_bins: int) -> None:
    oracle = bins_by_loops(numbers, num_bins)
    bins, held = QuantileBins.fit(counted(numbers), num_bins)
    assert bins.edges.tolist() == [part[0] for part in oracle[1:]]
    assert held.counts.to_list() == [len(part) for part in oracle]
    assert 1 <= len(oracle) <= num_bins


@at_any_speed
@given(st.integers(1, 40), st.integers(2, 9))
def test_of_numbers_that_all_differ_bins_hold_equally_many(share: int, num_bins: int) -> None:
    numbers = np.random.default_rng(share).permutation(share * num_bins) / 7
    bins, held = QuantileBins.fit(counted(numbers.tolist()), num_bins)
    assert held.counts.to_list() == [share] * num_bins
    inner = np.arange(1, num_bins) / num_bins
    # numpy's quantile of this method is the greatest number of the bin below.
    below = np.quantile(numbers, inner, method="inverted_cdf")
    assert bins.edges.tolist() == [numbers[numbers > last].min() for last in below]


@at_any_speed
@given(
    st.lists(FINITE, max_size=50),
    st.integers(1, 7),
    st.sampled_from([2, 3, 5, 1000]),
    st.randoms(),
)
def test_counts_are_the_same_in_any_order_and_any_cut(
    numbers: list[float], block: int, max_distinct: int, random: object
) -> None:
    def told(parts: list[list[float]], *, merged: bool) -> list[list[float]]:
        counts = NumberCounts(max_distinct=max_distinct)
        for part in parts:
            other = NumberCounts(max_distinct=max_distinct) if merged else counts
            other.add(np.array(part, np.float64))
            if merged:
                counts.merge(other)
        return [part.tolist() for part in counts.told()]

    whole = told([numbers], merged=False)
    assert len(whole[0]) <= max_distinct
    assert sum(whole[1]) == len(numbers)
    shuffled = numbers.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    parts = [shuffled[first : first + block] for first in range(0, len(shuffled), block)]
    assert told(parts, merged=False) == whole
    assert told(parts, merged=True) == whole
    assert whole == counts_by_loops(numbers, max_distinct)


def test_more_numbers_than_are_told_apart_share_counts_and_bins_stay_nearly_equal() -> None:
    numbers = np.random.default_rng(3).lognormal(size=200_000)
    counts = NumberCounts(max_distinct=1 << 12)
    for first in range(0, len(numbers), 30_000):
        counts.add(numbers[first : first + 30_000])
    least, rows = counts.told()
    assert 1 << 11 < len(least) <= 1 << 12
    assert rows.sum() == len(numbers)
    bins, held = QuantileBins.fit(counts, 10)
    exact = np.histogram(numbers, [-np.inf, *bins.edges, np.inf])[0]
    assert held.counts.to_list() == exact.tolist()
    assert exact == pytest.approx([20_000] * 10, rel=0.02)


@at_any_speed
@given(st.lists(FINITE, max_size=20), st.lists(st.one_of(st.none(), FINITE), min_size=1))
def test_a_number_is_in_the_bin_that_bisection_finds(
    training: list[float], asked: list[float | None]
) -> None:
    card = card_of("x: {kind: float, transform: quantile_bins, num_bins: 4}")
    encoder = Encoder.fit_frame(card, pl.DataFrame({"x": training}, schema={"x": pl.Float64}))
    edges = [part[0] for part in bins_by_loops(training, 4)[1:]]
    oracle = [0 if x is None else 1 + bisect.bisect_right(edges, x) for x in asked]
    # Numbers beyond float32 are refused, as in every column of kind float.
    rows = pl.DataFrame({"x": asked}, schema={"x": pl.Float64})
    assert encoder.encode(rows)["x"].to_list() == oracle
    assert encoder.num_embeddings == {"x": len(edges) + 2}


def test_columns_of_numbers_are_encoded_as_worked_out_by_hand(tmp_path: Path) -> None:
    card = card_of(
        "age: {kind: integer, transform: quantile_bins, num_bins: 3, clip: [0, null]}",
        "price: {kind: float, transform: quantile_bins, num_bins: 2, missing: 9}",
        "height: {kind: float, transform: min_max, clip: [-1, 3]}",
        "visits: {kind: integer, transform: log_squared_bucket, clip: [null, 100]}",
    )
    rows = pl.DataFrame(
        {
            "age": [1, 2, 3, 4, 5, -6, None],  # -6 is 0: 0 1 | 2 3 | 4 5
            "price": [0.5, 1.5, float("nan"), 2.5, None, 9, 9],  # 0.5 1.5 2.5 | 9 9 9 9
            "height": [1, 3, 0, -1, None, 7, -2],  # 7 is 3, -2 is -1
            "visits": [3, 100, 200, 5000, None, -1, 0],  # ln(100)^2 = 21.2, ln(3)^2 = 1.2
        }
    )
    encoder = Encoder.fit_frame(card, rows)
    encoded = encoder.encode(rows).to_dict(as_series=False)
    assert encoded["age"] == [1, 2, 2, 3, 3, 1, 0]
    assert encoded["price"] == [1, 1, 2, 1, 2, 2, 2]
    assert encoded["height"] == [0.5, 1, 0.25, 0, 0, 1, 0]
    visits = encoder.value_of("visits", pl.Series(encoded["visits"])).to_list()
    assert visits == ["1", "21", "21", "21", None, "-1", "0"]
    assert encoder.num_embeddings == {"age": 4, "price": 3, "visits": 5}
    intervals = encoder.value_of("age", pl.Series([1, 3, 0, 2])).to_list()
    assert intervals == ["(-inf, 2)", "[4, inf)", None, "[2, 4)"]
    assert encoder.counts_of("price").rows() == [("(-inf, 9)", 3, 1), ("[9, inf)", 4, 2)]
    assert unseen(encoder, rows) == {"age": 0, "price": 0, "visits": 0}
    later = pl.DataFrame({"age": [-99, 10**9], "price": [3, -4], "height": [5, None]})
    later = later.with_columns(visits=pl.lit("3"))
    save_encoder(encoder, tmp_path)
    loaded = load_encoder(tmp_path)
    assert loaded.digest == encoder.digest
    assert loaded.encode(later).equals(encoder.encode(later))
    assert loaded.encode(later)["age"].to_list() == [1, 3]
    assert pl.read_parquet(tmp_path / "vocab" / "age.parquet")["count"].to_list() == [2, 2, 2]
    # A number scaled by its range may lie beyond that of the training rows; here it is clipped.
    assert loaded.encode(later)["height"].to_list() == [1, 0]


def test_a_changed_edge_or_range_is_refused(tmp_path: Path) -> None:
    card = card_of(
        "a: {kind: float, transform: quantile_bins, num_bins: 2}",
        "b: {kind: float, transform: min_max}",
    )
    encoder = Encoder.fit_frame(card, pl.DataFrame({"a": [1.25, 6.5], "b": [2.75, 8.0]}))
    told = re.escape(
        f"{tmp_path}: was changed after it was written: dense.json. Restore it or ingest again."
    )
    for old, new in (("6.5", "6.75"), ("2.75", "2.5")):
        save_encoder(encoder, tmp_path)
        text = (tmp_path / "dense.json").read_text()
        assert text.count(old) == 1
        (tmp_path / "dense.json").write_text(text.replace(old, new))
        with pytest.raises(CheckpointError, match=f"^{told}$"):
            load_encoder(tmp_path)


@pytest.mark.parametrize("numbers", [[], [None, None], [3.0, 3.0, None]])
def test_a_range_of_one_number_or_none_gives_0(tmp_path: Path, numbers: list[float | None]) -> None:
    card = card_of("x: {kind: float, transform: min_max}")
    encoder = Encoder.fit_frame(card, pl.DataFrame({"x": numbers}, schema={"x": pl.Float64}))
    assert encoder.encode(pl.DataFrame({"x": [3.0, 9.0, None]}))["x"].to_list() == [0, 0, 0]
    save_encoder(encoder, tmp_path)
    assert "Infinity" not in (tmp_path / "dense.json").read_text()
    assert load_encoder(tmp_path).digest == encoder.digest


def test_a_number_that_is_infinite_or_none_is_told_as_in_other_columns() -> None:
    card = card_of("x: {kind: float, transform: quantile_bins, num_bins: 2, clip: [0, 5]}")
    with pytest.raises(DataError) as caught:
        Encoder.fit_frame(card, pl.DataFrame({"x": ["1", "inf", "many"]}))
    assert caught.value.problems == (
        "row 1: column x: must be a finite number; got 'inf'.",
        "row 2: column x: must be a finite number; got 'many'.",
    )


def test_bins_are_carried_where_their_intervals_are_the_same() -> None:
    card = card_of("x: {kind: integer, transform: quantile_bins, num_bins: 3}")
    older, newer = (
        Encoder.fit_frame(card, pl.DataFrame({"x": numbers}))
        for numbers in ([1, 2, 3], [0, 2, 4])  # edges 2 3 and 2 4
    )
    assert newer.carried_ids("x", older).tolist() == [0, 1, -1, -1]


def unseen(encoder: Encoder, frame: pl.DataFrame) -> dict[str, int]:
    values = encoder.prepare(frame)
    return encoder.unseen(values, encoder.encode_values(values))
