"""Negative down-sampling: which training rows are left out, whoever reads them in what blocks."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xxhash

from recsys_had.data.encode import Encoder
from recsys_had.data.encoder_files import load_encoder
from recsys_had.data.sampling import LEFT_OUT, is_kept, leave_out_negatives
from recsys_had.data.split import split_by_content, split_stratified
from recsys_had.errors import DataError, SchemaError
from recsys_had.ingestion.ingest import ingest
from recsys_had.schema import DatasetCard, NegativeSampling, parse_card

CARD = """\
name: clicks
format: {type: csv}
columns:
  click: {kind: label}
  user: {kind: categorical}
  price: {kind: float, transform: quantile_bins, num_bins: 4}
  user_x_price: {kind: crossed, of: [user, price]}
  height: {kind: float, transform: standardise}
split: {by: content_hash, seed: 5, ratios: {train: 0.6, valid: 0.3, test: 0.1}}
"""
SAMPLING = "sampling: {negatives: 0.25, seed: 5}\n"
STRATIFIED = "split: {by: stratified_kfold, num_folds: 5}\n"


def card_of(*, sampling: str = SAMPLING, split: str | None = None) -> DatasetCard:
    text = CARD if split is None else "".join([CARD[: CARD.index("split:")], split])
    return parse_card(text + sampling, path="c.yaml")


def rows_of(number: int) -> pl.DataFrame:
    """Rows of which many are the same."""
    draw = np.random.default_rng(8)
    return pl.DataFrame(
        {
            "click": (draw.random(number) < 0.3).astype(int),
            "user": draw.integers(0, 4, number),
            "price": draw.integers(0, 9, number),
            "height": draw.integers(0, 3, number) / 2,
        }
    )


def kept_by_hand(rows: pl.DataFrame, rate: float, seed: int) -> list[bool]:
    """Of each row, whether it is kept if its label is 0, in plain Python."""
    derived = xxhash.xxh64(b"negatives", seed=seed).intdigest()
    return [
        (xxhash.xxh64("\x1f".join(row).encode() + b"\x1e" + str(number).encode(), seed=derived)
         .intdigest() >> 11) < rate * 2**53
        for number, row in enumerate(rows.cast(pl.String).rows())
    ]  # fmt: skip


def read(folder: Path) -> pl.DataFrame:
    frames = [
        pl.read_parquet(part).with_columns(split=pl.lit(part.parent.name))
        for part in sorted(folder.glob("*/part-*.parquet"))
    ]
    return pl.concat(frames).sort("row_id")


def ingested(
    tmp_path: Path,
    card: DatasetCard,
    rows: pl.DataFrame,
    *,
    split: str | None = None,
    **options: Any,
) -> tuple[dict[str, Any], pl.DataFrame, Encoder]:
    rows.write_csv(tmp_path / "rows.csv")
    out = tmp_path / "data"
    report = ingest(card, [(split, tmp_path / "rows.csv")], out, overwrite=True, **options)
    return report, read(out), load_encoder(out)


def test_the_bytes_and_the_seed_are_those_documented() -> None:
    # By XXH64 written out in plain Python from its specification: of "negatives", seed 3, it is
    # 0x771a96ae3206addb, and with that seed
    #   of "a" 1F "b" 1E "7"  0x9a37ddc3a6174efc, / 2^64 = 0.60
    #   of 1E "12"            0xecf8aa52b4399632, / 2^64 = 0.93
    for rate, oracle in ((0.60, [False, False]), (0.61, [True, False]), (0.93, [True, True])):
        rule = NegativeSampling(negatives=rate, seed=3)
        assert is_kept([b"a\x1fb", b""], np.array([7, 12]), rule).tolist() == oracle


@pytest.mark.parametrize("block_bytes", [1 << 20, 700])
def test_training_rows_of_label_0_are_left_out_and_no_others(
    tmp_path: Path, block_bytes: int
) -> None:
    rows, card = rows_of(2000), card_of()
    report, encoded, encoder = ingested(tmp_path, card, rows, block_bytes=block_bytes)
    texts = rows.cast(pl.String)
    splits = split_by_content(texts, card, card.split)  # type: ignore[arg-type]
    trains, label = splits == 0, rows["click"].to_numpy()
    kept = ~trains | (label == 1) | np.array(kept_by_hand(rows, 0.25, 5))
    assert encoded["row_id"].to_list() == np.flatnonzero(kept).tolist()
    assert report["sampling"] == {"negatives": 0.25, "left_out": int((~kept).sum())}
    assert report["rows_read"] == 2000 == sum(report["rows"].values()) + (~kept).sum()
    # What the encoder knows is what it would know of the kept rows alone.
    expected = Encoder.fit_frame(card, rows.filter(pl.Series(kept & trains)))
    assert encoder.digest == expected.digest
    negatives = trains & (label == 0)
    # A share of n has the deviation sqrt(0.25 * 0.75 / n).
    share = (negatives & kept).sum() / negatives.sum()
    assert share == pytest.approx(0.25, abs=4 * np.sqrt(0.1875 / negatives.sum()))


def test_the_same_row_is_drawn_again_each_time() -> None:
    """1,000 rows that are all the same: of their content alone all or none would be kept."""
    rule = NegativeSampling(negatives=0.3)
    kept = is_kept([b"0\x1fa"] * 1000, np.arange(1000), rule)
    assert kept.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 1000))


def test_a_row_kept_at_one_rate_is_kept_at_every_higher_one() -> None:
    texts, row_ids = [str(n).encode() for n in range(3000)], np.arange(3000)
    lower, higher, all_of_them = (
        is_kept(texts, row_ids, NegativeSampling(negatives=rate)) for rate in (0.1, 0.4, 1.0)
    )
    assert all_of_them.all() and not higher.all() and lower.any()
    assert not (lower & ~higher).any()
    other = is_kept(texts, row_ids, NegativeSampling(negatives=0.1, seed=1))
    assert (lower & other).sum() < 0.3 * lower.sum()


def test_a_split_by_content_tells_nothing_of_what_is_kept() -> None:
    """With one seed for both, the rows of the split's lower half are not the ones kept."""
    rows, card = rows_of(4000), card_of()
    assert card.split.seed == card.sampling.seed  # type: ignore[union-attr]
    splits = split_by_content(rows.cast(pl.String), card, card.split)  # type: ignore[arg-type]
    found = leave_out_negatives(
        np.zeros(4000, np.int8),
        rows.cast(pl.String),
        card,
        labels=np.zeros(4000, np.float32),
        row_ids=np.arange(4000),
    )
    kept = found != LEFT_OUT
    for code in (0, 1, 2):
        assert kept[splits == code].mean() == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize("block_bytes", [1 << 20, 500])
