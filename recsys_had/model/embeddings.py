"""From a card's fields to their tables, and from a batch to embedded fields.

Letters: B batch, F fields (categorical, then dense), D embedding_dim.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from recsys_had.batch import Bags, Batch
from recsys_had.errors import ConfigError
from recsys_had.model.managed import ManagedRows
from recsys_had.model.numeric import NumericFields
from recsys_had.model.plain_tables import PLAIN
from recsys_had.model.tables import FieldSpec, TableBackend, field_of, table_name
from recsys_had.schema import DatasetCard


def field_of_weight(name: str) -> str:
    """The field of a table's weight.

    >>> field_of_weight("embeddings.tables.fields.embedding_bags.user.weight")
    'user'
    """
    return field_of(name.split(".", 4)[4].removesuffix(".weight"))


def table_of_weight(name: str) -> str:
    """The table of a weight as users name it, SET.FIELD.

    >>> table_of_weight("embeddings.tables.linear.embedding_bags.user.weight")
    'linear.user'
    """
    return f"{name.split('.')[2]}.{field_of_weight(name)}"


def is_field_table(weight_name: str) -> bool:
    """Whether a weight of a model is the rows of a categorical field.

    >>> is_field_table("embeddings.tables.fields.embedding_bags.user.weight")
    True
    >>> is_field_table("graph.layers.tables.lin_1.weight")
    False
    """
    return weight_name.startswith("embeddings.tables.")


def is_table(weight_name: str) -> bool:
    """Whether a weight of a model is a set's rows: of fields, or the vectors of numeric columns.

    >>> is_table("embeddings.numeric.fields"), is_table("graph.bias")
    (True, False)
    """
    return is_field_table(weight_name) or weight_name.startswith("embeddings.numeric.")


class FieldEmbeddings(nn.Module):
    """Looks up every field, once for each set of tables the model holds.

    A categorical field is a table, looked up in one of two ways (``backend``): one bag of length 1,
    or the mean of several values. A dense input ``x`` is embedded as ``x * v`` with a learned
    vector ``v`` of its own, the treatment of real-valued features in factorization machines. In
    the shared set, and there alone, a dense input may be embedded otherwise (``numeric``).

    Shape: batch -> for each set ``(B, F, width)``, categorical fields first.
    Paper: Rendle 2010, Factorization Machines, eq. 1 (real-valued features).
    Differs from the paper: nothing.

    Args:
        fields: the categorical fields.
        dense: names of the dense inputs.
        widths: width of each set of tables; ``fields`` is the shared one.
        chosen: fields of the sets that do not hold all of them, categorical or dense, in order.
        numeric: makes the shared set's fields of the dense inputs; None scales each of them.
        tables_on: device of the tables.
        table_type: of the tables' numbers; what is looked up is float32.
        backend: whose tables: plain torch's, or TorchRec's, which can be trained on many machines.
        width_keys: what sets the width of a set, as errors shall name it; ``model.embedding_dim``
            for those that are not named.

    >>> from recsys_had.batch import EncodedRows
    >>> from recsys_had.layout import Layout
    >>> import numpy as np
    >>> tables = FieldEmbeddings(fields=[FieldSpec("C1", 5)], dense=["price"], widths={"fields": 4})
    >>> layout = Layout(("C1",), dense=("price",))
    >>> rows = EncodedRows(layout, np.arange(2), None, np.ones((2, 1), np.int32), {},
    ...                    np.ones((2, 1), np.float32))
    >>> tables(rows.to_batch())["fields"].shape
    torch.Size([2, 2, 4])
    """

    def __init__(
        self,
        *,
        fields: Sequence[FieldSpec],
        dense: Sequence[str],
        widths: Mapping[str, int],
        chosen: Mapping[str, Sequence[str]] | None = None,
        numeric: NumericFields | None = None,
        tables_on: str = "cpu",
        table_type: torch.dtype = torch.float32,
        backend: TableBackend = PLAIN,
        width_keys: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._backend = backend
        self.fields = tuple(fields)
        self.dense = tuple(dense)
        self.widths = dict(widths)
        self._chosen = {name: tuple(members) for name, members in (chosen or {}).items()}
        self.tables = nn.ModuleDict()
        self.managed = nn.ModuleDict(
            {
                table_name(field.name): ManagedRows(
                    field.num_embeddings - 1, admit_after=field.admit_after
                )
                for field in fields
                if field.admit_after is not None
            }
        )
        self.numeric = nn.ParameterDict()
        for name, width in self.widths.items():
            if held := self._categorical(name):
                key = (width_keys or {}).get(name, "model.embedding_dim")
                self.tables[name] = self._made(held, width, tables_on, table_type, key)
        if numeric is None and "fields" in self.widths:
            numeric = NumericFields(dense=dense, config=None, embedding_dim=widths["fields"])
        self.numeric_fields = numeric
        if "fields" in self.widths and not self.num_fields:
            raise ConfigError(
                "model.numeric: leaves the model without a field. Give a column another kind "
                "than none."
            )
        for name, width in self.widths.items():
            if places := self.scaled(name):
                self.numeric[name] = nn.Parameter(torch.zeros(len(places), width))

    @property
    def num_fields(self) -> int:
        """F of the shared set, categorical and dense together."""
        return self.num_fields_of("fields")

    def num_fields_of(self, name: str) -> int:
        """F of a set of tables; only the shared one may make other fields of the dense inputs."""
        return len(self._categorical(name)) + self._num_numeric(name)

    @property
    def field_names(self) -> tuple[str, ...]:
        """Names of the shared set's fields, in order; of inputs joined into one, with a +."""
        made = self.dense if self.numeric_fields is None else self.numeric_fields.field_names
        return (*(field.name for field in self.fields), *made)

    def names_of(self, name: str) -> tuple[str, ...]:
        """Names of a set's fields, in order."""
        if name == "fields":
            return self.field_names
        scaled = (self.dense[place] for place in self.scaled(name))
        return (*(field.name for field in self._categorical(name)), *scaled)

    def categorical_names_of(self, name: str) -> tuple[str, ...]:
        """Names of a set's categorical fields, which come first, in order."""
        return tuple(field.name for field in self._categorical(name))

    def scaled(self, name: str) -> tuple[int, ...]:
        """Places, among the dense inputs, of those a set embeds as ``x * v``."""
        if name == "fields" and self.numeric_fields is not None:
            return self.numeric_fields.scaled
        held = self._chosen.get(name, self.dense)
        return tuple(self.dense.index(member) for member in held if member in self.dense)

    @property
    def flops_per_row(self) -> int:
        """Multiplications and additions of a row; lookups are free."""
        first_order = sum(
            len(self.scaled(name)) * width
            for name, width in self.widths.items()
            if name != "fields"
        )
        made = [] if self.numeric_fields is None else self.numeric_fields.summaries()
        return first_order + sum(group.flops_per_row for group in made)

    def _categorical(self, name: str) -> list[FieldSpec]:
        """A set's categorical fields, in order."""
        if name not in self._chosen:
            return list(self.fields)
        named = {field.name: field for field in self.fields}
        return [named[member] for member in self._chosen[name] if member in named]

    def _made(
        self,
        fields: Sequence[FieldSpec],
        width: int,
        device: str,
        table_type: torch.dtype,
        width_key: str,
    ) -> nn.Module:
        """The tables of one width.

        Raises:
            ConfigError: they do not fit into memory.
        """
        rows = sum(field.num_embeddings for field in fields)
        size_bytes = rows * self._backend.stored_width(width) * table_type.itemsize
        largest = max(fields, key=lambda field: field.num_embeddings)
        too_large = ConfigError(
            f"{width_key}: {rows:,} rows of width {width} take {size_bytes / 2**30:,.1f} GiB, more "
            f"than there is; the largest table is {largest.name} with "
            f"{largest.num_embeddings:,} rows. Lower the width, or raise min_count in the dataset "
            "card."
        )
        if size_bytes >= 2**63:
            raise too_large  # more than torch can count
        try:
            return self._backend.make(fields, width=width, device=device, table_type=table_type)
        except RuntimeError as cause:
            if "allocate memory" not in str(cause):
                raise
            raise too_large from cause

    def _num_numeric(self, name: str) -> int:
        if name == "fields" and self.numeric_fields is not None:
            return self.numeric_fields.num_fields
        return len(self.scaled(name))

    @property
    def managed_fields(self) -> dict[str, ManagedRows]:
        """Which value has which row, by field, where training decides it."""
        return {field_of(name): rows for name, rows in self.managed.items()}  # type: ignore[misc]

    def replace_tables(
        self,
        backend: TableBackend,
        replaced: Callable[[str, nn.Module, Sequence[FieldSpec], int], nn.Module],
    ) -> None:
        """Replaces the tables, set after set, by those of another backend.

        Args:
            backend: whose they are from now on.
            replaced: makes a set's of its name, its tables, their fields and their width.
        """
        for name in self.tables:
            held = self._categorical(name)
            self.tables[name] = replaced(name, self.tables[name], held, self.widths[name])
        self._backend = backend

    def rows_of(self, ids: Bags) -> Bags:
        """The rows of a batch's ids, which are the ids themselves but of managed fields."""
        if not self.managed:
            return ids
        values = ids.values().clone()
        ends = ids.offset_per_key()
        for field, rows in self.managed_fields.items():
            place = ids.keys().index(field)
            held = slice(ends[place], ends[place + 1])
            values[held] = rows(values[held])
        return ids.with_values(values)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Embeds a batch: for each set of tables ``(B, F, width)``."""
        return self.embed(batch.dense, self.look_up(batch))

    def look_up(self, batch: Batch) -> dict[str, Tensor]:
        """The rows of the categorical fields, ``(B, F, width)``, for each set that has any."""
        rows = self._backend.prepared(self.rows_of(batch.sparse))
        num_rows = batch.dense.shape[0]
        return {
            name: self._backend.look_up(
                self.tables[name], held, rows, num_rows=num_rows, width=width
            )
            for name, width in self.widths.items()
            if (held := self._categorical(name))
        }

    def embed(self, dense: Tensor, looked_up: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sets as the graph reads them: the dense inputs' fields after what was looked up."""
        return {name: self._embed(name, dense, looked_up.get(name)) for name in self.widths}

    def _embed(self, name: str, dense: Tensor, looked_up: Tensor | None) -> Tensor:
        parts = [] if looked_up is None else [looked_up]
        if name == "fields" and self.numeric_fields is not None and self._num_numeric(name):
            parts.append(self.numeric_fields(dense, self.numeric.get(name)))
        elif name != "fields" and (scaled := self.scaled(name)):
            dense_BN = dense[:, list(scaled)] if name in self._chosen else dense
            parts.append(dense_BN.unsqueeze(-1) * self.numeric[name])
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def field_specs(card: DatasetCard, num_embeddings: Mapping[str, int]) -> list[FieldSpec]:
    """The tables of a card's fields, with the sizes an encoder found."""
    return [
        FieldSpec(
            field.name,
            num_embeddings[field.name],
            field.is_multi,
            None if field.managed is None else field.managed.admit_after,
        )
        for field in card.fields
    ]
