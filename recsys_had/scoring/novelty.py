"""Novelty of scored rows: fitted on a run's training rows, kept in the run, a column of scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from recsys_had.batch import EncodedRows
from recsys_had.data.folder import DataFolder, layout_of
from recsys_had.data.parquet import SplitReader
from recsys_had.errors import CheckpointError, ConfigError, DataError
from recsys_had.novelty import METHODS, Fitting, Method, Seen, fit, from_text, kept_last, to_text
from recsys_had.novelty.method import WithoutState
from recsys_had.scoring.predictor import BatchPredictor, Logits
from recsys_had.scoring.splits import require_same_ids
from recsys_had.suggest import nearest

ADDITION = "novelty"
# Training rows that methods are fitted on at most, evenly apart.
_MOST_ROWS = 1 << 18


@dataclass(frozen=True)
class FittedNovelty:
    """A method, fitted.

    Args:
        name: the method's.
        method: as it was fitted.
        num_rows: training rows it was fitted on.
    """

    name: str
    method: Method
    num_rows: int

    def text(self, before: str | None) -> str:
        """What is to be kept in the run.

        Args:
            before: what is kept there; its other methods stay.
        """
        return to_text(self.name, self.method, rows=self.num_rows, before=before)


def fit_novelty(
    predictor: BatchPredictor, data: DataFolder, name: str, *, most_rows: int = _MOST_ROWS
) -> FittedNovelty:
    """Fits a method on a run's training rows; its text is to be added to the run.

    Args:
        predictor: the run.
        data: what it was trained on, or other rows under the same vocabularies.
        name: the method.
        most_rows: where there are more rows, every second, third or further one is taken, so
            that no more are.

    Raises:
        ConfigError: the method is unknown, or needs terms that the model's logit has none of.
        SchemaError: the data was made with another card.
        DataError: it was encoded with another vocabulary, or the method cannot be fitted on it.
    """
    kind = _known(name)
    if kind.needs_terms:
        predictor.model.graph.require_terms()
    require_same_ids(predictor, data)
    if not data.rows("train"):
        raise DataError(
            f"{data.path}: the training split has no row. Give what the run was trained on."
        )
    rows = training_rows(predictor, data, most_rows)
    method = fit(name, fitting_of(predictor, rows, place=f"{data.path}/train"))
    return FittedNovelty(name, method, len(rows))


def fitting_of(predictor: BatchPredictor, rows: EncodedRows, *, place: str) -> Fitting:
    """Encoded rows, and what the run says of them, for a method to be fitted on."""

    def passes(with_terms: bool) -> Iterator[Seen]:
        for first in range(0, len(rows), predictor.batch_size):
            index = np.arange(first, min(first + predictor.batch_size, len(rows)))
            part = rows.take(index)
            shown = _Shown(needs_terms=with_terms)
            predictor.logits(part, watchers=[shown])
            yield from shown.batches

    weights = predictor.model.graph.term_weights
    return Fitting(rows, passes, lambda: weights()[0], place)


def training_rows(predictor: BatchPredictor, data: DataFolder, most_rows: int) -> EncodedRows:
    """Training rows, evenly apart where there are more than wanted."""
    step = max(1, -(-data.rows("train") // most_rows))
    layout = layout_of(predictor.run.card)
    # A pool is read as a whole: smaller ones where few of its rows are kept.
    reader = SplitReader(data.path / "train", layout=layout, batch_size=1, pool_rows=1 << 16)
    return reader.every(step)


def load_novelty(predictor: BatchPredictor, name: str | None = None) -> tuple[str, Method]:
    """A method that a run was given, by name or the one it was given last.

    One that learns nothing need not have been given.

    Raises:
        ConfigError: the method is unknown.
        CheckpointError: the run has none, another one, or a damaged one.
    """
    run = predictor.run
    weights = predictor.model.graph.term_weights
    if name is not None and issubclass(kind := _known(name), WithoutState):
        return name, kind.load({}, lambda: weights()[0])
    text = run.addition(ADDITION)
    told = "the statistics of novelty" if name is None else f"novelty method '{name}'"
    missing = CheckpointError(
        f"{run.path}: was not given {told}. Run `recsys-had novelty {run.path} --data DATA"
        f"{'' if name is None else f' --method {name}'}` first."
    )
    if text is None:
        raise missing
    place = f"{run.path}/{run.manifest['additions'][ADDITION]}"
    chosen = kept_last(text, place=place) if name is None else name
    method = from_text(text, chosen, lambda: weights()[0], place=place)
    if method is None:
        raise missing
    return chosen, method


@dataclass(frozen=True)
class MakeNovelty:
    """Makes the column ``novelty`` of a run's scores; can be sent to another process.

    Args:
        method: its name; None for the one the run was given last.
    """

    method: str | None = None

    def __call__(self, predictor: BatchPredictor) -> "NoveltyColumn":
        """What makes the column.

        Raises:
            ConfigError: the method is unknown.
            CheckpointError: the run has none, another one, or a damaged one.
        """
        name, method = load_novelty(predictor, self.method)
        return NoveltyColumn(predictor, method, how=name)


class NoveltyColumn:
    """The column ``novelty`` beside the score, of the same pass through the model.

    Args:
        predictor: the run.
        method: how novelty is told, as :func:`load_novelty` gave it.
        how: the method's name.
    """

    names = ("novelty",)

    def __init__(self, predictor: BatchPredictor, method: Method, *, how: str) -> None:
        self._predictor = predictor
        self._method = method
        self.made_with: list[object] = ["novelty", how]

    def watch(self, rows: EncodedRows) -> "NoveltyOfRows":
        """Begins with some rows, which are shown as they are scored."""
        return NoveltyOfRows(self._method)

    def of(self, rows: EncodedRows) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """The novelty of rows that are not being scored, ``(B,)``."""
        watcher = self.watch(rows)
        self._predictor.logits(rows, watchers=[watcher])
        return watcher.values()


class NoveltyOfRows:
    """The novelty of rows as they are scored, batch by batch.

    Args:
        method: how it is told.
    """

    def __init__(self, method: Method) -> None:
        self.needs_terms = method.needs_terms
        self._method = method
        self._found = [np.empty(0, np.float32)]

    def __call__(self, rows: EncodedRows, logit: Logits, terms: Sequence[Tensor]) -> None:
        """Takes a batch."""
        self._found.append(self._method(Seen(rows, logit, terms)))

    def values(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """The novelty of all rows so far, in order."""
        return np.concatenate(self._found)

    def columns(self) -> dict[str, pa.Array]:
        """The same as a column."""
        return {"novelty": pa.array(self.values())}


class _Shown:
    """Keeps what it is shown."""

    def __init__(self, *, needs_terms: bool) -> None:
        self.needs_terms = needs_terms
        self.batches: list[Seen] = []

    def __call__(self, rows: EncodedRows, logit: Logits, terms: Sequence[torch.Tensor]) -> None:
        self.batches.append(Seen(rows, logit, terms))


def _known(name: str) -> type[Method]:
    if name not in METHODS:
        raise ConfigError(
            f"novelty method '{name}': is unknown.{nearest(name, METHODS)} "
            f"Known are {', '.join(METHODS)}."
        )
    return METHODS[name]
