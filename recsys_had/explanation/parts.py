"""What a model reads of a row, field by field, and rows put together of some fields of another.

Letters: B rows, M masks, F fields (categorical, numeric, content vectors), T tokens, C channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_had import numeric
from recsys_had.model.ctr import CTRModel

Sources = Mapping[str, Tensor]


@dataclass(frozen=True)
class RowParts:
    """The fields of a model, and which part of each source is theirs.

    A field is a categorical column, of one value or several, a numeric column or a content vector.
    Numeric columns that the model joins into one field are one here too, named with a ``+``. All
    that is made of a field, in whatever set of tables, is one part of it.

    Args:
        names: the fields, in the card's order.
        places: for each source the number of the field that each of its tokens is of, ``(T,)``; of
            ``dense`` that of each column; of a content vector one number.
    """

    names: tuple[str, ...]
    places: dict[str, Tensor]

    @classmethod
    def of(cls, model: CTRModel) -> "RowParts":
        """The fields of a model."""
        embeddings, read = model.embeddings, model.graph.sources_read()
        made = embeddings.numeric_fields
        joined = {
            column: "+".join(group.columns)
            for group in ([] if made is None else made.summaries())
            if numeric.tokens(group.kind) == "joint"
            for column in group.columns
        }
        tokens = {name: embeddings.names_of(name) for name in embeddings.widths}
        if "dense" in read:
            tokens["dense"] = embeddings.dense
        tokens |= {name: (name,) for name in model.vectors if name in read}
        parts = {
            source: [joined.get(name, name) for name in names] for source, names in tokens.items()
        }
        found = {name for names in parts.values() for name in names}
        columns = [*(field.name for field in embeddings.fields), *embeddings.dense, *model.vectors]
        ordered = dict.fromkeys(joined.get(name, name) for name in columns)
        names = tuple(name for name in ordered if name in found)
        number = {name: place for place, name in enumerate(names)}
        return cls(
            names, {s: torch.tensor([number[name] for name in part]) for s, part in parts.items()}
        )

    @property
    def num_fields(self) -> int:
        """F."""
        return len(self.names)

    def mixed(self, row: Sources, other: Sources, mask_MBF: Tensor) -> dict[str, Tensor]:
        """Rows that have some fields of one row and the rest of another.

        Args:
            row: sources ``(B, T, C)`` or ``(B, N)``.
            other: the same of one row, ``(1, T, C)`` or ``(1, N)``.
            mask_MBF: where the first one's fields are taken.

        Returns:
            Sources of ``M * B`` rows.
        """
        found = {}
        for name, place in self.places.items():
            mask = mask_MBF[:, :, place]
            mask = mask.unsqueeze(-1) if row[name].dim() == 3 else mask
            found[name] = torch.where(mask, row[name], other[name]).flatten(0, 1)
        return found

    def by_field(self, numbers: Sources) -> Tensor:
        """Sums of what belongs to each field, ``(B, F)``.

        Args:
            numbers: one for each number of the sources.
        """
        total: Tensor | None = None
        for name, place in self.places.items():
            x = numbers[name]
            x = x.sum(dim=2) if x.dim() == 3 else x
            if len(place) == 1:
                x = x.sum(dim=1, keepdim=True)
            total = x.new_zeros(len(x), self.num_fields) if total is None else total
            total = total.index_add(1, place, x)
        assert total is not None, "a model reads something"
        return total
