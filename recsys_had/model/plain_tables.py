"""Tables in plain torch: what scoring looks rows up in, wherever torch runs.

Letters: B batch, F fields of a set of tables, V values of a field.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys_had.batch import Bags
from recsys_had.model.tables import FieldSpec, table_name


class PlainTable(nn.Module):
    """One table; its rows are filled by the model that holds it."""

    def __init__(
        self, num_embeddings: int, width: int, *, device: str, table_type: torch.dtype
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.empty(num_embeddings, width, device=device, dtype=table_type)
        )


class PlainTables(nn.Module):
    """The tables of some fields, under the names that TorchRec's collection gives them."""

    def __init__(
        self, fields: Sequence[FieldSpec], *, width: int, device: str, table_type: torch.dtype
    ) -> None:
        super().__init__()
        self.embedding_bags = nn.ModuleDict(
            {
                table_name(field.name): PlainTable(
                    field.num_embeddings, width, device=device, table_type=table_type
                )
                for field in fields
            }
        )

    def weight(self, field: str) -> Tensor:
        """The rows of a field."""
        table = self.embedding_bags[table_name(field)]
        assert isinstance(table, PlainTable)
        return table.weight


class PlainBackend:
    """Looks up with torch's own operations, of tables without padding.

    The very operation that TorchRec's unsharded tables come down to, so the rows are the same to
    the bit. See :class:`recsys_had.model.tables.TableBackend`.
    """

    def stored_width(self, width: int) -> int:
        """Tables are as wide as they are said to be."""
        return width

    def make(
        self, fields: Sequence[FieldSpec], *, width: int, device: str, table_type: torch.dtype
    ) -> nn.Module:
        """The tables, not filled."""
        return PlainTables(fields, width=width, device=device, table_type=table_type)

    def prepared(self, rows: Bags) -> Bags:
        """The rows as they are."""
        return rows

    def look_up(
        self,
        tables: nn.Module,
        fields: Sequence[FieldSpec],
        rows: Bags,
        *,
        num_rows: int,
        width: int,
    ) -> Tensor:
        """Looks up field by field, ``(B, F, width)``."""
        assert isinstance(tables, PlainTables)
        each = torch.arange(num_rows, device=rows.values().device)
        found = []
        for field in fields:
            weight, bags = tables.weight(field.name), rows[field.name]
            if field.is_multi:
                found.append(_mean(weight, bags.values(), bags.lengths()[:num_rows]))
            else:
                # One value in each row, and none in rows beyond the batch's own.
                found.append(_single(weight, bags.values(), each))
        return torch.cat(found, dim=1).view(num_rows, len(found), width)


PLAIN = PlainBackend()


def _single(weight: Tensor, ids_B: Tensor, each: Tensor) -> Tensor:
    if torch.compiler.is_exporting():
        # What other programs know.
        return functional.embedding(ids_B, weight)
    # Bags of one: with 39 fields of 16 columns it takes 0.6 of the time of 39 gathers.
    return functional.embedding_bag(ids_B, weight, each, mode="sum")


def _mean(weight: Tensor, ids_V: Tensor, lengths_B: Tensor) -> Tensor:
    ends = lengths_B.cumsum(0)
    if torch.compiler.is_exporting():
        # The row of a value is the number of bags that end before it.
        none = ids_V.new_zeros(ids_V.shape[0] + 1)
        row_V = none.scatter_add(0, ends, torch.ones_like(ends)).cumsum(0)[:-1]
        sums = weight.new_zeros(lengths_B.shape[0], weight.shape[1])
        sums = sums.index_add(0, row_V, functional.embedding(ids_V, weight))
        return sums / lengths_B.clamp(min=1).unsqueeze(1)
    return functional.embedding_bag(ids_V, weight, ends - lengths_B, mode="mean")
