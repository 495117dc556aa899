"""Tables in plain torch: what scoring looks rows up in, wherever torch runs.

Letters: B batch, F fields of a set of tables, V values of a field.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
        self._joint: tuple[tuple[int, ...], JointTable | None] | None = None

    def weight(self, field: str) -> Tensor:
        """The rows of a field."""
        table = self.embedding_bags[table_name(field)]
        assert isinstance(table, PlainTable)
        return table.weight

    def joint(self, fields: Sequence[FieldSpec]) -> "JointTable | None":
        """The rows of several fields as one table, None where they do not lie in one storage.

        They do where they are the pages of one file (:mod:`recsys_had.mapped_tensors`).
        """
        weights = [self.weight(field.name) for field in fields]
        key = tuple(weight.data_ptr() for weight in weights)
        if self._joint is None or self._joint[0] != key:
            self._joint = (key, joint_table(weights))
        return self._joint[1]


@dataclass(frozen=True)
class JointTable:
    """Tables that lie in one storage, as one table over the whole stretch of it.

    Args:
        rows: the stretch, cut into rows.
        firsts: row of each table's row 0, ``(F, 1)``.
        sizes: rows of each table, ``(F,)``.
    """

    rows: Tensor
    firsts: Tensor
    sizes: Tensor

    def look_up(self, ids_FB: Tensor) -> Tensor:
        """Looks up a value of each table for each row, ``(B, F, width)``.

        Raises:
            IndexError: an id is none of its table's.
        """
        require_ids(ids_FB, self.sizes)
        places = (ids_FB + self.firsts).T.reshape(-1)
        each = torch.arange(len(places))
        found = functional.embedding_bag(places, self.rows, each, mode="sum")
        return found.view(ids_FB.shape[1], ids_FB.shape[0], -1)


def require_ids(ids_FB: Tensor, sizes_F: Tensor) -> None:
    """Refuses ids that, of tables which lie one after the other, would be rows of another.

    Args:
        ids_FB: a table's in each row; one column at least.
        sizes_F: rows of each table.

    Raises:
        IndexError: an id is none of its table's.
    """
    least, most = torch.aminmax(ids_FB, dim=1)
    if bool(((least < 0) | (most >= sizes_F)).any()):
        raise IndexError("ids: must be those of their tables.")


def joint_table(weights: Sequence[Tensor]) -> JointTable | None:
    """Tables as one, where they lie in one storage as far apart as a number of rows.

    >>> both = torch.arange(10.0).view(5, 2)
    >>> joint = joint_table([both[3:], both[:2]])
    >>> joint.look_up(torch.tensor([[1], [0]])).tolist()
    [[[8.0, 9.0], [0.0, 1.0]]]
    >>> joint_table([torch.zeros(3, 2), torch.zeros(3, 2)]) is None
    True
    """
    first, width = weights[0], weights[0].shape[1]
    storage = first.untyped_storage()
    begin = min(weight.storage_offset() for weight in weights)
    if first.device.type != "cpu" or not all(
        weight.untyped_storage().data_ptr() == storage.data_ptr()
        and weight.dtype == first.dtype
        and weight.is_contiguous()
        and (weight.storage_offset() - begin) % width == 0
        for weight in weights
    ):
        return None
    firsts = [(weight.storage_offset() - begin) // width for weight in weights]
    sizes = [len(weight) for weight in weights]
    end = max(place + size for place, size in zip(firsts, sizes, strict=True))
    with torch.inference_mode(mode=False), torch.no_grad():
        rows = first.detach().as_strided((end, width), (width, 1), begin)
        return JointTable(rows, torch.tensor(firsts).unsqueeze(1), torch.tensor(sizes))


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
        if num_rows and (joint := _joint_of(tables, fields)) is not None:
            return joint.look_up(single_values([field.name for field in fields], rows, num_rows))
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


def _joint_of(tables: PlainTables, fields: Sequence[FieldSpec]) -> JointTable | None:
    """The tables as one where every field has one value a row and nothing is learned or traced."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    return None if any(field.is_multi for field in fields) else tables.joint(fields)


def single_values(fields: list[str], rows: Bags, num_rows: int) -> Tensor:
    """The one value of each field and row, ``(F, B)``."""
    if rows.keys() == fields and rows.values().shape[0] == len(fields) * num_rows:
        return rows.values().view(len(fields), num_rows)
    return torch.stack([rows[field].values() for field in fields])


def _single(weight: Tensor, ids_B: Tensor, each: Tensor) -> Tensor:
    if torch.compiler.is_exporting():
        # What other programs know.
        return functional.embedding(ids_B, weight)
    # Bags of one take less time than a gather.
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
