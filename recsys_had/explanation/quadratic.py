"""Effects in a polynomial of degree 2, exactly, by one gradient a field.

``f(b + z) = f(b) + g z + z H z / 2``, so the second difference of fields i and j is ``z_i H z_j``:
the gradient at ``b + z_i``, less that at ``b``, is ``H z_i`` and gives all pairs of field i.

Letters: B rows, M masks, F fields, P pairs.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from recsys_had.explanation.parts import RowParts, Sources

# Rows evaluated together.
_ROWS_AT_A_TIME = 4096


def quadratic_effects(
    function: Callable[[Sources], Tensor], row: Sources, base: Sources, parts: RowParts
) -> tuple[Tensor, Tensor, Tensor]:
    """Effects of fields ``(B, F)`` and pairs ``(B, P)``, and the logits ``(B,)``.

    Args:
        function: sources of rows to ``(B,)``, a polynomial of degree 2.
        row: sources of B rows.
        base: those of the baseline, one row.
        parts: the fields.
    """
    num_rows, num_fields = len(next(iter(row.values()))), parts.num_fields
    moved = {name: row[name] - base[name] for name in parts.places}
    at_base, slope = _value_and_slope(function, {name: base[name] for name in parts.places})
    step = max(1, _ROWS_AT_A_TIME // max(1, num_rows))
    singles, products = [], []
    for fields in torch.split(torch.arange(num_fields), step):
        mask_MF = torch.nn.functional.one_hot(fields, num_fields).bool()
        mask_MBF = mask_MF.unsqueeze(1).expand(-1, num_rows, -1)
        value, gradient = _value_and_slope(function, parts.mixed(row, base, mask_MBF))
        singles.append(value.view(len(fields), num_rows) - at_base)
        curved = {
            name: (x - slope[name]).view(len(fields), *moved[name].shape) * moved[name]
            for name, x in gradient.items()
        }
        by_field = parts.by_field({name: x.flatten(0, 1) for name, x in curved.items()})
        products.append(by_field.view(len(fields), num_rows, num_fields))
    left, right = torch.triu_indices(num_fields, num_fields, offset=1)
    product_FBF = torch.cat(products)
    with torch.no_grad():
        logit = function(row)
    return torch.cat(singles).T, product_FBF[left, :, right].T, logit


def _value_and_slope(
    function: Callable[[Sources], Tensor], sources: Sources
) -> tuple[Tensor, dict[str, Tensor]]:
    """Value ``(B,)`` and gradient, by source; of a source that plays no part it is 0."""
    given = {name: x.detach().requires_grad_() for name, x in sources.items()}
    with torch.enable_grad():
        value = function(given)
        slopes = torch.autograd.grad(
            value.sum(), list(given.values()), allow_unused=True, materialize_grads=True
        )
    return value.detach(), dict(zip(given, slopes, strict=True))
