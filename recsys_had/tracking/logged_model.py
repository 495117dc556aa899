"""The model MLflow keeps of a run: raw rows in, scores out."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys_had.columns import source_columns
from recsys_had.schema import DatasetCard
from recsys_had.versions import library_versions

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

# What the logged model's environment needs beside recsys_had itself.
_SERVING_LIBRARIES = ("torch", "polars", "pyarrow", "pandas", "numpy", "pydantic")
# MLflow runs it where the model is loaded.
_SCRIPT = Path(__file__).parents[1] / "scoring_model.py"


def log_scoring_model(uri: str, run_id: str, folder: Path, card: DatasetCard) -> None:
    """Logs a run folder as a pyfunc model of a run.

    Args:
        uri: the store.
        run_id: the run it is logged with.
        folder: the run folder, which is copied.
        card: its card, which gives the model's columns.
    """
    import mlflow

    # It asks for an example and for type hints; the signature says it all. Recorded, because
    # it sets filters of its own.
    with _as_active(uri, run_id), warnings.catch_warnings(record=True):
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(_SCRIPT),
            artifacts={"run": str(folder)},
            signature=model_signature(card),
            pip_requirements=_requirements(),
        )


def model_signature(card: DatasetCard) -> "ModelSignature":
    """Inputs, output and parameters of the logged model.

    Every raw column may be of any type and may be absent: MLflow's typed columns refuse the ints,
    floats with gaps, texts and nulls that frames read from the same raw file come with. What a
    column must hold is checked by the card when a frame is scored.

    The parameters are those of ``recsys-had predict``: ``explain``, the number of effects to list
    in a column ``explanation``, and ``novelty``, the method of a column of that name, ``last`` for
    the one the run was given last; by default neither is made.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    names = [name for name in source_columns(card.columns) if name not in (card.label, card.weight)]
    inputs = Schema([ColSpec(AnyType(), name, required=False) for name in names])
    return ModelSignature(
        inputs=inputs,
        outputs=Schema([ColSpec(DataType.float, "score")]),
        params=ParamSchema(
            [
                ParamSpec("explain", DataType.long, 0),
                ParamSpec("baseline", DataType.string, "mean"),
                ParamSpec("novelty", DataType.string, ""),
            ]
        ),
    )


def register_scoring_model(load: Callable[[str], Callable[[Any, dict[str, Any]], Any]]) -> None:
    """Hands MLflow the model that the script it logs defines.

    Args:
        load: makes, of a run folder's path, a function from a frame of raw rows and the values of
            the model's parameters to a pandas frame of scores.
    """
    import mlflow
    import pandas as pd

    class ScoringModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        """Scores raw rows with the run folder it was logged with."""

        def load_context(self, context: Any) -> None:
            """Loads the run folder."""
            self._score = load(context.artifacts["run"])

        # MLflow warns of any hint but this one, and of none.
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
            """Scores a frame of raw rows; returns a frame with the column ``score``."""
            scored = self._score(model_input, params or {})
            scored.index = model_input.index
            return scored

    mlflow.models.set_model(ScoringModel())


@contextmanager
def _as_active(uri: str, run_id: str) -> Iterator[None]:
    """Makes a run MLflow's active one for a while, as logging a model needs."""
    import mlflow

    before, given = mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run(run_id=run_id):
            yield
    finally:
        mlflow.set_tracking_uri(before)
        # It sets the variable too, by which a later training would take the store for a given one.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if given is not None:
            os.environ["MLFLOW_TRACKING_URI"] = given


def _requirements() -> list[str]:
    """Pinned, so that MLflow asks no index what to write down."""
    found = library_versions()
    names = ["recsys_had", *_SERVING_LIBRARIES]
    return [f"{name}=={found[name].split('+')[0]}" for name in names if name in found]
