"""The bi-interaction pooling of neural factorization machines."""

from recsys_had.interactions._catalog import interaction, require_pairs
from recsys_had.interactions.algebra import Expr, pool


@interaction(paper="He and Chua 2017, arXiv:1708.05027")
def bi_interaction(x: Expr) -> Expr:
    """Sums the Hadamard products of all pairs of fields.

    ``y = sum_{i<j} e_i * e_j = ((sum_i e_i)^2 - sum_i e_i^2) / 2``.

    Shape: ``(B, F, D) -> (B, D)``.
    Paper: He and Chua 2017, Neural Factorization Machines, eq. 3-4 (arXiv:1708.05027).
    Differs from the paper: nothing.

    Raises:
        ValueError: there is one field.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("bi_interaction", num_fields=2, embedding_dim=2)
    >>> layer(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[3., 8.]])
    """
    require_pairs(x)
    total = pool(x, "T")
    return 0.5 * (total * total - pool(x * x, "T"))
