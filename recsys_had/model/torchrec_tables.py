"""TorchRec's tables: what training spreads over ranks and updates.

Letters: B batch, F fields of a set of tables, D embedding_dim.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import (
    EmbeddingBagConfig,
    PoolingType,
    dtype_to_data_type,
)
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys_had.batch import Bags
from recsys_had.model.tables import FieldSpec, table_name

# FBGEMM's kernels take rows of whole 16-byte groups; wider rows are cut back after the lookup.
_WIDTH_MULTIPLE = 4


def padded_width(embedding_dim: int) -> int:
    """Width of a table in memory.

    >>> padded_width(10), padded_width(16)
    (12, 16)
    """
    return -(-embedding_dim // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE


def keyed_jagged(rows: Bags) -> KeyedJaggedTensor:
    """Bags as TorchRec has them."""
    return KeyedJaggedTensor(keys=rows.keys(), values=rows.values(), lengths=rows.lengths())


class TorchrecBackend:
    """Tables of an ``EmbeddingBagCollection``, one for each set.

    See :class:`recsys_had.model.tables.TableBackend`.
    """

    def stored_width(self, width: int) -> int:
        """Whole groups of columns."""
        return padded_width(width)

    def make(
        self, fields: Sequence[FieldSpec], *, width: int, device: str, table_type: torch.dtype
    ) -> nn.Module:
        """The collection, filled by TorchRec."""
        made: nn.Module = EmbeddingBagCollection(
            tables=[_table(field, width, table_type) for field in fields],
            device=torch.device(device),
        )
        return made

    def prepared(self, rows: Bags) -> KeyedJaggedTensor:
        """As TorchRec has them."""
        return keyed_jagged(rows)

    def look_up(
        self,
        tables: nn.Module,
        fields: Sequence[FieldSpec],
        rows: KeyedJaggedTensor,
        *,
        num_rows: int,
        width: int,
    ) -> Tensor:
        """Looks up all fields at once, ``(B, F, width)``, wherever their tables lie."""
        pooled = tables(rows)
        rows_BFD = pooled.values().view(-1, len(fields), padded_width(width))
        rows_BFD = _in_order([field.name for field in fields], pooled.keys(), rows_BFD)
        return rows_BFD[:num_rows, :, :width]


TORCHREC = TorchrecBackend()


def _in_order(wanted: list[str], found: Sequence[str], rows_BFD: Tensor) -> Tensor:
    """Sharded lookups answer in the order of table placement, not of the card."""
    if list(found) == wanted:
        return rows_BFD
    place = {key: position for position, key in enumerate(found)}
    order = torch.tensor([place[key] for key in wanted], device=rows_BFD.device)
    return rows_BFD.index_select(1, order)


def _table(field: FieldSpec, width: int, table_type: torch.dtype) -> EmbeddingBagConfig:
    return EmbeddingBagConfig(
        name=table_name(field.name),
        feature_names=[field.name],
        num_embeddings=field.num_embeddings,
        embedding_dim=padded_width(width),
        pooling=PoolingType.MEAN if field.is_multi else PoolingType.SUM,
        data_type=dtype_to_data_type(table_type),
    )
