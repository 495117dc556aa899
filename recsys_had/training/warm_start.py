"""Begins a training with the weights of an earlier run whose vocabulary was another.

A row of a table goes with its value, whatever id the value has now. Rows of new values begin as
they would have, and so does everything the earlier run has not, or has of another shape.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import nn

from recsys_had.data.encoder_files import load_encoder
from recsys_had.data.folder import DataFolder
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_of_weight, is_field_table, table_of_weight
from recsys_had.run_folder import RunFolder
from recsys_had.training.pieces import carry_rows, local_pieces


def warm_start(
    run: RunFolder, *, data: DataFolder, sharded: nn.Module, model: CTRModel
) -> dict[str, Any]:
    """Writes an earlier run's weights into this rank's pieces.

    Args:
        run: the earlier run.
        data: the rows to train on, whose vocabularies may have grown.
        sharded: the model spread over the ranks.
        model: the same model, for names and widths.

    Returns:
        ``tables``: for each, how many rows were ``kept``, are ``new``, and are ``gone``;
        ``fresh``: names of what begins anew.
    """
    new, old = load_encoder(data.path), load_encoder(run.encoder_path)
    tables: dict[str, dict[str, int]] = {}
    fresh = []
    carried: dict[str, NDArray[np.int64]] = {}
    with safe_open(run.path / "weights.safetensors", framework="pt") as saved, torch.no_grad():
        held = set(saved.keys())
        for name, shape in _wanted(sharded, model):
            before = list(saved.get_slice(name).get_shape()) if name in held else None
            if is_field_table(name):
                field = field_of_weight(name)
                if before is None or before[1:] != shape[1:]:
                    fresh.append(name)
                    continue
                if field not in carried:
                    carried[field] = new.carried_ids(field, old)
                kept = int((carried[field] >= 0).sum())
                if kept and field in model.embeddings.managed_fields:
                    # Of the rows of one that are as many, those that a value has; and row 0.
                    table = name.split(".", 4)[4].removesuffix(".weight")
                    keys = saved.get_tensor(f"embeddings.managed.{table}.keys")
                    kept = 1 + int((keys > 0).sum())
                tables[table_of_weight(name)] = {
                    "kept": kept,
                    "new": len(carried[field]) - kept,
                    "gone": before[0] - kept,
                }
            elif before != shape or _of_other_columns(name, data, run):
                # Of other fields, or another order, a network's columns would mean something else.
                fresh.append(name)
        for piece in local_pieces(sharded):
            if piece.name in fresh:
                continue
            source = saved.get_tensor(piece.name)
            if is_field_table(piece.name):
                width = model.table_width(piece.name)
                carry_rows(piece, source, carried[field_of_weight(piece.name)], width)
            else:
                piece.tensor.copy_(source)
    for rows in model.embeddings.managed_fields.values():
        rows.count_anew()
    return {"tables": tables, "fresh": fresh}


def _wanted(sharded: nn.Module, model: CTRModel) -> Iterator[tuple[str, list[int]]]:
    """Every weight and its whole shape, padding left out."""
    for name, value in sharded.state_dict().items():
        shape = list(value.size())
        if is_field_table(name):
            shape[1] = model.table_width(name)
        yield name, shape


def _of_other_columns(name: str, data: DataFolder, run: RunFolder) -> bool:
    """Whether a weight belongs to fields or numeric columns that are not those of before."""
    if name.startswith("embeddings.managed."):
        # It goes with its table, whose rows are carried where there are as many.
        return False
    dense = list(data.card.dense) == list(run.card.dense)
    fields = [field.name for field in data.card.fields] == [f.name for f in run.card.fields]
    vectors = data.card.vectors == run.card.vectors
    if name.startswith("embeddings.numeric"):
        return not dense
    return not (dense and fields and vectors) and name != "graph.bias"
