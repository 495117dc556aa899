"""A model over a flat list of tensors, as programs outside of this library call one.

Letters: B batch, F single-valued fields, N dense inputs, V values of a field in all rows together.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recsys_had.batch import Bags, Batch, EncodedRows
from recsys_had.layout import Layout
from recsys_had.model.ctr import CTRModel


@dataclass(frozen=True)
class FlatInput:
    """One tensor of a flat model.

    Args:
        name: what it is called.
        dtype: int64 or float32.
        shape: its axes: a number, or the name of one whose length may differ from call to call.
        columns: what the second axis counts, or the name of the field or vector.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]
    columns: tuple[str, ...]

    def described(self) -> dict[str, object]:
        """As JSON tells it."""
        return {
            "name": self.name,
            "dtype": str(self.dtype).removeprefix("torch."),
            "shape": list(self.shape),
            "columns": list(self.columns),
        }


def flat_inputs(layout: Layout) -> list[FlatInput]:
    """The tensors a model reads, in the order it takes them; those without a column are left out.

    ``ids`` are the single-valued fields as encoded rows hold them, then come ``dense``, a pair of
    ``FIELD.values`` and ``FIELD.lengths`` for each multi-valued field, and the content vectors.

    >>> layout = Layout(("user", "tags"), multi=frozenset({"tags"}), dense=("price",))
    >>> [(tensor.name, tensor.shape) for tensor in flat_inputs(layout)]
    [('ids', ('B', 1)), ('dense', ('B', 1)), ('tags.values', ('tags.V',)), ('tags.lengths', ('B',))]
    """
    found = []
    if single := layout.single:
        found.append(FlatInput("ids", torch.int64, ("B", len(single)), single))
    if dense := layout.dense:
        found.append(FlatInput("dense", torch.float32, ("B", len(dense)), dense))
    for name in layout.fields:
        if name in layout.multi:
            found.append(FlatInput(f"{name}.values", torch.int64, (f"{name}.V",), (name,)))
            found.append(FlatInput(f"{name}.lengths", torch.int64, ("B",), (name,)))
    for name, size in layout.vectors.items():
        found.append(FlatInput(name, torch.float32, ("B", size), (name,)))
    return found


class FlatModel(nn.Module):
    """A whole model, lookups included: flat tensors in, one logit a row out.

    Shape: the tensors of :func:`flat_inputs` -> ``(B,)``.
    Paper: none.
    Differs from the paper: nothing.

    Args:
        model: the model, of plain tables.
        layout: of its rows.
    """

    def __init__(self, model: CTRModel, layout: Layout) -> None:
        super().__init__()
        self.model = model
        self.inputs = flat_inputs(layout)
        for rows in model.embeddings.managed_fields.values():
            # Sorted once, before the program is made, and not again for every batch.
            rows(torch.empty(0, dtype=torch.int64))
        self._layout = layout

    def tensors(self, rows: EncodedRows) -> list[Tensor]:
        """Encoded rows as the inputs."""
        given: dict[str, Tensor] = {
            "ids": torch.from_numpy(rows.ids.astype(np.int64)),
            "dense": torch.from_numpy(rows.dense),
        }
        for name, ragged in rows.lists.items():
            given[f"{name}.values"] = torch.from_numpy(ragged.values.astype(np.int64))
            given[f"{name}.lengths"] = torch.from_numpy(np.diff(ragged.offsets))
        given |= {name: torch.from_numpy(vector) for name, vector in rows.vectors.items()}
        return [given[tensor.name] for tensor in self.inputs]

    def forward(self, *tensors: Tensor) -> Tensor:
        """Computes the logit of every row."""
        named = {given.name: x for given, x in zip(self.inputs, tensors, strict=True)}
        logit: Tensor = self.model(self._batch(named))
        return logit

    def _batch(self, named: Mapping[str, Tensor]) -> Batch:
        first = next(
            x for given, x in zip(self.inputs, named.values(), strict=True) if given.shape[0] == "B"
        )
        rows = first.shape[0]
        none = torch.empty(0)
        return Batch(
            dense=named.get("dense", torch.empty(rows, 0)),
            sparse=self._bags(named, rows),
            label=none,
            row_id=none,
            vectors={name: named[name] for name in self._layout.vectors},
        )

    def _bags(self, named: Mapping[str, Tensor], rows: int) -> Bags:
        single = iter(named["ids"].unbind(1) if "ids" in named else ())
        ones = torch.ones(rows, dtype=torch.int64)
        values, lengths = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
        sizes = []
        for name in self._layout.fields:
            is_multi = name in self._layout.multi
            ids = named[f"{name}.values"] if is_multi else next(single)
            values.append(ids)
            lengths.append(named[f"{name}.lengths"] if is_multi else ones)
            sizes.append(ids.shape[0])
        return Bags(self._layout.fields, torch.cat(values), torch.cat(lengths), sizes=sizes)


class DenseModel(nn.Module):
    """What follows a model's lookups: rows of tables, numbers and vectors in, one logit a row out.

    Its inputs are, for each set of tables, ``SET.rows (B, F, width)``: the looked-up rows of the
    set's categorical fields, of a multi-valued one the mean; then ``dense`` and the vectors.

    Shape: as said -> ``(B,)``.
    Paper: none.
    Differs from the paper: nothing.

    Args:
        model: the model, of plain tables; they are not part of this.
        layout: of its rows.
    """

    def __init__(self, model: CTRModel, layout: Layout) -> None:
        super().__init__()
        # In a tuple, so that tables are no weights of it.
        self._held = (model,)
        # Not `graph`, which torch's own modules of programs keep for themselves.
        self.interactions = model.graph
        self.numeric = model.embeddings.numeric
        self.numeric_fields = model.embeddings.numeric_fields
        self._layout = layout
        self.inputs = [
            FlatInput(f"{name}.rows", torch.float32, ("B", len(fields), width), fields)
            for name, width in model.embeddings.widths.items()
            if (fields := model.embeddings.categorical_names_of(name))
        ]
        self.inputs += [
            given for given in flat_inputs(layout) if given.name in ("dense", *layout.vectors)
        ]

    def tensors(self, rows: EncodedRows) -> list[Tensor]:
        """Encoded rows as the inputs, looked up in the model's tables."""
        batch = rows.to_batch()
        looked_up = self._held[0].embeddings.look_up(batch)
        given = {f"{name}.rows": found for name, found in looked_up.items()}
        given |= {"dense": batch.dense, **batch.vectors}
        return [given[tensor.name] for tensor in self.inputs]

    def forward(self, *tensors: Tensor) -> Tensor:
        """Computes the logit of every row."""
        named = {given.name: x for given, x in zip(self.inputs, tensors, strict=True)}
        vectors = {name: named[name] for name in self._layout.vectors}
        dense = named.get("dense", tensors[0].new_empty(tensors[0].shape[0], 0))
        looked_up = {
            name.removesuffix(".rows"): x for name, x in named.items() if name.endswith(".rows")
        }
        return self._held[0].from_looked_up(dense, looked_up, vectors)
