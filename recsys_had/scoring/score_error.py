"""How far scores are from those of the exact mode, measured on rows that were scored in both."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from recsys_had.batch import EncodedRows
from recsys_had.data.folder import layout_of
from recsys_had.scoring.drawn_rows import drawn_rows
from recsys_had.scoring.predictor import BatchPredictor, Logits, Scores

MOST_ROWS = 4096


class ScoreError:
    """Keeps the logits of the first rows that are scored, and compares them.

    It stands among the columns that are made beside the score, and makes none.

    Args:
        most_rows: rows that are compared at most.
    """

    names: tuple[str, ...] = ()
    needs_terms = False

    def __init__(self, *, most_rows: int = MOST_ROWS) -> None:
        self.made_with: list[object] = []
        self._most_rows = most_rows
        self._logits = [np.empty(0, np.float32)]
        self._num_rows = 0

    def watch(self, rows: EncodedRows) -> "ScoreError":
        """Begins."""
        return self

    def __call__(self, rows: EncodedRows, logit: Logits, terms: Sequence[Tensor]) -> None:
        """Takes a batch."""
        if self._num_rows < self._most_rows:
            self._logits.append(logit)
            self._num_rows += len(logit)

    def columns(self) -> dict[str, pa.Array]:
        """None."""
        return {}

    def found(self, predictor: BatchPredictor, rows: EncodedRows, scores: Scores) -> dict[str, Any]:
        """What the differences are, as JSON has them.

        Args:
            predictor: what scored the rows.
            rows: all rows that were scored.
            scores: theirs.

        Raises:
            CheckpointError: the run is another meanwhile.

        Returns:
            The largest and the mean absolute difference of the scores and of the logits, None of
            no rows; the number of rows; and of rows that are left out because one of their
            numbers is not finite in one of the modes.
        """
        first = rows.take(np.arange(min(self._most_rows, len(rows))))
        logits = np.concatenate(self._logits)[: len(first)]
        exact = predictor.exact().logits(first)
        exact_scores = predictor.to_scores(exact, predictor.segments(first))
        return differences(logits, exact, scores[: len(first)], exact_scores)


def differences(
    logits: Logits, exact_logits: Logits, scores: Scores, exact_scores: Scores
) -> dict[str, Any]:
    """The largest and the mean absolute differences of scores and logits.

    >>> one, two = np.array([0.0, 2.0], np.float32), np.array([1.0, 2.0], np.float32)
    >>> found = differences(one, two, one / 4, two / 4)
    >>> found["largest_logit_difference"], found["mean_score_difference"], found["rows"]
    (1.0, 0.125, 2)
    """
    columns = (logits, exact_logits, scores, exact_scores)
    whole = np.all([np.isfinite(column) for column in columns], axis=0)
    wide: list[NDArray[np.float64]] = [column[whole].astype(np.float64) for column in columns]
    told: dict[str, Any] = {}
    for name, one, two in (("score", wide[2], wide[3]), ("logit", wide[0], wide[1])):
        apart = np.abs(one - two)
        told[f"largest_{name}_difference"] = float(apart.max()) if len(apart) else None
        told[f"mean_{name}_difference"] = float(apart.mean()) if len(apart) else None
    return {**told, "rows": int(whole.sum()), "rows_not_finite": int((~whole).sum())}


def score_error(predictor: BatchPredictor, rows: EncodedRows) -> dict[str, Any]:
    """Scores rows in the predictor's mode and, some of them, in the exact one.

    Args:
        predictor: what is measured.
        rows: as many as make up a batch; the first of them are compared.

    Raises:
        CheckpointError: the run is another meanwhile.
    """
    watcher = ScoreError()
    scores = predictor.score_rows(rows, watchers=[watcher])
    return watcher.found(predictor, rows, scores)


def error_of_drawn_rows(predictor: BatchPredictor) -> dict[str, Any]:
    """The same of rows drawn at random, which are of one whole batch at least.

    Raises:
        CheckpointError: the run is another meanwhile.
    """
    size = max(MOST_ROWS, predictor.batch_size)
    layout = layout_of(predictor.run.card)
    return score_error(predictor, drawn_rows(predictor.model, layout, size=size, seed=0))


def told_error(mode: object, error: dict[str, Any], *, of: str) -> str:
    """A line for people.

    >>> told_error("bf16", {"rows": 0, "rows_not_finite": 0}, of="the first")
    'mode bf16: no row to measure its error by'
    """
    if not error["rows"]:
        return f"mode {mode}: no row to measure its error by"
    left_out = error["rows_not_finite"]
    return (
        f"mode {mode}: scores differ from the exact ones by {error['largest_score_difference']:.2g}"
        f" at most, {error['mean_score_difference']:.2g} on average (logits by "
        f"{error['largest_logit_difference']:.2g} and {error['mean_logit_difference']:.2g}), "
        f"measured on {of} {error['rows']:,} rows"
        + (f"; {left_out:,} more are not finite" if left_out else "")
    )
