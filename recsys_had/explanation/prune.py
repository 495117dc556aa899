"""From a run folder to another one without the weakest pairs, and what that costs and saves."""

import statistics
import time
from collections.abc import Sequence
from itertools import combinations, islice
from typing import Any

import torch

from recsys_had.batch import Batch
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position
from recsys_had.errors import ConfigError
from recsys_had.explanation.pruning import PrunedGraph, pruned_graph, pruned_weights
from recsys_had.explanation.strength import Strength
from recsys_had.interactions.algebra import Pairs
from recsys_had.metrics import evaluate_rows
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_specs
from recsys_had.output import OutputFolder
from recsys_had.run_folder import write_run_folder
from recsys_had.scoring import BatchPredictor
from recsys_had.scoring.splits import score_split, split_reader
from recsys_had.storage import AnyPath

# Batches a pass over which is timed, and how often, the two models in turn.
_BATCHES, _PASSES = 4, 9


def strongest(predictor: BatchPredictor, pairs: Sequence[Strength], count: int) -> Pairs:
    """The strongest pairs of the shared fields, by their places, in order.

    Args:
        predictor: the run.
        pairs: strengths, the strongest first.
        count: pairs to keep.

    Raises:
        ConfigError: there are not more than that, so none would be left out.
    """
    place = {name: number for number, name in enumerate(predictor.model.embeddings.field_names)}
    known = [
        (min(place[a], place[b]), max(place[a], place[b]))
        for a, b in (pair.fields for pair in pairs)
        if a in place and b in place
    ]
    if not 1 <= count < len(known):
        raise ConfigError(
            f"prune: must keep 1 to {len(known) - 1} of {len(known)} pairs; got {count}."
        )
    return tuple(sorted(known[:count]))


def write_pruned(
    predictor: BatchPredictor, data: DataFolder, out: AnyPath, keep: Pairs, *, overwrite: bool
) -> PrunedGraph:
    """Writes the run without the other pairs.

    Args:
        predictor: the run.
        data: a data folder of its card and vocabulary, whose encoder is copied.
        out: folder of the smaller run.
        keep: pairs of the shared fields, by their places.
        overwrite: replace what ``out`` holds.

    Raises:
        ConfigError: the model has no pairs that can be left out.
        DataError: the folder cannot be written.
    """
    run, model = predictor.run, predictor.model
    graph = pruned_graph(run.experiment.model, keep)
    smaller = CTRModel(
        fields=field_specs(run.card, predictor.encoder.num_embeddings),
        dense=run.card.dense,
        config=graph.config,
        vectors=run.card.vectors,
    )
    names = model.embeddings.field_names
    facts: dict[str, Any] = {
        name: run.manifest[name]
        for name in ("experiment", "steps", "epochs", "world_size", "sampling")
        if name in run.manifest
    }
    pruned = {
        "run_digest": run.manifest["digest"],
        "nodes": list(graph.nodes),
        "pairs": len(list(combinations(names, 2))),
        "kept": [[names[i], names[j]] for i, j in keep],
    }
    with OutputFolder(out, marker="manifest.json", overwrite=overwrite) as folder:
        write_run_folder(
            folder.stage,
            experiment=run.experiment.model_copy(update={"model": graph.config}),
            data=data,
            state=pruned_weights(model.export_state(), model, smaller, keep),
            metrics={"valid": None, "test": None, "history": []},
            facts={**facts, "mlflow_run_id": None, "pruned": pruned},
        )
        folder.publish()
    return graph


def quality(predictor: BatchPredictor, data: DataFolder, split: str) -> dict[str, Any]:
    """Metrics of a run on a split, with its size."""
    label, score = score_split(predictor, data, split)
    return {
        **evaluate_rows(label, score, data.weights(split)),
        "parameters": predictor.model.num_parameters(),
        "flops_per_row": predictor.model.flops_per_row(),
    }


def paces(predictors: Sequence[BatchPredictor], data: DataFolder, split: str) -> list[float]:
    """Rows a second of each run's forward pass over batches in memory, in turn.

    The median of several passes, after one that is not counted.
    """
    reader = split_reader(predictors[0], data, split)
    batches = [step.batch for step in islice(reader.steps(Position(0, 0)), _BATCHES)]
    seconds: list[list[float]] = [[] for _ in predictors]
    for number in range(_PASSES + 1):
        for taken, predictor in zip(seconds, predictors, strict=True):
            begin = time.perf_counter()
            _pass(predictor.model, batches)
            if number:
                taken.append(time.perf_counter() - begin)
    rows = sum(len(batch.label) for batch in batches)
    return [rows / statistics.median(taken) for taken in seconds]


def _pass(model: CTRModel, batches: Sequence[Batch]) -> None:
    with torch.inference_mode():
        for batch in batches:
            model(batch)
