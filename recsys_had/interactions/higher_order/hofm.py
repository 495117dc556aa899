"""Products of three fields and more (higher-order factorization machines)."""

from typing import Literal

from recsys_had.interactions._catalog import interaction, require_pairs
from recsys_had.interactions._symmetric import symmetric_sums
from recsys_had.interactions.algebra import Expr, add, chunk, pool


@interaction(
    paper="Blondel et al. 2016, arXiv:1607.07195",
    own_tables=lambda fields, dim, order=3, tables="shared": (
        max(min(order, fields) - 1, 1) * dim if tables == "own" else None
    ),
)
def hofm(x: Expr, *, order: int = 3, tables: Literal["shared", "own"] = "shared") -> Expr:
    """Sums the products of all sets of two fields, of three, up to ``order``.

    ``y = sum_{m=2}^{order} sum_d A_m(d)`` with the ANOVA kernel ``A_m = sum_{i1<...<im} e_i1 * ...
    * e_im``, which Newton's identities give from the power sums ``p_k = sum_i e_i^k``:
    ``m A_m = sum_{k=1}^{m} (-1)^(k-1) A_{m-k} * p_k``.

    Shape: ``(B, F, D) -> (B, 1)``, or ``(B, F, (order-1)*D) -> (B, 1)`` of tables of its own, in
    which a field's vectors stand beside each other, the one for pairs first.
    Paper: Blondel et al. 2016, Higher-Order Factorization Machines (arXiv:1607.07195).
    Differs from the paper: Newton's identities take the place of its dynamic programme; one set of
    embeddings serves all orders, as in its shared variant, unless each is given its own.

    Args:
        order: the largest number of fields multiplied, where there are as many; the polynomial
            degree.
        tables: whether all orders read the ``shared`` embeddings or each vectors of its ``own``.

    Raises:
        ValueError: ``order`` is below 2, there is one field, no vector for each order, or no such
            tables.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("hofm", num_fields=3, embedding_dim=1)
    >>> layer(torch.tensor([[[2.0], [3.0], [5.0]]]))  # 2*3 + 2*5 + 3*5, and 2*3*5
    tensor([[61.]])
    """
    require_pairs(x)
    if order < 2:
        raise ValueError(f"order must be at least 2; got {order}.")
    if tables not in ("shared", "own"):
        raise ValueError(f"tables must be shared or own; got '{tables}'.")
    order = min(order, x.num_tokens)
    if tables == "shared":
        return pool(add(*symmetric_sums(x, order)[1:]), "C")
    if x.num_channels % (order - 1):
        raise ValueError(
            f"each order from 2 to {order} needs a vector of its own, so the width must be a "
            f"multiple of {order - 1}; got {x.num_channels}. Let it read the fields, for which it "
            "has tables of its own."
        )
    parts = enumerate(chunk(x, order - 1), start=2)
    return pool(add(*(symmetric_sums(part, m)[-1] for m, part in parts)), "C")
