"""PlantedModel: clicks whose law is known, written as Criteo writes its rows.

What a row holds is drawn first; its chance of a click is then a sum of single effects and of
planted pairs, and so the AUC nobody can beat is known.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NUM_INTEGERS, _NUM_CATEGORIES = 13, 26
_PIECE_ROWS = 1 << 16
# Distinct values of C1, C2, ...: the planted fields first, then those that say nothing.
_CARDINALITIES = (
    *(8, 10, 12, 8, 10, 12, 8, 10, 12, 8),
    *(3, 7, 12, 20, 50, 90, 3, 6, 8, 10, 40, 30, 100, 200, 300, 150),
)
# Fields by their place. C1 and C3 take part in two pairs, each time in another way.
_PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (0, 2))
_RANK = 2
_MISSING_SHARE = 0.1
# Deviations of the parts of the logit: single fields, integers, and each planted pair.
_FIELD_EFFECT, _INTEGER_EFFECT, _PAIR_EFFECT = 0.25, 0.1, 0.7
_BIAS = -1.4
_MEAN_LOG = 1.5


@dataclass(frozen=True)
class PlantedRows:
    """Rows drawn from a planted model.

    Args:
        integers: ``(B, 13)`` float64, NaN where missing.
        categories: ``(B, 26)`` int64, the number of each value; -1 where missing.
        probability: ``(B,)`` float64, the true chance of a click.
        label: ``(B,)`` int8, whether it was clicked.
    """

    integers: NDArray[np.float64]
    categories: NDArray[np.int64]
    probability: NDArray[np.float64]
    label: NDArray[np.int8]


class PlantedModel:
    """Draws rows of 13 integers and 26 categories whose clicks follow planted pairs.

    ``logit = b + sum_f a_f[c_f] + sum_i k_i g(I_i) + sum_{(f, h)} <u_fh[c_f], v_fh[c_h]>`` with
    effects drawn once from the seed; ``g`` is ``log(1 + I)`` less a constant. The planted pairs
    have rank 2 and hold most of the variance, so a model without interactions stays far below
    the Bayes AUC. Categories 11 to 26 say nothing.

    Shape: rows as ``(B, 13)`` integers and ``(B, 26)`` categories.
    Paper: none; the pairs are those of Rendle 2010, Factorization Machines, eq. 1.
    Differs from the paper: factors of their own for each pair of fields.

    Args:
        seed: decides every effect.

    >>> planted = PlantedModel(seed=0)
    >>> rows = planted.sample(1000, seed=1)
    >>> rows.categories.shape, bool((rows.probability > 0).all())
    ((1000, 26), True)
    """

    def __init__(self, *, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._popularity = [_popularity(number) for number in _CARDINALITIES]
        self._tokens = [
            np.array([f"{token:08x}" for token in _distinct(generator, number)])
            for number in _CARDINALITIES
        ]
        planted = range(max(max(pair) for pair in _PAIRS) + 1)
        self._field_effects = {
            field: _FIELD_EFFECT * generator.normal(size=_CARDINALITIES[field]) for field in planted
        }
        self._integer_effects = _INTEGER_EFFECT * generator.normal(size=_NUM_INTEGERS)
        self._pair_factors = [
            tuple(self._factors(generator, field) for field in pair) for pair in _PAIRS
        ]

    def _factors(self, generator: np.random.Generator, field: int) -> NDArray[np.float64]:
        """Factors of each value, of mean 0 and variance 1 over the rows.

        A pair then has the variance of its two sides' product and no single effect.
        """
        factors = generator.normal(size=(_CARDINALITIES[field], _RANK))
        weight = self._popularity[field][:, None]
        factors -= (weight * factors).sum(0)
        scaled: NDArray[np.float64] = factors / np.sqrt((weight * factors**2).sum(0))
        return scaled

    def sample(self, num_rows: int, *, seed: int) -> PlantedRows:
        """Draws rows; the same numbers give the same rows."""
        return self._draw(num_rows, np.random.default_rng(seed))

    def _draw(self, num_rows: int, generator: np.random.Generator) -> PlantedRows:
        categories = np.stack(
            [
                generator.choice(len(popularity), num_rows, p=popularity)
                for popularity in self._popularity
            ],
            axis=1,
        )
        logs = generator.normal(size=(num_rows, _NUM_INTEGERS))
        integers = np.floor(np.exp(_MEAN_LOG + 1.2 * logs))
        integers[generator.random(integers.shape) < _MISSING_SHARE] = np.nan
        logit = self._logit(integers, categories)
        # A planted field is never missing: its effect would be.
        nuisance = categories[:, len(self._field_effects) :]
        nuisance[generator.random(nuisance.shape) < _MISSING_SHARE] = -1
        probability = 1 / (1 + np.exp(-logit))
        label = (generator.random(num_rows) < probability).astype(np.int8)
        return PlantedRows(integers, categories, probability, label)

    def _logit(
        self, integers: NDArray[np.float64], categories: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        known = np.nan_to_num(np.log1p(integers) - _MEAN_LOG, nan=0.0)
        logit: NDArray[np.float64] = _BIAS + known @ self._integer_effects
        for field, effect in self._field_effects.items():
            logit += effect[categories[:, field]]
        for effect in self.pair_effects(categories).values():
            logit += effect
        return logit

    def pair_effects(self, categories: NDArray[np.int64]) -> dict[tuple[str, str], Floats]:
        """What each planted pair adds to the logits, by the names of its two columns.

        Its mean over the rows is 0 whatever one of the two holds, so no part of it is one field's.

        Args:
            categories: ``(B, 26)``, of rows that were drawn.
        """
        return {
            (f"C{first + 1}", f"C{second + 1}"): _PAIR_EFFECT
            * (left[categories[:, first]] * right[categories[:, second]]).sum(1)
            / np.sqrt(_RANK)
            for (first, second), (left, right) in zip(_PAIRS, self._pair_factors, strict=True)
        }

    def write_tsv(
        self, path: Path, num_rows: int, *, seed: int, with_label: bool = True
    ) -> PlantedRows:
        """Writes rows as Criteo writes them and returns what they were made of.

        Args:
            path: file to write.
            num_rows: number of rows.
            seed: decides the rows.
            with_label: whether the label stands in front; rows to score have none.
        """
        generator = np.random.default_rng(seed)
        pieces = []
        with path.open("wb") as stream:
            for first in range(0, num_rows, _PIECE_ROWS):
                rows = self._draw(min(_PIECE_ROWS, num_rows - first), generator)
                frame = self._as_text(rows)
                if not with_label:
                    frame = frame.drop("label")
                frame.write_csv(stream, separator="\t", include_header=False, quote_style="never")
                pieces.append(rows)
        return PlantedRows(
            integers=np.concatenate([piece.integers for piece in pieces]),
            categories=np.concatenate([piece.categories for piece in pieces]),
            probability=np.concatenate([piece.probability for piece in pieces]),
            label=np.concatenate([piece.label for piece in pieces]),
        )

    def _as_text(self, rows: PlantedRows) -> pl.DataFrame:
        columns = {"label": pl.Series(rows.label)}
        for index in range(_NUM_INTEGERS):
            numbers = pl.Series(rows.integers[:, index]).fill_nan(None)
            columns[f"I{index + 1}"] = numbers.cast(pl.Int64)
        for index in range(_NUM_CATEGORIES):
            codes = pl.Series(rows.categories[:, index]).replace(-1, None)
            columns[f"C{index + 1}"] = pl.Series(self._tokens[index]).gather(codes)
        return pl.DataFrame(columns)

    @staticmethod
    def bayes_auc(probability: NDArray[np.float64]) -> float:
        """The AUC that the true probabilities have in expectation over the labels.

        No score orders more of the expected (click, no click) pairs rightly:
        ``sum_{i, j} p_i (1 - p_j) [p_i > p_j] / sum_{i, j} p_i (1 - p_j)`` over pairs of
        different rows, a tie counted half.

        Args:
            probability: ``(B,)``, the true chance of each row.

        >>> round(PlantedModel.bayes_auc(np.array([0.2, 0.8])), 6)  # 0.64 / (0.64 + 0.04)
        0.941176
        """
        ordered = np.sort(probability)
        misses = 1 - ordered
        sums = np.concatenate([[0.0], np.cumsum(misses)])
        below = sums[np.searchsorted(ordered, ordered, side="left")]
        tied = sums[np.searchsorted(ordered, ordered, side="right")] - below - misses
        wins = ordered @ (below + 0.5 * tied)
        pairs = ordered.sum() * misses.sum() - ordered @ misses
        return float(wins / pairs)


def _popularity(number: int) -> NDArray[np.float64]:
    """Chances of ``number`` values, a few of them frequent and many rare."""
    weight = 1.0 / (5.0 + np.arange(number))
    shares: NDArray[np.float64] = weight / weight.sum()
    return shares


def _distinct(generator: np.random.Generator, number: int) -> NDArray[np.int64]:
    """Distinct numbers of 32 bits."""
    tokens = np.unique(generator.integers(0, 1 << 32, 2 * number))
    chosen: NDArray[np.int64] = generator.permutation(tokens)[:number]
    return chosen
