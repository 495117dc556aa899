"""Split rules: which rows train, which validate and which test."""

import logging
import warnings
from functools import partial

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from recsys_had.columns import MultiCategoricalColumn, TimestampColumn, VectorColumn, source_columns
from recsys_had.data.normalise import as_text
from recsys_had.data.problems import Place, Problems
from recsys_had.data.times import parse_moment, parse_times
from recsys_had.errors import DataError
from recsys_had.schema import SPLITS, ContentHashSplit, DatasetCard, StratifiedSplit, TimeSplit

# A row's split, as its place in SPLITS: 0 train, 1 valid, 2 test.
Splits = NDArray[np.int8]

_log = logging.getLogger("recsys_had")


def hash_fractions(texts: list[bytes], *, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each text: the upper 53 bits of its XXH64.

    >>> hash_fractions([b""], seed=0).item() == (0xef46db3751d8e999 >> 11) / 2**53
    True
    """
    found = map(partial(xxhash.xxh64_intdigest, seed=seed), texts)
    digests = np.fromiter(found, np.uint64, len(texts))
    return (digests >> np.uint64(11)).astype(np.float64) / 2**53


def row_texts(frame: pl.DataFrame, card: DatasetCard) -> list[bytes]:
    """The bytes a row is known by: its columns in the card's order, joined by 0x1F, in UTF-8.

    A missing value is empty; a list is its values joined by the column's separator.

    Args:
        frame: raw columns as text, all of the card's.
        card: names and order of the columns.
    """
    columns = []
    for name in source_columns(card.columns):
        value, column = pl.col(name), card.columns.get(name)
        dtype = frame.schema[name]
        if isinstance(dtype, pl.List):
            texts = as_text(value, dtype)
            assert texts is not None, "a list of texts or numbers"
            separator = "|"
            if isinstance(column, MultiCategoricalColumn | VectorColumn):
                separator = column.separator
            value = texts.list.join(separator, ignore_nulls=True)
        columns.append(value.fill_null(""))
    text = pl.concat_str(columns, separator="\x1f").cast(pl.Binary)
    return frame.select(text.alias("text"))["text"].to_list()


def split_by_content(
    frame: pl.DataFrame,
    card: DatasetCard,
    rule: ContentHashSplit,
    *,
    texts: list[bytes] | None = None,
) -> Splits:
    """Splits by a hash of each row's own text, ``texts`` or else :func:`row_texts`.

    A row trains where its fraction is below the ratio of train, validates where it is below
    the ratios of train and valid together, and so on.
    """
    names = [name for name in SPLITS if name in rule.ratios]
    limits = np.cumsum([rule.ratios[name] for name in names])[:-1]
    texts = row_texts(frame, card) if texts is None else texts
    fractions = hash_fractions(texts, seed=rule.seed)
    codes = np.array([SPLITS.index(name) for name in names], np.int8)
    return codes[np.searchsorted(limits, fractions, side="right")]


def split_by_time(
    frame: pl.DataFrame, card: DatasetCard, rule: TimeSplit, *, place: Place
) -> Splits:
    """Rows from ``valid_from`` on validate, rows from ``test_from`` on test.

    Raises:
        DataError: one line per row whose time is missing or cannot be read.
    """
    problems = Problems()
    times = split_times(frame, card, rule, place=place, problems=problems)
    problems.raise_any()
    pattern = _time_column(card, rule).format
    splits = np.zeros(len(frame), np.int8)
    for split, moment in ((1, rule.valid_from), (2, rule.test_from)):
        if moment is not None:
            splits[(times >= parse_moment(moment, pattern)).to_numpy()] = split
    return splits


def split_times(
    frame: pl.DataFrame, card: DatasetCard, rule: TimeSplit, *, place: Place, problems: Problems
) -> pl.Series:
    """The times a split goes by; one that is missing or cannot be read is a problem."""
    pattern = _time_column(card, rule).format
    times = parse_times(frame[rule.column], pattern, place=place, problems=problems)
    problems.add_rows(
        frame[rule.column].is_null().to_numpy(),
        place,
        lambda row: f"column {rule.column}: is missing, and the split needs it.",
    )
    return times


def _time_column(card: DatasetCard, rule: TimeSplit) -> TimestampColumn:
    column = card.columns[rule.column]
    assert isinstance(column, TimestampColumn)
    return column


def split_stratified(labels: NDArray[np.int8], rule: StratifiedSplit) -> Splits:
    """Splits by scikit-learn's ``StratifiedKFold(num_folds, shuffle=True, random_state=seed)``.

    Fold ``i`` is the test part of its ``i``-th division of all rows in input order.

    Raises:
        DataError: a label has fewer rows than there are folds.
    """
    # A second to import, and of no other use here.
    from sklearn.model_selection import StratifiedKFold

    splits = np.zeros(len(labels), np.int8)
    wanted = {
        rule.valid_fold: SPLITS.index("valid"),
        rule.test_fold: SPLITS.index("test"),
    }
    folds = StratifiedKFold(rule.num_folds, shuffle=True, random_state=rule.seed)
    fewest = int(np.bincount(labels, minlength=2).min())
    try:
        with warnings.catch_warnings():
            # Told below in the log's own words.
            warnings.simplefilter("ignore", UserWarning)
            for number, (_, rows) in enumerate(folds.split(np.zeros(len(labels)), labels)):
                if number in wanted:
                    splits[rows] = wanted[number]
    except ValueError as cause:
        raise DataError(
            f"split: {rule.num_folds} folds need at least {rule.num_folds} rows of a label; got "
            f"{len(labels)} rows. Give more rows, or another split."
        ) from cause
    if fewest < rule.num_folds:
        _log.info("The rarer label has %d rows, so not every fold holds one.", fewest)
    return splits
