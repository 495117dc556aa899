"""Pairs of fields, each once, the smaller index first."""

import torch
from torch import Tensor


def require_pairs(layer: str, num_fields: int) -> None:
    """Refuses an input that has no pair.

    Raises:
        ValueError: ``num_fields`` is below 2.
    """
    if num_fields < 2:
        raise ValueError(
            f"{layer}: num_fields must be at least 2 to form a pair; got {num_fields}. "
            "Let it read a node of shape (B, F, D)."
        )


def pair_indices(num_fields: int) -> tuple[Tensor, Tensor]:
    """Left and right field of the P = F(F-1)/2 pairs, row by row of the upper triangle.

    >>> pair_indices(3)
    (tensor([0, 0, 1]), tensor([1, 2, 2]))
    """
    left, right = torch.triu_indices(num_fields, num_fields, offset=1)
    return left, right
