"""The pairwise part of a factorization machine."""

from recsys_had.interactions._catalog import interaction, require_pairs
from recsys_had.interactions.algebra import Expr, pool


@interaction(paper="Rendle 2010, Factorization Machines")
def fm(x: Expr) -> Expr:
    """Sums the inner products of all pairs of fields.

    ``y = sum_{i<j} <e_i, e_j> = sum_d ((sum_i e_id)^2 - sum_i e_id^2) / 2``.

    Shape: ``(B, F, D) -> (B, 1)``.
    Paper: Rendle 2010, Factorization Machines, eq. 1 and lemma 3.1.
    Differs from the paper: the bias and the linear part are nodes of their own.

    Raises:
        ValueError: there is one field.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("fm", num_fields=2, embedding_dim=2)
    >>> layer(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[11.]])
    """
    require_pairs(x)
    total = pool(x, "T")
    return 0.5 * pool(total * total - pool(x * x, "T"), "C")
