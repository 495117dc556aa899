"""What a model asks of its tables, whoever makes them and looks rows up in them.

Letters: B batch, F fields of a set of tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from recsys_had.batch import Bags

# Before the name of a field that a container of modules keeps for itself.
_TAKEN = "field "


@dataclass(frozen=True)
class FieldSpec:
    """One categorical field's table.

    Args:
        name: the field.
        num_embeddings: rows of the table, id 0 (missing or unseen) included.
        is_multi: whether a row holds several values, pooled by their mean.
        admit_after: of a managed field, how often a value must be seen to get a row; else None.
    """

    name: str
    num_embeddings: int
    is_multi: bool = False
    admit_after: int | None = None


class TableBackend(Protocol):
    """Makes the tables of a set, and looks up the rows of a batch.

    A set of tables is a module whose weights are named ``embedding_bags.TABLE.weight``, so that
    weights saved with one backend are read with another.
    """

    def stored_width(self, width: int) -> int:
        """Columns of a table in memory; those beyond ``width`` are padding."""

    def make(
        self, fields: Sequence[FieldSpec], *, width: int, device: str, table_type: torch.dtype
    ) -> nn.Module:
        """The tables of some fields, all of one width, not yet filled with anything that counts."""

    def prepared(self, rows: Bags) -> Any:
        """Rows of the tables as :meth:`look_up` wants them; done once for all sets of tables."""

    def look_up(
        self,
        tables: nn.Module,
        fields: Sequence[FieldSpec],
        rows: Any,
        *,
        num_rows: int,
        width: int,
    ) -> Tensor:
        """The first B = ``num_rows`` rows, ``(B, F, width)``, the fields in the given order."""


@cache
def table_name(field: str) -> str:
    """What a field's table is called: tables are modules, and torch keeps some names for itself.

    >>> table_name("user"), table_name("type")
    ('user', 'field type')
    """
    return f"{_TAKEN}{field}" if hasattr(nn.ModuleDict(), field) else field


def field_of(table: str) -> str:
    """The field a table is of, whose name is the table's unless torch keeps that for itself.

    >>> field_of("user"), field_of("field type")
    ('user', 'type')
    """
    return table.removeprefix(_TAKEN)