def test_folds_that_need_all_labels_are_those_of_all_rows(tmp_path: Path, block_bytes: int) -> None:
    rows, card = rows_of(1000), card_of(split=STRATIFIED)
    report, encoded, _ = ingested(tmp_path, card, rows, block_bytes=block_bytes)
    label = rows["click"].to_numpy().astype(np.int8)
    splits = split_stratified(label, card.split)  # type: ignore[arg-type]
    kept = (splits != 0) | (label == 1) | np.array(kept_by_hand(rows, 0.25, 5))
    assert encoded["row_id"].to_list() == np.flatnonzero(kept).tolist()
    names = np.array(["train", "valid", "test"])
    assert encoded["split"].to_list() == names[splits[kept]].tolist()
    assert report["sampling"]["left_out"] == (~kept).sum() > 0


def test_of_splits_given_as_files_train_alone_is_sampled(tmp_path: Path) -> None:
    rows, card = rows_of(500), card_of(split="split: {by: given}\n")
    _, encoded, _ = ingested(tmp_path, card, rows, split="train")
    kept = (rows["click"].to_numpy() == 1) | np.array(kept_by_hand(rows, 0.25, 5))
    assert encoded["row_id"].to_list() == np.flatnonzero(kept).tolist()
    for split in ("valid", "test"):
        with pytest.raises(DataError, match=r"none of the 500 rows is in the training split"):
            ingested(tmp_path, card, rows, split=split)


def test_without_sampling_a_manifest_and_a_digest_say_nothing_of_it(tmp_path: Path) -> None:
    card = card_of(sampling="")
    report, encoded, _ = ingested(tmp_path, card, rows_of(100))
    assert "sampling" not in report
    assert "sampling" not in (tmp_path / "data" / "manifest.json").read_text()
    assert len(encoded) == 100
    assert (
        len(
            {
                card.digest,
                card_of().digest,
                card_of(sampling="sampling: {negatives: 0.25}\n").digest,
            }
        )
        == 3
    )


@pytest.mark.parametrize(
    ("sampling", "told"),
    [
        ("{negatives: 0}", "10: sampling.negatives: must be above 0.0; got 0."),
        ("{negatives: 1.5}", "10: sampling.negatives: must be at most 1.0; got 1.5."),
        ("{negatives: 0.5, seed: -1}", "10: sampling.seed: must be at least 0; got -1."),
        ("{negative: 0.5}", "10: sampling.negative: unknown key. Did you mean 'negatives'?"),
        ("{}", "10: sampling.negatives: the key is missing. Add it."),
        ("0.1", "10: sampling: must be a mapping of keys to values; got 0.1."),
    ],
)
def test_a_wrong_rate_is_told_with_file_and_line(sampling: str, told: str) -> None:
    with pytest.raises(SchemaError) as caught:
        card_of(sampling=f"sampling: {sampling}\n")
    assert f"c.yaml:{told}" in caught.value.problems
