"""Additive token mixing (CAS-ViT), carried over to fields."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, act, lin, norm, pool


@interaction(paper="Zhang et al. 2024, arXiv:2408.03703")
def additive_mixer(x: Expr, *, num_layers: int = 1, rank: int | None = None) -> Expr:
    """Mixes fields through gates that are added instead of an attention matrix.

    ``x[l+1] = x[l] + W (mix(phi_q(Q) + phi_k(K)) * V)`` with ``Q, K, V`` linear maps of
    ``LN(x[l])`` and ``phi(z) = c(s(z))``: the field gate
    ``s(z) = z * sigmoid(w^T relu(LN(mix(z))))`` gives each field a weight, the channel gate
    ``c(z) = z * sigmoid(W mean_F(z))`` each channel.

    Shape: ``(B, F, D) -> (B, F, D)``.
    Paper: Zhang et al. 2024, CAS-ViT, the additive token mixer (arXiv:2408.03703).
    Differs from the paper: its mixers are 3x3 depth-wise convolutions; fields have no neighbours,
    so ``mix`` is a learned matrix over fields for each channel, LN stands for batch
    normalisation, and the last map ``W`` is one over channels.

    Args:
        num_layers: number of mixers.
        rank: of the matrices over fields; None for full ones, quadratic in F.

    Raises:
        ValueError: an option is below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("additive_mixer", num_fields=6, embedding_dim=4)(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 4])
    """
    require(num_layers=num_layers)

    def mix(z: Expr) -> Expr:
        return lin(z, "T", per="C", rank=rank)

    def phi(z: Expr) -> Expr:
        by_field = z * act(lin(act(norm(mix(z)), "relu"), out=1), "sigmoid")
        return by_field * act(lin(pool(by_field, "T", "mean")), "sigmoid")

    for _ in range(num_layers):
        normed = norm(x)
        q, k, v = (lin(normed) for _ in range(3))
        x = x + lin(mix(phi(q) + phi(k)) * v)
    return x
