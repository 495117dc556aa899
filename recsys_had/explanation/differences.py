"""Effects in any function, by second differences at the baseline and at the row.

Letters: B rows, M masks, F fields, P pairs, A fields that form pairs.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from recsys_had.explanation.parts import RowParts, Sources

# Rows evaluated together.
_ROWS_AT_A_TIME = 4096
# Of a second difference at the baseline, and at the row: a term of n fields is shared by its
# n(n-1)/2 pairs, one at n = 2 and a third at n = 3, of which only the row has all.
_AT_BASELINE, _AT_ROW = 2 / 3, 1 / 3


def difference_effects(
    function: Callable[[Sources], Tensor],
    row: Sources,
    base: Sources,
    parts: RowParts,
    *,
    compared: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Effects of fields ``(B, F)`` and pairs ``(B, P)``, and the logits ``(B,)``.

    At ``2 F + A (A - 1)`` evaluations a row, A being ``compared`` or F.

    Args:
        function: sources of rows to ``(B,)``, row by row.
        row: sources of B rows.
        base: those of the baseline, one row.
        parts: the fields.
        compared: so many fields of each row form pairs, those that move it most; all if None.
    """
    num_rows, num_fields = len(next(iter(row.values()))), parts.num_fields

    def values(first_MB: Tensor, second_MB: Tensor, *, without: bool) -> Tensor:
        """With two fields of the row in the baseline, or without them in the row, ``(M, B)``."""
        found = []
        step = max(1, _ROWS_AT_A_TIME // max(1, num_rows))
        both = torch.split(first_MB, step), torch.split(second_MB, step)
        for first, second in zip(*both, strict=True):
            mask = torch.zeros(len(first), num_rows, num_fields, dtype=torch.bool)
            mask.scatter_(2, first.unsqueeze(2), True).scatter_(2, second.unsqueeze(2), True)
            mixed = parts.mixed(row, base, ~mask if without else mask)
            found.append(function(mixed).view(len(first), num_rows))
        return torch.cat(found)

    with torch.no_grad():
        every = torch.arange(num_fields).unsqueeze(1).expand(-1, num_rows)
        at_base, logit = function(base), function(row)
        alone, absent = (values(every, every, without=without) for without in (False, True))
        single_FB, lost_FB = alone - at_base, logit - absent
        fields_AB = _most_active(single_FB, lost_FB, compared)
        left, right = torch.triu_indices(len(fields_AB), len(fields_AB), offset=1)
        first, second = fields_AB[left], fields_AB[right]
        at_baseline = values(first, second, without=False) - at_base
        at_baseline -= single_FB.gather(0, first) + single_FB.gather(0, second)
        at_row = values(first, second, without=True) - logit
        at_row += lost_FB.gather(0, first) + lost_FB.gather(0, second)
        pair_BP = logit.new_zeros(num_rows, num_fields * (num_fields - 1) // 2)
        found = _AT_BASELINE * at_baseline + _AT_ROW * at_row
        pair_BP.scatter_(1, _number(first, second, num_fields).T, found.T)
    return single_FB.T, pair_BP, logit


def _most_active(single_FB: Tensor, lost_FB: Tensor, compared: int | None) -> Tensor:
    """For each row the fields that form pairs, in their order, ``(A, B)``."""
    num_fields = len(single_FB)
    if compared is None or compared >= num_fields:
        return torch.arange(num_fields).unsqueeze(1).expand(-1, single_FB.shape[1])
    activity = torch.maximum(single_FB.abs(), lost_FB.abs())
    order = activity.argsort(dim=0, descending=True, stable=True)
    return order[:compared].sort(dim=0).values


def _number(first: Tensor, second: Tensor, num_fields: int) -> Tensor:
    """Where pairs stand in the upper triangle.

    >>> _number(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2]), 3).tolist()
    [0, 1, 2]
    """
    before = first * num_fields - first * (first + 1) // 2
    return before + second - first - 1
