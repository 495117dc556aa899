"""Field weights from the row itself (FiBiNET's SENET layer)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, act, lin, pool


@interaction(paper="Huang et al. 2019, arXiv:1905.09433")
def senet(x: Expr, *, reduction_ratio: int = 3) -> Expr:
    """Multiplies every field by a weight computed from all fields' means.

    ``z_f = mean_d e_fd``, ``a = relu(W2 relu(W1 z))``, output ``a_f e_f``; ``W1`` is
    ``(F/r, F)`` and ``W2`` is ``(F, F/r)``, both without bias.

    Shape: ``(B, F, D) -> (B, F, D)``.
    Paper: Huang et al. 2019, FiBiNET, eq. 4-6 (arXiv:1905.09433).
    Differs from the paper: nothing; F/r is rounded down, to 1 at least.

    Args:
        reduction_ratio: r, how many times narrower the hidden layer is.

    Raises:
        ValueError: ``reduction_ratio`` is below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("senet", num_fields=6, embedding_dim=4)(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 4])
    """
    require(reduction_ratio=reduction_ratio)
    hidden = max(1, x.num_tokens // reduction_ratio)
    excited = act(lin(pool(x, "C", "mean"), "T", out=hidden), "relu")
    return x * act(lin(excited, "T", out=x.num_tokens), "relu")
