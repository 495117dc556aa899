"""Products of pairs of fields, each field with a vector for every other (ONN, NFFM)."""

from itertools import combinations
from typing import Literal

from recsys_had.interactions._catalog import interaction, require_pairs
from recsys_had.interactions.algebra import Expr, pool, reshape, take


@interaction(
    paper="Yang et al. 2020, arXiv:1904.12579",
    own_tables=lambda fields, dim, how="inner": (fields - 1) * dim,
)
def field_aware_products(x: Expr, *, how: Literal["inner", "hadamard"] = "inner") -> Expr:
    """Gives the product of every pair of fields, each by its vector for the other.

    ``p_ij = <e_i^(j), e_j^(i)>``, or ``e_i^(j) * e_j^(i)``, for ``i < j``. A field's F - 1 vectors
    stand beside each other in the order of the other fields: the one for field j is number j
    where ``j < i``, and number ``j - 1`` where ``j > i``.

    Shape: ``(B, F, (F-1)*D) -> (B, P, 1)``, or ``(B, P, D)``; P = F(F-1)/2.
    Paper: Yang et al. 2020, Operation-aware Neural Networks (arXiv:1904.12579).
    Differs from the paper: the vectors it copies are not part of this; let a network read the
    fields beside the products.

    Args:
        how: the ``inner`` products, or the ``hadamard`` ones.

    Raises:
        ValueError: there is one field, no vector for each other field, or no such product.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("field_aware_products", num_fields=3, embedding_dim=4)
    >>> layer(torch.zeros(2, 3, 8)).shape
    torch.Size([2, 3, 1])
    """
    require_pairs(x)
    if how not in ("inner", "hadamard"):
        raise ValueError(f"how must be inner or hadamard; got '{how}'.")
    others = x.num_tokens - 1
    if x.num_channels % others:
        raise ValueError(
            f"each of {x.num_tokens} fields needs a vector for every other one, so the width must "
            f"be a multiple of {others}; got {x.num_channels}. Let it read the fields, for which "
            "it has tables of its own."
        )
    vectors = reshape(x, x.num_tokens * others)
    left, right = zip(
        *((i * others + j - 1, j * others + i) for i, j in combinations(range(others + 1), 2)),
        strict=True,
    )
    products = take(vectors, *left) * take(vectors, *right)
    return products if how == "hadamard" else pool(products, "C")
