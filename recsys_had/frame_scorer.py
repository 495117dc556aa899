"""FrameScorer: a run as MLflow calls its models, with a pandas frame and parameters."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from recsys_had.extra_columns import extra_columns
from recsys_had.scoring import BatchPredictor, RowColumns, score_table


class FrameScorer:
    """Scores frames of raw rows with a run.

    Args:
        run: the run folder.

    Raises:
        CheckpointError: a file of the run is missing, changed or does not fit.
    """

    def __init__(self, run: Path | str) -> None:
        self._predictor = BatchPredictor.load(run)
        self._made = lru_cache(self._make)

    def __call__(self, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
        """The frame's scores, in its order: ``score`` and the columns that are asked for.

        Args:
            frame: raw rows.
            params: ``explain``, ``baseline`` and ``novelty`` as ``recsys-had predict`` has them; 0
                and the empty text ask for nothing.

        Raises:
            ConfigError: a parameter is none of those it may be.
            DataError: a column is missing or holds what its kind does not allow.
        """
        extras = self._made(
            explain=params.get("explain") or None,
            baseline=params.get("baseline", "mean"),
            novelty=params.get("novelty") or None,
        )
        table = score_table(self._predictor, frame, extras)
        scored: pd.DataFrame = table.select(["score"]).to_pandas()
        for name in table.column_names[1:]:
            # Lists and dicts, which MLflow's server writes as JSON; pandas would have arrays.
            scored[name] = table[name].to_pylist()
        return scored

    def _make(self, **asked: Any) -> list[RowColumns]:
        return [make(self._predictor) for make in extra_columns(**asked)]
