"""From a run folder to what explains its scores."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys_had.data.folder import DataFolder, layout_of
from recsys_had.data.parquet import Position
from recsys_had.errors import ConfigError
from recsys_had.explanation.baseline import Baseline, mean_of_rows, mean_of_vocabularies, unseen
from recsys_had.explanation.effects import Explainer
from recsys_had.explanation.row_columns import ExplanationColumn
from recsys_had.scoring import BatchPredictor
from recsys_had.scoring.splits import split_reader
from recsys_had.suggest import nearest

# The file a run keeps its mean row in.
MEAN_ROW = "mean_row"
BASELINES = ("mean", "unseen")
# Fields of a row that form pairs where a pair costs evaluations: 66 pairs of 12, 741 of 39.
_COMPARED = 12


def explainer_of_run(predictor: BatchPredictor, baseline: str = "mean") -> Explainer:
    """What explains single rows, by the run folder alone.

    Args:
        predictor: the run.
        baseline: ``mean``: the mean row the run was given by ``recsys-had interactions``, or else
            that of its vocabularies; ``unseen``: a row of values that were never seen.

    Raises:
        ConfigError: the model has a single field, or there is no such baseline.
    """
    return Explainer(predictor.model, _baseline(predictor, baseline), compared=_COMPARED)


@dataclass(frozen=True)
class MakeExplanation:
    """Makes the column ``explanation`` of a run's scores; can be sent to another process.

    Args:
        top: fields and pairs that are listed for a row.
        baseline: what rows are compared with; see :func:`explainer_of_run`.
    """

    top: int
    baseline: str = "mean"

    def __call__(self, predictor: BatchPredictor) -> ExplanationColumn:
        """What makes the column.

        Raises:
            ConfigError: ``top`` is below 1, the model has a single field, or there is no such
                baseline.
        """
        return ExplanationColumn(explainer_of_run(predictor, self.baseline), top=self.top)


def _baseline(predictor: BatchPredictor, kind: str) -> Baseline:
    layout = layout_of(predictor.run.card)
    if kind not in BASELINES:
        raise ConfigError(
            f"baseline '{kind}': is unknown.{nearest(kind, BASELINES)} Known are "
            f"{' and '.join(BASELINES)}."
        )
    if kind == "unseen":
        return unseen(predictor.model, layout)
    text = predictor.run.addition(MEAN_ROW)
    if text is not None:
        return Baseline.from_json(text)
    return mean_of_vocabularies(predictor.model, predictor.encoder, layout)


def look_at_split(
    predictor: BatchPredictor, data: DataFolder, split: str, *, num_rows: int
) -> tuple[Baseline, dict[str, Tensor]]:
    """The mean row of a split, and what the model reads of some of its rows, evenly spaced.

    Args:
        predictor: the run.
        data: encoded rows.
        split: of them.
        num_rows: as many are taken, or all if there are fewer.

    Raises:
        SchemaError: the data was made with another card.
        DataError: it was encoded with another vocabulary, or has no such split.
    """
    reader = split_reader(predictor, data, split)
    count = min(num_rows, reader.num_rows)
    wanted = np.arange(count) * reader.num_rows // count
    taken: list[dict[str, Tensor]] = []

    def batches() -> Iterator[dict[str, Tensor]]:
        first = 0
        for step in reader.steps(Position(0, 0)):
            with torch.no_grad():
                sources = predictor.model.sources(step.batch)
            last = first + step.global_rows
            some = torch.from_numpy(wanted[(wanted >= first) & (wanted < last)] - first)
            taken.append({name: x[some] for name, x in sources.items()})
            first = last
            yield sources

    baseline = mean_of_rows(batches())
    return baseline, {name: torch.cat([some[name] for some in taken]) for name in taken[0]}
