"""Tables of 8 bits a number: each row as uint8 with a scale and an offset of its own.

Letters: B batch, F fields of a set of tables, R rows, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys_had.batch import Bags
from recsys_had.errors import ConfigError
from recsys_had.model.embeddings import FieldEmbeddings
from recsys_had.model.plain_tables import (
    PLAIN,
    PlainBackend,
    PlainTables,
    require_ids,
    single_values,
)
from recsys_had.model.tables import FieldSpec, table_name

# A row's scale and offset, two float32.
_BESIDE_BYTES = 8
# A narrower row takes no less memory than as float32.
LEAST_WIDTH = 3
_ROWS_AT_A_TIME = 1 << 16


def quantised(rows_RW: Tensor) -> Tensor:
    """Rows as 8-bit integers, each on a scale of its own, from its least number to its largest.

    ``q = round((x - offset) / scale)`` with ``offset = min(x)`` and
    ``scale = (max(x) - min(x)) / 255``; ``q * scale + offset`` is off by half a ``scale`` at most,
    and by nothing where a row's numbers are all the same.

    Shape: ``(R, W)`` -> ``(R, W + 8)`` uint8: W integers, then scale and offset as float32, as
    torch's ``quantized::embedding_bag_byte_rowwise_offsets`` reads them.
    Paper: Guan et al. 2019, Post-training 4-bit quantization on embedding tables, row-wise
    asymmetric uniform quantization (arXiv:1911.02079).
    Differs from the paper: 8 bits, which need no search for narrower ranges.

    Args:
        rows_RW: float32 or float16.

    Raises:
        ValueError: a number is not finite, or a row's range is not.

    >>> packed = quantised(torch.tensor([[-1.0, 0.0, 254.0]]))
    >>> packed[0, :3].tolist(), packed[0, 3:].clone().view(torch.float32).tolist()
    ([0, 1, 255], [1.0, -1.0])
    """
    packed = torch.empty(len(rows_RW), rows_RW.shape[1] + _BESIDE_BYTES, dtype=torch.uint8)
    _pack(rows_RW, packed)
    return packed


def _pack(rows_RW: Tensor, packed: Tensor) -> None:
    for first in range(0, len(rows_RW), _ROWS_AT_A_TIME):
        part = slice(first, first + _ROWS_AT_A_TIME)
        _pack_some(rows_RW[part].detach().float(), packed[part])


def _pack_some(rows_RW: Tensor, packed: Tensor) -> None:
    least, most = rows_RW.aminmax(dim=1, keepdim=True)
    scale = (most - least) / 255
    if not bool(scale.isfinite().all()):
        raise ValueError("rows: must hold finite numbers whose range is finite.")
    # The largest number may be rounded up to 256, and where the scale is 0 nothing is divided.
    steps = ((rows_RW - least) / scale.where(scale > 0, 1.0)).round_().clamp_(0, 255)
    packed[:, :-_BESIDE_BYTES] = steps
    packed[:, -_BESIDE_BYTES:] = torch.cat([scale, least], dim=1).view(torch.uint8)


class Int8Tables(nn.Module):
    """The tables of some fields as one, field after field.

    Args:
        packed: the rows of all fields, as :func:`quantised` gives them.
        sizes: rows of each field.
    """

    packed: Tensor
    firsts: Tensor
    sizes: Tensor

    def __init__(self, packed: Tensor, sizes: Sequence[int]) -> None:
        super().__init__()
        ends = torch.tensor(sizes).cumsum(0)
        # They are no weights that a run folder could hold.
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("firsts", ends - torch.tensor(sizes), persistent=False)
        self.register_buffer("sizes", torch.tensor(sizes), persistent=False)


class Int8Backend(PlainBackend):
    """Looks rows up in 8-bit tables, and makes float32 of them on the way.

    A row's numbers are the same to the bit whatever else is looked up with it. Sets of tables that
    :func:`quantise_tables` left as they are are looked up as plain ones. See
    :class:`recsys_had.model.tables.TableBackend`.
    """

    def look_up(
        self,
        tables: nn.Module,
        fields: Sequence[FieldSpec],
        rows: Bags,
        *,
        num_rows: int,
        width: int,
    ) -> Tensor:
        """Looks up all fields at once, ``(B, F, width)``; several values are pooled by their mean.

        Raises:
            IndexError: an id is none of its table's.
        """
        if not isinstance(tables, Int8Tables):
            return super().look_up(tables, fields, rows, num_rows=num_rows, width=width)
        names = [field.name for field in fields]
        if num_rows and not any(field.is_multi for field in fields):
            ids_FB = single_values(names, rows, num_rows)
            require_ids(ids_FB, tables.sizes)
            places = (ids_FB + tables.firsts.unsqueeze(1)).T.reshape(-1)
            each = torch.arange(len(places), device=places.device)
            return _sums(tables.packed, places, each).view(num_rows, len(fields), width)
        given = [rows[name] for name in names]
        for bags, size in zip(given, tables.sizes, strict=True):
            if len(bags.values()):
                require_ids(bags.values().unsqueeze(0), size)
        firsts = zip(given, tables.firsts, strict=True)
        places = torch.cat([bags.values() + first for bags, first in firsts])
        lengths = torch.cat([bags.lengths()[:num_rows] for bags in given])
        sums = _sums(tables.packed, places, lengths.cumsum(0) - lengths)
        means = sums / lengths.clamp(min=1).unsqueeze(1)
        return means.view(len(fields), num_rows, width).transpose(0, 1).contiguous()


INT8 = Int8Backend()


def _sums(packed: Tensor, places: Tensor, begins: Tensor) -> Tensor:
    """The sum of each bag of rows, ``(bags, W)``; a bag begins where the one before it ends."""
    width = packed.shape[1] - _BESIDE_BYTES
    if not len(places):
        return torch.zeros(len(begins), width, device=packed.device)
    found: Tensor = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
        packed, places, begins, mode=0
    )
    return found


def quantise_tables(embeddings: FieldEmbeddings) -> None:
    """Replaces a scoring model's tables by 8-bit ones, table by table.

    Sets of tables narrower than 3 become float32 copies: their rows take no more than 8-bit ones
    would. So nothing of the file is held any longer whose pages the tables were. The vectors of
    numeric columns, one a column, stay as they are.

    Args:
        embeddings: of a model with plain torch's tables; it keeps none of them.

    Raises:
        ConfigError: all sets are too narrow, or a row holds a number that is not finite.
    """
    if all(embeddings.widths[name] < LEAST_WIDTH for name in embeddings.tables):
        raise ConfigError(
            f"--tables int8: no table of the model has {LEAST_WIDTH} columns or more, and rows of "
            "fewer take no less memory. Leave the option out."
        )
    embeddings.replace_tables(INT8, _replaced)


def _replaced(name: str, tables: nn.Module, fields: Sequence[FieldSpec], width: int) -> nn.Module:
    assert isinstance(tables, PlainTables), "a scoring model's tables are plain torch's"
    sizes = [field.num_embeddings for field in fields]
    if width < LEAST_WIDTH:
        return _copied(tables, fields, sizes, width)
    packed = torch.empty(sum(sizes), width + _BESIDE_BYTES, dtype=torch.uint8)
    first = 0
    for field, size in zip(fields, sizes, strict=True):
        try:
            _pack(tables.weight(field.name), packed[first : first + size])
        except ValueError as cause:
            raise ConfigError(
                f"--tables int8: table {name}.{field.name} holds a row whose numbers, or whose "
                "range, are not finite. Leave the option out."
            ) from cause
        first += size
        del tables.embedding_bags[table_name(field.name)]
    return Int8Tables(packed, sizes)


def _copied(
    tables: PlainTables, fields: Sequence[FieldSpec], sizes: Sequence[int], width: int
) -> nn.Module:
    """The same tables as float32 in one storage, so that they are looked up as one."""
    rows = torch.cat([tables.weight(field.name).detach().float() for field in fields])
    made = PLAIN.make(fields, width=width, device="meta", table_type=torch.float32)
    state = dict(zip((f"embedding_bags.{table_name(field.name)}.weight" for field in fields),
                     torch.split(rows, list(sizes)), strict=True))  # fmt: skip
    made.load_state_dict(state, assign=True)
    return made
