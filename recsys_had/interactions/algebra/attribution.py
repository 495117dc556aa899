"""What each field and each pair of fields adds to an output, exactly.

Every function of F fields is a sum of a constant, a part of each field alone, a part of each pair
beyond its two fields, and a rest of three fields or more (its Moebius transform at the baseline
zero). For a polynomial of degree 2 the rest is nothing at all.

Letters: B batch, F fields, D embedding_dim, P pairs = F(F-1)/2.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Masked copies of the batch evaluated together.
_ROWS_AT_A_TIME = 1 << 14


@dataclass(frozen=True)
class FieldEffects:
    """A function's output on a batch, part by part; the parts sum to the output.

    Args:
        constant: ``(B,)``, the output with every field at zero.
        single: ``(B, F)``, what each field adds alone.
        pair: ``(B, F, F)``, what two fields add together beyond that; symmetric, zero diagonal.
        rest: ``(B,)``, what takes three fields or more.
    """

    constant: Tensor
    single: Tensor
    pair: Tensor
    rest: Tensor

    def total(self) -> Tensor:
        """The output they were made from, ``(B,)``."""
        pairs = self.pair.sum(dim=(1, 2)) / 2
        return self.constant + self.single.sum(dim=1) + pairs + self.rest


def field_effects(function: Callable[[Tensor], Tensor], x_BFD: Tensor) -> FieldEffects:
    """Splits a function of embedded fields into the effects of fields and pairs.

    Exact, at 1 + F + P evaluations a row. The baseline is the zero embedding.

    Args:
        function: ``(B, F, D) -> (B, 1)`` or ``(B,)``, row by row, such as an interaction with one
            output, in evaluation mode.
        x_BFD: the fields.

    Raises:
        ValueError: the function gives several numbers a row.

    >>> from recsys_had.interactions import build
    >>> x = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]]])
    >>> field_effects(build("fm", num_fields=3, embedding_dim=2), x).pair
    tensor([[[ 0., 11.,  2.],
             [11.,  0.,  4.],
             [ 2.,  4.,  0.]]])
    """
    rows, num_fields, _ = x_BFD.shape
    left, right = torch.triu_indices(num_fields, num_fields, offset=1, device=x_BFD.device)
    values = torch.cat(list(_evaluated(function, x_BFD, _masks(num_fields, left, right))))
    constant = values[0]
    single_FB = values[1 : num_fields + 1] - constant
    pair_PB = values[num_fields + 1 : -1] - constant - single_FB[left] - single_FB[right]
    pair = x_BFD.new_zeros(rows, num_fields, num_fields)
    pair[:, left, right] = pair_PB.T
    pair[:, right, left] = pair_PB.T
    rest = values[-1] - constant - single_FB.sum(dim=0) - pair_PB.sum(dim=0)
    return FieldEffects(constant, single_FB.T.contiguous(), pair, rest)


def _masks(num_fields: int, left: Tensor, right: Tensor) -> Tensor:
    """No field, each field, each pair, all fields: ``(1 + F + P + 1, F)``."""
    one = torch.eye(num_fields, device=left.device)
    none, every = torch.zeros_like(one[:1]), torch.ones_like(one[:1])
    return torch.cat([none, one, one[left] + one[right], every])


def _evaluated(
    function: Callable[[Tensor], Tensor], x_BFD: Tensor, masks: Tensor
) -> Iterator[Tensor]:
    """The function under each mask, ``(masks, B)`` in pieces."""
    rows = len(x_BFD)
    with torch.no_grad():
        for some in torch.split(masks.to(x_BFD.dtype), max(1, _ROWS_AT_A_TIME // max(rows, 1))):
            masked = x_BFD.unsqueeze(0) * some.view(len(some), 1, -1, 1)
            found = function(masked.flatten(0, 1))
            if found.numel() != len(some) * rows:
                raise ValueError(
                    f"field_effects: the function must give one number a row; got shape "
                    f"{tuple(found.shape[1:])}. Sum it up, or pick one."
                )
            yield found.reshape(len(some), rows)
