"""Columns beside the score: made of the rows, or of what the model computes for them anyway."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pyarrow as pa

from recsys_had.batch import EncodedRows
from recsys_had.scoring.predictor import BatchPredictor, Watcher


class Column(Watcher, Protocol):
    """Further columns of some rows; is shown these while they are scored."""

    def columns(self) -> dict[str, pa.Array]:
        """The columns by name, each as long as the rows are."""


class RowColumns(Protocol):
    """Makes further columns beside the score of each row."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the columns are called."""

    @property
    def made_with(self) -> list[object]:
        """What decides the columns, as JSON has it: a scoring is not resumed with another."""

    def watch(self, rows: EncodedRows) -> Column:
        """Begins with some rows; what others are doing at the same time is apart from it."""


# Makes them for a predictor; a plain value that can be hashed, and sent to another process.
MakeColumns = Callable[[BatchPredictor], RowColumns]


def score_columns(
    predictor: BatchPredictor, rows: EncodedRows, extras: Sequence[RowColumns] = ()
) -> dict[str, pa.Array]:
    """The column ``score`` of encoded rows, and what else is made beside it, in that order.

    Args:
        predictor: what scores.
        rows: the rows.
        extras: make further columns.
    """
    watching = [extra.watch(rows) for extra in extras]
    columns = {"score": pa.array(predictor.score_rows(rows, watchers=watching))}
    for column in watching:
        columns |= column.columns()
    return columns


def score_table(
    predictor: BatchPredictor, frame: Any, extras: Sequence[RowColumns] = ()
) -> pa.Table:
    """The same of a frame of raw rows, as :meth:`BatchPredictor.score_frame` takes it.

    Raises:
        TypeError: it is no frame.
        DataError: a column is missing or holds what its kind does not allow.
    """
    rows = predictor.read_frame(frame).rows
    return pa.table(score_columns(predictor, rows, extras))
